//! `colibri remove`: documents out of the index. The files themselves are never touched.

use std::path::{Path, PathBuf};

use colibri_engine::index::{Filter, Index};
use serde_json::json;

use crate::{
    Outcome,
    context::Context,
    error::{Error, Result},
    places, text,
};

/// Arguments of `remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Documents, or folders with everything below them
    paths: Vec<PathBuf>,
    /// Documents for which this holds, for example year<2020
    #[arg(long = "where", value_name = "EXPR", conflicts_with = "paths")]
    filter: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When there is no index, or it is being written.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    if args.paths.is_empty() && args.filter.is_empty() {
        return Err(Error::NothingToRemove);
    }
    let mut writer = Index::open_writer_as_it_is(context.index_dir()?)?;
    let documents = writer.index()?.list(&Filter::parse_all(&args.filter)?)?;
    let known: Vec<String> = documents
        .into_iter()
        .map(|document| document.record.path)
        .collect();
    let mut missing = Vec::new();
    let chosen: Vec<String> = if args.paths.is_empty() {
        known
    } else {
        let mut chosen = Vec::new();
        for path in &args.paths {
            let whole = places::absolute(path);
            let below = known
                .iter()
                .filter(|known| Path::new(known).starts_with(&whole));
            let before = chosen.len();
            for known in below {
                if !chosen.contains(known) {
                    chosen.push(known.clone());
                }
            }
            if chosen.len() == before
                && !chosen
                    .iter()
                    .any(|known| Path::new(known).starts_with(&whole))
            {
                missing.push(path.display().to_string());
            }
        }
        chosen
    };
    let removed = writer.remove(&chosen)?;
    let screen = &context.screen;
    if screen.json {
        screen.json(&json!({
            "removed": removed.documents, "pages": removed.pages, "documents": chosen, "missing": missing,
        }))?;
    } else {
        for path in &chosen {
            screen.line(&format!(
                "removed {}",
                text::clean_line(&places::shown(path))
            ))?;
        }
        for path in &missing {
            screen.failure(&format!(
                "{}: it is not in the index",
                text::clean_line(path)
            ));
        }
        if chosen.is_empty() && missing.is_empty() {
            screen.error_line("", "no document");
        }
    }
    Ok(if chosen.is_empty() || !missing.is_empty() {
        Outcome::Incomplete
    } else {
        Outcome::Done
    })
}
