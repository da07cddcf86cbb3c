//! `cargo xtask deps`: which crate may import which.
//!
//! The rules are those of `docs/architecture.md`, one table for crates of this workspace and one for
//! libraries that have a home. They hold for normal and build dependencies, on every platform and behind
//! every feature; tests may use what they like. [`sources`] adds what the manifests cannot tell.

use std::path::Path;

use anyhow::Result;
use cargo_metadata::DependencyKind;

use crate::{metadata, refuse, sources};

/// A crate of ours and the crates of ours it may import.
const CRATES: &[(&str, &[&str])] = &[
    ("colibri-kernels", &[]),
    ("colibri-nn", &["colibri-kernels"]),
    ("colibri-models", &["colibri-nn"]),
    ("colibri-document", &[]),
    ("colibri-index", &["colibri-kernels"]),
    (
        "colibri-engine",
        &["colibri-models", "colibri-document", "colibri-index"],
    ),
    ("colibri-server", &["colibri-engine"]),
    ("colibri-cli", &["colibri-engine", "colibri-server"]),
    ("colibri-testkit", &[]),
    ("xtask", &[]),
];

/// Crates for development; nothing that is shipped imports them.
const DEVELOPMENT: &[&str] = &["colibri-testkit", "xtask"];

/// A library that has a home: `name*` stands for every name that begins so.
struct Home {
    library: &'static str,
    crates: &'static [&'static str],
    rule: &'static str,
}

const HOMES: &[Home] = &[
    Home {
        library: "candle-core",
        crates: &["colibri-nn", "colibri-models", "colibri-engine"],
        rule: "tensors stay in nn and models (the engine names devices and types only)",
    },
    Home {
        library: "candle-*",
        crates: &["colibri-nn", "colibri-models"],
        rule: "tensors stay in nn and models",
    },
    Home {
        library: "clap*",
        crates: &["colibri-cli"],
        rule: "arguments are read in cli only",
    },
    Home {
        library: "indicatif",
        crates: &["colibri-cli"],
        rule: "printing is done in cli only",
    },
    Home {
        library: "axum*",
        crates: &["colibri-server"],
        rule: "HTTP is served in server only",
    },
    Home {
        library: "tokio*",
        crates: &["colibri-engine", "colibri-server", "colibri-cli"],
        rule: "what waits is in engine and above",
    },
    Home {
        library: "reqwest",
        crates: &["colibri-engine", "colibri-server", "colibri-cli"],
        rule: "the network is used in engine and above",
    },
    Home {
        library: "hayro*",
        crates: &["colibri-document"],
        rule: "PDF is read in document only",
    },
    Home {
        library: "image",
        crates: &["colibri-document", "colibri-models", "colibri-engine"],
        rule: "pictures are decoded in document (models and engine share its `RgbImage`)",
    },
    Home {
        library: "tiff",
        crates: &["colibri-document"],
        rule: "pictures are decoded in document",
    },
    Home {
        library: "rusqlite",
        crates: &["colibri-index"],
        rule: "the catalogue belongs to index",
    },
    Home {
        library: "memmap2",
        crates: &["colibri-nn", "colibri-index"],
        rule: "files are mapped in the `mmap.rs` of nn and index",
    },
    Home {
        library: "anyhow",
        crates: &["colibri-cli", "xtask"],
        rule: "libraries have errors of their own, one variant for each cause",
    },
];

/// Checks manifests and sources.
pub(crate) fn run(root: &Path) -> Result<()> {
    let workspace = metadata::workspace(root)?;
    let names: Vec<&str> = workspace
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut findings = Vec::new();
    let mut checked = 0;
    for package in &workspace.packages {
        findings.extend(unknown(&package.name));
        for dependency in &package.dependencies {
            if dependency.kind != DependencyKind::Development {
                checked += 1;
                let ours = names.contains(&dependency.name.as_str());
                findings.extend(objection(&package.name, &dependency.name, ours));
            }
        }
    }
    let files = sources::check(root, &mut findings)?;
    refuse(
        "imports break the rules in xtask/src/deps.rs and sources.rs:",
        &findings,
    )?;
    println!(
        "{checked} imports of {} crates and {files} source files keep to the rules",
        names.len()
    );
    Ok(())
}

/// A crate of ours that has no rule.
fn unknown(name: &str) -> Option<String> {
    let known = CRATES.iter().any(|(known, _)| *known == name);
    (!known).then(|| format!("`{name}` has no line in the table of crates"))
}

/// What is wrong with `package` importing `dependency`, a crate of `ours` or not.
fn objection(package: &str, dependency: &str, ours: bool) -> Option<String> {
    if ours {
        let allowed = CRATES
            .iter()
            .find(|(name, _)| *name == package)
            .map_or(&[][..], |(_, to)| to);
        if allowed.contains(&dependency) {
            return None;
        }
        let rule = if DEVELOPMENT.contains(&dependency) {
            "it is for development: a dev-dependency only".to_owned()
        } else if allowed.is_empty() {
            "it imports none of our crates".to_owned()
        } else {
            format!("of our crates it may import {}", allowed.join(", "))
        };
        return Some(format!("`{package}` imports `{dependency}`: {rule}"));
    }
    let home = HOMES.iter().find(|home| covers(home.library, dependency))?;
    let allowed = home.crates.contains(&package);
    (!allowed).then(|| format!("`{package}` imports `{dependency}`: {}", home.rule))
}

/// Whether `pattern`, a name or the beginning of one, means `name`.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(package: &str, dependency: &str) -> bool {
        let ours = CRATES.iter().any(|(name, _)| *name == dependency);
        objection(package, dependency, ours).is_none()
    }

    #[test]
    fn imports_point_one_way() {
        let order = ["kernels", "nn", "models", "engine", "server", "cli"]
            .map(|name| format!("colibri-{name}"));
        for pair in order.windows(2) {
            assert!(allowed(&pair[1], &pair[0]), "{pair:?}");
            assert!(!allowed(&pair[0], &pair[1]), "{pair:?}");
        }
        assert!(allowed("colibri-index", "colibri-kernels"));
        assert!(allowed("colibri-engine", "colibri-document"));
        assert!(!allowed("colibri-cli", "colibri-models"));
        assert!(!allowed("colibri-models", "colibri-document"));
        assert!(!allowed("colibri-models", "colibri-kernels"));
        assert!(!allowed("colibri-index", "colibri-nn"));
        assert!(!allowed("colibri-document", "colibri-kernels"));
    }

    #[test]
    fn nothing_forms_a_circle() {
        // Whoever is imported stands further up in the table.
        for (at, (name, imports)) in CRATES.iter().enumerate() {
            for import in *imports {
                assert!(
                    CRATES[..at].iter().any(|(above, _)| above == import),
                    "{name} {import}"
                );
            }
        }
    }

    #[test]
    fn development_crates_are_not_shipped() {
        for (name, _) in CRATES {
            assert!(!allowed(name, "colibri-testkit"), "{name}");
            assert!(!allowed(name, "xtask"), "{name}");
        }
        let message = objection("colibri-cli", "colibri-testkit", true).unwrap();
        assert_eq!(
            message,
            "`colibri-cli` imports `colibri-testkit`: it is for development: a dev-dependency only"
        );
    }

    #[test]
    fn libraries_stay_at_home() {
        assert!(
            allowed("colibri-engine", "candle-core") && !allowed("colibri-engine", "candle-nn")
        );
        assert!(allowed("colibri-nn", "candle-nn") && !allowed("colibri-index", "candle-core"));
        assert!(allowed("colibri-cli", "clap_complete") && !allowed("colibri-engine", "clap"));
        assert!(allowed("colibri-engine", "tokio") && !allowed("colibri-index", "tokio-util"));
        assert!(allowed("colibri-models", "image") && !allowed("colibri-index", "image"));
        assert!(!allowed("colibri-models", "hayro-syntax") && !allowed("colibri-cli", "axum"));
        assert!(!allowed("colibri-engine", "rusqlite") && !allowed("colibri-models", "reqwest"));
        assert!(!allowed("colibri-document", "anyhow"));
        assert!(allowed("colibri-kernels", "rayon") && allowed("colibri-cli", "serde_json"));
        let message = objection("colibri-index", "tokio", false).unwrap();
        assert_eq!(
            message,
            "`colibri-index` imports `tokio`: what waits is in engine and above"
        );
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        assert_eq!(unknown("colibri-nn"), None);
        assert!(unknown("colibri-utils").unwrap().contains("colibri-utils"));
        assert!(objection("colibri-utils", "colibri-nn", true).is_some());
    }
}
