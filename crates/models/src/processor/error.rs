//! What can go wrong between a checkpoint's files, a picture and a prompt.

use std::path::PathBuf;

/// The result of everything in this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a processor could not be loaded or a prompt could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file exists but could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than any honest file of its kind.
    #[error("`{path}` has {found} bytes, more than the {limit} allowed for such a file")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The greatest size accepted, in bytes.
        limit: u64,
    },
    /// A file that the checkpoint must have is in none of its folders.
    #[error("no `{file}` in {}", folders(.dirs))]
    MissingFile {
        /// The name looked for.
        file: &'static str,
        /// The folders looked into, in order.
        dirs: Vec<PathBuf>,
    },
    /// A file is not JSON.
    #[error("`{path}` is not valid JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A text file is not UTF-8.
    #[error("`{path}` is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A file lacks a key that has no default.
    #[error("`{path}` has no `{key}`")]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key, with dots between levels.
        key: &'static str,
    },
    /// A key has a value of the wrong kind or outside its range.
    #[error("`{key}` in `{path}` is {found}, expected {expected}")]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key, with dots between levels.
        key: &'static str,
        /// What would have been accepted.
        expected: &'static str,
        /// The value found, as JSON (shortened).
        found: String,
    },
    /// The number of tokens of a tile in the file is not what the network makes.
    #[error(
        "`image_seq_len` in `{path}` is {found}, but the vision tower and the connector make \
         {expected} tokens of a tile"
    )]
    ImageSeqLen {
        /// The file.
        path: PathBuf,
        /// (image_size / patch_size / scale_factor)².
        expected: usize,
        /// The value in the file.
        found: usize,
    },
    /// `tokenizer.json` is not a tokenizer.
    #[error("cannot load the tokenizer `{path}`: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizer library said.
        reason: String,
    },
    /// The tokenizer lacks a token that the model needs.
    #[error("the tokenizer `{path}` has no token `{token}`")]
    MissingToken {
        /// The file.
        path: PathBuf,
        /// The token.
        token: &'static str,
    },
    /// No chat template in any of the files that may hold one.
    #[error(
        "no chat template in {}: tried `processor_config.json`, `chat_template.json`, \
         `chat_template.jinja` and `tokenizer_config.json`",
        folders(.dirs)
    )]
    MissingTemplate {
        /// The folders looked into, in order.
        dirs: Vec<PathBuf>,
    },
    /// The chat template cannot be compiled, or fails on a conversation.
    #[error("the chat template of `{path}` failed: {source}")]
    Template {
        /// The file that holds the template.
        path: PathBuf,
        /// Line and reason.
        #[source]
        source: minijinja::Error,
    },
    /// A text could not be turned into tokens.
    #[error("the tokenizer `{path}` failed on a text: {reason}")]
    Encode {
        /// The tokenizer's file.
        path: PathBuf,
        /// What the tokenizer library said.
        reason: String,
    },
    /// The tokenizer makes a special token out of ordinary text by its merge rules, so the text
    /// cannot be shown to the model as text.
    #[error("the tokenizer `{path}` turns ordinary text into the special token `{token}`")]
    SpecialFromText {
        /// The tokenizer's file.
        path: PathBuf,
        /// The special token.
        token: String,
    },
    /// Every character that could mark user text occurs in it.
    #[error("a text uses all {0} private characters, so none is left to mark it with")]
    NoMarker(usize),
    /// Pictures given and pictures mentioned differ in number.
    #[error("the conversation mentions {expected} image(s), {found} given")]
    ImageCount {
        /// Images in the messages.
        expected: usize,
        /// Images given.
        found: usize,
    },
    /// The chat template did not place each image once.
    #[error(
        "the chat template of `{path}` placed {found} image(s) of the {expected} in the messages"
    )]
    PlacedImages {
        /// The file that holds the template.
        path: PathBuf,
        /// Images in the messages.
        expected: usize,
        /// `<image>` marks in the rendered text.
        found: usize,
    },
    /// A picture without pixels.
    #[error("cannot cut an image of {width}×{height} pixels into tiles")]
    EmptyImage {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The settings would cut a picture into more tiles than any prompt can hold.
    #[error(
        "an image of {width}×{height} pixels would make {found} tiles, at most {limit} allowed"
    )]
    TooManyTiles {
        /// Pixels across, of the original.
        width: u32,
        /// Pixels down, of the original.
        height: u32,
        /// Tiles without the overview.
        found: u64,
        /// The greatest number accepted.
        limit: u64,
    },
    /// A name that is no version of the retrieval prompts of this model.
    #[error("unknown prompt version `{found}`, known here are `{}`", .known.join("`, `"))]
    PromptVersion {
        /// The name given.
        found: String,
        /// The versions there are.
        known: Vec<&'static str>,
    },
}

/// "`a`" or "`a` and `b`".
fn folders(dirs: &[PathBuf]) -> String {
    let quoted: Vec<String> = dirs
        .iter()
        .map(|dir| format!("`{}`", dir.display()))
        .collect();
    quoted.join(" or ")
}
