//! `colibri completions`: what a shell needs to complete our command lines.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Outcome, args::Cli, context::Context, error::Result};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// When nobody reads.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    // Into memory first: the generator panics where its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "colibri", &mut script);
    context.screen.print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}
