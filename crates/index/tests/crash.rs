//! Power cuts at every operation, and a full disk at every byte.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails should stop and say why"
)]

mod support;

use std::sync::Arc;

use colibri_index::{Error, Filter, Index, Writer, WriterOptions};
use support::simulated::{Disk, Fate, Image};
use support::{Seen, document, page, pages, see, settings};

/// What the writer does in one step of the scenario.
type Step = fn(&mut Writer);

/// Each step commits once at most (compaction twice, to the same content).
const STEPS: &[Step] = &[
    |writer| {
        writer
            .add_document(&document("/a.pdf", 1), &pages(1, 3))
            .unwrap();
    },
    |writer| {
        writer
            .add_document(&document("/b.pdf", 2), &pages(2, 2))
            .unwrap();
    },
    |writer| {
        // Given up half-way: what it wrote is written over by the next step.
        let mut pending = writer.begin_document(&document("/c.pdf", 3)).unwrap();
        pending.append_page(&page(3, 1)).unwrap();
        pending.append_page(&page(3, 2)).unwrap();
    },
    |writer| {
        writer
            .add_document(&document("/a.pdf", 4), &pages(4, 6))
            .unwrap();
    },
    |writer| {
        writer
            .copy_document("/a.pdf", &document("/d.pdf", 4))
            .unwrap();
    },
    |writer| writer.mark_moved("/b.pdf", "/e.pdf").unwrap(),
    |writer| {
        writer.remove(&["/a.pdf"]).unwrap();
    },
    |writer| {
        writer
            .add_document(&document("/f.pdf", 5), &pages(5, 2))
            .unwrap();
    },
    |writer| {
        writer.remove(&["/f.pdf"]).unwrap();
    },
    |writer| {
        writer.compact().unwrap();
    },
    |writer| {
        writer
            .add_document(&document("/g.pdf", 6), &pages(6, 3))
            .unwrap();
    },
];

/// Runs the scenario on a simulated disk; what was to be seen after each step, and the images.
fn run(work: &std::path::Path, lie: bool) -> (Vec<Seen>, Vec<Image>) {
    let dir = work.join("index");
    // Created on the real file system; the segments folder is durable from then on.
    drop(Index::create(&dir, &settings()).unwrap());
    let disk = Disk::with_images(&dir, &work.join("images"));
    if lie {
        disk.lie();
    }
    // Small segments: some steps fill one and begin another.
    let options = || WriterOptions {
        segment_bytes: 1500,
        storage: Arc::new(disk.clone()),
        ..WriterOptions::default()
    };
    let index = Index::open(&dir).unwrap();
    let mut seen = vec![see(&index)];
    let mut writer = Index::open_or_create(&dir, &settings(), options()).unwrap();
    for (number, step) in STEPS.iter().enumerate() {
        disk.phase(number);
        step(&mut writer);
        seen.push(see(&index));
        disk.phase(number + 1);
        disk.cut_power("after the step");
        if number % 3 == 2 {
            drop(writer);
            writer = Index::open_or_create(&dir, &settings(), options()).unwrap();
        }
    }
    (seen, disk.images())
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_state_or_the_new() {
    let work = tempfile::tempdir().unwrap();
    let (seen, images) = run(work.path(), false);
    assert!(images.len() > 200, "{} images", images.len());
    for image in images {
        let Image {
            dir,
            phase,
            operation,
            fate,
        } = &image;
        let index = Index::open(dir).unwrap_or_else(|error| panic!("{image:?}: {error}"));
        let now = see(&index);
        let old = &seen[*phase];
        let new = seen.get(phase + 1).unwrap_or(old);
        assert!(
            now == *old || now == *new,
            "neither old nor new: {operation} {fate:?} in step {phase}"
        );
        if operation == "after the step" {
            assert_eq!(
                now, *old,
                "a finished step was lost: {fate:?} in step {phase}"
            );
        }
        assert_eq!(
            index.verify().unwrap(),
            [],
            "{operation} {fate:?} in step {phase}"
        );
        // The next writer clears up and goes on.
        let mut writer = Index::open_writer(dir, &settings()).unwrap();
        writer
            .add_document(&document("/next.pdf", 7), &pages(7, 2))
            .unwrap();
        drop(writer);
        let next = see(&index);
        assert_eq!(next.documents.len(), now.documents.len() + 1);
        assert_eq!(
            index.verify().unwrap(),
            [],
            "{operation} {fate:?} in step {phase}, after going on"
        );
    }
}

#[test]
fn the_simulation_notices_a_missing_sync() {
    let work = tempfile::tempdir().unwrap();
    let (_, images) = run(work.path(), true);
    let damaged = images
        .iter()
        .filter(|image| image.fate == Fate::Lost && image.operation == "after the step")
        .filter(|image| {
            !Index::open(&image.dir)
                .unwrap()
                .verify()
                .unwrap()
                .is_empty()
        })
        .count();
    assert!(damaged > 5, "{damaged} images are damaged");
}

#[test]
fn a_full_disk_is_one_clear_error_and_an_intact_index() {
    // A page is a record of 192 to 320 bytes; each budget stops the writing at another place.
    let mut failed = 0;
    for space in (0..2600).step_by(130) {
        let work = tempfile::tempdir().unwrap();
        drop(Index::create(work.path(), &settings()).unwrap());
        let disk = Disk::with_space(work.path(), space);
        let options = WriterOptions {
            segment_bytes: 900,
            storage: Arc::new(disk.clone()),
            ..WriterOptions::default()
        };
        let mut writer = Index::open_or_create(work.path(), &settings(), options).unwrap();
        let index = writer.index().unwrap();
        for content in 1..=3 {
            let before = see(&index);
            match writer.add_document(
                &document(&format!("/{content}.pdf"), content),
                &pages(content, 3),
            ) {
                Ok(_) => {}
                Err(Error::DiskFull { path }) => {
                    failed += 1;
                    assert!(path.starts_with(work.path().join("segments")), "{path:?}");
                    assert_eq!(see(&index), before);
                    assert_eq!(index.verify().unwrap(), []);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        // Space was freed: the same writer goes on.
        disk.set_space(None);
        writer
            .add_document(&document("/later.pdf", 9), &pages(9, 4))
            .unwrap();
        assert_eq!(index.document("/later.pdf").unwrap().unwrap().num_pages, 4);
        assert_eq!(index.verify().unwrap(), []);
    }
    assert!(failed > 10, "the disk was full {failed} times");
}

#[test]
fn a_compaction_that_runs_out_of_space_changes_nothing() {
    for space in [0, 100, 700, 1500] {
        let work = tempfile::tempdir().unwrap();
        let disk = Disk::with_space(work.path(), 1 << 30);
        let options = WriterOptions {
            segment_bytes: 900,
            storage: Arc::new(disk.clone()),
            ..WriterOptions::default()
        };
        let mut writer = Index::open_or_create(work.path(), &settings(), options).unwrap();
        for content in 1..=6 {
            writer
                .add_document(
                    &document(&format!("/{content}.pdf"), content),
                    &pages(content, 3),
                )
                .unwrap();
        }
        writer.remove(&["/2.pdf", "/5.pdf"]).unwrap();
        let index = writer.index().unwrap();
        let before = see(&index);
        disk.set_space(Some(space));
        assert!(
            matches!(writer.compact(), Err(Error::DiskFull { .. })),
            "{space}"
        );
        assert_eq!(see(&index), before);
        assert_eq!(index.verify().unwrap(), []);
        disk.set_space(None);
        writer.compact().unwrap();
        assert_eq!(see(&index), before);
        assert_eq!(index.stats().unwrap().dead_bytes, 0);
        assert_eq!(index.list(&Filter::default()).unwrap().len(), 4);
        assert_eq!(index.verify().unwrap(), []);
    }
}
