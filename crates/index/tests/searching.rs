//! What is found, and in which order.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails should stop and say why"
)]

mod support;

use colibri_index::{Error, Filter, Index, Mode, PageRecord, Query, QueryRows, Writer};
use proptest::prelude::*;
use support::{DIM, document, maxsim, page, pages, rows, settings, values};
use tempfile::TempDir;

fn filled(count: u64, num_pages: u32) -> (TempDir, Writer, Index) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    for content in 0..count {
        writer
            .add_document(
                &document(&format!("/{content:02}.pdf"), content),
                &pages(content, num_pages),
            )
            .unwrap();
    }
    let index = writer.index().unwrap();
    (dir, writer, index)
}

fn with_texts(texts: &[(&str, u32, &str)]) -> (TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    let mut paths: Vec<&str> = texts.iter().map(|(path, ..)| *path).collect();
    paths.dedup();
    for path in paths {
        let mut record = document(path, path.len() as u64);
        record.title = String::new();
        let mut pending = writer.begin_document(&record).unwrap();
        for (_, number, text) in texts.iter().filter(|(other, ..)| *other == path) {
            pending
                .append_page(&PageRecord {
                    text: (*text).to_owned(),
                    words: Vec::new(),
                    rows: None,
                    ..page(1, *number)
                })
                .unwrap();
        }
        pending.commit().unwrap();
    }
    let index = writer.index().unwrap();
    (dir, index)
}

fn found(index: &Index, question: &str) -> Vec<(String, u32)> {
    let query = Query {
        text: question.to_owned(),
        mode: Mode::Text,
        k: 10,
        ..Query::default()
    };
    index
        .search(&query)
        .unwrap()
        .into_iter()
        .map(|hit| (hit.document, hit.page))
        .collect()
}

#[test]
fn visual_search_is_exact() {
    let (_dir, _writer, index) = filled(12, 5);
    for seed in 0..10 {
        let query = values(seed + 100, 1 + seed as usize % 4, DIM);
        let mut expected: Vec<(String, u32, f32)> = (0..12)
            .flat_map(|content| {
                pages(content, 5)
                    .into_iter()
                    .map(move |page| (content, page))
            })
            .map(|(content, page)| {
                let score = maxsim(&query, DIM, page.rows.as_ref().unwrap().as_slice());
                (format!("/{content:02}.pdf"), page.number, score)
            })
            .collect();
        expected.sort_by(|a, b| b.2.total_cmp(&a.2));
        let hits = index
            .search(&Query {
                rows: Some(QueryRows::new(DIM, query).unwrap()),
                mode: Mode::Visual,
                k: 7,
                ..Query::default()
            })
            .unwrap();
        assert_eq!(hits.len(), 7);
        for (rank, (hit, expected)) in hits.iter().zip(&expected).enumerate() {
            assert_eq!(
                (&hit.document, hit.page, hit.rank),
                (&expected.0, expected.1, rank as u32 + 1)
            );
            assert!(
                (hit.score - expected.2).abs() < 1e-3,
                "{hit:?} {expected:?}"
            );
            assert_eq!(hit.visual, Some(hit.score));
        }
    }
}

#[test]
fn equal_scores_come_by_path_and_page() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    for path in ["/c.pdf", "/a.pdf", "/b.pdf"] {
        let mut record = document(path, 1);
        record.title = String::new();
        let mut pending = writer.begin_document(&record).unwrap();
        for number in [2, 1] {
            pending
                .append_page(&PageRecord {
                    text: "same words".into(),
                    rows: Some(rows(1, 2)),
                    ..page(1, number)
                })
                .unwrap();
        }
        pending.commit().unwrap();
    }
    let index = writer.index().unwrap();
    let expected = ["/a.pdf", "/b.pdf", "/c.pdf"]
        .map(|path| [(path.to_owned(), 1), (path.to_owned(), 2)])
        .concat();
    for mode in [Mode::Visual, Mode::Text, Mode::Hybrid] {
        let query = Query {
            text: "words".into(),
            rows: Some(QueryRows::new(DIM, values(3, 2, DIM)).unwrap()),
            mode,
            k: 10,
            ..Query::default()
        };
        let hits = index.search(&query).unwrap();
        let places: Vec<_> = hits
            .into_iter()
            .map(|hit| (hit.document, hit.page))
            .collect();
        assert_eq!(places, expected, "{mode:?}");
    }
}

#[test]
fn filters_apply_before_scoring() {
    let (_dir, _writer, index) = filled(10, 2);
    let query = values(5, 2, DIM);
    let filter = Filter::parse_all(["year>=2008", "path~*.pdf"]).unwrap();
    let hits = index.search_visual(&query, DIM, 100, &filter).unwrap();
    assert_eq!(hits.len(), 4);
    let hits = index
        .search_text("latency budget water engine train figure", 100, &filter)
        .unwrap();
    assert!(!hits.is_empty());
    for hit in hits {
        assert!(["/08.pdf", "/09.pdf"].contains(&index.page(hit.page).unwrap().document.as_str()));
    }
    assert!(
        index
            .search_visual(&query, DIM, 5, &Filter::parse("year=1").unwrap())
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        index
            .list(&Filter::parse("name=03.pdf").unwrap())
            .unwrap()
            .len(),
        1
    );
    assert!(
        index
            .search_visual(&query, DIM, 0, &Filter::default())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn questions_find_the_page_that_answers() {
    let (_dir, index) = with_texts(&[
        (
            "/dpr.pdf",
            1,
            "Dense passage retrieval for open domain question answering. Retrieval uses two encoders.",
        ),
        (
            "/dpr.pdf",
            2,
            "We split the Wikipedia articles into blocks, which results in 21,015,324 passages in total.",
        ),
        (
            "/report.pdf",
            1,
            "Annual report. The total revenue was 145 dollars; the retrie-\nver budget is café money.",
        ),
        (
            "/report.pdf",
            2,
            "In 1868 Christopher Latham Sholes patented the type-writer, a late-interaction device.",
        ),
        ("/ja.pdf", 1, "第三四半期の売上高は増加した"),
    ]);
    for (question, path, number) in [
        (
            "How many passages does the Wikipedia collection contain after splitting?",
            "/dpr.pdf",
            2,
        ),
        ("where is 21,015,324 mentioned", "/dpr.pdf", 2),
        ("Who patented the typewriters?", "/report.pdf", 2),
        ("late interaction", "/report.pdf", 2),
        ("interaction", "/report.pdf", 2),
        ("the retriever's budget", "/report.pdf", 1),
        ("CAFE", "/report.pdf", 1),
        ("annual report's revenue", "/report.pdf", 1),
        ("売上", "/ja.pdf", 1),
    ] {
        assert_eq!(
            found(&index, question).first(),
            Some(&(path.to_owned(), number)),
            "{question}"
        );
    }
    assert!(found(&index, "").is_empty());
    assert!(found(&index, "zeppelin").is_empty());
}

#[test]
fn the_file_name_counts_less_than_the_page() {
    let (_dir, index) = with_texts(&[
        (
            "/turbine.pdf",
            1,
            "Nothing of interest stands on this page, really.",
        ),
        (
            "/other.pdf",
            1,
            "The turbine was repaired in spring, and really works again.",
        ),
    ]);
    assert_eq!(
        found(&index, "turbine"),
        [("/other.pdf".to_owned(), 1), ("/turbine.pdf".to_owned(), 1)]
    );
}

#[test]
fn hybrid_uses_both_and_works_with_either() {
    let (_dir, _writer, index) = filled(6, 3);
    let target = page(4, 2);
    let query = QueryRows::new(
        DIM,
        target
            .rows
            .as_ref()
            .unwrap()
            .as_slice()
            .iter()
            .map(|v| v.to_f32())
            .collect(),
    )
    .unwrap();
    let search = |text: &str, rows: Option<QueryRows>, mode| {
        index.search(&Query {
            text: text.into(),
            rows,
            mode,
            k: 3,
            ..Query::default()
        })
    };
    let hits = search("unique4x2", Some(query.clone()), Mode::Hybrid).unwrap();
    assert_eq!((hits[0].document.as_str(), hits[0].page), ("/04.pdf", 2));
    assert!(hits[0].visual.is_some() && hits[0].text_score.is_some());
    assert!(hits[0].text.contains("unique4x2"));
    let hits = search("unique4x2", None, Mode::Hybrid).unwrap();
    assert_eq!((hits.len(), hits[0].page), (1, 2));
    let hits = search("", Some(query.clone()), Mode::Hybrid).unwrap();
    assert_eq!(hits.len(), 3);
    assert!(hits[0].text_score.is_none());
    assert!(matches!(
        search("x", None, Mode::Visual),
        Err(Error::QueryWithoutRows)
    ));
    assert!(
        search("unique4x2", Some(query), Mode::Text).unwrap()[0]
            .visual
            .is_none()
    );
}

#[test]
fn a_scan_is_not_buried_under_pages_with_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Index::create(dir.path(), &settings()).unwrap();
    for content in 0..8 {
        writer
            .add_document(
                &document(&format!("/{content}.pdf"), content),
                &pages(content, 3),
            )
            .unwrap();
    }
    let wanted = rows(999, 4);
    let scan = PageRecord {
        text: String::new(),
        words: Vec::new(),
        rows: Some(wanted.clone()),
        ..page(50, 1)
    };
    writer
        .add_document(&document("/scan.png", 50), &[scan])
        .unwrap();
    let index = writer.index().unwrap();
    let query = Query {
        // Words of many pages: each of them is in both lists, the scan in one.
        text: "latency retrieval passage figure".into(),
        rows: Some(
            QueryRows::new(DIM, wanted.as_slice().iter().map(|v| v.to_f32()).collect()).unwrap(),
        ),
        k: 3,
        ..Query::default()
    };
    let hits = index.search(&query).unwrap();
    assert_eq!(hits[0].document, "/scan.png", "{hits:#?}");
    assert_eq!(hits[0].text, "");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn no_question_is_syntax(question in "[\\PC\"*^:(){}+\\-\u{0}\u{1}\n ]{0,60}|(NEAR|AND|OR|NOT|\"|\\(|\\)|:|\\*|a| ){0,20}") {
        thread_local! {
            static INDEX: (TempDir, Index) =
                with_texts(&[("/a.pdf", 1, "near and or not a b c"), ("/b.pdf", 1, "words")]);
        }
        INDEX.with(|(_, index)| index.search_text(&question, 10, &Filter::default())).unwrap();
    }
}
