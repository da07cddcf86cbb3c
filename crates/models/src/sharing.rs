//! What two checkpoints have in common, tensor by tensor.

use std::collections::{BTreeMap, BTreeSet};

use colibri_nn::weights::{TensorPool, WeightStore};

use crate::{Result, registry::Checkpoint};

/// A part of a model, by the names of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The vision tower.
    Vision,
    /// Between the tower and the text model.
    Connector,
    /// The table of token embeddings.
    Embedding,
    /// The layers of the text model.
    Text,
    /// The output head of a generator, or the projection of a retriever.
    Head,
}

impl Part {
    fn of(name: &str) -> Self {
        let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if any(&["connector", "projector", "resampler"]) {
            Self::Connector
        } else if any(&["vision"]) {
            Self::Vision
        } else if any(&["embed_tokens"]) {
            Self::Embedding
        } else if any(&["lm_head", "custom_text_proj"]) || name.starts_with("linear.") {
            Self::Head
        } else {
            Self::Text
        }
    }
}

/// How much of a part of the second checkpoint is in the first.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SharedPart {
    /// The part.
    pub part: Part,
    /// Its tensors.
    pub tensors: usize,
    /// Those whose values are a tensor of the first checkpoint.
    pub shared: usize,
    /// Bytes of the part in the second checkpoint's files.
    pub bytes: u64,
    /// Bytes of the shared ones.
    pub shared_bytes: u64,
}

/// Which tensors of `second`, part by part, have the values of a tensor of `first`. The base of an adapter is
/// looked at; what the adapter adds is its own.
///
/// # Errors
/// When weights cannot be read.
pub fn shared(
    first: &Checkpoint,
    second: &Checkpoint,
    pool: &TensorPool,
) -> Result<Vec<SharedPart>> {
    let first = WeightStore::open_folder(first.base_folder())?;
    let second = WeightStore::open_folder(second.base_folder())?;
    let mut known = BTreeSet::new();
    for name in first.names() {
        known.insert((
            first.shape(name).map(<[usize]>::to_vec),
            pool.hash(&first, name)?,
        ));
    }
    let mut parts: BTreeMap<Part, SharedPart> = BTreeMap::new();
    for name in second.names() {
        let part = Part::of(name);
        let counted = parts.entry(part).or_insert(SharedPart {
            part,
            tensors: 0,
            shared: 0,
            bytes: 0,
            shared_bytes: 0,
        });
        let bytes = second.num_bytes(name).unwrap_or(0);
        counted.tensors += 1;
        counted.bytes += bytes;
        let value = (
            second.shape(name).map(<[usize]>::to_vec),
            pool.hash(&second, name)?,
        );
        if known.contains(&value) {
            counted.shared += 1;
            counted.shared_bytes += bytes;
        }
    }
    Ok(parts.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_name() {
        for (name, part) in [
            (
                "model.vision_model.encoder.layers.0.mlp.fc1.weight",
                Part::Vision,
            ),
            (
                "model.connector.modality_projection.proj.weight",
                Part::Connector,
            ),
            ("model.text_model.embed_tokens.weight", Part::Embedding),
            ("model.text_model.layers.3.mlp.down_proj.weight", Part::Text),
            ("lm_head.weight", Part::Head),
            ("linear.bias", Part::Head),
            ("language_model.model.norm.weight", Part::Text),
            ("multi_modal_projector.linear.weight", Part::Connector),
        ] {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }
}
