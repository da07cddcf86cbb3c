//! `colibri models pull`: fetches models into the Hugging Face cache.

use colibri_engine::{checkpoints::Located, footprint::Role};
use serde_json::json;

use crate::{Outcome, context::Context, error::Result, text};

/// Arguments of `models pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Hub names, for example vidore/colSmol-256M, with @REVISION where one is pinned
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// With the first model that cannot be fetched; what was fetched before is kept.
pub(super) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let models = context.models()?;
    let progress = context.model_progress(true);
    for name in &args.names {
        let Located {
            name,
            revision,
            checkpoint,
            ..
        } = models.locate(name, Role::Retriever, &|event| progress.on_event(event))?;
        context.screen.hide_bar();
        if context.screen.json {
            context.screen.json(&json!({
                "event": "done", "model": name, "revision": revision, "folder": checkpoint.folder, "base": checkpoint.base,
            }))?;
        } else {
            let folder = checkpoint.folder.display().to_string();
            context.screen.line(&format!(
                "{} {}",
                text::clean_line(&name),
                text::clean_line(&folder)
            ))?;
        }
    }
    Ok(Outcome::Done)
}
