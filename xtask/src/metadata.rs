//! `cargo`, as this program calls it.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

/// Variables that `cargo run` sets for the program it runs. A cargo below it must not see them: build
/// scripts that watch one of them (`ring`'s does) would otherwise run again, and again the next time cargo
/// is called directly.
const SET_BY_CARGO_RUN: [&str; 4] = [
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
];

fn set_by_cargo_run(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || SET_BY_CARGO_RUN.contains(&name)
}

/// The cargo that runs this program.
fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command in the repository, as if it had been typed there.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(cargo_program());
    command.current_dir(root).args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(set_by_cargo_run) {
            command.env_remove(name);
        }
    }
    command
}

/// The crates of this workspace and what they ask for; nothing is downloaded.
pub(crate) fn workspace(root: &Path) -> Result<Metadata> {
    MetadataCommand::new()
        .cargo_path(cargo_program())
        .current_dir(root)
        .no_deps()
        .exec()
        .context("`cargo metadata --no-deps` failed")
}

/// Every package of the lock file that `platforms` need; with `all_features`, whatever the features.
pub(crate) fn graph(root: &Path, platforms: &[&str], all_features: bool) -> Result<Metadata> {
    let mut options = vec!["--locked".to_owned()];
    for platform in platforms {
        options.extend(["--filter-platform".to_owned(), (*platform).to_owned()]);
    }
    if all_features {
        options.push("--all-features".to_owned());
    }
    MetadataCommand::new()
        .cargo_path(cargo_program())
        .current_dir(root)
        .other_options(options)
        .exec()
        .context("`cargo metadata` failed")
}

/// The platform of this machine, as rustc names it.
pub(crate) fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc)
        .arg("-vV")
        .output()
        .context("`rustc -vV` could not be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("`rustc -vV` names no host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_cargo_run_are_not_passed_on() {
        assert!(set_by_cargo_run("CARGO_PKG_NAME") && set_by_cargo_run("CARGO_MANIFEST_DIR"));
        assert!(!set_by_cargo_run("CARGO_HOME") && !set_by_cargo_run("CARGO_TARGET_DIR"));
        // Cargo sets them for tests too, so they are there to be removed.
        let command = cargo(&crate::root(), &["--version"]);
        assert!(
            command
                .get_envs()
                .any(|(name, value)| name == "CARGO_PKG_NAME" && value.is_none())
        );
        assert!(command.get_envs().all(|(name, _)| name != "CARGO_HOME"));
    }
}
