//! The life of an index of the example documents, by text alone.

use crate::support::{Home, repository, snapshot};

#[test]
fn index_list_change_move_remove() {
    let home = Home::new();
    snapshot!(home.run(["index", "documents"]), @r"
    exit code 0
    ----- out -----
    indexed documents/chart.png (1 page)
    indexed documents/invoice.pdf (1 page)
    indexed documents/report.pdf (2 pages)
    indexed documents/scan.pdf (1 page)
    indexed documents/slides.pdf (3 pages)
    5 documents with 8 pages in the index; [seconds]
    ");
    snapshot!(home.run(["index", "documents", "--verbose", "--retriever", "none"]), @r"
    exit code 0
    ----- out -----
    unchanged documents/chart.png (1 page)
    unchanged documents/invoice.pdf (1 page)
    unchanged documents/report.pdf (2 pages)
    unchanged documents/scan.pdf (1 page)
    unchanged documents/slides.pdf (3 pages)
    5 documents with 8 pages in the index; [seconds]
    ----- err -----
    5 documents to look at, 1 other file passed over
    ");
    snapshot!(home.run(["list"]), @r"
    exit code 0
    ----- out -----
    1 page    [size]  documents/chart.png
    1 page    [size]  documents/invoice.pdf
    2 pages   [size]  documents/report.pdf
    1 page    [size]  documents/scan.pdf
    3 pages   [size]  documents/slides.pdf
    ");

    let documents = home.path("documents");
    fs_err::rename(documents.join("scan.pdf"), documents.join("letter.pdf")).unwrap();
    fs_err::copy(documents.join("invoice.pdf"), documents.join("slides.pdf")).unwrap();
    fs_err::remove_file(documents.join("chart.png")).unwrap();
    snapshot!(home.run(["index", "documents", "--retriever", "none"]), @r"
    exit code 0
    ----- out -----
    indexed documents/letter.pdf (1 page)
    replaced documents/slides.pdf (1 page)
    removed documents/chart.png (1 page)
    4 documents with 5 pages in the index, 1 removed; [seconds]
    ");

    snapshot!(home.run(["remove", "documents/letter.pdf", "documents/nowhere.pdf"]), @r"
    exit code 1
    ----- out -----
    removed documents/letter.pdf
    ----- err -----
    failed documents/nowhere.pdf: it is not in the index
    ");
    snapshot!(home.run(["remove", "--where", "name~s*"]), @r"
    exit code 0
    ----- out -----
    removed documents/slides.pdf
    ");
    snapshot!(home.run(["list"]), @r"
    exit code 0
    ----- out -----
    1 page    [size]  documents/invoice.pdf
    2 pages   [size]  documents/report.pdf
    ");
    snapshot!(home.run(["verify"]), @r"
    exit code 0
    ----- out -----
    2 documents with 3 pages: no problem
    ");
    snapshot!(home.run(["compact"]), @r"
    exit code 0
    ----- out -----
    [size] before, [size] now
    ");
    snapshot!(home.run(["remove", "documents"]), @r"
    exit code 0
    ----- out -----
    removed documents/invoice.pdf
    removed documents/report.pdf
    ");
    snapshot!(home.run(["list"]), @r"
    exit code 1
    ----- err -----
    no document
    ");
    assert!(
        documents.join("letter.pdf").exists(),
        "remove must not touch the files"
    );
}

#[test]
fn search_shows_pages_and_snippets() {
    let home = Home::indexed();
    snapshot!(home.run(["search", "When is the Osprey invoice due?", "-k", "2"]), @r"
    exit code 0
    ----- out -----
     1  [score]  documents/invoice.pdf p.1
        Osprey Print Works INVOICE 18 Tannery Lane, Port Wexcombe Invoice number: 20417 Invoice date: 12 February 2025 Due date: 14 March 2025 Customer: Kestrel Bay Ferries Contact: Ingrid Falk Description Qty Price Amount Timetable booklets 1,200 $0.85 $1,020.00 Route maps, …
    ");
    snapshot!(home.run(["search", "zyzzyva"]), @r"
    exit code 1
    ----- err -----
    nothing found
    ");
    // The rest of the words is in other documents, which are not looked at.
    snapshot!(home.run(["search", "ferry", "--where", "name=slides.pdf", "-k", "1"]), @r"
    exit code 0
    ----- out -----
     1  [score]  documents/slides.pdf p.1
        The Winter Timetable What changes for passengers in November Presented by Tomas Berglund Kestrel Bay Ferries, 3 October 2024
    ");
    home.run(["search", "ferry", "--where", "name=chart.png"])
        .exits(1);
}

#[test]
fn stats_tell_pages_and_sizes() {
    snapshot!(Home::indexed().run(["stats"]), @r"
    exit code 0
    ----- out -----
    index        [home]/.local/share/colibri/index
    documents    5
    pages        8, 6 with text
    rows         0
    retriever    none; pages are found by their text
    size         [size], [size] a page
    reclaimable  [size]
    seen         [size] kept of 0 pages
    peak memory  [size], of it [size] files and the index, [size] activations and the rest
    ");
}

#[test]
fn metadata_is_kept_and_filtered_by() {
    let home = Home::new();
    fs_err::write(
        home.path("documents/report.pdf.json"),
        r#"{"year": 2024, "tags": ["annual"]}"#,
    )
    .unwrap();
    home.run([
        "index",
        "documents",
        "--meta",
        "checked=true",
        "--meta",
        "note=all of it",
        "-q",
    ])
    .exits(0);
    snapshot!(home.run(["list", "--where", "year>=2024"]), @r#"
    exit code 0
    ----- out -----
    2 pages   [size]  documents/report.pdf  checked=true  note=all of it  tags=["annual"]  year=2024
    "#);
    let said = home
        .run([
            "search",
            "passengers",
            "--where",
            "tags=annual",
            "--where",
            "checked=true",
            "--json",
        ])
        .exits(0);
    let hits = said.last()["hits"].as_array().unwrap().clone();
    assert!(
        !hits.is_empty()
            && hits
                .iter()
                .all(|hit| hit["document"] == "[home]/documents/report.pdf"),
        "{hits:?}"
    );
    home.run(["list", "--where", "year<2024"]).exits(1);
}

#[test]
fn which_files_are_taken() {
    let home = Home::new();
    fs_err::copy(
        home.path("documents/chart.png"),
        home.path("documents/.hidden.png"),
    )
    .unwrap();
    fs_err::write(home.path("documents/.ignore"), "scan.pdf\n").unwrap();
    let count = |more: &[&str]| {
        let mut arguments = vec!["index", "documents", "--json", "--index", "other"];
        arguments.extend(more);
        let done = home.run(arguments).exits(0).last()["documents"]
            .as_u64()
            .unwrap();
        fs_err::remove_dir_all(home.path("other")).unwrap();
        done
    };
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&["--no-ignore"]), 5);
    assert_eq!(count(&["--hidden"]), 5);
    assert_eq!(count(&["--include", "*.pdf"]), 3);
    assert_eq!(count(&["--include", "*.pdf", "--exclude", "s*"]), 2);
}

#[test]
fn found_pages_are_saved() {
    let home = Home::indexed();
    let said = home
        .run([
            "search",
            "electric ferry",
            "-k",
            "1",
            "--save-pages",
            "found",
        ])
        .exits(0);
    assert!(
        said.stdout.contains("saved as found/01-slides-p3.png"),
        "{}",
        said.stdout
    );
    let png = fs_err::read(home.path("found/01-slides-p3.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    // A document that has gone is told, and the rest of the answer stands.
    fs_err::remove_file(home.path("documents/slides.pdf")).unwrap();
    let said = home
        .run([
            "search",
            "electric ferry",
            "-k",
            "1",
            "--save-pages",
            "found",
            "--json",
        ])
        .exits(1);
    assert_eq!(said.last()["hits"][0]["page"], 3);
    assert!(said.last()["hits"][0].get("image").is_none());
    assert!(
        said.stderr.starts_with("failed to draw p.3: "),
        "{}",
        said.stderr
    );
}

#[test]
fn ask_reads_named_documents_once() {
    let home = Home::new();
    let ask = |more: &[&str]| {
        let mut arguments = vec![
            "ask",
            "Who presented the winter timetable?",
            "documents",
            "--retriever",
            "none",
            "--generator",
            "none",
        ];
        arguments.extend(more);
        home.run(arguments)
    };
    let said = ask(&["--no-cache", "--verbose"]).exits(0);
    assert!(
        said.stdout.contains("Tomas Berglund") && said.stdout.contains("[slides.pdf p.1]"),
        "{}",
        said.stdout
    );
    snapshot!(said.stderr, @r"
    indexed documents/chart.png (1 page)
    indexed documents/invoice.pdf (1 page)
    indexed documents/report.pdf (2 pages)
    indexed documents/scan.pdf (1 page)
    indexed documents/slides.pdf (3 pages)
    looking for pages
    evidence 1: documents/slides.pdf p.1 ([score])
    evidence 2: documents/slides.pdf p.3 ([score])
    evidence 3: documents/slides.pdf p.2 ([score])
    found in [ms], prepared in [ms], first token after [ms], [ms] in all
    answered by quotes: 0 tokens read, 0 written; peak memory [size]
    of it [size] files and the index, [size] activations and the rest
    ");
    assert!(
        !home.path(".cache/colibri/asked").exists(),
        "--no-cache left something behind"
    );
    assert!(
        ask(&["--verbose"])
            .stderr
            .contains("indexed documents/slides.pdf")
    );
    assert!(
        ask(&["--verbose"])
            .stderr
            .contains("unchanged documents/slides.pdf")
    );
    assert!(!home.index().exists(), "a question must not make an index");
    // Only what is named is answered from.
    let said = home.run([
        "ask",
        "Who presented the winter timetable?",
        "documents/chart.png",
        "--retriever",
        "none",
        "--generator",
        "none",
    ]);
    snapshot!(said, @r"
    exit code 1
    ----- out -----
    Not in these documents.
    ");
}

#[test]
fn a_password_opens_what_is_locked() {
    let home = Home::empty();
    let fixtures = repository().join("crates/document/tests/fixtures");
    fs_err::copy(fixtures.join("aes256.pdf"), home.path("locked.pdf")).unwrap();
    let index = |password: &str| {
        home.run([
            "index",
            "locked.pdf",
            "--retriever",
            "none",
            "--password",
            password,
        ])
    };
    let said = index("sesame").exits(1);
    assert_eq!(
        said.stderr,
        "failed locked.pdf: it is encrypted and the password given does not open it\n"
    );
    assert!(
        index("colibri")
            .exits(0)
            .stdout
            .starts_with("indexed locked.pdf (1 page)")
    );
}
