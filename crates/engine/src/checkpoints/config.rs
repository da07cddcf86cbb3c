//! What a person may say about the models, and where one that was named is.

use std::path::PathBuf;

use colibri_models::{
    KvPrecision, Precision,
    processor::{PromptVersion, TileOptions},
    registry::Checkpoint,
};

use crate::{KeptFeatures, hosted::HostedConfig, hub::HubConfig};

/// The retriever that serves when none is named.
pub const DEFAULT_RETRIEVER: &str = "vidore/colSmol-256M";
/// The generator that serves when none is named.
pub const DEFAULT_GENERATOR: &str = "HuggingFaceTB/SmolVLM-256M-Instruct";

/// Which model a person wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The default, if it can be had; otherwise none.
    #[default]
    Auto,
    /// None at all.
    None,
    /// A folder, a hub name, or `openai:MODEL`.
    Named(String),
    /// One whose files are found already.
    Found(Box<Located>),
}

impl std::str::FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            name => Self::Named(name.to_owned()),
        })
    }
}

/// In what form the large matrices are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrecisionChoice {
    /// In what the index holds its rows; otherwise bf16 (half the memory of f32 with cosines above 0.999, and no
    /// slower anywhere), or where memory is limited the first of bf16, int8 and int4 that fits.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Brain floating point.
    Bf16,
    /// Eight bits with a scale a row.
    Int8,
    /// Four bits with a multiplier for every 32 values.
    Int4,
}

impl PrecisionChoice {
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Auto | Self::Bf16 => Precision::Bf16,
            Self::Int8 => Precision::Int8,
            Self::Int4 => Precision::Int4,
        }
    }
}

impl std::str::FromStr for PrecisionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            "int4" => Ok(Self::Int4),
            other => Err(format!("`{other}` is none of auto, f32, bf16, int8, int4")),
        }
    }
}

/// Settings of the models.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The hub and its cache.
    pub hub: HubConfig,
    /// Generators that run elsewhere.
    pub hosted: HostedConfig,
    /// Where the built-in checkpoint is unpacked, and where hashes of weights are kept.
    pub builtin_dir: PathBuf,
    /// Where packed matrices are kept, so that the next start maps them; `None` to keep none.
    pub packed_dir: Option<PathBuf>,
    /// The retriever.
    pub retriever: Choice,
    /// The generator.
    pub generator: Choice,
    /// Precision of both.
    pub precision: PrecisionChoice,
    /// Prompts of the retriever.
    pub prompt_version: Option<PromptVersion>,
    /// How pictures are cut, where it differs from the checkpoint. Whether they are cut at all is said to
    /// the generator alone.
    pub tiles: TileOptions,
    /// How much of what is seen on pages is kept beside an index, and in what form.
    pub features: KeptFeatures,
    /// In what form a generator keeps keys and values.
    pub kv: KvPrecision,
    /// The greatest resident size of this process that is to be kept to; `None` for no limit.
    pub memory: Option<u64>,
}

impl ModelConfig {
    /// The default models of `hub`, with nothing packed kept, no limit and no generator elsewhere.
    pub fn new(hub: HubConfig, builtin_dir: PathBuf) -> Self {
        Self {
            hub,
            hosted: HostedConfig::default(),
            builtin_dir,
            packed_dir: None,
            retriever: Choice::default(),
            generator: Choice::default(),
            precision: PrecisionChoice::default(),
            prompt_version: None,
            tiles: TileOptions::default(),
            features: KeptFeatures::default(),
            kv: KvPrecision::Auto,
            memory: None,
        }
    }
}

/// A model's files, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The name under which an index remembers it: hub name or folder.
    pub name: String,
    /// Commit, or a fingerprint of the folder.
    pub revision: String,
    /// The files.
    pub checkpoint: Checkpoint,
    /// In place of weight files, values made up from this seed: for measuring.
    pub made_up: Option<u64>,
}
