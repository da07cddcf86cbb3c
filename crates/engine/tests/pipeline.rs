//! Documents in, ranked pages and answers out, through the engine alone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use colibri_engine::{
    Error, KeptFeatures,
    answer::{AnswerEvent, AnswerOptions, Answering},
    checkpoints::{Choice, ModelConfig, Models, PrecisionChoice},
    generate::GenerateOptions,
    hub::HubConfig,
    index::{Filter, Index, Mode},
    ingest::{DocumentStatus, IndexEvent, IngestOptions, Summary, ingest},
    on_the_fly,
    retrieve::Searcher,
};
use colibri_testkit::{
    random::{Role, TINY, write_checkpoint},
    shared,
};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/documents")
}

#[derive(serde::Deserialize)]
struct Question {
    doc: String,
    page: u32,
    #[serde(rename = "question")]
    text: String,
    answer: String,
}

fn questions(folder: &Path) -> Vec<Question> {
    let text = fs_err::read_to_string(folder.join("questions.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Models of a run that has no network; `folder` holds tiny random checkpoints where they are wanted.
fn models(folder: &Path, retriever: Choice, generator: Choice) -> Models {
    let mut hub = HubConfig::new(folder.join("no-such-cache"));
    hub.offline = true;
    Models::new(ModelConfig {
        packed_dir: Some(folder.join("packed")),
        retriever,
        generator,
        precision: PrecisionChoice::F32,
        features: KeptFeatures::none(),
        ..ModelConfig::new(hub, folder.join("builtin"))
    })
}

fn tiny(folder: &Path, role: Role) -> Choice {
    let target = folder.join(format!("{role:?}"));
    write_checkpoint(&target, &TINY, role);
    Choice::Named(target.to_str().unwrap().to_owned())
}

fn run(index: &Path, paths: &[PathBuf], models: &Models) -> (Summary, Vec<IndexEvent>) {
    let mut events = Vec::new();
    let retriever = models.retriever(None, &|_| {}).unwrap();
    let options = IngestOptions {
        remove_missing: true,
        ..IngestOptions::default()
    };
    let summary = ingest(
        index,
        paths,
        retriever.as_ref(),
        &options,
        &AtomicBool::new(false),
        &mut |event| events.push(event),
    )
    .unwrap();
    (summary, events)
}

fn statuses(events: &[IndexEvent]) -> Vec<(String, DocumentStatus)> {
    let name = |path: &str| {
        Path::new(path)
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    events
        .iter()
        .filter_map(|event| match event {
            IndexEvent::Document { path, status, .. } => Some((name(path), *status)),
            IndexEvent::Found { .. } | IndexEvent::Page { .. } | IndexEvent::Done(_) => None,
        })
        .collect()
}

/// The share of questions whose page is found first, among those whose document has a text layer.
fn first_hits(folder: &Path, without_text: &[&str]) -> f64 {
    let scratch = tempfile::tempdir().unwrap();
    let index = scratch.path().join("index");
    let models = models(scratch.path(), Choice::None, Choice::None);
    let (summary, _) = run(&index, &[folder.to_owned()], &models);
    assert_eq!(summary.failed, 0);
    let index = Index::open(&index).unwrap();
    let searcher = Searcher::open(&index, &models, Mode::Text, &|_| {}).unwrap();
    let (mut right, mut asked) = (0, 0);
    for question in questions(folder) {
        if without_text.iter().any(|name| question.doc.contains(name))
            || !question.doc.contains(".pdf")
        {
            continue;
        }
        asked += 1;
        let found = searcher
            .search(&question.text, 1, &Filter::default())
            .unwrap();
        let hit = found
            .hits
            .first()
            .map(|hit| (&hit.hit.document, hit.hit.page));
        if hit.is_some_and(|(path, page)| path.ends_with(&question.doc) && page == question.page) {
            right += 1;
        }
    }
    f64::from(right) / f64::from(asked)
}

#[test]
fn text_alone_finds_the_right_page_of_the_examples() {
    let share = first_hits(&examples(), &["scan.pdf"]);
    assert!(share >= 0.9, "{share}");
}

#[test]
fn text_alone_finds_the_right_page_of_real_documents() {
    let Some(corpus) = shared::find(
        "corpus",
        "text_alone_finds_the_right_page_of_real_documents",
    ) else {
        return;
    };
    let share = first_hits(
        &corpus,
        &["acme-annual-report", "linn-sequencer", "slerexe-letter"],
    );
    assert!(share >= 0.8, "{share}");
}

#[test]
fn a_refresh_touches_only_what_changed() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, index) = (
        scratch.path().join("documents"),
        scratch.path().join("index"),
    );
    fs_err::create_dir(&folder).unwrap();
    for name in ["report.pdf", "invoice.pdf", "chart.png"] {
        fs_err::copy(examples().join(name), folder.join(name)).unwrap();
    }
    let models = models(
        scratch.path(),
        tiny(scratch.path(), Role::Retriever),
        Choice::None,
    );
    let (summary, events) = run(&index, std::slice::from_ref(&folder), &models);
    assert_eq!(
        (summary.documents, summary.pages, summary.failed),
        (3, 4, 0)
    );
    assert!(
        statuses(&events)
            .iter()
            .all(|(_, status)| *status == DocumentStatus::Indexed)
    );
    let rows = Index::open(&index).unwrap().stats().unwrap().rows;

    let pages = |events: &[IndexEvent]| {
        events
            .iter()
            .filter(|e| matches!(e, IndexEvent::Page { .. }))
            .count()
    };
    let (_, events) = run(&index, std::slice::from_ref(&folder), &models);
    assert!(
        statuses(&events)
            .iter()
            .all(|(_, status)| *status == DocumentStatus::Unchanged)
    );
    assert_eq!(pages(&events), 0);

    // Moved: nothing is encoded. Copied: neither. Replaced: only that one. Gone: removed.
    fs_err::rename(folder.join("report.pdf"), folder.join("moved.pdf")).unwrap();
    fs_err::copy(folder.join("invoice.pdf"), folder.join("copy.pdf")).unwrap();
    fs_err::copy(examples().join("slides.pdf"), folder.join("invoice.pdf")).unwrap();
    fs_err::remove_file(folder.join("chart.png")).unwrap();
    let (_, events) = run(&index, std::slice::from_ref(&folder), &models);
    let mut found = statuses(&events);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        found,
        [
            ("chart.png".to_owned(), DocumentStatus::Removed),
            ("copy.pdf".to_owned(), DocumentStatus::Indexed),
            ("invoice.pdf".to_owned(), DocumentStatus::Replaced),
            ("moved.pdf".to_owned(), DocumentStatus::Indexed),
        ]
    );
    assert_eq!(pages(&events), 3, "only the slides are encoded");
    let index = Index::open(&index).unwrap();
    assert_eq!(index.stats().unwrap().documents, 3);
    assert!(index.stats().unwrap().rows > 0 && rows > 0);
    assert!(index.verify().unwrap().is_empty());
}

#[test]
fn bad_documents_are_named_and_the_others_go_on() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("documents");
    fs_err::create_dir(&folder).unwrap();
    fs_err::copy(examples().join("invoice.pdf"), folder.join("good.pdf")).unwrap();
    let whole = fs_err::read(examples().join("report.pdf")).unwrap();
    fs_err::write(folder.join("cut.pdf"), &whole[..200]).unwrap();
    fs_err::write(folder.join("bad.png"), b"\x89PNG\r\n\x1a\nnot a picture").unwrap();
    let empty = folder.join("empty.pdf");
    fs_err::write(&empty, b"").unwrap();
    let models = models(scratch.path(), Choice::None, Choice::None);
    let (summary, events) = run(&scratch.path().join("index"), &[folder, empty], &models);
    assert_eq!(summary.documents, 1);
    assert_eq!(summary.failed, 3, "{events:?}");
    for event in &events {
        if let IndexEvent::Document {
            path,
            status: DocumentStatus::Failed,
            error,
            ..
        } = event
        {
            let error = error.as_ref().unwrap();
            assert!(!path.is_empty() && !error.is_empty(), "{event:?}");
        }
    }
}

#[test]
fn a_stopped_run_goes_on_where_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let index = scratch.path().join("index");
    let models = models(
        scratch.path(),
        tiny(scratch.path(), Role::Retriever),
        Choice::None,
    );
    let retriever = models.retriever(None, &|_| {}).unwrap();
    let stop = AtomicBool::new(false);
    let options = IngestOptions::default();
    let result = ingest(
        &index,
        &[examples()],
        retriever.as_ref(),
        &options,
        &stop,
        &mut |event| {
            if matches!(event, IndexEvent::Document { .. }) {
                stop.store(true, Ordering::Relaxed);
            }
        },
    );
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    let kept = Index::open(&index).unwrap().stats().unwrap().documents;
    assert!(kept >= 1);
    let (summary, events) = run(&index, &[examples()], &models);
    let unchanged = statuses(&events)
        .iter()
        .filter(|(_, status)| *status == DocumentStatus::Unchanged)
        .count();
    assert_eq!(unchanged as u64, kept);
    assert_eq!(summary.documents, 5);
}

#[test]
fn an_index_refuses_rows_of_another_retriever() {
    let scratch = tempfile::tempdir().unwrap();
    let index = scratch.path().join("index");
    let first = models(
        scratch.path(),
        tiny(scratch.path(), Role::Retriever),
        Choice::None,
    );
    run(&index, &[examples().join("chart.png")], &first);
    let elsewhere = scratch.path().join("other");
    let second = models(
        scratch.path(),
        tiny(&elsewhere, Role::Retriever),
        Choice::None,
    );
    let retriever = second.retriever(None, &|_| {}).unwrap();
    let stop = AtomicBool::new(false);
    let error = ingest(
        &index,
        &[examples()],
        retriever.as_ref(),
        &IngestOptions::default(),
        &stop,
        &mut |_| {},
    )
    .unwrap_err();
    assert_eq!(error.code(), "index");
    assert!(error.hint().unwrap().contains("--index"), "{error}");
    let opened = Index::open(&index).unwrap();
    let error = Searcher::open(&opened, &second, Mode::Hybrid, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("retriever"), "{error}");
}

#[test]
fn an_index_whose_retriever_is_gone_is_searched_by_its_text() {
    let scratch = tempfile::tempdir().unwrap();
    let index = scratch.path().join("index");
    let choice = tiny(scratch.path(), Role::Retriever);
    let Choice::Named(folder) = &choice else {
        unreachable!()
    };
    let folder = folder.clone();
    run(
        &index,
        &[examples()],
        &models(scratch.path(), choice, Choice::None),
    );
    fs_err::remove_dir_all(folder).unwrap();
    let later = models(scratch.path(), Choice::Auto, Choice::None);
    let index = Index::open(&index).unwrap();
    let searcher = Searcher::open(&index, &later, Mode::Hybrid, &|_| {}).unwrap();
    assert_eq!(searcher.mode(), Mode::Text);
    let found = searcher
        .search("Who presented the winter timetable?", 1, &Filter::default())
        .unwrap();
    assert!(found.hits[0].hit.document.ends_with("slides.pdf"));
}

#[test]
fn pictures_are_found_and_read_by_what_they_look_like() {
    let scratch = tempfile::tempdir().unwrap();
    let models = models(
        scratch.path(),
        tiny(scratch.path(), Role::Retriever),
        tiny(scratch.path(), Role::Generator),
    );
    let retriever = models.retriever(None, &|_| {}).unwrap();
    let stop = AtomicBool::new(false);
    let prepared = on_the_fly::prepare(
        &scratch.path().join("cache"),
        &[examples().join("scan.pdf"), examples().join("chart.png")],
        retriever.as_ref(),
        &IngestOptions::default(),
        &stop,
        &mut |_| {},
    )
    .unwrap();
    let searcher = Searcher::open(&prepared.index, &models, Mode::Visual, &|_| {}).unwrap();
    let options = AnswerOptions {
        pages: 2,
        generate: GenerateOptions {
            max_new_tokens: 6,
            ..GenerateOptions::default()
        },
        ..AnswerOptions::default()
    };
    let mut answering =
        Answering::new(&prepared.index, searcher, &models, prepared.filter, options);
    for turn in 0..2 {
        let mut events = Vec::new();
        let asked = answering
            .ask("Who signed the letter?", &stop, &|_| {}, &mut |event| {
                events.push(event);
            })
            .unwrap();
        assert_eq!(asked.found.hits.len(), 2);
        let hit = &asked.found.hits[0];
        assert!(hit.hit.visual.is_some());
        assert!(
            !hit.regions.is_empty()
                && hit
                    .regions
                    .iter()
                    .all(|r| r.bounds.iter().all(|b| (0.0..=1.0).contains(b)))
        );
        let streamed: String = events
            .iter()
            .filter_map(|event| {
                if let AnswerEvent::Token { text } = event {
                    Some(text.as_str())
                } else {
                    None
                }
            })
            .collect();
        assert_eq!(streamed.trim(), asked.done.answer);
        assert_eq!(asked.done.new_tokens, 6, "turn {turn}");
        assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    }
}

#[test]
fn without_a_generator_the_lines_are_quoted_with_their_page() {
    let scratch = tempfile::tempdir().unwrap();
    let models = models(scratch.path(), Choice::None, Choice::Auto);
    let notes = std::sync::Mutex::new(Vec::new());
    let note = |event| {
        if let colibri_engine::checkpoints::ModelEvent::Fallback { message } = event {
            notes.lock().unwrap().push(message);
        }
    };
    let stop = AtomicBool::new(false);
    let options = IngestOptions::default();
    let cache = scratch.path().join("cache");
    let prepared =
        on_the_fly::prepare(&cache, &[examples()], None, &options, &stop, &mut |_| {}).unwrap();
    let (mut right, mut cited, mut asked) = (0, 0, 0);
    for question in questions(&examples()) {
        if question.doc == "scan.pdf" || question.doc == "chart.png" {
            continue;
        }
        asked += 1;
        let searcher = Searcher::open(&prepared.index, &models, Mode::Hybrid, &note).unwrap();
        let mut answering = Answering::new(
            &prepared.index,
            searcher,
            &models,
            prepared.filter.clone(),
            AnswerOptions::default(),
        );
        let done = answering
            .ask(&question.text, &stop, &note, &mut |_| {})
            .unwrap()
            .done;
        assert_eq!(done.generator, "quotes");
        right += usize::from(done.answer.contains(&question.answer));
        let page = |c: &colibri_engine::answer::Citation| {
            c.document.ends_with(&question.doc) && c.page == question.page
        };
        cited += usize::from(done.citations.iter().any(page));
    }
    assert!(
        right * 10 >= asked * 7,
        "{right} of {asked} answers are quoted"
    );
    assert!(
        cited * 10 >= asked * 9,
        "{cited} of {asked} pages are cited"
    );
    assert_eq!(
        notes
            .lock()
            .unwrap()
            .iter()
            .filter(|note| note.starts_with("no generator"))
            .count(),
        1,
        "said once, not at every question"
    );
}
