//! Random sequences of operations against a model that is a map.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails should stop and say why"
)]

mod support;

use std::collections::BTreeMap;

use colibri_index::{Filter, Index, WriterOptions};
use proptest::prelude::*;
use support::{DIM, document, maxsim, page, pages, settings, values};

#[derive(Clone, Debug)]
enum Operation {
    Add {
        path: u8,
        content: u64,
    },
    GiveUp {
        path: u8,
        content: u64,
        num_pages: u32,
    },
    Copy {
        from: u8,
        to: u8,
    },
    Move {
        from: u8,
        to: u8,
    },
    Remove {
        path: u8,
    },
    RemoveWhere {
        year: u64,
    },
    Compact,
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let path = || 0u8..5;
    prop_oneof![
        5 => (path(), 0u64..12).prop_map(|(path, content)| Operation::Add { path, content }),
        1 => (path(), 0u64..12, 0u32..3)
            .prop_map(|(path, content, num_pages)| Operation::GiveUp { path, content, num_pages }),
        1 => (path(), path()).prop_map(|(from, to)| Operation::Copy { from, to }),
        1 => (path(), path()).prop_map(|(from, to)| Operation::Move { from, to }),
        2 => path().prop_map(|path| Operation::Remove { path }),
        1 => (2000u64..2012).prop_map(|year| Operation::RemoveWhere { year }),
        1 => Just(Operation::Compact),
        1 => Just(Operation::Reopen),
    ]
}

fn name(path: u8) -> String {
    format!("/folder/{path}.pdf")
}

fn num_pages(content: u64) -> u32 {
    1 + content as u32 % 4
}

/// The index holds exactly what the model holds, by every way of asking.
fn compare(index: &Index, model: &BTreeMap<String, u64>) {
    let listed: Vec<(String, String, u32)> = index
        .list(&Filter::default())
        .unwrap()
        .into_iter()
        .map(|info| (info.record.path, info.record.content_hash, info.num_pages))
        .collect();
    let expected: Vec<_> = model
        .iter()
        .map(|(path, content)| {
            (
                path.clone(),
                document(path, *content).content_hash,
                num_pages(*content),
            )
        })
        .collect();
    assert_eq!(listed, expected);

    let query = values(42, 2, DIM);
    let mut scored: Vec<(f32, &String, u32)> = model
        .iter()
        .flat_map(|(path, content)| {
            (1..=num_pages(*content)).map(move |number| (path, *content, number))
        })
        .map(|(path, content, number)| {
            (
                maxsim(&query, DIM, page(content, number).rows.unwrap().as_slice()),
                path,
                number,
            )
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let found = index
        .search_visual(&query, DIM, 100, &Filter::default())
        .unwrap();
    assert_eq!(found.len(), scored.len());
    for (found, expected) in found.iter().zip(&scored) {
        let info = index.page(found.page).unwrap();
        assert!((found.score - expected.0).abs() < 1e-3);
        assert_eq!((&info.document, info.number), (expected.1, expected.2));
    }

    for content in 0..12 {
        let found = index
            .search_text(&format!("unique{content}x1"), 100, &Filter::default())
            .unwrap();
        let expected: Vec<&String> = model
            .iter()
            .filter(|(_, known)| **known == content)
            .map(|(path, _)| path)
            .collect();
        let found: Vec<String> = found
            .into_iter()
            .map(|found| index.page(found.page).unwrap().document)
            .collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn the_index_does_what_the_model_does(operations in proptest::collection::vec(operation(), 1..16)) {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let options = WriterOptions { segment_bytes: 1000, ..WriterOptions::default() };
            Index::open_or_create(dir.path(), &settings(), options).unwrap()
        };
        let mut writer = open();
        let index = writer.index().unwrap();
        let mut model = BTreeMap::<String, u64>::new();
        for operation in operations {
            match operation {
                Operation::Add { path, content } => {
                    let added = writer
                        .add_document(&document(&name(path), content), &pages(content, num_pages(content)))
                        .unwrap();
                    let before = model.insert(name(path), content);
                    prop_assert_eq!(added.replaced, before.is_some());
                }
                Operation::GiveUp { path, content, num_pages } => {
                    let mut pending = writer.begin_document(&document(&name(path), content)).unwrap();
                    for page in pages(content, num_pages) {
                        pending.append_page(&page).unwrap();
                    }
                }
                Operation::Copy { from, to } => {
                    let content = model.get(&name(from)).copied();
                    let record = document(&name(to), content.unwrap_or(0));
                    let copied = writer.copy_document(&name(from), &record);
                    prop_assert_eq!(copied.is_ok(), content.is_some());
                    if let Some(content) = content {
                        model.insert(name(to), content);
                    }
                }
                Operation::Move { from, to } => {
                    let moved = writer.mark_moved(&name(from), &name(to));
                    let content = model.remove(&name(from));
                    prop_assert_eq!(moved.is_ok(), content.is_some());
                    if let Some(content) = content {
                        model.insert(name(to), content);
                    }
                }
                Operation::Remove { path } => {
                    let removed = writer.remove(&[name(path)]).unwrap();
                    prop_assert_eq!(removed.documents, u64::from(model.remove(&name(path)).is_some()));
                }
                Operation::RemoveWhere { year } => {
                    let removed = writer.remove_where(&Filter::parse(&format!("year={year}")).unwrap()).unwrap();
                    let before = model.len();
                    model.retain(|_, content| 2000 + *content != year);
                    prop_assert_eq!(removed.documents as usize, before - model.len());
                }
                Operation::Compact => { writer.compact().unwrap(); },
                Operation::Reopen => {
                    drop(writer);
                    writer = open();
                }
            }
            compare(&index, &model);
        }
        compare(&Index::open(dir.path()).unwrap(), &model);
        prop_assert_eq!(index.verify().unwrap(), []);
        writer.compact().unwrap();
        compare(&index, &model);
        prop_assert_eq!(index.verify().unwrap(), []);
    }
}
