//! What goes wrong, said so that a person knows what to do; nothing else is lost with it.

use std::process::Stdio;

use colibri_engine::index::Index;

use crate::support::{Home, repository, snapshot};

#[test]
fn unreadable_documents_cost_only_themselves() {
    let home = Home::new();
    let documents = home.path("documents");
    let fixtures = repository().join("crates/document/tests/fixtures");
    fs_err::copy(fixtures.join("aes256.pdf"), documents.join("locked.pdf")).unwrap();
    fs_err::write(documents.join("empty.pdf"), "").unwrap();
    fs_err::write(documents.join("corrupt.pdf"), "%PDF-1.7\nnothing follows").unwrap();
    let report = fs_err::read(documents.join("chart.png")).unwrap();
    fs_err::write(documents.join("truncated.png"), &report[..20]).unwrap();
    let said = home.run([
        "index",
        "documents",
        "documents/empty.pdf",
        "documents/questions.jsonl",
        "nowhere",
        "--retriever",
        "none",
    ]);
    snapshot!(said, @r"
    exit code 1
    ----- out -----
    indexed documents/chart.png (1 page)
    indexed documents/invoice.pdf (1 page)
    indexed documents/report.pdf (2 pages)
    indexed documents/scan.pdf (1 page)
    indexed documents/slides.pdf (3 pages)
    5 documents with 8 pages in the index, 6 failed; [seconds]
    ----- err -----
    failed documents/corrupt.pdf: it is not a readable PDF: it is damaged or cut off
    failed documents/locked.pdf: it is encrypted: pass --password
    failed documents/truncated.png: cannot read page 1: not a readable PNG: unexpected end of file
    failed documents/empty.pdf: it is empty
    failed documents/questions.jsonl: it is neither a PDF nor a picture (PNG, JPEG, WebP, TIFF, GIF, BMP) nor a video by its first bytes
    failed nowhere: failed to query resolved metadata `nowhere`: No such file or directory (os error 2)
    ");
    snapshot!(home.run(["index", "documents", "--max-pages", "2", "--max-file-bytes", "70KB", "--retriever", "none", "--index", "small"]), @r"
    exit code 1
    ----- out -----
    indexed documents/chart.png (1 page)
    indexed documents/invoice.pdf (1 page)
    indexed documents/report.pdf (2 pages)
    3 documents with 4 pages in the index, 5 failed; [seconds]
    ----- err -----
    failed documents/corrupt.pdf: it is not a readable PDF: it is damaged or cut off
    failed documents/locked.pdf: it is encrypted: pass --password
    failed documents/scan.pdf: it has 77130 bytes, more than the limit of 70000
    failed documents/slides.pdf: it has 3 pages, more than the limit of 2
    failed documents/truncated.png: cannot read page 1: not a readable PNG: unexpected end of file
    ");
}

#[test]
fn nothing_to_index() {
    let home = Home::empty();
    snapshot!(home.run(["index"]), @r"
    exit code 1
    ----- err -----
    error: no file or folder was named

    hint: name what to index, for example `colibri index ~/papers`
    ");
    fs_err::create_dir(home.path("nothing")).unwrap();
    snapshot!(home.run(["ask", "Why?", "nothing", "--retriever", "none"]), @r"
    exit code 1
    ----- err -----
    error: there is no document in `nothing`

    hint: PDF, PNG, JPEG, WebP, TIFF, GIF and BMP files can be read, and videos with ffmpeg; hidden and ignored files are left out unless `--hidden` or `--no-ignore` is given
    ");
    snapshot!(home.run(["ask", "Why?", "nowhere", "--retriever", "none"]), @r"
    exit code 1
    ----- err -----
    failed nowhere: failed to query resolved metadata `nowhere`: No such file or directory (os error 2)
    error: there is no document in `nowhere`

    hint: PDF, PNG, JPEG, WebP, TIFF, GIF and BMP files can be read, and videos with ffmpeg; hidden and ignored files are left out unless `--hidden` or `--no-ignore` is given
    ");
    snapshot!(home.run(["ask", " "]), @r#"
    exit code 1
    ----- err -----
    error: the question is empty

    hint: put the question in quotes: `colibri ask "Who signed the letter?"`
    "#);
}

#[test]
fn an_answer_and_a_failed_document() {
    let home = Home::new();
    fs_err::write(
        home.path("documents/corrupt.pdf"),
        "%PDF-1.7\nnothing follows",
    )
    .unwrap();
    let said = home
        .run([
            "ask",
            "Who presented the winter timetable?",
            "documents",
            "--retriever",
            "none",
            "--generator",
            "none",
        ])
        .exits(1);
    assert!(said.stdout.contains("Tomas Berglund"), "{}", said.stdout);
    assert!(
        said.stderr.contains("failed documents/corrupt.pdf: "),
        "{}",
        said.stderr
    );
}

#[test]
fn there_is_no_index() {
    let home = Home::empty();
    snapshot!(home.run(["search", "x"]), @r"
    exit code 1
    ----- err -----
    error: there is no index in `[home]/.local/share/colibri/index`

    hint: run `colibri index PATH…` first, or name another folder with `--index`
    ");
    for command in [
        ["list"].as_slice(),
        &["stats"],
        &["verify"],
        &["compact"],
        &["remove", "x"],
        &["ask", "Why?"],
    ] {
        let said = home.run(command).exits(1);
        assert!(
            said.stderr
                .contains("there is no index in `[home]/.local/share/colibri/index`"),
            "{}",
            said.stderr
        );
    }
    snapshot!(home.run(["search"]), @r#"
    exit code 1
    ----- err -----
    error: no question was asked

    hint: ask, for example `colibri search "total of the invoice"`, or give `--queries FILE`
    "#);
    snapshot!(home.run(["remove"]), @r"
    exit code 1
    ----- err -----
    error: no document was named

    hint: name documents or folders, or choose them with `--where`
    ");
}

#[test]
fn a_second_writer_is_told_of_the_first() {
    let home = Home::indexed();
    let writer = Index::open_writer_as_it_is(home.index()).unwrap();
    snapshot!(home.run(["index", "documents", "--retriever", "none"]), @r"
    exit code 2
    ----- err -----
    error: the index in `[home]/.local/share/colibri/index` is being written by process [pid]

    hint: wait until it has finished, or use another folder with --index
    ");
    home.run(["remove", "documents"]).exits(2);
    // Readers do not mind.
    home.run(["search", "invoice", "-q"]).exits(0);
    drop(writer);
    home.run(["index", "documents", "-q"]).exits(0);
}

#[test]
fn wrong_filters_and_queries() {
    let home = Home::indexed();
    snapshot!(home.run(["search", "x", "--where", "year"]), @r"
    exit code 1
    ----- err -----
    error: cannot understand the filter `year`
      because: there is no operator (=, !=, <, <=, >, >=, ~, !~) in it

    hint: write KEY=VALUE, KEY!=VALUE, KEY<VALUE, KEY>VALUE or KEY~PATTERN
    ");
    fs_err::write(home.path("queries"), "one\n{\"text\": \"two\"}\n").unwrap();
    snapshot!(home.run(["search", "--queries", "queries"]), @r"
    exit code 1
    ----- err -----
    error: line 2 of `queries` is not a query: it has no text under `query`

    hint: write one question a line, or a JSON object with `query` a line
    ");
    home.run(["search", "--queries", "nowhere"]).exits(1);
}

#[test]
fn looking_needs_a_retriever() {
    let home = Home::indexed();
    snapshot!(home.run(["search", "x", "--mode", "visual"]), @r"
    exit code 2
    ----- err -----
    error: searching by what pages look like needs a retriever, and none is available: the index was made without one, by text only

    hint: run `colibri models pull vidore/colSmol-256M` where there is a network, or name a folder with `--retriever`; `--mode text` needs none
    ");
    let said = home
        .run(["ask", "Why?", "documents", "--mode", "visual"])
        .exits(1);
    assert!(
        said.stderr.contains("`none` was asked for"),
        "{}",
        said.stderr
    );
    snapshot!(home.run(["generate", "Why?", "--generator", "none"]), @r"
    exit code 1
    ----- err -----
    error: this needs a generator, and `none` was asked for

    hint: leave `--generator` out, or name a folder or a hub model with it
    ");
    snapshot!(home.run(["search", "Why?", "--retriever", "openai:gpt-4o"]), @r"
    exit code 1
    ----- err -----
    error: `openai:gpt-4o` can answer, but not find pages

    hint: name it with `--generator`; as retriever, a folder or a hub model such as `vidore/colSmol-256M`, or `none`
    ");
    snapshot!(home.run(["index", "documents", "--retriever", "not/a/model"]), @r"
    exit code 1
    ----- err -----
    error: `not/a/model` is neither a folder with a checkpoint nor a hub name such as `vidore/colSmol-256M`
    ");
    snapshot!(home.run(["models", "info", "vidore/colSmol-256M"]), @r"
    exit code 1
    ----- err -----
    error: `vidore/colSmol-256M` is neither a folder nor in the cache `[home]/.cache/huggingface/hub`

    hint: fetch it with `colibri models pull NAME`; `colibri models list` shows what is there
    ");
    home.run(["models", "pull", "vidore/colSmol-256M"]).exits(2);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::indexed();
    for arguments in [
        ["completions", "bash"].as_slice(),
        &["list", "--json"],
        &["search", "invoice"],
        &["ask", "What is the invoice number?", "--generator", "none"],
        &["index", "documents", "--json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = home
            .command()
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn names_cannot_command_the_terminal() {
    let home = Home::new();
    let name = "documents/\u{1b}[2Jreport\n.pdf";
    fs_err::rename(home.path("documents/report.pdf"), home.path(name)).unwrap();
    fs_err::write(
        home.path("documents/\u{1b}]0;x\u{7}.pdf"),
        "%PDF-1.7\nnothing",
    )
    .unwrap();
    for arguments in [
        ["index", "documents"],
        ["list", "--color=always"],
        ["search", "passengers"],
        ["remove", "documents"],
    ] {
        let said = home.run(arguments);
        for text in [&said.stdout, &said.stderr] {
            assert!(
                !text.contains("\u{1b}[2J")
                    && !text.contains('\u{7}')
                    && !text.contains("report\n"),
                "{arguments:?}: {text:?}"
            );
        }
        assert!(
            said.stdout.contains("␛[2Jreport␊.pdf"),
            "{arguments:?}: {}",
            said.stdout
        );
    }
}
