//! Decoding: choosing tokens one after another, streaming text, knowing when to stop.

mod options;
mod random;
mod sampler;

pub use options::GenerateOptions;
pub(crate) use options::end_ids;
pub use sampler::Sampler;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended its turn.
    EndOfTurn,
    /// The limit on new tokens, or the model's context, was reached.
    Length,
    /// The caller stopped it.
    Cancelled,
}

/// What a generator tells while it works. The caller answers whether to go on.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Tile `done` of `total` is about to be looked at.
    Tile {
        /// Tiles finished.
        done: usize,
        /// Tiles there are.
        total: usize,
    },
    /// A prompt of so many tokens is about to be read.
    Prefill {
        /// Tokens of the prompt.
        tokens: usize,
    },
    /// What a generator that runs elsewhere is doing, in words.
    Status(&'a str),
    /// Something that a person should know, such as a wait for a busy service.
    Note(&'a str),
    /// Nothing new (a token that completes no character, a service that is silent): only the question whether to go on.
    Waiting,
    /// More text: always whole characters.
    Text(&'a str),
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The whole text, special tokens left out, not trimmed.
    pub text: String,
    /// The tokens it was made of, the ending one included; none where it was written elsewhere.
    pub ids: Vec<u32>,
    /// Tokens of the prompt; 0 where a service does not tell.
    pub prompt_tokens: usize,
    /// Tokens written; 0 where a service does not tell.
    pub new_tokens: usize,
    /// Why it ended.
    pub stop: StopReason,
}
