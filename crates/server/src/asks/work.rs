//! What can be asked.

use colibri_engine::{
    generate::GenerateOptions,
    index::{Filter, Mode},
    picture::RgbImage,
    processor::Message,
};

/// What is asked.
#[derive(Debug)]
pub(crate) enum Work {
    /// A question to the index.
    Corpus(Question),
    /// A conversation with the generator alone.
    Chat(Conversation),
}

/// A question to the index.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) pages: usize,
    pub(crate) mode: Mode,
    pub(crate) filter: Filter,
    pub(crate) history: Vec<(String, String)>,
    pub(crate) instructions: Option<String>,
    pub(crate) with_text: bool,
    pub(crate) generate: GenerateOptions,
}

/// A conversation with the generator alone.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) messages: Vec<Message>,
    pub(crate) images: Vec<RgbImage>,
    pub(crate) generate: GenerateOptions,
}
