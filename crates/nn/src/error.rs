//! What can go wrong while weights are read or layers run.

use std::path::PathBuf;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with its cause; each names the file and the tensor it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The header of a safetensors file does not follow the format.
    #[error("`{}` is not a valid safetensors file: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Which rule of the format it breaks.
        reason: String,
    },
    /// The file ends before (or after) the data its header describes.
    #[error("`{}` is truncated or damaged: its header describes {expected} bytes, the file has {found}; fetch it again", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes the header asks for.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A JSON file beside the weights cannot be understood.
    #[error("cannot understand `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A tensor that the model needs is in none of the files.
    #[error("tensor `{name}` is missing from {}", list(files))]
    MissingTensor {
        /// The tensor's full name.
        name: String,
        /// The files that were searched.
        files: Vec<PathBuf>,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor `{name}` in `{}` has shape {found:?}, the configuration asks for {expected:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor's full name.
        name: String,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has a type that is not a float type of at least 16 bits.
    #[error("tensor `{name}` in `{}` has type {found}; F32, BF16 and F16 can be read", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor's full name.
        name: String,
        /// The type in the file.
        found: String,
    },
    /// A weight is not a number.
    #[error("tensor `{name}` in `{}` contains values that are not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's full name.
        name: String,
    },
    /// Two files of one checkpoint define the same tensor.
    #[error("tensor `{name}` is in both `{}` and `{}`", first.display(), second.display())]
    DuplicateTensor {
        /// The tensor's full name.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// An adapter asks for something that is not implemented, or does not fit its base.
    #[error("adapter `{}`: {reason}", path.display())]
    Adapter {
        /// The adapter's file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The cache holds fewer or other layers than the model, or a sequence outgrew its limit.
    #[error("the sequence has {found} tokens, the model allows {limit}")]
    TooLong {
        /// Tokens asked for.
        found: usize,
        /// Tokens the position table holds.
        limit: usize,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

fn list(files: &[PathBuf]) -> String {
    let names: Vec<String> = files
        .iter()
        .map(|file| format!("`{}`", file.display()))
        .collect();
    if names.is_empty() {
        "the checkpoint, which has no weight files".to_owned()
    } else {
        names.join(", ")
    }
}
