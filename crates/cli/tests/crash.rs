//! `index` is killed at random instants, again and again: the index always opens, `verify` is clean, nothing
//! that was committed is lost, and the run that is let finish comes to the same content as one that was
//! never disturbed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use colibri_engine::index::{Filter, Index};
use colibri_testkit::random::{Role, TINY, write_checkpoint};

/// Kills in all; `COLIBRI_CRASH_RUNS` asks for another number.
const RUNS: u64 = 200;

fn index_command(documents: &Path, index: &Path, retriever: &Path, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_colibri"));
    command
        .args(["index", "--json", "--precision", "f32", "--retriever"])
        .arg(retriever)
        .arg("--index")
        .arg(index)
        .arg(documents)
        .env("HOME", home)
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// What is in an index: for each document its hash, and for each of its pages the text and the rows.
fn content(index: &Path) -> BTreeMap<String, Vec<String>> {
    let index = Index::open(index).unwrap();
    let mut all = BTreeMap::new();
    for document in index.list(&Filter::default()).unwrap() {
        let mut parts = vec![document.record.content_hash.clone()];
        for number in 1..=document.num_pages {
            let page = index
                .page_id(&document.record.path, number)
                .unwrap()
                .unwrap();
            let rows = index.rows(page).unwrap();
            let bits: Vec<u8> = rows
                .as_slice()
                .iter()
                .flat_map(|v| v.to_bits().to_le_bytes())
                .collect();
            let mut hasher = std::hash::DefaultHasher::new();
            bits.hash(&mut hasher);
            parts.push(format!(
                "{} {:x}",
                index.page(page).unwrap().text,
                hasher.finish()
            ));
        }
        all.insert(document.record.path, parts);
    }
    all
}

/// Repeatable numbers for the instants.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn killed_at_random_instants_nothing_is_lost() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path().join("home");
    let documents = scratch.path().join("documents");
    fs_err::create_dir_all(&home).unwrap();
    fs_err::create_dir_all(&documents).unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/documents");
    for name in ["report.pdf", "invoice.pdf", "slides.pdf", "chart.png"] {
        fs_err::copy(examples.join(name), documents.join(name)).unwrap();
    }
    let retriever = scratch.path().join("retriever");
    write_checkpoint(&retriever, &TINY, Role::Retriever);

    let undisturbed = scratch.path().join("undisturbed");
    let started = Instant::now();
    assert!(
        index_command(&documents, &undisturbed, &retriever, &home)
            .status()
            .unwrap()
            .success()
    );
    let whole_run = started.elapsed();
    let expected = content(&undisturbed);
    assert_eq!(expected.len(), 4);

    let runs = std::env::var("COLIBRI_CRASH_RUNS").map_or(RUNS, |text| text.parse().unwrap());
    let mut state = 0x1234_5678_9abc_def1;
    let mut index: PathBuf = scratch.path().join("index-0");
    let mut committed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut interrupted, mut finished) = (0, 0);
    for run in 0..runs {
        let mut child = index_command(&documents, &index, &retriever, &home)
            .spawn()
            .unwrap();
        let instant = whole_run.mul_f64((next(&mut state) % 1000) as f64 / 1000.0);
        std::thread::sleep(instant.max(Duration::from_micros(200)));
        child.kill().unwrap();
        child.wait().unwrap();
        if Index::exists(&index) {
            assert_eq!(
                Index::open(&index).unwrap().verify().unwrap(),
                [],
                "run {run}"
            );
            let now = content(&index);
            for (path, parts) in &committed {
                assert_eq!(
                    now.get(path),
                    Some(parts),
                    "run {run}: a committed document was lost"
                );
            }
            for (path, parts) in &now {
                assert_eq!(
                    expected.get(path),
                    Some(parts),
                    "run {run}: half a document is visible"
                );
            }
            interrupted += u32::from(now.len() < expected.len());
            committed = now;
        } else {
            assert!(committed.is_empty(), "run {run}: the index is gone");
            interrupted += 1;
        }
        // When everything is in, or now and then, finish the run and begin anew.
        if committed.len() == expected.len() || run % 8 == 7 {
            assert!(
                index_command(&documents, &index, &retriever, &home)
                    .status()
                    .unwrap()
                    .success()
            );
            assert_eq!(
                content(&index),
                expected,
                "run {run}: a finished run comes to the same content"
            );
            finished += 1;
            index = scratch.path().join(format!("index-{}", run + 1));
            committed.clear();
        }
    }
    assert!(
        interrupted > 0 && finished > 0,
        "{interrupted} interrupted, {finished} finished"
    );
}
