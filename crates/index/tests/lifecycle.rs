//! Creating, adding, replacing, moving, removing, compacting, and who may do so.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails should stop and say why"
)]

mod support;

use colibri_index::{Change, Error, Filter, Index, PageRecord, Settings, WriterOptions};
use support::{DIM, document, page, pages, rows, see, settings, values};

#[test]
fn what_goes_in_comes_out_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    let added = writer
        .add_document(&document("/a.pdf", 1), &pages(1, 3))
        .unwrap();
    assert_eq!((added.pages, added.replaced), (3, false));
    drop(writer);

    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.settings().unwrap(), settings());
    let seen = see(&index);
    assert_eq!(seen.documents.len(), 1);
    let (record, found) = &seen.documents[0];
    assert_eq!(*record, document("/a.pdf", 1));
    for (found, given) in found.iter().zip(pages(1, 3)) {
        assert_eq!(found.text, given.text);
        assert_eq!(found.words, given.words);
        assert_eq!(found.geometry, given.geometry);
        assert_eq!(
            found.rows.as_deref(),
            given
                .rows
                .as_ref()
                .map(colibri_index::MultiVector::as_slice)
        );
    }
    let info = index.document("/a.pdf").unwrap().unwrap();
    assert_eq!(info.id, added.document);
    assert_eq!((info.num_pages, info.num_pages_with_rows), (3, 3));
    let view = index
        .rows(index.page_id("/a.pdf", 2).unwrap().unwrap())
        .unwrap();
    assert_eq!((view.dim(), view.num_rows() * DIM), (DIM, view.len()));
    assert!(index.verify().unwrap().is_empty());
}

#[test]
fn a_change_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    writer
        .add_document(&document("/a.pdf", 1), &pages(1, 2))
        .unwrap();
    let hash = |content| document("", content).content_hash;
    assert_eq!(
        writer.change_of("/a.pdf", &hash(1)).unwrap(),
        Change::Unchanged
    );
    assert_eq!(
        writer.change_of("/b.pdf", &hash(1)).unwrap(),
        Change::Moved {
            from: "/a.pdf".into()
        }
    );
    assert_eq!(
        writer.change_of("/a.pdf", &hash(2)).unwrap(),
        Change::Replaced
    );
    assert_eq!(writer.change_of("/b.pdf", &hash(2)).unwrap(), Change::New);

    writer.mark_moved("/a.pdf", "/new/b.pdf").unwrap();
    let index = writer.index().unwrap();
    assert_eq!(index.document("/a.pdf").unwrap(), None);
    assert_eq!(index.document("/new/b.pdf").unwrap().unwrap().num_pages, 2);
    assert_eq!(
        index
            .search_text("new", 5, &Filter::default())
            .unwrap()
            .len(),
        2,
        "found by its folder"
    );
    assert!(matches!(
        writer.mark_moved("/a.pdf", "/c.pdf"),
        Err(Error::UnknownDocument { .. })
    ));
    assert!(index.verify().unwrap().is_empty());
}

#[test]
fn a_new_content_takes_the_place_of_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    let first = writer
        .add_document(&document("/a.pdf", 1), &pages(1, 3))
        .unwrap();
    let second = writer
        .add_document(&document("/a.pdf", 2), &pages(2, 1))
        .unwrap();
    assert!(second.replaced);
    assert_ne!(first.document, second.document);
    let index = writer.index().unwrap();
    let stats = index.stats().unwrap();
    assert_eq!((stats.documents, stats.pages), (1, 1));
    assert!(stats.dead_bytes > 0);
    assert!(
        index
            .search_text("unique1x1", 5, &Filter::default())
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        index
            .search_text("unique2x1", 5, &Filter::default())
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_copy_shares_its_rows_and_outlives_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    writer
        .add_document(&document("/a.pdf", 1), &pages(1, 3))
        .unwrap();
    let index = writer.index().unwrap();
    let before = index.stats().unwrap();
    writer
        .copy_document("/a.pdf", &document("/copy.pdf", 1))
        .unwrap();
    let after = index.stats().unwrap();
    assert_eq!((after.documents, after.pages), (2, 6));
    assert_eq!((after.live_bytes, after.dead_bytes), (before.live_bytes, 0));
    let rows = |path| {
        index
            .rows(index.page_id(path, 2).unwrap().unwrap())
            .unwrap()
            .to_vec()
    };
    let original = rows("/a.pdf");
    assert_eq!(original, rows("/copy.pdf"));
    writer.remove(&["/a.pdf"]).unwrap();
    writer
        .add_document(&document("/z.pdf", 9), &pages(9, 1))
        .unwrap();
    writer.remove(&["/z.pdf"]).unwrap();
    writer.compact().unwrap();
    assert_eq!(original, rows("/copy.pdf"));
    assert!(index.verify().unwrap().is_empty());
}

#[test]
fn removing_hides_and_compacting_gives_the_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions {
        segment_bytes: 4096,
        ..WriterOptions::default()
    };
    let mut writer = Index::open_or_create(dir.path(), &settings(), options).unwrap();
    for content in 0..30 {
        writer
            .add_document(
                &document(&format!("/{content:02}.pdf"), content),
                &pages(content, 4),
            )
            .unwrap();
    }
    let index = writer.index().unwrap();
    assert!(index.stats().unwrap().segments > 2);
    let removed = writer
        .remove_where(&Filter::parse("year<2020").unwrap())
        .unwrap();
    assert_eq!((removed.documents, removed.pages), (20, 80));
    assert_eq!(writer.remove(&["/nowhere.pdf"]).unwrap().documents, 0);
    let before = see(&index);
    let stats = index.stats().unwrap();
    assert!(stats.dead_bytes > 0);
    let compaction = writer.compact().unwrap();
    assert!(
        compaction.reclaimed() >= stats.dead_bytes,
        "{compaction:?} {stats:?}"
    );
    assert_eq!(see(&index), before);
    let stats = index.stats().unwrap();
    assert_eq!(stats.dead_bytes, 0);
    let on_disk: u64 = fs_err::read_dir(dir.path().join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, stats.live_bytes);
    assert!(index.verify().unwrap().is_empty());
    writer.remove_where(&Filter::default()).unwrap();
    writer.compact().unwrap();
    assert_eq!(index.stats().unwrap().pages, 0);
    assert_eq!(
        fs_err::read_dir(dir.path().join("segments"))
            .unwrap()
            .count(),
        0
    );
    writer
        .add_document(&document("/again.pdf", 3), &pages(3, 2))
        .unwrap();
    assert!(index.verify().unwrap().is_empty());
}

#[test]
fn a_document_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    writer
        .add_document(&document("/a.pdf", 1), &pages(1, 2))
        .unwrap();
    let index = writer.index().unwrap();
    let before = see(&index);
    let bytes = index.stats().unwrap();
    let mut pending = writer.begin_document(&document("/a.pdf", 2)).unwrap();
    pending.append_page(&page(2, 1)).unwrap();
    assert_eq!(see(&index), before, "nothing is visible before the commit");
    pending.abort();
    assert_eq!(see(&index), before);
    writer
        .add_document(&document("/b.pdf", 3), &pages(3, 1))
        .unwrap();
    assert_eq!(
        index.stats().unwrap().dead_bytes,
        bytes.dead_bytes,
        "the space was used again"
    );
    assert!(index.verify().unwrap().is_empty());
}

#[test]
fn a_page_that_does_not_fit_is_refused_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    assert!(matches!(
        writer.begin_document(&document("", 1)),
        Err(Error::NoPath)
    ));
    let mut pending = writer.begin_document(&document("/a.pdf", 1)).unwrap();
    pending.append_page(&page(1, 1)).unwrap();
    assert!(matches!(
        pending.append_page(&page(1, 1)),
        Err(Error::PageNumber { page: 1, .. })
    ));
    assert!(matches!(
        pending.append_page(&page(1, 0)),
        Err(Error::PageNumber { page: 0, .. })
    ));
    let wide = colibri_index::MultiVector::from_f32(DIM + 1, &values(1, 1, DIM + 1)).unwrap();
    let wide = PageRecord {
        rows: Some(wide),
        ..page(1, 2)
    };
    assert!(matches!(
        pending.append_page(&wide),
        Err(Error::DimMismatch {
            expected: DIM,
            found: 17
        })
    ));
    pending
        .append_page(&PageRecord {
            rows: None,
            ..page(1, 2)
        })
        .unwrap();
    assert_eq!(pending.commit().unwrap().pages, 2);
    let index = writer.index().unwrap();
    assert_eq!(index.documents_without_rows().unwrap().len(), 1);
    let without = index.page_id("/a.pdf", 2).unwrap().unwrap();
    assert!(matches!(
        index.rows(without),
        Err(Error::PageWithoutRows { .. })
    ));
    assert!(index.verify().unwrap().is_empty());
}

#[test]
fn the_second_writer_learns_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions {
        command: Some("colibri index /papers".into()),
        ..WriterOptions::default()
    };
    let writer = Index::open_or_create(dir.path(), &settings(), options).unwrap();
    let error = Index::open_writer(dir.path(), &settings()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!(
            "process {} (`colibri index /papers`)",
            std::process::id()
        )),
        "{text}"
    );
    assert!(error.hint().is_some());
    Index::open(dir.path()).unwrap();
    drop(writer);
    Index::open_writer(dir.path(), &settings()).unwrap();
}

#[test]
fn other_settings_are_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    drop(Index::create(dir.path(), &settings()).unwrap());
    let other = Settings {
        precision: Some("int8".into()),
        ..settings()
    };
    let error = Index::open_writer(dir.path(), &other).unwrap_err();
    assert!(
        matches!(&error, Error::SettingsMismatch { what: "precision", index, asked, .. }
        if index == "bf16" && asked == "int8")
    );
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("`bf16`") && hint.contains("--index"),
        "{hint}"
    );
    // Removing and compacting need no retriever.
    Index::open_writer_as_it_is(dir.path())
        .unwrap()
        .compact()
        .unwrap();
    assert!(matches!(
        Index::create(dir.path(), &settings()),
        Err(Error::AlreadyExists { .. })
    ));
}

#[test]
fn a_text_only_index_may_be_given_a_retriever() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &Settings::text_only()).unwrap();
    let with_rows = writer.add_document(&document("/a.pdf", 1), &pages(1, 1));
    assert!(matches!(with_rows, Err(Error::TextOnly { page: 1, .. })));
    writer
        .add_document(
            &document("/a.pdf", 1),
            &[PageRecord {
                rows: None,
                ..page(1, 1)
            }],
        )
        .unwrap();
    drop(writer);
    let asked = Settings {
        dim: None,
        ..settings()
    };
    let mut writer = Index::open_writer(dir.path(), &asked).unwrap();
    let index = writer.index().unwrap();
    assert_eq!(index.settings().unwrap(), asked);
    assert_eq!(
        index.documents_without_rows().unwrap()[0].record.path,
        "/a.pdf"
    );
    writer
        .add_document(&document("/a.pdf", 1), &pages(1, 1))
        .unwrap();
    assert!(index.documents_without_rows().unwrap().is_empty());
    assert_eq!(
        index.settings().unwrap(),
        settings(),
        "the dimension came with the first rows"
    );
    let narrow = colibri_index::MultiVector::from_f32(4, &values(1, 1, 4)).unwrap();
    let narrow = PageRecord {
        rows: Some(narrow),
        ..page(2, 1)
    };
    assert!(matches!(
        writer.add_document(&document("/b.pdf", 2), &[narrow]),
        Err(Error::DimMismatch {
            expected: DIM,
            found: 4
        })
    ));
}

#[test]
fn only_an_empty_folder_becomes_an_index() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Index::open(dir.path()),
        Err(Error::NoIndex { .. })
    ));
    assert!(matches!(
        Index::open(dir.path().join("no")),
        Err(Error::NoIndex { .. })
    ));
    assert!(matches!(
        Index::open_writer(dir.path(), &settings()),
        Err(Error::NoIndex { .. })
    ));
    fs_err::write(dir.path().join("thesis.pdf"), "x").unwrap();
    assert!(matches!(
        Index::create(dir.path(), &settings()),
        Err(Error::FolderNotEmpty { .. })
    ));
    assert_eq!(
        fs_err::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was put there"
    );
    let new = dir.path().join("a/b/c");
    drop(Index::create(&new, &settings()).unwrap());
    assert!(Index::exists(&new));
}

#[test]
fn an_interrupted_creation_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    writer
        .add_document(&document("/a.pdf", 1), &pages(1, 1))
        .unwrap();
    drop(writer);
    fs_err::remove_file(dir.path().join("FORMAT")).unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    let index = writer.index().unwrap();
    assert_eq!(index.stats().unwrap().documents, 0);
    writer
        .add_document(&document("/b.pdf", 2), &pages(2, 1))
        .unwrap();
    assert!(index.verify().unwrap().is_empty());
}

#[test]
fn rows_that_are_not_numbers_do_not_get_in() {
    let mut bad = values(1, 2, DIM);
    bad[DIM + 3] = f32::NAN;
    let error = colibri_index::MultiVector::from_f32(DIM, &bad).unwrap_err();
    assert!(matches!(
        error,
        Error::RowNotFinite {
            row: 1,
            column: 3,
            ..
        }
    ));
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    writer
        .add_document(&document("/a.pdf", 1), &pages(1, 1))
        .unwrap();
    let index = writer.index().unwrap();
    assert!(matches!(
        index.search_visual(&bad, DIM, 3, &Filter::default()),
        Err(Error::RowNotFinite {
            row: 1,
            column: 3,
            ..
        })
    ));
    assert!(matches!(
        index.search_visual(&values(1, 1, 8), 8, 3, &Filter::default()),
        Err(Error::DimMismatch {
            expected: DIM,
            found: 8
        })
    ));
    assert!(matches!(
        index.search_visual(&bad[..DIM - 1], DIM, 3, &Filter::default()),
        Err(Error::RaggedRows { .. })
    ));
    let _ = rows(1, 1);
}
