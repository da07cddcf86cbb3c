//! `colibri compact`: gives back the space of removed documents.

use colibri_engine::index::Index;
use serde_json::json;

use crate::{Outcome, context::Context, error::Result, text};

/// Arguments of `compact`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
///
/// # Errors
/// When there is no index, or it is being written.
pub(crate) fn run(context: &Context, _: &Args) -> Result<Outcome> {
    let screen = &context.screen;
    let mut writer = Index::open_writer_as_it_is(context.index_dir()?)?;
    screen.status("rewriting the index");
    let done = writer.compact()?;
    screen.hide_bar();
    if screen.json {
        screen.json(&json!({
            "bytes_before": done.bytes_before,
            "bytes_after": done.bytes_after,
            "reclaimed_bytes": done.reclaimed(),
        }))?;
    } else {
        let (before, after) = (
            text::bytes(done.bytes_before),
            text::bytes(done.bytes_after),
        );
        screen.line(&format!("{before} before, {after} now"))?;
    }
    Ok(Outcome::Done)
}
