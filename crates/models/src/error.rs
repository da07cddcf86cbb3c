//! What can go wrong between a folder of files and rows or text.

use std::path::PathBuf;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Weights could not be read, or a layer failed.
    #[error(transparent)]
    Layers(#[from] colibri_nn::Error),
    /// Images, prompt or tokenizer.
    #[error(transparent)]
    Processor(#[from] crate::processor::Error),
    /// A tensor operation failed.
    #[error("a tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file is not what it should be.
    #[error("cannot understand `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The configuration asks for something impossible or not implemented.
    #[error("`{}`: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder is a checkpoint of another kind.
    #[error("`{}` holds {found}, not {expected}", path.display())]
    Kind {
        /// The folder.
        path: PathBuf,
        /// What was asked for.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The number of visual tokens and of `<image>` ids differ.
    #[error(
        "the prompt holds {ids} image tokens, the images give {visual} visual tokens; the processor settings do not fit the model"
    )]
    ImageTokens {
        /// `<image>` ids in the prompt.
        ids: usize,
        /// Visual tokens from the tower and connector.
        visual: usize,
    },
    /// A prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt} tokens, the model takes {limit}; use fewer pages or a smaller `--detail`"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// A row came out as zero or not finite: the weights are damaged or do not belong together.
    #[error(
        "row {row} of the embedding is not a direction (its length is {length}); the weights are damaged or do not fit together"
    )]
    DegenerateRow {
        /// Index of the row.
        row: usize,
        /// Its Euclidean length.
        length: f32,
    },
    /// A generator that runs elsewhere has failed, for a reason of its own.
    #[error(transparent)]
    Elsewhere(Box<dyn std::error::Error + Send + Sync>),
    /// The caller stopped the work.
    #[error("cancelled")]
    Cancelled,
}
