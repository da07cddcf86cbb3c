//! `colibri models list`: the models in the Hugging Face cache, and what is packed from any.

use colibri_engine::hub::{CachedModel, Hub};
use serde_json::json;

use crate::{
    Outcome,
    context::{Context, hub_config},
    error::Result,
    text,
};

/// Runs the command.
///
/// # Errors
/// When the cache cannot be read.
pub(super) fn run(context: &Context) -> Result<Outcome> {
    let screen = &context.screen;
    let hub = Hub::new(hub_config()?);
    let models = hub.list_cached()?;
    let cache = &hub.config().cache_dir;
    let packed = super::unpack::kept()?;
    if screen.json {
        let models: Vec<_> = models.iter().map(as_json).collect();
        screen.json(&json!({
            "cache": cache,
            "models": models,
            "packed": packed.iter().map(super::unpack::as_json).collect::<Vec<_>>(),
        }))?;
    } else {
        for model in &models {
            let name = screen.bold(&model.name.to_string());
            screen.print(&format!("{:>9}  {name}\n", text::bytes(model.bytes)))?;
            for revision in &model.revisions {
                let commit: String = revision.commit.chars().take(12).collect();
                let references = text::clean_line(&revision.references.join(", ")).into_owned();
                let files = text::count(revision.files, "file");
                screen
                    .print(&screen.dim(&format!("           {commit}  {files}  {references}")))?;
                screen.print("\n")?;
            }
        }
        for kept in &packed {
            let name = super::unpack::name(kept);
            let line = format!("{:>9}  packed weights of {name}\n", text::bytes(kept.bytes));
            screen.print(&screen.dim(&line))?;
        }
        if models.is_empty() {
            screen.error_line("", &format!("no model in {}", cache.display()));
        }
    }
    Ok(if models.is_empty() {
        Outcome::Incomplete
    } else {
        Outcome::Done
    })
}

fn as_json(model: &CachedModel) -> serde_json::Value {
    let revisions = model.revisions.iter().map(|revision| {
        json!({
            "commit": revision.commit,
            "references": revision.references,
            "files": revision.files,
            "bytes": revision.bytes,
        })
    });
    json!({"name": model.name.to_string(), "bytes": model.bytes, "revisions": revisions.collect::<Vec<_>>()})
}
