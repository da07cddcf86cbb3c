//! Generators: pictures and a conversation → streamed text.

mod idefics3;

pub use idefics3::Idefics3Generator;

use std::ops::ControlFlow;

use image::RgbImage;

use crate::{
    Result,
    generate::{Completion, GenerateOptions, Step},
    processor::{Message, VideoRecipe},
};

/// What a generator is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The conversation; the model answers its end.
    pub messages: &'a [Message],
    /// The pictures, in the order in which the messages mention them.
    pub images: &'a [RgbImage],
    /// How tokens are chosen.
    pub options: &'a GenerateOptions,
}

/// Continues conversations about pictures.
pub trait Generator: Send + Sync {
    /// Answers. `on_step` sees progress and text as they come and may stop the work; what was written
    /// until then is returned.
    ///
    /// # Errors
    /// When the prompt does not fit the model or a layer fails.
    fn generate(
        &self,
        request: &Request<'_>,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion>;

    /// How the model is shown a video.
    fn video(&self) -> VideoRecipe {
        VideoRecipe::of(None, self.longest_edge())
    }

    /// Longest side in pixels to which pictures are scaled.
    fn longest_edge(&self) -> u32;

    /// Tokens that prompt and answer may have together.
    fn num_positions(&self) -> usize;

    /// Bytes the weights occupy.
    fn num_bytes(&self) -> usize;
}
