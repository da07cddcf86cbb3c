//! Checkpoints of the published shapes without their weights: the small files of a folder, whose values are then
//! made up in memory ([`Located::made_up`]).
//!
//! The tokenizer is that of the built-in checkpoint: its ids fit into every vocabulary here, and it has a token for
//! every tag of a tile, as the published 256M and 500M have.

use std::path::{Path, PathBuf};

use colibri_models::registry::Checkpoint;
use serde_json::json;

use crate::{
    Error, Result,
    checkpoints::{Located, builtin},
};

/// The seed of the base that retriever and generator of a pair share.
const SEED: u64 = 0x0c01_1b21;

/// A published shape (`config.json` of each model).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The name people know it by.
    pub name: &'static str,
    tile: usize,
    patch: usize,
    scale_factor: usize,
    /// Width, MLP width, layers, heads of the tower.
    vision: [usize; 4],
    /// Width, MLP width, layers, query heads, key heads of the text model.
    text: [usize; 5],
    vocabulary: usize,
    positions: usize,
    rope_theta: f64,
}

const SMOL_TOWER: [usize; 4] = [768, 3072, 12, 12];

/// The shapes that can be asked for.
pub const SHAPES: [Shape; 5] = [
    smol("colSmol-256M", [576, 1536, 30, 9, 3]),
    smol("SmolVLM-256M", [576, 1536, 30, 9, 3]),
    smol("colSmol-500M", [960, 2560, 32, 15, 5]),
    smol("SmolVLM-500M", [960, 2560, 32, 15, 5]),
    Shape {
        name: "SmolVLM-2.2B",
        tile: 384,
        patch: 14,
        scale_factor: 3,
        vision: [1152, 4304, 27, 16],
        text: [2048, 8192, 24, 32, 32],
        vocabulary: 49_155,
        positions: 16_384,
        rope_theta: 273_768.0,
    },
];

/// For tests: the same structure, a hundredth of the size.
#[cfg(test)]
pub(super) const TINY: Shape = Shape {
    name: "tiny",
    tile: 64,
    patch: 8,
    scale_factor: 2,
    vision: [32, 64, 2, 2],
    text: [48, 96, 2, 3, 1],
    vocabulary: 2048,
    positions: 2048,
    rope_theta: 10_000.0,
};

const fn smol(name: &'static str, text: [usize; 5]) -> Shape {
    Shape {
        name,
        tile: 512,
        patch: 16,
        scale_factor: 4,
        vision: SMOL_TOWER,
        text,
        vocabulary: 49_280,
        positions: 8192,
        rope_theta: 100_000.0,
    }
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = SHAPES
            .iter()
            .find(|shape| shape.name.eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
            format!("`{name}` is none of {}", names.join(", "))
        })
    }
}

/// A retriever and a generator of one shape.
#[derive(Clone, Debug)]
pub struct Pair {
    /// A base with an adapter over its text layers.
    pub retriever: Located,
    /// The same base with an output head.
    pub generator: Located,
}

impl Shape {
    /// Writes the small files below `scratch`; the built-in checkpoint, whose tokenizer serves, is unpacked below
    /// `cache`. With `separate`, the bases of the two have no value in common.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, scratch: &Path, cache: &Path, separate: bool) -> Result<Pair> {
        let tokenizer = builtin::locate(cache)?.checkpoint.base_folder().to_owned();
        let model = |role: &str, architecture: &str, seed: u64| -> Result<Located> {
            let folder = scratch.join(role);
            self.files(&folder, &tokenizer, architecture)
                .map_err(|source| Error::Io {
                    path: folder.clone(),
                    source,
                })?;
            Ok(Located {
                name: format!("random {} {role}", self.name),
                revision: format!("{seed:x}"),
                checkpoint: Checkpoint { folder, base: None },
                made_up: Some(seed),
            })
        };
        Ok(Pair {
            retriever: model("retriever", "ColIdefics3", SEED + u64::from(separate))?,
            generator: model("generator", "Idefics3ForConditionalGeneration", SEED)?,
        })
    }

    fn files(&self, folder: &PathBuf, tokenizer: &Path, architecture: &str) -> std::io::Result<()> {
        fs_err::create_dir_all(folder)?;
        for name in [
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
        ] {
            fs_err::copy(tokenizer.join(name), folder.join(name))?;
        }
        let known: serde_json::Value =
            serde_json::from_slice(&fs_err::read(tokenizer.join("config.json"))?)?;
        let [vision_width, vision_inner, vision_layers, vision_heads] = self.vision;
        let [text_width, text_inner, text_layers, q_heads, kv_heads] = self.text;
        let config = json!({
            "architectures": [architecture],
            "model_type": "idefics3",
            "image_token_id": known["image_token_id"],
            "scale_factor": self.scale_factor,
            "tie_word_embeddings": false,
            "vision_config": {
                "hidden_size": vision_width, "intermediate_size": vision_inner,
                "num_hidden_layers": vision_layers, "num_attention_heads": vision_heads, "num_channels": 3,
                "image_size": self.tile, "patch_size": self.patch,
                "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
            },
            "text_config": {
                "hidden_size": text_width, "intermediate_size": text_inner, "num_hidden_layers": text_layers,
                "num_attention_heads": q_heads, "num_key_value_heads": kv_heads,
                "head_dim": text_width / q_heads, "hidden_act": "silu", "rms_norm_eps": 1e-5,
                "vocab_size": self.vocabulary, "max_position_embeddings": self.positions,
                "rope_theta": self.rope_theta,
            },
        });
        let processor = json!({
            "do_convert_rgb": true, "do_image_splitting": true, "do_normalize": true, "do_pad": true,
            "do_rescale": true, "do_resize": true,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "Idefics3ImageProcessor", "max_image_size": {"longest_edge": self.tile},
            "resample": 1, "rescale_factor": 1.0 / 255.0, "size": {"longest_edge": 4 * self.tile},
        });
        let tokens = (self.tile / self.patch / self.scale_factor).pow(2);
        for (name, value) in [
            ("config.json", config),
            ("preprocessor_config.json", processor),
            ("processor_config.json", json!({"image_seq_len": tokens})),
        ] {
            fs_err::write(folder.join(name), value.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_known_by_name() {
        assert_eq!("smolvlm-2.2b".parse::<Shape>().unwrap().text[0], 2048);
        let message = "SmolVLM-8B".parse::<Shape>().unwrap_err();
        assert!(message.contains("colSmol-256M"), "{message}");
    }
}
