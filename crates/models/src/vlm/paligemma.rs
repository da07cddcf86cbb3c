//! The PaliGemma backbone, for ColPali: SigLIP, one projection, Gemma, every token seeing the whole prompt.
//!
//! Paper: Beyer et al. 2024, <https://arxiv.org/abs/2407.07726>. Upstream: `PaliGemmaModel` in transformers 5.23.
//! Its tensors have stood under other names in every generation of transformers and of colpali-engine
//! (`model.language_model.model.…`, `model.model.language_model.…`, `vlm.language_model.…`, the tower with and
//! without a level `vision_model`), so each part is found by how its names end.

use std::path::Path;

use candle_core::Tensor;
use colibri_nn::{Linear, Weights};
use serde::de::Error as _;
use serde_json::{Value, json};

use super::{config_file, merge::merge};
use crate::{
    Result, Trace,
    text::{
        Family, fill,
        llama::{self, Llama},
    },
    vision::siglip::{self, SiglipTower},
};

/// `config.json`, with the defaults of transformers' `PaliGemmaConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The text model.
    pub text_config: llama::Config,
    /// The vision tower.
    pub vision_config: siglip::Config,
    /// Id of `<image>`.
    pub image_token_id: u32,
    /// Width of a row, where the file says so (`colpali`).
    pub embedding_dim: Option<usize>,
    /// Whether it is the layout of transformers' own `ColPaliForRetrieval`.
    pub is_transformers_colpali: bool,
}

impl Config {
    /// Reads and checks `config.json` in `folder`: PaliGemma's, or `ColPaliForRetrieval`'s around it.
    ///
    /// # Errors
    /// When it cannot be read or describes no model that can be run.
    pub fn load(folder: &Path) -> Result<Self> {
        let (path, value) = config_file::load(folder)?;
        Self::from_json(&path, value)
    }

    /// Checks what stands in the file `path`.
    ///
    /// # Errors
    /// When it describes no model that can be run.
    pub(crate) fn from_json(path: &Path, value: Value) -> Result<Self> {
        config_file::checked(path, Self::read(value), Self::check)
    }

    fn read(mut value: Value) -> std::result::Result<Self, serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Top {
            #[serde(alias = "image_token_id")]
            image_token_index: u32,
            #[serde(default)]
            text_config: Value,
            #[serde(default)]
            vision_config: Value,
        }
        let is_transformers_colpali = value["model_type"] == "colpali";
        let embedding_dim = match value.get("embedding_dim") {
            Some(dim) if is_transformers_colpali => Some(serde_json::from_value(dim.clone())?),
            _ => None,
        };
        if is_transformers_colpali {
            value = value.get_mut("vlm_config").map_or(Value::Null, Value::take);
        }
        let mut top: Top = serde_json::from_value(value)?;
        // `sub_configs_defaults` of `configuration_paligemma.py` hold where a part is missing altogether.
        if top.text_config.is_null() {
            top.text_config = json!({
                "hidden_size": 2048, "num_hidden_layers": 18, "intermediate_size": 16_384,
                "num_attention_heads": 8, "num_key_value_heads": 1, "vocab_size": 257_152,
            });
        }
        if top.vision_config.is_null() {
            top.vision_config = json!({
                "intermediate_size": 4096, "hidden_size": 1152, "patch_size": 14, "image_size": 224,
                "num_hidden_layers": 27, "num_attention_heads": 16,
            });
        }
        fill(
            &mut top.vision_config,
            &json!({"hidden_size": 768, "num_attention_heads": 12, "patch_size": 16}),
        );
        fill(
            &mut top.text_config,
            &json!({"model_type": "gemma", "use_bidirectional_attention": true}),
        );
        if top.text_config["model_type"] != "gemma" {
            return Err(serde_json::Error::custom(format!(
                "`text_config.model_type` {} is not implemented, only gemma is",
                top.text_config["model_type"]
            )));
        }
        if top.text_config["use_bidirectional_attention"].is_null() {
            top.text_config["use_bidirectional_attention"] = Value::from(true);
        }
        Ok(Self {
            text_config: Family::Gemma.read(top.text_config)?,
            vision_config: serde_json::from_value(top.vision_config)?,
            image_token_id: top.image_token_index,
            embedding_dim,
            is_transformers_colpali,
        })
    }

    fn check(&self) -> std::result::Result<(), String> {
        self.vision_config.check()?;
        self.text_config.check()
    }

    /// Visual tokens of a page.
    pub fn tokens_per_page(&self) -> usize {
        self.vision_config.patches_per_side().pow(2)
    }
}

/// Tower, projection and text model.
#[derive(Debug)]
pub struct PaliGemma {
    config: Config,
    vision: SiglipTower,
    projector: Linear,
    text: Llama,
    /// Bytes of tower and projection.
    vision_bytes: usize,
}

impl PaliGemma {
    /// Loads the backbone from wherever its parts stand below `root`.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn load(config: &Config, root: &Weights) -> Result<Self> {
        let vision = part(
            root,
            "embeddings.patch_embedding.weight",
            "vision_tower.vision_model",
        );
        let projector = part(root, "linear.weight", "multi_modal_projector");
        let text = part(root, "embed_tokens.weight", "language_model.model");
        let vision = SiglipTower::load(&config.vision_config, &vision)?;
        let projector = projector.linear(
            "linear",
            config.vision_config.hidden_size,
            config.text_config.hidden_size,
            true,
        )?;
        let vision_bytes = root.loaded_bytes();
        Ok(Self {
            vision,
            projector,
            text: Llama::load(&config.text_config, &text)?,
            vision_bytes,
            config: config.clone(),
        })
    }

    /// Bytes of the matrices of tower and projection that were loaded for it.
    pub fn vision_bytes(&self) -> usize {
        self.vision_bytes
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The text model.
    pub fn text(&self) -> &Llama {
        &self.text
    }

    /// A normalised page `(3, side, side)` to visual tokens `(tokens_per_page, hidden)`.
    ///
    /// # Errors
    /// When a layer fails.
    pub fn encode_page(&self, pixels: &[f32], trace: &mut dyn Trace) -> Result<Tensor> {
        let side = self.config.vision_config.image_size;
        let features = self.vision.encode(pixels, (side, side), trace)?;
        let tokens = self.projector.forward(&features)?; // (1, tokens_per_page, hidden)
        trace.record("connector", &tokens)?;
        Ok(tokens.squeeze(0)?)
    }

    /// Token embeddings of `ids` with the rows of `<image>` replaced by the visual tokens.
    ///
    /// # Errors
    /// [`crate::Error::ImageTokens`] when their numbers differ.
    pub fn merge(&self, ids: &[u32], visual: Option<&Tensor>) -> Result<Tensor> {
        merge(&self.text, ids, self.config.image_token_id, visual)
    }
}

/// The place of the one tensor whose name ends in `end` and that lies below a part called like the first level of
/// `usual`. Where there is none, the usual place, so that the error names a tensor that a person can look for.
fn part(root: &Weights, end: &str, usual: &str) -> Weights {
    let level = usual.split('.').next().unwrap_or(usual);
    let place = root.names().find_map(|name| {
        let place = name.strip_suffix(end)?.strip_suffix('.')?;
        place
            .split('.')
            .any(|found| found == level)
            .then(|| place.to_owned())
    });
    match place {
        Some(place) => root.pp(place),
        None => root.pp("model").pp(usual),
    }
}
