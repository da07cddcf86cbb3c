//! What every command understands.

use std::{num::NonZeroU32, path::PathBuf};

use colibri_engine::{
    KvPrecision, TokenPrecision, checkpoints::PrecisionChoice, processor::PromptVersion,
};

/// Whether output is in colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Precision of the large matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Precision {
    /// What suits best
    Auto,
    /// Single precision
    F32,
    /// 16 bits, held in 12 where that loses nothing
    Bf16,
    /// 8 bits
    Int8,
    /// 4 bits
    Int4,
}

/// In what form visual tokens are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Features {
    /// 16 bits
    F16,
    /// 8 bits
    Int8,
}

impl From<Features> for TokenPrecision {
    fn from(features: Features) -> Self {
        match features {
            Features::F16 => Self::F16,
            Features::Int8 => Self::Int8,
        }
    }
}

/// In what form keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kv {
    /// What attention multiplies
    Auto,
    /// 8 bits
    Int8,
}

impl From<Kv> for KvPrecision {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::Auto => Self::Auto,
            Kv::Int8 => Self::Int8,
        }
    }
}

/// Prompts of the retriever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Prompts {
    /// Of colpali-engine 0.3.1 to 0.3.3 (ColPali)
    #[value(name = "0.3.1")]
    V0_3_1,
    /// Of 0.3.4 to 0.3.10 (ColPali)
    #[value(name = "0.3.4")]
    V0_3_4,
    /// Of 0.3.5 to 0.3.8
    #[value(name = "0.3.5")]
    V0_3_5,
    /// Of 0.3.9 and 0.3.10
    #[value(name = "0.3.9")]
    V0_3_9,
    /// Of 0.3.11 and later
    #[value(name = "0.3.11")]
    V0_3_11,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Folder of the index [default: in the user's data folder]
    #[arg(
        long,
        value_name = "DIR",
        env = "COLIBRI_INDEX",
        hide_env = true,
        global = true
    )]
    pub(crate) index: Option<PathBuf>,
    /// Model that finds pages: a folder, a hub name, `auto` or `none`
    #[arg(
        long,
        value_name = "MODEL",
        env = "COLIBRI_RETRIEVER",
        hide_env = true,
        default_value = "auto",
        global = true
    )]
    pub(crate) retriever: String,
    /// Model that answers: a folder, a hub name, `builtin`, `openai:MODEL` (a service), `auto` or `none`
    #[arg(
        long,
        value_name = "MODEL",
        env = "COLIBRI_GENERATOR",
        hide_env = true,
        default_value = "auto",
        global = true
    )]
    pub(crate) generator: String,
    /// Precision of the models
    #[arg(long, value_enum, default_value_t = Precision::Auto, hide_possible_values = true, value_name = "auto|f32|bf16|int8|int4", global = true)]
    pub(crate) precision: Precision,
    /// Keep to so much memory, for example 1GB: chooses the precision, and what is held at a time
    #[arg(long, value_name = "SIZE", value_parser = crate::text::parse_bytes, global = true)]
    pub(crate) memory: Option<u64>,
    /// Prompts of the retriever, by the version of colpali-engine [default: 0.3.11]
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "VERSION",
        global = true
    )]
    pub(crate) prompt_version: Option<Prompts>,
    /// Longest edge of a page in tiles, instead of the model's own
    #[arg(long, value_name = "N", global = true)]
    pub(crate) detail: Option<NonZeroU32>,
    /// The generator looks at each picture as one tile, uncut: coarse and fast
    #[arg(long, global = true)]
    pub(crate) no_split: bool,
    /// Keep at most so much of what is seen on pages beside the index, so that they are looked at once; `off` for none
    #[arg(long, value_name = "SIZE|off", default_value = "2GiB", value_parser = feature_cache, global = true)]
    pub(crate) feature_cache: u64,
    /// In what form that is kept: int8 takes half the room of f16, and answers may differ in a word
    #[arg(
        long,
        value_enum,
        default_value_t = Features::F16,
        hide_possible_values = true,
        value_name = "f16|int8",
        global = true
    )]
    pub(crate) feature_precision: Features,
    /// In what form the generator keeps keys and values of what it has read: int8 takes about half the memory, and answers
    /// may differ in a word
    #[arg(
        long,
        value_enum,
        default_value_t = Kv::Auto,
        hide_possible_values = true,
        value_name = "auto|int8",
        global = true
    )]
    pub(crate) kv_precision: Kv,
    /// Keep no packed weights on the disk; they make the next start faster and take as much room as in memory
    #[arg(long, env = "COLIBRI_NO_PACKED", hide_env = true, global = true)]
    pub(crate) no_packed: bool,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", global = true)]
    pub(crate) threads: Option<NonZeroU32>,
    /// Write JSON: one object or one event a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Tell more
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    /// Tell only results and failures
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t = Colour::Auto, hide_possible_values = true, value_name = "auto|always|never", global = true)]
    pub(crate) color: Colour,
    /// Configuration file [default: ~/.config/colibri/config.toml]
    #[arg(
        long,
        value_name = "FILE",
        env = "COLIBRI_CONFIG",
        hide_env = true,
        global = true
    )]
    pub(crate) config: Option<PathBuf>,
}

impl Global {
    /// The precision the engine knows.
    pub(crate) fn precision(&self) -> PrecisionChoice {
        match self.precision {
            Precision::Auto => PrecisionChoice::Auto,
            Precision::F32 => PrecisionChoice::F32,
            Precision::Bf16 => PrecisionChoice::Bf16,
            Precision::Int8 => PrecisionChoice::Int8,
            Precision::Int4 => PrecisionChoice::Int4,
        }
    }

    /// The prompts the engine knows.
    pub(crate) fn prompts(&self) -> Option<PromptVersion> {
        self.prompt_version.map(|version| match version {
            Prompts::V0_3_1 => PromptVersion::V0_3_1,
            Prompts::V0_3_4 => PromptVersion::V0_3_4,
            Prompts::V0_3_5 => PromptVersion::V0_3_5,
            Prompts::V0_3_9 => PromptVersion::V0_3_9,
            Prompts::V0_3_11 => PromptVersion::V0_3_11,
        })
    }
}

/// `2GiB`, or `off` for nothing.
fn feature_cache(text: &str) -> Result<u64, String> {
    if text == "off" {
        return Ok(0);
    }
    crate::text::parse_bytes(text)
}
