//! `colibri models info`: what a checkpoint is, or what two have in common, without loading them and without the
//! network.

use std::path::PathBuf;

use colibri_engine::{
    checkpoints::{ABOUT_BUILTIN, BUILTIN, Part},
    footprint::{Needs, Precision, Role},
    hub::{Hub, ModelName},
    registry::{self, Checkpoint, Kind},
};
use serde_json::json;

use crate::{
    Outcome,
    context::{Context, hub_config},
    error::{Error, Result},
    text,
};

/// Arguments of `models info`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder, a hub name whose files are in the cache, or `builtin`
    #[arg(value_name = "NAME|FOLDER")]
    model: String,
    /// Another one: tells which of its weights the first has as well, and need not be held twice
    #[arg(value_name = "NAME|FOLDER")]
    other: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When there is no such model here, or its files are damaged.
pub(super) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let screen = &context.screen;
    let hub = Hub::new(hub_config()?);
    if let Some(other) = &args.other {
        return compare(context, &hub, &args.model, other);
    }
    let is_builtin = args.model == BUILTIN;
    let folder = if is_builtin {
        let located = context.models()?.locate(BUILTIN, Role::Retriever, &|_| {});
        located?.checkpoint.folder
    } else {
        find(&hub, &args.model)?
    };
    let kind = registry::inspect(&folder).map_err(colibri_engine::Error::from)?;
    let (word, base) = match &kind {
        Kind::Generator => ("generator", None),
        Kind::Retriever => ("retriever", None),
        Kind::Adapter { base, revision } => {
            let revision = revision
                .as_ref()
                .map(|revision| format!("@{revision}"))
                .unwrap_or_default();
            ("adapter of a retriever", Some(format!("{base}{revision}")))
        }
    };
    let base_folder = base.as_deref().and_then(|base| {
        let beside = folder.join(base);
        if beside.is_dir() {
            Some(beside)
        } else {
            find(&hub, base).ok()
        }
    });
    let (parameters, bytes) =
        registry::weight_size(&folder).map_err(colibri_engine::Error::from)?;
    let role = match kind {
        Kind::Generator => Role::Generator,
        Kind::Retriever | Kind::Adapter { .. } => Role::Retriever,
    };
    let checkpoint = Checkpoint {
        folder: folder.clone(),
        base: base_folder.clone(),
    };
    // Of an adapter whose base is not here there is nothing more to be told.
    let checked = if base.is_none() || base_folder.is_some() {
        Some(Checked::of(&checkpoint, role)?)
    } else {
        None
    };
    if screen.json {
        screen.json(&json!({
            "folder": folder, "kind": word, "base": base, "base_folder": base_folder,
            "about": is_builtin.then_some(ABOUT_BUILTIN),
            "parameters": parameters, "weight_bytes": bytes,
            "shapes": checked.as_ref().map(|checked| shapes_json(&checked.needs)),
            "tensors": checked.as_ref().map(|checked| checked.needs.num_tensors()),
            "unused_tensors": checked.as_ref().map(|checked| &checked.unused),
            "memory_bytes": checked.as_ref().map(Checked::memory_json),
        }))?;
        return Ok(Outcome::Done);
    }
    let mut lines = Vec::new();
    if is_builtin {
        lines.push(("about", ABOUT_BUILTIN.to_owned()));
    }
    lines.extend([
        ("folder", folder.display().to_string()),
        ("kind", word.to_owned()),
    ]);
    if let Some(base) = base {
        let here = if base_folder.is_some() {
            "present"
        } else {
            "absent"
        };
        lines.push(("base", format!("{base} ({here})")));
    }
    lines.push((
        "weights",
        format!("{} parameters, {}", grouped(parameters), text::bytes(bytes)),
    ));
    if let Some(Checked { needs, unused }) = &checked {
        let (vision, words) = (needs.vision(), needs.text());
        lines.push((
            "vision",
            format!(
                "{} layers of {} with {} heads, frames of {} pixels, patches of {}, {} tokens a frame",
                vision.num_hidden_layers,
                vision.hidden_size,
                vision.num_attention_heads,
                vision.image_size,
                vision.patch_size,
                needs.tokens_per_frame()
            ),
        ));
        lines.push((
            "text",
            format!(
                "{} layers of {} with {} heads ({} for keys), vocabulary of {}, {} positions",
                words.num_hidden_layers,
                words.hidden_size,
                words.num_attention_heads,
                words.num_key_value_heads(),
                words.vocab_size,
                words.num_positions()
            ),
        ));
        let rest = match unused.as_slice() {
            [] => String::new(),
            [one] => format!("; `{one}` is not needed"),
            [one, more @ ..] => format!("; `{one}` and {} more are not needed", more.len()),
        };
        lines.push((
            "checked",
            format!(
                "{} tensors, all there and of the shapes that the configuration says{rest}",
                needs.num_tensors()
            ),
        ));
        let memory = PRECISIONS.map(|(name, precision)| {
            let footprint = needs.in_precision(precision);
            format!(
                "{name} {}",
                text::bytes(footprint.matrices + footprint.values)
            )
        });
        lines.push(("memory", format!("weights in {}", memory.join(", "))));
    }
    for (what, value) in lines {
        screen.line(&format!("{what:<8} {}", text::clean_line(&value)))?;
    }
    Ok(Outcome::Done)
}

/// The forms that weights can be held in, with their names.
const PRECISIONS: [(&str, Precision); 4] = [
    ("f32", Precision::F32),
    ("bf16", Precision::Bf16),
    ("int8", Precision::Int8),
    ("int4", Precision::Int4),
];

/// A checkpoint whose files were held against its configuration, without a value being read.
struct Checked {
    needs: Needs,
    unused: Vec<String>,
}

impl Checked {
    fn of(checkpoint: &Checkpoint, role: Role) -> Result<Self> {
        let needs = Needs::alone(checkpoint, role).map_err(colibri_engine::Error::from)?;
        let unused = needs
            .unused(checkpoint)
            .map_err(colibri_engine::Error::from)?;
        Ok(Self { needs, unused })
    }

    /// Bytes of all weights once they are loaded, by precision.
    fn memory_json(&self) -> serde_json::Value {
        let of = |(name, precision): (&str, Precision)| {
            let footprint = self.needs.in_precision(precision);
            (
                name.to_owned(),
                (footprint.matrices + footprint.values).into(),
            )
        };
        serde_json::Value::Object(PRECISIONS.into_iter().map(of).collect())
    }
}

fn shapes_json(needs: &Needs) -> serde_json::Value {
    let (vision, words) = (needs.vision(), needs.text());
    json!({
        "vision": {"layers": vision.num_hidden_layers, "width": vision.hidden_size, "heads": vision.num_attention_heads,
            "tile": vision.image_size, "patch": vision.patch_size, "tokens_per_tile": needs.tokens_per_frame()},
        "text": {"layers": words.num_hidden_layers, "width": words.hidden_size, "heads": words.num_attention_heads,
            "key_heads": words.num_key_value_heads(), "vocabulary": words.vocab_size, "positions": words.num_positions()},
    })
}

/// Tells, part by part, which weights of `second` `first` has as well.
fn compare(context: &Context, hub: &Hub, first: &str, second: &str) -> Result<Outcome> {
    let screen = &context.screen;
    let models = context.models()?;
    let checkpoint = |name: &str| -> Result<Checkpoint> {
        if name == BUILTIN {
            return Ok(models.locate(BUILTIN, Role::Retriever, &|_| {})?.checkpoint);
        }
        let folder = find(hub, name)?;
        let base = match registry::inspect(&folder).map_err(colibri_engine::Error::from)? {
            Kind::Generator | Kind::Retriever => None,
            Kind::Adapter { base, .. } => {
                let beside = folder.join(&base);
                Some(if beside.is_dir() {
                    beside
                } else {
                    find(hub, &base)?
                })
            }
        };
        Ok(Checkpoint { folder, base })
    };
    screen.status("comparing weights");
    let parts = models.shared(&checkpoint(first)?, &checkpoint(second)?)?;
    screen.hide_bar();
    if screen.json {
        screen.json(&json!({"first": first, "second": second, "parts": parts}))?;
        return Ok(Outcome::Done);
    }
    let (mut bytes, mut shared_bytes) = (0, 0);
    for part in &parts {
        bytes += part.bytes;
        shared_bytes += part.shared_bytes;
        let name = match part.part {
            Part::Vision => "vision",
            Part::Connector => "connector",
            Part::Embedding => "embedding",
            Part::Text => "text",
            Part::Head => "head",
        };
        screen.line(&format!(
            "{name:<9} {} of {} tensors, {} of {}",
            part.shared,
            part.tensors,
            text::bytes(part.shared_bytes),
            text::bytes(part.bytes)
        ))?;
    }
    screen.line(&text::clean_line(&format!(
        "{:<9} {} of {} of {second} need not be held beside {first}",
        "in all",
        text::bytes(shared_bytes),
        text::bytes(bytes)
    )))?;
    Ok(Outcome::Done)
}

/// The folder of a model that is here.
fn find(hub: &Hub, name: &str) -> Result<PathBuf> {
    let folder = PathBuf::from(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let cached = name
        .parse::<ModelName>()
        .ok()
        .and_then(|name| hub.cached(&name, None));
    let cache = hub.config().cache_dir.clone();
    cached.map(|snapshot| snapshot.dir).ok_or(Error::NotCached {
        name: name.to_owned(),
        cache,
    })
}

/// 1234567 as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (12_345_678, "12 345 678"),
        ];
        for (number, expected) in cases {
            assert_eq!(grouped(number), expected);
        }
    }
}
