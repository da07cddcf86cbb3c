//! `colibri verify`: reads everything in the index and compares every checksum.

use serde_json::json;

use crate::{Outcome, context::Context, error::Result, text};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
///
/// # Errors
/// When the index cannot be read at all.
pub(crate) fn run(context: &Context, _: &Args) -> Result<Outcome> {
    let screen = &context.screen;
    let index = context.index()?;
    screen.status("reading the index");
    let problems = index.verify()?;
    screen.hide_bar();
    let stats = index.stats()?;
    if screen.json {
        screen.json(
            &json!({"documents": stats.documents, "pages": stats.pages, "problems": problems}),
        )?;
    } else if problems.is_empty() {
        let (documents, pages) = (stats.documents as usize, stats.pages as usize);
        screen.line(&format!(
            "{} with {}: no problem",
            text::count(documents, "document"),
            text::count(pages, "page")
        ))?;
    } else {
        for problem in &problems {
            screen.line(&text::clean_line(&problem.to_string()))?;
        }
        screen.error_line("", "");
        screen.error_line(
            "hint:",
            "remove the documents named above and index them again",
        );
    }
    Ok(if problems.is_empty() {
        Outcome::Done
    } else {
        Outcome::Incomplete
    })
}
