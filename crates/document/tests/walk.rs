//! Which files a walk takes, in which order, and what it says about the others.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: a step that fails is a test that fails"
)]

use std::path::Path;

use colibri_document::walk::{WalkOptions, collect};
use colibri_document::{Error, Kind};

const PDF: &[u8] = b"%PDF-1.7\n";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A folder of files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }
    folder
}

/// The names found, relative to the folder, with slashes.
fn names(folder: &Path, options: &WalkOptions) -> Vec<String> {
    collect([folder], options)
        .into_iter()
        .map(|found| {
            let path = found.unwrap().path;
            let name = path
                .strip_prefix(folder)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            name.replace('\\', "/")
        })
        .collect()
}

fn strings(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|p| (*p).to_owned()).collect()
}

#[test]
fn folders_are_walked_in_order_and_kinds_are_told_by_content() {
    let folder = folder(&[
        ("b.txt", PDF),
        ("a/z.pdf", PNG),
        ("a/b/c", PNG),
        ("notes.pdf", b"not one"),
        ("empty.pdf", b""),
        ("c.pdf", PDF),
    ]);
    let collected = collect([folder.path()], &WalkOptions::default());
    assert_eq!(collected.num_skipped, 2);
    let kinds: Vec<_> = collected
        .into_iter()
        .map(|f| f.unwrap())
        .map(|f| {
            (
                f.path.strip_prefix(folder.path()).unwrap().to_path_buf(),
                f.kind,
                f.named,
            )
        })
        .collect();
    let expect = |name: &str, kind| (name.into(), kind, false);
    assert_eq!(
        kinds,
        [
            expect("a/b/c", Kind::Png),
            expect("a/z.pdf", Kind::Png),
            expect("b.txt", Kind::Pdf),
            expect("c.pdf", Kind::Pdf),
        ]
    );
}

#[test]
fn hidden_and_ignored_files_are_left_out_unless_asked_for() {
    let folder = folder(&[
        ("a.pdf", PDF),
        (".hidden.pdf", PDF),
        (".cache/b.pdf", PDF),
        ("drafts/c.pdf", PDF),
        ("private/d.pdf", PDF),
        ("old/e.pdf", PDF),
        (".ignore", b"drafts/\n"),
        (".colibriignore", b"private/\n"),
        (".gitignore", b"old/\n"),
    ]);
    let options = WalkOptions::default();
    // No git repository, so no .gitignore, as in ripgrep.
    assert_eq!(names(folder.path(), &options), ["a.pdf", "old/e.pdf"]);
    fs_err::create_dir_all(folder.path().join(".git")).unwrap();
    assert_eq!(names(folder.path(), &options), ["a.pdf"]);
    let all = WalkOptions {
        hidden: true,
        no_ignore: true,
        ..WalkOptions::default()
    };
    assert_eq!(
        names(folder.path(), &all),
        [
            ".cache/b.pdf",
            ".hidden.pdf",
            "a.pdf",
            "drafts/c.pdf",
            "old/e.pdf",
            "private/d.pdf"
        ]
    );
}

#[test]
fn patterns_filter_and_bring_nothing_back() {
    let folder = folder(&[
        ("a.pdf", PDF),
        ("b.png", PNG),
        ("sub/c.pdf", PDF),
        ("sub/drafts/d.pdf", PDF),
        (".hidden.pdf", PDF),
        (".ignore", b"e.pdf\n"),
        ("e.pdf", PDF),
    ]);
    let include = |patterns: &[&str]| WalkOptions {
        include: strings(patterns),
        ..WalkOptions::default()
    };
    let exclude = |patterns: &[&str]| WalkOptions {
        exclude: strings(patterns),
        ..WalkOptions::default()
    };
    let names = |options: &WalkOptions| names(folder.path(), options);
    assert_eq!(
        names(&include(&["*.pdf"])),
        ["a.pdf", "sub/c.pdf", "sub/drafts/d.pdf"]
    );
    assert_eq!(names(&include(&["/*.pdf", "*.png"])), ["a.pdf", "b.png"]);
    assert_eq!(
        names(&include(&["sub/"])),
        ["sub/c.pdf", "sub/drafts/d.pdf"]
    );
    assert_eq!(
        names(&exclude(&["drafts/", "*.png"])),
        ["a.pdf", "sub/c.pdf"]
    );
    let both = WalkOptions {
        include: strings(&["sub/**"]),
        exclude: strings(&["c.*"]),
        ..WalkOptions::default()
    };
    assert_eq!(names(&both), ["sub/drafts/d.pdf"]);
    let bad = include(&["a{b"]);
    let error = collect([folder.path()], &bad)
        .into_iter()
        .next()
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, Error::Pattern { .. }), "{error}");
}

#[test]
fn what_is_named_is_taken_or_is_an_error() {
    let folder = folder(&[
        (".hidden.pdf", PDF),
        ("notes.txt", b"words"),
        ("empty.png", b""),
    ]);
    let options = WalkOptions {
        exclude: strings(&["*"]),
        ..WalkOptions::default()
    };
    let at = |name: &str| folder.path().join(name);
    let paths = [
        at(".hidden.pdf"),
        at("notes.txt"),
        at("empty.png"),
        at("missing.pdf"),
    ];
    let found: Vec<_> = collect(&paths, &options).into_iter().collect();
    assert!(found[0].as_ref().is_ok_and(|f| f.named));
    assert!(matches!(found[1], Err(Error::Unsupported { .. })));
    assert!(matches!(found[2], Err(Error::Empty { .. })));
    assert!(matches!(&found[3], Err(e @ Error::Io(_)) if e.to_string().contains("missing.pdf")));
    assert_eq!(found.len(), 4);
}

#[test]
fn a_file_is_taken_once() {
    let folder = folder(&[("a.pdf", PDF), ("sub/b.pdf", PDF)]);
    let paths = [
        folder.path().join("sub"),
        folder.path().to_path_buf(),
        folder.path().join("sub/../a.pdf"),
    ];
    let found: Vec<_> = collect(&paths, &WalkOptions::default())
        .into_iter()
        .map(|f| f.unwrap().path)
        .collect();
    assert_eq!(
        found,
        [folder.path().join("sub/b.pdf"), folder.path().join("a.pdf")]
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_when_asked_for_and_circles_end() {
    use std::os::unix::fs::symlink;
    let outside = folder(&[("linked.pdf", PDF)]);
    let inside = folder(&[("a.pdf", PDF), ("sub/b.pdf", PDF)]);
    let at = |name: &str| inside.path().join(name);
    symlink(inside.path(), at("sub/up")).unwrap();
    symlink(outside.path(), at("other")).unwrap();
    symlink(at("nowhere"), at("broken")).unwrap();
    assert_eq!(
        names(inside.path(), &WalkOptions::default()),
        ["a.pdf", "sub/b.pdf"]
    );
    let follow = WalkOptions {
        follow_links: true,
        ..WalkOptions::default()
    };
    let found: Vec<_> = collect([inside.path()], &follow).into_iter().collect();
    let good: Vec<_> = found.iter().flatten().map(|f| f.path.clone()).collect();
    assert_eq!(good, [at("a.pdf"), at("other/linked.pdf"), at("sub/b.pdf")]);
    // The broken link is reported, the circle is not.
    assert_eq!(found.len() - good.len(), 1);
    // A link that is named is followed.
    symlink(at("a.pdf"), at("link.pdf")).unwrap();
    let named = collect([at("link.pdf")], &WalkOptions::default());
    assert!(named.found[0].is_ok());
}

#[cfg(unix)]
#[test]
fn pipes_are_not_waited_for() {
    let folder = folder(&[("a.pdf", PDF)]);
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|s| s.success()) {
        eprintln!("skipped: pipes_are_not_waited_for needs mkfifo");
        return;
    }
    assert_eq!(names(folder.path(), &WalkOptions::default()), ["a.pdf"]);
    let named = collect([&pipe], &WalkOptions::default());
    assert!(matches!(named.found[0], Err(Error::NotAFile { .. })));
}
