//! `cargo xtask ci`: every check but the tests themselves, cheapest first, up to the first that fails.
//!
//! Clippy and rustdoc share the checked dependencies, doctests the built ones with `cargo test`: all of it
//! in one target folder and the `dev` profile, so nothing is compiled twice for another setting.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{deps, licences, metadata, sources};

/// A check in this program.
type Check = fn(&Path) -> Result<()>;

/// One step.
enum Step {
    /// A check in this program.
    Own(&'static str, Check),
    /// Cargo with arguments and variables.
    Cargo(
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
    ),
}

const STEPS: &[Step] = &[
    Step::Cargo(&["fmt", "--all", "--check"], &[]),
    Step::Own("deps", deps::run),
    Step::Own("licences", |root| licences::run(root, false)),
    Step::Own("lines", sources::report_long_files),
    Step::Cargo(
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    ),
    Step::Cargo(
        &["doc", "--workspace", "--no-deps", "--locked"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    ),
    Step::Cargo(&["test", "--workspace", "--doc", "--locked"], &[]),
];

impl Step {
    fn heading(&self) -> String {
        match self {
            Self::Own(name, _) => format!("xtask {name}"),
            Self::Cargo(args, _) => format!("cargo {}", args.join(" ")),
        }
    }

    fn run(&self, root: &Path) -> Result<()> {
        match self {
            Self::Own(_, check) => check(root),
            Self::Cargo(args, variables) => {
                let status = metadata::cargo(root, args)
                    .envs(variables.iter().copied())
                    .status()
                    .context("cargo could not be started")?;
                if !status.success() {
                    bail!("{status}");
                }
                Ok(())
            }
        }
    }
}

/// Runs all checks.
pub(crate) fn run(root: &Path) -> Result<()> {
    run_steps(root, STEPS)
}

fn run_steps(root: &Path, steps: &[Step]) -> Result<()> {
    let all = Instant::now();
    for step in steps {
        let heading = step.heading();
        println!("\n== {heading}");
        let start = Instant::now();
        step.run(root).with_context(|| format!("`{heading}`"))?;
        println!("== done in {:.1} s", start.elapsed().as_secs_f64());
    }
    println!(
        "\n== {} checks passed in {:.1} s",
        STEPS.len(),
        all.elapsed().as_secs_f64()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_never_changes_the_lock_file() {
        for step in STEPS {
            let heading = step.heading();
            let builds = matches!(step, Step::Cargo(..)) && !heading.starts_with("cargo fmt");
            assert_eq!(heading.contains("--locked"), builds, "{heading}");
        }
    }

    #[test]
    fn the_first_failure_ends_the_run_and_names_its_step() {
        let root = crate::root();
        let good = || Step::Own("good", |_| Ok(()));
        run_steps(&root, &[good(), Step::Cargo(&["--version"], &[])]).unwrap();
        let steps = [
            good(),
            Step::Own("bad", |_| bail!("no")),
            Step::Own("next", |_| unreachable!()),
        ];
        let error = run_steps(&root, &steps).unwrap_err();
        assert_eq!(format!("{error:#}"), "`xtask bad`: no");
    }
}
