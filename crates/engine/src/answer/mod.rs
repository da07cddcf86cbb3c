//! Answering: find pages, read them, reply with citations.

mod charts;
mod cite;
mod event;
mod pace;
mod prompt;
mod quote;
mod session;

pub use event::{AnswerEvent, Citation, Done, EvidencePage, Timings};
pub use pace::Pace;
pub use session::{Answering, Asked};

use colibri_document::OpenOptions;
use colibri_models::generate::GenerateOptions;

/// How questions are answered.
#[derive(Clone, Debug)]
pub struct AnswerOptions {
    /// Pages given to the generator.
    pub pages: usize,
    /// Gives the generator the text layer of the pages as well.
    pub with_text: bool,
    /// What the person wants observed in every answer.
    pub instructions: Option<String>,
    /// How tokens are chosen.
    pub generate: GenerateOptions,
    /// How documents are opened to draw their pages again.
    pub open: OpenOptions,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            pages: 3,
            with_text: false,
            instructions: None,
            generate: GenerateOptions::default(),
            open: OpenOptions::default(),
        }
    }
}
