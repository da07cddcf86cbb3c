//! The laws of `VectorStore`, run on every store.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails should stop and say why"
)]

mod support;

use std::path::Path;
use std::sync::Arc;

use colibri_index::stores::{Extent, LocalStore, Location, Record, VectorStore};
use colibri_index::{FileSystem, MultiVector, PageId};
use support::{DIM, maxsim, rows, values};

/// How a store of one kind is opened on a folder, for writing.
type Open = fn(&Path, &[Extent]) -> Box<dyn VectorStore>;

const STORES: &[(&str, Open)] = &[("local", |dir, extents| {
    Box::new(LocalStore::open_writer(dir, Arc::new(FileSystem), 2000, extents).unwrap())
})];

fn each_store(law: impl Fn(Open, &Path)) {
    for (name, open) in STORES {
        eprintln!("store: {name}");
        law(*open, tempfile::tempdir().unwrap().path());
    }
}

/// What the catalogue would remember.
fn remember(known: &mut Vec<Extent>, grown: Vec<Extent>) {
    for extent in grown {
        known.retain(|known| known.segment != extent.segment);
        known.push(extent);
    }
}

fn stage(store: &mut dyn VectorStore, page: i64, rows: &MultiVector) -> Record {
    let page = PageId(page);
    Record {
        page,
        location: store.stage(page, rows).unwrap(),
    }
}

#[test]
fn what_was_published_is_read_back_by_this_value_and_the_next() {
    each_store(|open, dir| {
        let mut known = Vec::new();
        let mut records = Vec::new();
        for round in 0..5 {
            let mut store = open(dir, &known);
            for page in 0..7 {
                let seed = round * 10 + page;
                records.push(stage(
                    store.as_mut(),
                    seed,
                    &rows(seed as u64, 1 + page as usize),
                ));
            }
            remember(&mut known, store.publish().unwrap());
            for record in &records {
                let given = rows(record.page.0 as u64, record.location.num_rows as usize);
                assert_eq!(store.read(*record).unwrap().as_slice(), given.as_slice());
            }
        }
    });
}

#[test]
fn search_is_exact_and_only_among_the_candidates() {
    each_store(|open, dir| {
        let mut store = open(dir, &[]);
        let records: Vec<Record> = (0..40)
            .map(|page| stage(store.as_mut(), page, &rows(page as u64 % 20, 3)))
            .collect();
        store.publish().unwrap();
        let query = values(77, 4, DIM);
        for step in [1, 3, 7] {
            let candidates: Vec<Record> = records.iter().copied().step_by(step).collect();
            let mut expected: Vec<(usize, f32)> = candidates
                .iter()
                .enumerate()
                .map(|(at, record)| {
                    (
                        at,
                        maxsim(&query, DIM, rows(record.page.0 as u64 % 20, 3).as_slice()),
                    )
                })
                .collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            let found = store.search(&query, DIM, &candidates, 10).unwrap();
            assert_eq!(found.len(), candidates.len().min(10));
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.0, expected.0);
                assert!((found.1 - expected.1).abs() < 1e-3);
            }
        }
        assert!(store.search(&query, DIM, &[], 10).unwrap().is_empty());
        assert!(store.search(&query, DIM, &records, 0).unwrap().is_empty());
        assert!(
            store
                .search(&query[..DIM / 2], DIM / 2, &records, 3)
                .is_err()
        );
    });
}

#[test]
fn discarding_harms_nothing_that_was_published() {
    each_store(|open, dir| {
        let mut store = open(dir, &[]);
        let kept = stage(store.as_mut(), 1, &rows(1, 5));
        let mut known = Vec::new();
        remember(&mut known, store.publish().unwrap());
        for page in 2..40 {
            stage(store.as_mut(), page, &rows(page as u64, 5));
        }
        store.discard();
        let next = stage(store.as_mut(), 50, &rows(50, 2));
        remember(&mut known, store.publish().unwrap());
        for store in [store, open(dir, &known)] {
            assert_eq!(store.read(kept).unwrap().as_slice(), rows(1, 5).as_slice());
            assert_eq!(store.read(next).unwrap().as_slice(), rows(50, 2).as_slice());
        }
    });
}

#[test]
fn compaction_keeps_the_live_rows_and_the_old_places_until_it_is_reclaimed() {
    each_store(|open, dir| {
        let mut store = open(dir, &[]);
        let all: Vec<Record> = (0..30)
            .map(|page| stage(store.as_mut(), page, &rows(page as u64, 4)))
            .collect();
        store.publish().unwrap();
        let live: Vec<Record> = all.iter().copied().step_by(4).collect();
        let locations: Vec<Location> = store.compact(&live).unwrap();
        let extents = store.publish().unwrap();
        let moved: Vec<Record> = live
            .iter()
            .zip(locations)
            .map(|(record, location)| Record {
                page: record.page,
                location,
            })
            .collect();
        for record in all.iter().chain(&moved) {
            assert_eq!(
                store.read(*record).unwrap().as_slice(),
                rows(record.page.0 as u64, 4).as_slice()
            );
        }
        store.reclaim(&extents).unwrap();
        for store in [store, open(dir, &extents)] {
            for record in &moved {
                assert_eq!(
                    store.read(*record).unwrap().as_slice(),
                    rows(record.page.0 as u64, 4).as_slice()
                );
            }
            let mut faults = Vec::new();
            store.check(&extents, &[], &mut |fault| faults.push(fault));
            assert_eq!(faults, []);
        }
    });
}
