//! `colibri models`: what is cached, fetching more, and what a checkpoint is.

mod info;
mod list;
mod pull;
mod unpack;

use crate::{Outcome, context::Context, error::Result};

/// Subcommands of `models`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List the models in the cache
    List,
    /// Fetch models, and the base of an adapter with it
    Pull(pull::Args),
    /// Remove the packed weights that are kept for the next start
    Unpack,
    /// Tell what a checkpoint is
    Info(info::Args),
}

/// Runs the command.
///
/// # Errors
/// Those of its subcommands.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    match args {
        Args::List => list::run(context),
        Args::Pull(args) => pull::run(context, args),
        Args::Unpack => unpack::run(context),
        Args::Info(args) => info::run(context, args),
    }
}
