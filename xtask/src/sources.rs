//! Rules that only the sources can break: where `unsafe` and SIMD may stand, what the engine takes from
//! candle; and the length of files, which is reported but breaks nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::strip::code_only;

/// Past this a file has more than one job.
const MAX_LINES: usize = 500;

/// A word and a place that may use it: a folder (with a slash at the end) or a file. Whoever adds a line
/// says why.
const EXCEPTIONS: &[(&str, &str)] = &[
    // Vector instructions are unsafe calls; this crate is their home.
    ("unsafe", "crates/kernels/"),
    ("std::arch", "crates/kernels/"),
    // A file can only be mapped by an unsafe call.
    ("unsafe", "crates/index/src/mmap.rs"),
    ("unsafe", "crates/nn/src/mmap.rs"),
];

/// The only names the engine may take from `candle_core`.
const ENGINE_TAKES: [&str; 2] = ["Device", "DType"];

/// Checks all sources and adds what is wrong to `findings`; the number of files looked at.
pub(crate) fn check(root: &Path, findings: &mut Vec<String>) -> Result<usize> {
    let files = rust_files(root)?;
    for path in &files {
        let name = relative(root, path);
        let code = code_only(&fs_err::read_to_string(path)?);
        findings.extend(places(&name, &code));
        if name.starts_with("crates/engine/src/") {
            findings.extend(tensors(&name, &code));
        }
    }
    Ok(files.len())
}

/// Lists files of more than [`MAX_LINES`] lines.
pub(crate) fn report_long_files(root: &Path) -> Result<()> {
    let mut long = 0;
    for path in rust_files(root)? {
        let lines = fs_err::read_to_string(&path)?.lines().count();
        if lines > MAX_LINES {
            long += 1;
            println!(
                "warning: {}: {lines} lines; past {MAX_LINES}, split by job",
                relative(root, &path)
            );
        }
    }
    println!("{long} files of more than {MAX_LINES} lines");
    Ok(())
}

/// Uses of `unsafe` and of instruction sets outside their places.
fn places(name: &str, code: &str) -> Vec<String> {
    let uses = |what: &str, line: &str| match what {
        "unsafe" => words(line).any(|word| word == "unsafe"),
        _ => squeeze(line).contains("std::arch::") || squeeze(line).contains("core::arch::"),
    };
    let mut findings = Vec::new();
    for what in ["unsafe", "std::arch"] {
        let allowed = EXCEPTIONS.iter().any(|(word, place)| {
            let here = if place.ends_with('/') {
                name.starts_with(place)
            } else {
                name == *place
            };
            *word == what && here
        });
        if !allowed {
            let lines = code
                .lines()
                .enumerate()
                .filter(|(_, line)| uses(what, line));
            findings.extend(lines.map(|(at, _)| {
                format!(
                    "{name}:{}: `{what}` is for kernels and the two `mmap.rs` only",
                    at + 1
                )
            }));
        }
    }
    findings
}

/// Names that a file of the engine takes from candle beyond [`ENGINE_TAKES`].
fn tensors(name: &str, code: &str) -> Vec<String> {
    let code = squeeze(code);
    let mut findings = Vec::new();
    for (at, path) in code.match_indices("candle_core") {
        let after = &code[at + path.len()..];
        let taken = match after.strip_prefix("::") {
            Some(list) if list.starts_with('{') => &list[1..list.find('}').unwrap_or(list.len())],
            Some(one) => words(one).next().unwrap_or(""),
            None => "",
        };
        let wrong = |taken: &&str| !ENGINE_TAKES.contains(taken);
        if let Some(taken) = taken.trim_end_matches(',').split(',').find(wrong) {
            findings.push(format!(
                "{name}: takes `candle_core::{taken}`: the engine may name {} only",
                ENGINE_TAKES.join(" and ")
            ));
        }
    }
    findings
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_')
        .filter(|word| !word.is_empty())
}

/// Without white space.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect()
}

/// Every Rust file of the crates and of this program, sorted.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The path below `root`, with slashes.
fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_has_its_places() {
        let code = "fn f() {\n    unsafe { g() }\n}\n#![expect(unsafe_code)]";
        assert_eq!(
            places("crates/document/src/pdf.rs", code),
            ["crates/document/src/pdf.rs:2: `unsafe` is for kernels and the two `mmap.rs` only"]
        );
        assert!(places("crates/kernels/src/simd/avx2.rs", code).is_empty());
        assert!(places("crates/index/src/mmap.rs", code).is_empty());
        assert!(!places("crates/cli/src/mmap.rs", code).is_empty());
        assert!(!places("crates/index/src/mmap.rs.rs", code).is_empty());
    }

    #[test]
    fn instruction_sets_are_named_in_kernels_only() {
        for code in [
            "use core::arch::x86_64::*;",
            "std :: arch::is_x86_feature_detected!(x)",
        ] {
            assert_eq!(places("crates/nn/src/cpu.rs", code).len(), 1, "{code}");
            assert_eq!(places("crates/index/src/mmap.rs", code).len(), 1, "{code}");
            assert!(places("crates/kernels/benches/gemm.rs", code).is_empty());
        }
    }

    #[test]
    fn the_engine_takes_devices_and_types() {
        let wrong = |code: &str| tensors("f.rs", code).len();
        assert_eq!(
            wrong("use candle_core::Device; use candle_core::{DType,\n Device,\n};"),
            0
        );
        assert_eq!(
            wrong("let d = candle_core::Device::Cpu; candle_core::DType::F32"),
            0
        );
        assert_eq!(wrong("use candle_core::Tensor;"), 1);
        assert_eq!(wrong("use candle_core::{Device, Tensor};"), 1);
        assert_eq!(wrong("use candle_core::*;"), 1);
        assert_eq!(wrong("use candle_core as c;"), 1);
    }

    #[test]
    fn this_repository_is_looked_at() {
        let root = crate::root();
        let files: Vec<String> = rust_files(&root)
            .unwrap()
            .iter()
            .map(|path| relative(&root, path))
            .collect();
        for name in [
            "xtask/src/sources.rs",
            "crates/index/src/mmap.rs",
            "crates/kernels/src/lib.rs",
        ] {
            assert!(files.iter().any(|file| file == name), "{name}");
        }
    }
}
