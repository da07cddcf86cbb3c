//! `cargo xtask licences`: every package that is built can be used under a licence on the list.

use std::path::Path;

use anyhow::Result;

use crate::{metadata, refuse, spdx};

/// Licences whose terms a program under Apache-2.0 can meet by naming them. A licence that is not here
/// (MPL-2.0, LGPL, GPL) passes only where the package offers one of these beside it.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Where the program is meant to run.
const PLATFORMS: &[&str] = &[
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
];

/// Checks what this machine builds, or what every platform builds with every feature.
pub(crate) fn run(root: &Path, all_targets: bool) -> Result<()> {
    let host = metadata::host()?;
    let platforms = if all_targets {
        PLATFORMS
    } else {
        &[host.as_str()]
    };
    let graph = metadata::graph(root, platforms, all_targets)?;
    let findings: Vec<String> = graph
        .packages
        .iter()
        .filter_map(|package| {
            let name = format!("{} {}", package.name, package.version);
            objection(&name, package.license.as_deref())
        })
        .collect();
    refuse(
        "packages cannot be used under the licences in xtask/src/licences.rs:",
        &findings,
    )?;
    println!(
        "{} packages, all under licences on the list",
        graph.packages.len()
    );
    Ok(())
}

/// What is wrong with a package's licence.
fn objection(package: &str, licence: Option<&str>) -> Option<String> {
    let Some(licence) = licence else {
        return Some(format!("{package}: names no licence"));
    };
    match spdx::is_met(licence, &|id| ALLOWED.contains(&id)) {
        Ok(true) => None,
        Ok(false) => Some(format!("{package}: `{licence}`")),
        Err(error) => Some(format!("{package}: `{licence}` cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_licences_pass() {
        for licence in [
            "MIT OR Apache-2.0",
            "Apache-2.0/MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 AND ISC",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
            "MPL-2.0 OR MIT",
            "CC0-1.0 OR Apache-2.0 OR Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(objection("p 1", Some(licence)), None);
        }
    }

    #[test]
    fn others_are_named() {
        assert_eq!(
            objection("p 1.2.3", Some("MPL-2.0")).unwrap(),
            "p 1.2.3: `MPL-2.0`"
        );
        assert!(objection("p", Some("MIT AND GPL-3.0-only")).is_some());
        assert!(objection("p", Some("Apache-2.0 WITH Classpath-exception-2.0")).is_some());
        assert_eq!(objection("p", None).unwrap(), "p: names no licence");
        assert!(
            objection("p", Some("MIT OR"))
                .unwrap()
                .contains("cannot be read")
        );
    }
}
