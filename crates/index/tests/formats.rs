//! Versions: the fixture of version 1 opens, newer files are refused, read-only folders answer.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails should stop and say why"
)]

mod support;

use std::path::{Path, PathBuf};

use colibri_index::{Error, Filter, Index, Mode, Query};
use support::{DIM, copy_folder, document, pages, see, settings, values};

/// The folder `cargo run -p colibri-index --example write_fixture` wrote when format version 1 was current. It
/// is never written again: a new version gets a folder of its own beside it.
fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

fn copy_of(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_folder(from, dir.path());
    dir
}

#[test]
fn an_index_of_version_1_opens_with_everything_in_it() {
    let old = copy_of(&fixture(1));
    // What stands in the fixture, made again by today's program.
    let new = tempfile::tempdir().unwrap();
    let mut writer = Index::create(new.path(), &settings()).unwrap();
    support::fill_fixture(&mut writer);
    drop(writer);
    let (old, new) = (
        Index::open(old.path()).unwrap(),
        Index::open(new.path()).unwrap(),
    );
    assert_eq!(old.settings().unwrap(), new.settings().unwrap());
    assert_eq!(see(&old), see(&new));
    assert_eq!(old.verify().unwrap(), []);
}

#[test]
fn an_index_of_version_1_can_be_written() {
    let dir = copy_of(&fixture(1));
    let mut writer = Index::open_writer(dir.path(), &settings()).unwrap();
    writer
        .add_document(&document("/new.pdf", 77), &pages(77, 2))
        .unwrap();
    writer.remove(&["/reports/a.pdf"]).unwrap();
    writer.compact().unwrap();
    let index = writer.index().unwrap();
    assert_eq!(
        index
            .search_text("unique77x2", 5, &Filter::default())
            .unwrap()
            .len(),
        1
    );
    assert_eq!(index.verify().unwrap(), []);
}

#[test]
fn newer_files_are_refused_by_name() {
    let refused = |change: &dyn Fn(&Path), file: &str| {
        let dir = copy_of(&fixture(1));
        change(dir.path());
        let query = values(1, 1, DIM);
        let opened = Index::open(dir.path());
        let searched =
            opened.and_then(|index| index.search_visual(&query, DIM, 1, &Filter::default()));
        let error = searched.expect_err("a newer version was read");
        let Error::NewerFormat {
            path,
            found,
            supported,
        } = &error
        else {
            panic!("{error:?}")
        };
        assert!(path.ends_with(file), "{path:?}");
        assert_eq!((*found, *supported), (2, 1));
        assert!(error.hint().is_some());
        if file != "00000001.vec" {
            assert!(matches!(
                Index::open_writer(dir.path(), &settings()),
                Err(Error::NewerFormat { .. })
            ));
        }
    };
    refused(
        &|dir| fs_err::write(dir.join("FORMAT"), "colibri-index 2\n").unwrap(),
        "FORMAT",
    );
    refused(
        &|dir| {
            let connection = rusqlite::Connection::open(dir.join("catalog.sqlite")).unwrap();
            connection.pragma_update(None, "user_version", 2).unwrap();
        },
        "catalog.sqlite",
    );
    refused(
        &|dir| {
            let path = dir.join("segments/00000001.vec");
            let mut bytes = fs_err::read(&path).unwrap();
            bytes[8] = 2;
            fs_err::write(path, bytes).unwrap();
        },
        "00000001.vec",
    );
}

#[test]
fn a_file_of_another_kind_is_refused_by_name() {
    let dir = copy_of(&fixture(1));
    fs_err::remove_file(dir.path().join("catalog.sqlite")).unwrap();
    rusqlite::Connection::open(dir.path().join("catalog.sqlite"))
        .unwrap()
        .execute_batch("CREATE TABLE recipes (name TEXT)")
        .unwrap();
    assert!(
        matches!(Index::open(dir.path()), Err(Error::NotAnIndex { path, .. }) if path.ends_with("catalog.sqlite"))
    );
    fs_err::write(
        dir.path().join("catalog.sqlite"),
        "not a database at all, just text",
    )
    .unwrap();
    assert!(
        Index::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("catalog.sqlite")
    );
    let dir = copy_of(&fixture(1));
    fs_err::write(dir.path().join("segments/00000001.vec"), [b'x'; 500]).unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert!(matches!(
        index.search_visual(&values(1, 1, DIM), DIM, 1, &Filter::default()),
        Err(Error::NotAnIndex { path, .. }) if path.ends_with("00000001.vec")
    ));
}

#[cfg(unix)]
mod read_only {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    /// Set in the process that may not write.
    const FOLDER: &str = "COLIBRI_TEST_READ_ONLY_FOLDER";
    const NAME: &str = "read_only::a_folder_that_cannot_be_written_answers_searches";

    fn set_modes(dir: &Path, folder: u32, file: u32) {
        for entry in fs_err::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                set_modes(&path, folder, file);
            } else {
                fs_err::set_permissions(&path, std::fs::Permissions::from_mode(file)).unwrap();
            }
        }
        fs_err::set_permissions(dir, std::fs::Permissions::from_mode(folder)).unwrap();
    }

    /// Runs [`answers`] on the folder in a process that may not write it.
    fn ask(dir: &Path) -> Option<bool> {
        set_modes(dir, 0o555, 0o444);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([NAME, "--exact", "--nocapture"])
            .env(FOLDER, dir);
        if fs_err::write(dir.join("probe"), "").is_ok() {
            // The superuser may write anywhere: be nobody.
            fs_err::remove_file(dir.join("probe")).unwrap();
            command.uid(65534).gid(65534);
        }
        let output = command.output();
        set_modes(dir, 0o755, 0o644);
        match output {
            Ok(output) => {
                eprintln!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
                Some(output.status.success())
            }
            Err(error) => {
                eprintln!(
                    "skipped: a process without write permission cannot be started here ({error})"
                );
                None
            }
        }
    }

    fn answers(dir: &Path) {
        assert!(
            fs_err::write(dir.join("probe"), "").is_err(),
            "the folder can be written after all"
        );
        if dir.join("catalog.sqlite-wal").exists() && !dir.join("catalog.sqlite-shm").exists() {
            // Only a process that may write can put such a log to use; reading without it would be wrong.
            let error = Index::open(dir).unwrap_err();
            assert!(matches!(error, Error::UnmergedReadOnly { .. }), "{error:?}");
            assert!(error.hint().is_some());
            return;
        }
        let index = Index::open(dir).unwrap();
        for mode in [Mode::Text, Mode::Visual] {
            let query = Query {
                text: "retrieval latency".into(),
                rows: Some(colibri_index::QueryRows::new(DIM, values(1, 1, DIM)).unwrap()),
                mode,
                k: 3,
                ..Query::default()
            };
            assert_eq!(index.search(&query).unwrap().len(), 3);
            assert_eq!(index.search(&query).unwrap().len(), 3, "twice");
        }
        assert_eq!(index.verify().unwrap(), []);
        assert!(matches!(
            Index::open_writer(dir, &settings()),
            Err(Error::Io { .. })
        ));
    }

    #[test]
    fn a_folder_that_cannot_be_written_answers_searches() {
        if let Some(dir) = std::env::var_os(FOLDER) {
            return answers(Path::new(&dir));
        }
        let dir = copy_of(&fixture(1));
        fs_err::remove_file(dir.path().join("lock")).unwrap_or_default();
        if let Some(answered) = ask(dir.path()) {
            assert!(answered, "closed properly");
        }
        // A writer that was killed leaves the log with commits in it, and its shared index.
        let alive = copy_of(&fixture(1));
        let mut writer = Index::open_writer(alive.path(), &settings()).unwrap();
        writer
            .add_document(&document("/new.pdf", 77), &pages(77, 2))
            .unwrap();
        let killed = copy_of(alive.path());
        assert!(
            fs_err::metadata(killed.path().join("catalog.sqlite-wal"))
                .unwrap()
                .len()
                > 0
        );
        if let Some(answered) = ask(killed.path()) {
            assert!(answered, "with a log");
        }
        fs_err::remove_file(killed.path().join("catalog.sqlite-shm")).unwrap();
        if let Some(answered) = ask(killed.path()) {
            assert!(answered, "with a log alone");
        }
        drop(writer);
    }
}
