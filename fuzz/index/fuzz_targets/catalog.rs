//! Any bytes as the JSON and the blobs of a catalogue.
//!
//! The first byte chooses the column the rest is put into; then everything that reads it is called.

#![no_main]

use std::sync::LazyLock;

use colibri_index::{DocumentRecord, Filter, Index, PageId, PageRecord, Settings, WordBox};
use libfuzzer_sys::fuzz_target;
use rusqlite::{Connection, params};

/// An index of one page, and a connection that may write anything into it.
static SOUND: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut writer = Index::create(dir.path(), &Settings::text_only()).expect("a new index");
    let document = DocumentRecord {
        path: "/a.pdf".to_owned(),
        ..DocumentRecord::default()
    };
    let page = PageRecord {
        number: 1,
        text: "some words".to_owned(),
        words: vec![WordBox {
            text: "some".to_owned(),
            bounds: [0.0; 4],
            line: 0,
        }],
        ..PageRecord::default()
    };
    writer.add_document(&document, &[page]).expect("a document");
    dir
});

thread_local! {
    static CONNECTION: Connection = {
        let connection = Connection::open(SOUND.path().join("catalog.sqlite")).expect("the catalogue");
        connection.execute_batch("PRAGMA synchronous = OFF").expect("a setting");
        connection
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((column, value)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(value);
    CONNECTION.with(|connection| {
        let _ = connection
            .execute_batch("UPDATE state SET settings = '{}', generation = generation + 1");
        let _ = match column % 6 {
            0 => connection.execute("UPDATE state SET settings = ?1", params![text]),
            1 => connection.execute("UPDATE documents SET metadata = ?1", params![text]),
            2 => connection.execute("UPDATE page_contents SET words = ?1", params![value]),
            3 => connection.execute("UPDATE page_contents SET text = ?1", params![text]),
            4 => connection.execute("UPDATE documents SET title = ?1", params![text]),
            _ => connection.execute("UPDATE pages SET rows_hash = ?1", params![value]),
        };
    });
    let Ok(index) = Index::open(SOUND.path()) else {
        return;
    };
    let _ = index.list(&Filter::default());
    let _ = index.stats();
    let _ = index.page(PageId(1));
    let _ = index.page_words(PageId(1));
    let _ = index.search_text(&text, 3, &Filter::default());
    let _ = index.verify();
});
