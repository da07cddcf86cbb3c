//! Development tasks, run as `cargo xtask <command>`.
//!
//! Everything that can be checked without running the program: what CI checks ([`ci`]), the import rules
//! ([`deps`], [`sources`]), the licences of all dependencies ([`licences`]). It knows nothing of the
//! program's own code and imports none of it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a terminal"
)]

mod ci;
mod deps;
mod golden;
mod licences;
mod metadata;
mod sources;
mod spdx;
mod strip;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  ci                        all checks below, formatting, clippy, documentation and its examples
  deps                      the import rules between crates, and where `unsafe` may stand
  licences [--all-targets]  the licences of all dependencies, for this machine or all platforms
  golden [JOB] [--python P] make the reference files again (needs tools/golden/requirements.txt)
  lines                     Rust files longer than 500 lines";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    let root = root();
    match args {
        ["ci"] => ci::run(&root),
        ["deps"] => deps::run(&root),
        ["licences"] => licences::run(&root, false),
        ["licences", "--all-targets"] => licences::run(&root, true),
        ["lines"] => sources::report_long_files(&root),
        ["golden", rest @ ..] => golden::run(&root, rest),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("`{}` is not a command\n\n{USAGE}", args.join(" ")),
    }
}

/// The root of the repository: the parent of this crate's folder.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// One error of several findings.
fn refuse(what: &str, findings: &[String]) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} {what}\n  {}", findings.len(), findings.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_commands_are_refused_with_the_usage() {
        let error = run(&["licenses"]).unwrap_err().to_string();
        assert!(
            error.contains("`licenses`") && error.contains("Usage:"),
            "{error}"
        );
        assert!(run(&[]).is_err());
        assert!(run(&["ci", "now"]).is_err());
    }

    #[test]
    fn findings_are_listed() {
        refuse("files are wrong", &[]).unwrap();
        let error = refuse("files are wrong", &["a".to_owned(), "b".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "2 files are wrong\n  a\n  b");
    }
}
