//! Checkpoints of the published shapes without their weights: the small files of a folder, whose values are then
//! made up in memory ([`Located::made_up`]).
//!
//! The tokenizer is that of the built-in checkpoint: its ids fit into every vocabulary here, and it has a token for
//! every tag of a tile, as the published 256M and 500M have.

use std::path::{Path, PathBuf};

use colibri_models::{footprint::Role, registry::Checkpoint};
use serde_json::{Value, json};

use crate::{
    Error, Result,
    checkpoints::{Located, builtin},
};

/// The seed of the base that retriever and generator of a pair share.
const SEED: u64 = 0x0c01_1b21;

/// What surrounds tower and text model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Tiles and pixel shuffle; a retriever and a generator.
    Idefics3,
    /// One square, Gemma; a retriever.
    ColPali,
    /// Frames of any shape, the perceiver, Mistral; a generator.
    Idefics2,
}

/// A published shape (`config.json` of each model).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The name people know it by.
    pub name: &'static str,
    family: Family,
    tile: usize,
    patch: usize,
    scale_factor: usize,
    /// Width, MLP width, layers, heads of the tower.
    vision: [usize; 4],
    /// Width, MLP width, layers, query heads, key heads of the text model.
    text: [usize; 5],
    head_dim: usize,
    vocabulary: usize,
    positions: usize,
    rope_theta: f64,
}

const SMOL_TOWER: [usize; 4] = [768, 3072, 12, 12];

/// The shapes that can be asked for.
pub const SHAPES: [Shape; 7] = [
    smol("colSmol-256M", [576, 1536, 30, 9, 3]),
    smol("SmolVLM-256M", [576, 1536, 30, 9, 3]),
    smol("colSmol-500M", [960, 2560, 32, 15, 5]),
    smol("SmolVLM-500M", [960, 2560, 32, 15, 5]),
    Shape {
        name: "SmolVLM-2.2B",
        family: Family::Idefics3,
        tile: 384,
        patch: 14,
        scale_factor: 3,
        vision: [1152, 4304, 27, 16],
        text: [2048, 8192, 24, 32, 32],
        head_dim: 64,
        vocabulary: 49_155,
        positions: 16_384,
        rope_theta: 273_768.0,
    },
    Shape {
        name: "ColPali-v1.3",
        family: Family::ColPali,
        tile: 448,
        patch: 14,
        scale_factor: 1,
        vision: [1152, 4304, 27, 16],
        text: [2048, 16_384, 18, 8, 1],
        head_dim: 256,
        vocabulary: 257_216,
        positions: 8192,
        rope_theta: 10_000.0,
    },
    Shape {
        name: "Idefics2-8B",
        family: Family::Idefics2,
        tile: 980,
        patch: 14,
        scale_factor: 1,
        vision: [1152, 4304, 27, 16],
        text: [4096, 14_336, 32, 32, 8],
        head_dim: 128,
        vocabulary: 32_003,
        positions: 32_768,
        rope_theta: 10_000.0,
    },
];

/// For tests: the same structure, a hundredth of the size.
#[cfg(test)]
pub(super) const TINY: Shape = Shape {
    name: "tiny",
    family: Family::Idefics3,
    tile: 64,
    patch: 8,
    scale_factor: 2,
    vision: [32, 64, 2, 2],
    text: [48, 96, 2, 3, 1],
    head_dim: 16,
    vocabulary: 2048,
    positions: 2048,
    rope_theta: 10_000.0,
};

const fn smol(name: &'static str, text: [usize; 5]) -> Shape {
    Shape {
        name,
        family: Family::Idefics3,
        tile: 512,
        patch: 16,
        scale_factor: 4,
        vision: SMOL_TOWER,
        text,
        head_dim: 64,
        vocabulary: 49_280,
        positions: 8192,
        rope_theta: 100_000.0,
    }
}

impl std::str::FromStr for Shape {
    type Err = String;

    /// A name, or `NAME:LAYERS` for its first text layers only.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, layers) = match text.split_once(':') {
            Some((name, layers)) => (name, Some(layers)),
            None => (text, None),
        };
        let found = SHAPES
            .iter()
            .find(|shape| shape.name.eq_ignore_ascii_case(name));
        let mut shape = found.copied().ok_or_else(|| {
            let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
            format!("`{name}` is none of {}", names.join(", "))
        })?;
        if let Some(layers) = layers {
            let all = shape.text[2];
            let layers = layers
                .parse()
                .ok()
                .filter(|layers| (1..=all).contains(layers));
            shape.text[2] = layers.ok_or_else(|| format!("{name} has 1 to {all} text layers"))?;
        }
        Ok(shape)
    }
}

/// A retriever and a generator of one shape, where there are both.
#[derive(Clone, Debug)]
pub struct Pair {
    /// A base with an adapter over its text layers.
    pub retriever: Option<Located>,
    /// The same base with an output head.
    pub generator: Option<Located>,
}

impl Shape {
    /// Writes the small files below `scratch`; the built-in checkpoint, whose tokenizer serves, is unpacked below
    /// `cache`. With `separate`, the bases of the two have no value in common.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, scratch: &Path, cache: &Path, separate: bool) -> Result<Pair> {
        let tokenizer = builtin::locate(cache, Role::Retriever)?
            .checkpoint
            .base_folder()
            .to_owned();
        let model = |role: &str, architecture: &str, seed: u64| -> Result<Located> {
            let folder = scratch.join(role);
            self.files(&folder, &tokenizer, architecture)
                .map_err(|source| Error::Io {
                    path: folder.clone(),
                    source,
                })?;
            Ok(Located {
                name: format!("random {} {role}, {} text layers", self.name, self.text[2]),
                revision: format!("{seed:x}"),
                checkpoint: Checkpoint { folder, base: None },
                made_up: Some(seed),
            })
        };
        let seed = SEED + u64::from(separate);
        Ok(match self.family {
            Family::Idefics3 => Pair {
                retriever: Some(model("retriever", "ColIdefics3", seed)?),
                generator: Some(model(
                    "generator",
                    "Idefics3ForConditionalGeneration",
                    SEED,
                )?),
            },
            Family::ColPali => Pair {
                retriever: Some(model("retriever", "ColPali", seed)?),
                generator: None,
            },
            Family::Idefics2 => Pair {
                retriever: None,
                generator: Some(model(
                    "generator",
                    "Idefics2ForConditionalGeneration",
                    SEED,
                )?),
            },
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
        let config = self.config(architecture, &known["image_token_id"]);
        for (name, value) in [
            ("config.json", config),
            ("preprocessor_config.json", self.preprocessor()),
        ] {
            fs_err::write(folder.join(name), value.to_string())?;
        }
        Ok(())
    }

    fn config(&self, architecture: &str, image_token_id: &Value) -> Value {
        let [vision_width, vision_inner, vision_layers, vision_heads] = self.vision;
        let [text_width, text_inner, text_layers, q_heads, kv_heads] = self.text;
        let (model_type, text_type, activation, eps) = match self.family {
            Family::Idefics3 => ("idefics3", "llama", "silu", 1e-5),
            Family::ColPali => ("paligemma", "gemma", "gelu_pytorch_tanh", 1e-6),
            Family::Idefics2 => ("idefics2", "mistral", "silu", 1e-5),
        };
        let mut config = json!({
            "architectures": [architecture],
            "model_type": model_type,
            "image_token_id": image_token_id,
            "tie_word_embeddings": false,
            "vision_config": {
                "hidden_size": vision_width, "intermediate_size": vision_inner,
                "num_hidden_layers": vision_layers, "num_attention_heads": vision_heads, "num_channels": 3,
                "image_size": self.tile, "patch_size": self.patch,
                "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
            },
            "text_config": {
                "model_type": text_type,
                "hidden_size": text_width, "intermediate_size": text_inner, "num_hidden_layers": text_layers,
                "num_attention_heads": q_heads, "num_key_value_heads": kv_heads,
                "head_dim": self.head_dim, "hidden_act": activation, "rms_norm_eps": eps,
                "vocab_size": self.vocabulary, "max_position_embeddings": self.positions,
                "rope_theta": self.rope_theta,
            },
        });
        if self.family == Family::Idefics3 {
            config["scale_factor"] = self.scale_factor.into();
        }
        config
    }

    /// `preprocessor_config.json`; what it leaves out is the class default of its family.
    fn preprocessor(&self) -> Value {
        let (class, resample) = match self.family {
            Family::Idefics3 => ("Idefics3ImageProcessor", 1),
            Family::ColPali => ("SiglipImageProcessor", 3),
            Family::Idefics2 => ("Idefics2ImageProcessor", 2),
        };
        let mut settings = json!({
            "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": class, "resample": resample, "rescale_factor": 1.0 / 255.0,
        });
        let tile = self.tile;
        match self.family {
            Family::Idefics3 => {
                settings["do_image_splitting"] = true.into();
                settings["do_pad"] = true.into();
                settings["max_image_size"] = json!({"longest_edge": tile});
                settings["size"] = json!({"longest_edge": 4 * tile});
            }
            Family::ColPali => settings["size"] = json!({"height": tile, "width": tile}),
            Family::Idefics2 => {
                settings["do_image_splitting"] = true.into();
                settings["do_pad"] = true.into();
                settings["size"] = json!({"longest_edge": tile, "shortest_edge": 378});
            }
        }
        settings
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
        assert_eq!("Idefics2-8B:4".parse::<Shape>().unwrap().text[2], 4);
        assert!("Idefics2-8B:33".parse::<Shape>().is_err());
    }
}
