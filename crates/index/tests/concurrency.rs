//! Many searches while one writer adds, replaces, removes and compacts.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails should stop and say why"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use colibri_index::{Filter, Index, Mode, Query, QueryRows, WriterOptions};
use support::{DIM, document, maxsim, page, pages, settings, values};

const PAGES: u32 = 3;

/// Threads that search at the same time.
const READERS: u64 = 64;

/// The content a page with this text is of: its last word is `unique{content}x{number}`.
fn content_of(text: &str) -> u64 {
    let word = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("unique"))
        .expect("the last word");
    word.split('x').next().unwrap().parse().unwrap()
}

#[test]
fn searches_see_each_document_whole_while_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions {
        segment_bytes: 2000,
        ..WriterOptions::default()
    };
    let mut writer = Index::open_or_create(dir.path(), &settings(), options).unwrap();
    // This one is never touched: every search must find it.
    writer
        .add_document(&document("/steady.pdf", 0), &pages(0, PAGES))
        .unwrap();
    let index = Index::open(dir.path()).unwrap();
    let finished = AtomicBool::new(false);
    let searches = AtomicUsize::new(0);
    // Nobody starts before everybody is there: 64 searches are under way at once from the first step on.
    let start = Barrier::new(READERS as usize + 1);
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (index, finished, searches, dir) = (&index, &finished, &searches, dir.path());
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let own = Index::open(dir).unwrap();
                let mut round = 0;
                // At least twice each, over the shared index and over its own, and for as long as the writer works.
                while round < 2 || !finished.load(Ordering::Acquire) {
                    let index = if round % 2 == 0 { index } else { &own };
                    check_one_search(index, reader * 100 + round % 10);
                    round += 1;
                    searches.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        start.wait();
        for step in 1..60u64 {
            let path = format!("/{}.pdf", step % 4);
            match step % 10 {
                3 => {
                    writer.remove(&[&path]).unwrap();
                }
                6 => {
                    writer.compact().unwrap();
                }
                8 => {
                    let mut pending = writer.begin_document(&document(&path, step)).unwrap();
                    pending.append_page(&page(step, 1)).unwrap();
                }
                _ => {
                    writer
                        .add_document(&document(&path, step), &pages(step, PAGES))
                        .unwrap();
                }
            }
        }
        finished.store(true, Ordering::Release);
    });
    assert!(searches.load(Ordering::Relaxed) as u64 >= 2 * READERS);
    assert_eq!(index.verify().unwrap(), []);
}

fn check_one_search(index: &Index, seed: u64) {
    let query = values(seed, 2, DIM);
    let hits = index
        .search(&Query {
            text: "unique0x1 latency".to_owned(),
            rows: Some(QueryRows::new(DIM, query.clone()).unwrap()),
            mode: Mode::Visual,
            k: 1000,
            filter: Filter::default(),
        })
        .unwrap();
    let mut documents = BTreeMap::<String, Vec<(u64, u32)>>::new();
    for hit in &hits {
        let content = content_of(&hit.text);
        let expected = maxsim(
            &query,
            DIM,
            page(content, hit.page).rows.unwrap().as_slice(),
        );
        assert!(
            (hit.score - expected).abs() < 1e-3,
            "{hit:?} scores {expected}"
        );
        documents
            .entry(hit.document.clone())
            .or_default()
            .push((content, hit.page));
    }
    assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
    assert!(documents.contains_key("/steady.pdf"));
    for (path, mut found) in documents {
        found.sort_unstable();
        let content = found[0].0;
        let whole: Vec<(u64, u32)> = (1..=PAGES).map(|number| (content, number)).collect();
        assert_eq!(found, whole, "{path} is in pieces");
    }
}
