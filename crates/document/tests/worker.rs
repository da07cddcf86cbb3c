//! The worker process, for real: this test program starts itself again as the worker, well-behaved
//! or not. It therefore has a `main` of its own, with as much of libtest's command line as cargo
//! and nextest use.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests: a step that fails is a test that fails"
)]

mod support;

use std::ffi::OsString;
use std::io::{Read, Stdin};
use std::panic::catch_unwind;
use std::process::ExitCode;

use colibri_document::{Document, Error, Limits, OpenOptions, RenderSize, Trouble, WorkerCommand};
use support::pdf::{PdfPage, Writer, pdf, zlib_of_one_byte};

const TESTS: &[(&str, fn())] = &[
    ("a_page_is_the_same_with_and_without_a_worker", same_page),
    ("a_crash_costs_one_page", crash_costs_one_page),
    ("an_endless_page_is_stopped", endless_page),
    ("a_blow_up_costs_one_page", blow_up),
    ("a_worker_that_does_nothing_is_stopped", idle_worker),
    ("a_worker_that_dies_at_once_is_reported", dying_worker),
    ("a_program_that_is_no_worker_is_reported", no_worker),
    ("a_missing_program_is_reported", missing_program),
    ("a_password_reaches_the_worker", password),
    ("a_file_that_keeps_failing_is_given_up", given_up),
    ("deep_nesting_does_not_bring_the_run_down", deep_nesting),
    ("a_changed_file_does_not_hang_the_run", shrunken_file),
    ("the_corpus_opens_in_workers", corpus),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, mode] = args.as_slice()
        && first == "--as-worker"
    {
        return as_worker(mode);
    }
    if args.iter().any(|a| a == "--list") {
        if !args.iter().any(|a| a == "--ignored") {
            for (name, _) in TESTS {
                println!("{name}: test");
            }
        }
        return ExitCode::SUCCESS;
    }
    let exact = args.iter().any(|a| a == "--exact");
    // The value of an option (`--test-threads 1`) is no filter.
    let is_value = |i: usize| i > 0 && args[i - 1].starts_with("--") && !args[i - 1].contains('=');
    let lone = [
        "--exact",
        "--nocapture",
        "--no-capture",
        "--show-output",
        "--quiet",
    ];
    let filters: Vec<&String> = (0..args.len())
        .filter(|i| !args[*i].starts_with('-'))
        .filter(|i| !is_value(*i) || lone.contains(&args[i - 1].as_str()))
        .map(|i| &args[i])
        .collect();
    let mut failed = 0;
    for (name, test) in TESTS {
        let chosen = filters.is_empty()
            || filters.iter().any(|f| {
                if exact {
                    name == f
                } else {
                    name.contains(f.as_str())
                }
            });
        if chosen {
            let passed = catch_unwind(test).is_ok();
            println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
            failed += usize::from(!passed);
        }
    }
    ExitCode::from(if failed == 0 { 0 } else { 101 })
}

/// What the program does as a worker.
fn as_worker(mode: &str) -> ExitCode {
    match mode {
        "serve" => colibri_document::worker::serve(std::io::stdin(), std::io::stdout()),
        "crash-on-page-2" => {
            colibri_document::worker::serve(CrashOnPage2(std::io::stdin()), std::io::stdout())
        }
        "idle" => loop {
            std::thread::park();
        },
        "die" => {
            eprintln!("no licence to read PDFs");
            ExitCode::from(3)
        }
        _ => {
            println!("I speak no protocol, but I say a few words all the same.");
            ExitCode::SUCCESS
        }
    }
}

/// Ends the process as a fault would, when the second page is asked for.
struct CrashOnPage2(Stdin);

impl Read for CrashOnPage2 {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(to)?;
        let asked = b"\"index\":1,";
        if to[..n].windows(asked.len()).any(|w| w == asked) {
            std::process::abort();
        }
        Ok(n)
    }
}

fn options(mode: &str) -> OpenOptions {
    OpenOptions {
        limits: Limits {
            max_seconds_per_page: 20,
            ..Limits::default()
        },
        password: None,
        worker: Some(WorkerCommand::new(
            std::env::current_exe().unwrap(),
            ["--as-worker", mode],
        )),
    }
}

const SMALL: RenderSize = RenderSize { longest_edge: 200 };

fn three_pages() -> Vec<u8> {
    let page = |text| PdfPage::text(&[(text, 72.0, 700.0)]);
    pdf(&[page("page one"), page("page two"), page("page three")])
}

fn plain(document: &mut Document, number: usize) -> String {
    document.page(number, &SMALL).unwrap().text.plain()
}

fn same_page() {
    let (_folder, path) = support::file(&three_pages());
    let mut here = Document::open(&path, &OpenOptions::default()).unwrap();
    let mut there = Document::open(&path, &options("serve")).unwrap();
    assert_eq!(there.num_pages(), 3);
    for number in [3, 1, 2] {
        let (a, b) = (
            here.page(number, &SMALL).unwrap(),
            there.page(number, &SMALL).unwrap(),
        );
        assert_eq!(a.text, b.text);
        assert_eq!(a.image, b.image);
        assert_eq!((a.width_points, a.height_points), (612.0, 792.0));
        assert_eq!((b.width_points, b.height_points), (612.0, 792.0));
        assert_eq!(a.text, there.page_text(number).unwrap());
    }
    let missing = there.page(4, &SMALL).unwrap_err();
    assert!(
        matches!(missing, Error::NoSuchPage { pages: 3, .. }),
        "{missing}"
    );
}

fn crash_costs_one_page() {
    let (_folder, path) = support::file(&three_pages());
    let mut document = Document::open(&path, &options("crash-on-page-2")).unwrap();
    assert_eq!(plain(&mut document, 1), "page one");
    let error = document.page(2, &SMALL).unwrap_err();
    assert!(error.concerns_one_page());
    let message = error.to_string();
    assert!(
        message.starts_with("cannot draw page 2 of `") && message.contains("ended early (signal"),
        "{message}"
    );
    assert_eq!(plain(&mut document, 3), "page three");
    assert_eq!(plain(&mut document, 1), "page one");
}

/// A page whose form calls another ten times, which calls another ten times, and so on.
fn endless(depth: usize) -> Vec<u8> {
    let mut writer = Writer::default();
    let catalog = writer.add("");
    let tree = writer.add("");
    let font = writer.add("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>");
    let mut form = writer.stream(
        "/Type /XObject /Subtype /Form /BBox [0 0 9 9]",
        b"0 0 1 1 re f",
    );
    for _ in 0..depth {
        let entries = format!(
            "/Type /XObject /Subtype /Form /BBox [0 0 9 9] \
             /Resources << /XObject << /X {form} 0 R >> >>"
        );
        form = writer.stream(&entries, "/X Do ".repeat(10).as_bytes());
    }
    let page = |writer: &mut Writer, content: &str| {
        let content = writer.stream("", content.as_bytes());
        writer.add(format!(
            "<< /Type /Page /Parent {tree} 0 R /MediaBox [0 0 100 100] /Contents {content} 0 R \
             /Resources << /XObject << /X {form} 0 R >> /Font << /F1 {font} 0 R >> >> >>"
        ))
    };
    let first = page(&mut writer, "/X Do");
    let second = page(&mut writer, "BT /F1 12 Tf 10 50 Td (still here) Tj ET");
    writer.set(catalog, format!("<< /Type /Catalog /Pages {tree} 0 R >>"));
    let kids = format!("<< /Type /Pages /Kids [{first} 0 R {second} 0 R] /Count 2 >>");
    writer.set(tree, kids);
    writer.finish(&format!("/Root {catalog} 0 R"))
}

fn endless_page() {
    let (_folder, path) = support::file(&endless(11));
    let mut options = options("serve");
    options.limits.max_seconds_per_page = 2;
    let mut document = Document::open(&path, &options).unwrap();
    let error = document.page(1, &SMALL).unwrap_err();
    let Error::Page {
        page: 1, reason, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*reason, Trouble::TimedOut { seconds: 2 });
    assert!(
        error
            .to_string()
            .ends_with("it took longer than 2 s and was stopped")
    );
    assert_eq!(plain(&mut document, 2), "still here");
}

fn blow_up() {
    // 387 MB of spaces in 2.4 MB, with 64 MB allowed.
    let bomb = PdfPage {
        content: zlib_of_one_byte(b' ', 1_500_000),
        content_entries: "/Filter /FlateDecode".to_owned(),
        ..PdfPage::default()
    };
    let (_folder, path) = support::file(&pdf(&[bomb, PdfPage::text(&[("fine", 72.0, 700.0)])]));
    let mut options = options("serve");
    options.limits.worker_memory_bytes = 64 << 20;
    let mut document = Document::open(&path, &options).unwrap();
    if cfg!(target_os = "linux") {
        let error = document.page(1, &SMALL).unwrap_err();
        let Error::Page {
            page: 1, reason, ..
        } = &error
        else {
            panic!("{error}");
        };
        let limit_bytes = 64 << 20;
        assert_eq!(*reason, Trouble::OutOfMemory { limit_bytes }, "{error}");
    }
    assert_eq!(plain(&mut document, 2), "fine");
}

fn idle_worker() {
    // More than a pipe holds, so that the parent is stopped while writing.
    let mut bytes = three_pages();
    bytes.resize(1 << 20, b'\n');
    let (_folder, path) = support::file(&bytes);
    let mut options = options("idle");
    options.limits.max_seconds_per_page = 1;
    let error = Document::open(&path, &options).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Open {
                reason: Trouble::TimedOut { seconds: 1 },
                ..
            }
        ),
        "{error}"
    );
}

fn dying_worker() {
    let (_folder, path) = support::file(&three_pages());
    let message = Document::open(&path, &options("die"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(&format!("cannot open `{}`", path.display()))
            && message.contains("exit status: 3: no licence to read PDFs"),
        "{message}"
    );
}

fn no_worker() {
    let (_folder, path) = support::file(&three_pages());
    let error = Document::open(&path, &options("chat")).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Open {
                reason: Trouble::BadAnswer { .. },
                ..
            }
        ),
        "{error}"
    );
}

fn missing_program() {
    let (folder, path) = support::file(&three_pages());
    let options = OpenOptions {
        worker: Some(WorkerCommand::new(
            folder.path().join("no such program"),
            Vec::<OsString>::new(),
        )),
        ..OpenOptions::default()
    };
    let error = Document::open(&path, &options).unwrap_err();
    assert!(matches!(&error, Error::WorkerStart { .. }), "{error}");
}

fn password() {
    let path = format!("{}/tests/fixtures/aes256.pdf", env!("CARGO_MANIFEST_DIR"));
    let mut options = options("serve");
    let error = Document::open(&path, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{path}` is encrypted: pass --password")
    );
    options.password = Some("colibri".to_owned());
    let mut document = Document::open(&path, &options).unwrap();
    assert_eq!(plain(&mut document, 1), "A secret garden");
}

fn given_up() {
    let (_folder, path) = support::file(&three_pages());
    let mut options = options("crash-on-page-2");
    options.limits.max_failed_pages = 2;
    let mut document = Document::open(&path, &options).unwrap();
    for _ in 0..2 {
        assert!(document.page(2, &SMALL).unwrap_err().concerns_one_page());
    }
    let error = document.page(1, &SMALL).unwrap_err();
    assert!(!error.concerns_one_page());
    assert!(
        matches!(
            &error,
            Error::Page {
                reason: Trouble::GivenUp { failed: 2 },
                ..
            }
        ),
        "{error}"
    );
}

fn deep_nesting() {
    let deep = |open: &str, close: &str| {
        let n = 200_000;
        let mut page = PdfPage::new("");
        page.content = format!("{}{} Tj", open.repeat(n), close.repeat(n)).into_bytes();
        pdf(&[page, PdfPage::text(&[("second", 72.0, 700.0)])])
    };
    for bytes in [
        deep("[", "]"),
        deep("<<", ">>"),
        deep("q ", "Q "),
        deep("(", ")"),
    ] {
        let (_folder, path) = support::file(&bytes);
        let mut document = Document::open(&path, &options("serve")).unwrap();
        // Whether the page comes out blank or its worker falls over is the library's business.
        if let Err(error) = document.page(1, &SMALL) {
            assert!(error.concerns_one_page(), "{error}");
        }
        assert_eq!(plain(&mut document, 2), "second");
    }
    // Objects within objects, outside of any page.
    let n = 100_000;
    let mut writer = Writer::default();
    writer.add(format!(
        "<< /Type /Catalog /Pages {}{} >>",
        "[".repeat(n),
        "]".repeat(n)
    ));
    let (_folder, path) = support::file(&writer.finish("/Root 1 0 R"));
    let error = Document::open(&path, &options("serve")).unwrap_err();
    assert!(!error.concerns_one_page());
}

fn shrunken_file() {
    let (_folder, path) = support::file(&three_pages());
    let mut document = Document::open(&path, &options("crash-on-page-2")).unwrap();
    assert!(document.page(2, &SMALL).is_err());
    fs_err::write(&path, b"%PDF-1.7\n").unwrap();
    // The worker is started again and the file is no longer what it was.
    let error = document.page(1, &SMALL).unwrap_err();
    assert!(matches!(&error, Error::Io(_)), "{error}");
}

fn corpus() {
    let Some(corpus) = support::corpus("the_corpus_opens_in_workers") else {
        return;
    };
    let mut pages = 0;
    for entry in fs_err::read_dir(corpus.join("pdf")).unwrap() {
        let mut document = Document::open(entry.unwrap().path(), &options("serve")).unwrap();
        for number in 1..=document.num_pages() {
            document.page(number, &SMALL).unwrap();
            pages += 1;
        }
    }
    assert_eq!(pages, 70);
}
