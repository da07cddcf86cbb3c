//! `colibri stats`: what the index holds, and in how many bytes.

use colibri_engine::memory::{Used, WeightBytes};
use serde_json::json;

use crate::{Outcome, context::Context, error::Result, text};

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
///
/// # Errors
/// When there is no index.
pub(crate) fn run(context: &Context, _: &Args) -> Result<Outcome> {
    let screen = &context.screen;
    let index = context.index()?;
    let stats = index.stats()?;
    let used = Used::now(WeightBytes::default());
    if screen.json {
        screen.json(&json!({
            "path": index.dir(),
            "documents": stats.documents,
            "pages": stats.pages,
            "pages_with_rows": stats.pages_with_rows,
            "pages_with_text": stats.pages_with_text,
            "rows": stats.rows,
            "dim": stats.dim,
            "segments": stats.segments,
            "live_bytes": stats.live_bytes,
            "dead_bytes": stats.dead_bytes,
            "catalog_bytes": stats.catalog_bytes,
            "total_bytes": stats.total_bytes,
            "bytes_per_page": stats.bytes_per_page,
            "features": stats.features,
            "settings": stats.settings,
            "peak_memory_bytes": used.peak_bytes,
            "memory": used,
        }))?;
        return Ok(Outcome::Done);
    }
    let settings = &stats.settings;
    let retriever = match &settings.retriever {
        None => "none; pages are found by their text".to_owned(),
        Some(name) => {
            let part = |value: &Option<String>| value.clone().unwrap_or_default();
            let revision: String = part(&settings.revision).chars().take(12).collect();
            format!(
                "{name} at {revision}, prompts {}, {}",
                part(&settings.prompt_version),
                part(&settings.precision)
            )
        }
    };
    let rows = match stats.dim {
        Some(dim) => format!(
            "{} of {dim} values, on {}",
            stats.rows,
            text::count(stats.pages_with_rows as usize, "page")
        ),
        None => stats.rows.to_string(),
    };
    for (what, value) in [
        ("index", index.dir().display().to_string()),
        ("documents", stats.documents.to_string()),
        (
            "pages",
            format!("{}, {} with text", stats.pages, stats.pages_with_text),
        ),
        ("rows", rows),
        ("retriever", retriever),
        (
            "size",
            format!(
                "{}, {} a page",
                text::bytes(stats.total_bytes),
                text::bytes(stats.bytes_per_page as u64)
            ),
        ),
        ("reclaimable", text::bytes(stats.dead_bytes)),
        (
            "seen",
            format!(
                "{} kept of {}",
                text::bytes(stats.features.bytes),
                text::count(stats.features.pages as usize, "page")
            ),
        ),
        (
            "peak memory",
            format!("{}, {}", text::bytes(used.peak_bytes), text::used(&used)),
        ),
    ] {
        screen.line(&format!("{what:<12} {}", text::clean_line(&value)))?;
    }
    Ok(Outcome::Done)
}
