//! `colibri models unpack`: removes packed weights. They are made again when a model is next loaded.

use colibri_engine::checkpoints::{KeptWeights, list_packed, remove_packed};
use serde_json::json;

use crate::{
    Outcome,
    context::Context,
    error::{Error, Result},
    places, text,
};

/// What is kept.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn kept() -> Result<Vec<KeptWeights>> {
    list_packed(&places::packed()?).map_err(Error::input("read the packed weights"))
}

/// The weight file by which a person knows it.
pub(super) fn name(kept: &KeptWeights) -> String {
    let path = kept.file.as_ref().unwrap_or(&kept.folder);
    text::clean_line(&path.display().to_string()).into_owned()
}

pub(super) fn as_json(kept: &KeptWeights) -> serde_json::Value {
    json!({"file": kept.file, "folder": kept.folder, "bytes": kept.bytes})
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be removed.
pub(super) fn run(context: &Context) -> Result<Outcome> {
    let screen = &context.screen;
    let kept = kept()?;
    let mut bytes = 0;
    for weights in &kept {
        remove_packed(weights).map_err(Error::input("remove packed weights"))?;
        bytes += weights.bytes;
        if !screen.json {
            let line = format!("{:>9}  {}\n", text::bytes(weights.bytes), name(weights));
            screen.print(&line)?;
        }
    }
    if screen.json {
        let removed: Vec<_> = kept.iter().map(as_json).collect();
        screen.json(&json!({"removed": removed, "bytes": bytes}))?;
    } else if kept.is_empty() {
        screen.print("nothing is packed\n")?;
    }
    Ok(Outcome::Done)
}
