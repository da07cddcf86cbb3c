//! The `FORMAT` file: what the folder is, and in which version.
//!
//! It is written last when an index is created, so a folder without it is no index yet.

use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::error::{Error, Result};
use crate::storage::sync_dir;

/// The version of the folder format this program writes; the catalogue and the segments have their own.
pub const FORMAT_VERSION: u32 = 1;

/// The name of the file.
pub(crate) const FILE_NAME: &str = "FORMAT";
const TEMPORARY_NAME: &str = "FORMAT.new";
const WORD: &str = "colibri-index";

/// Whether there is an index in the folder.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join(FILE_NAME).is_file()
}

/// Checks that the folder holds an index this program can read.
pub(crate) fn check(dir: &Path) -> Result<()> {
    let path = dir.join(FILE_NAME);
    if !exists(dir) {
        return Err(Error::NoIndex {
            path: dir.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    fs_err::File::open(&path)
        .and_then(|file| file.take(256).read_to_end(&mut bytes))
        .map_err(Error::io("read", &path))?;
    let text = String::from_utf8_lossy(&bytes);
    let version = text
        .strip_prefix(WORD)
        .and_then(|rest| rest.trim().parse::<u64>().ok());
    match version {
        Some(version) if version == u64::from(FORMAT_VERSION) => Ok(()),
        Some(found) if found > u64::from(FORMAT_VERSION) => Err(Error::NewerFormat {
            path,
            found,
            supported: FORMAT_VERSION,
        }),
        _ => Err(Error::NotAnIndex {
            path,
            expected: "`colibri-index` and a version",
            found: format!("`{}`", bytes[..bytes.len().min(40)].escape_ascii()),
        }),
    }
}

/// Writes the file so that it is there whole or not at all.
pub(crate) fn write(dir: &Path) -> Result<()> {
    let temporary = dir.join(TEMPORARY_NAME);
    let path = dir.join(FILE_NAME);
    fs_err::File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(format!("{WORD} {FORMAT_VERSION}\n").as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs_err::rename(&temporary, &path))
        .and_then(|()| sync_dir(dir))
        .map_err(Error::io("write", &path))
}

/// Whether a folder without a `FORMAT` file may become an index: it is empty, or holds only what an
/// interrupted creation leaves behind.
pub(crate) fn check_free(dir: &Path) -> Result<()> {
    let entries = fs_err::read_dir(dir).map_err(Error::io("list", dir))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name == TEMPORARY_NAME
            || name == crate::lock::FILE_NAME
            || name == crate::stores::SEGMENTS
            || name.starts_with(crate::catalog::FILE_NAME);
        if !ours {
            return Err(Error::FolderNotEmpty {
                path: dir.to_owned(),
                entry: name,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(check(dir.path()), Err(Error::NoIndex { .. })));
        write(dir.path()).unwrap();
        check(dir.path()).unwrap();
        for (text, newer) in [
            ("colibri-index 2\n", true),
            ("colibri-index 99999999999\n", true),
            ("colibri-index 0", false),
            ("colibri-index", false),
            ("\u{0}\u{1}", false),
            ("", false),
        ] {
            fs_err::write(dir.path().join(FILE_NAME), text).unwrap();
            let found = check(dir.path());
            assert_eq!(
                matches!(found, Err(Error::NewerFormat { .. })),
                newer,
                "{text:?}: {found:?}"
            );
            assert_eq!(
                matches!(found, Err(Error::NotAnIndex { .. })),
                !newer,
                "{text:?}: {found:?}"
            );
        }
    }

    #[test]
    fn a_folder_of_something_else_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        check_free(dir.path()).unwrap();
        fs_err::write(dir.path().join("catalog.sqlite-wal"), "").unwrap();
        check_free(dir.path()).unwrap();
        fs_err::write(dir.path().join("thesis.pdf"), "").unwrap();
        assert!(
            matches!(check_free(dir.path()), Err(Error::FolderNotEmpty { entry, .. }) if entry == "thesis.pdf")
        );
    }
}
