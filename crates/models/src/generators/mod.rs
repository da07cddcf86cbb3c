//! Generators: pictures and a conversation → streamed text.

mod idefics3;
mod prefix;

pub use idefics3::Idefics3Generator;

use std::ops::ControlFlow;

use image::RgbImage;

use crate::{
    Result, VisualTokens, WeightBytes,
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
    fn weight_bytes(&self) -> WeightBytes;

    /// All of them.
    fn num_bytes(&self) -> usize {
        self.weight_bytes().total()
    }

    /// Looking at pictures apart from answering; `None` where a generator cannot.
    fn looking(&self) -> Option<&dyn Looking> {
        None
    }

    /// Forgets what was kept of earlier prompts.
    fn forget(&self) {}
}

/// A generator that can look at a picture once and answer from what it saw, later and as often as asked.
pub trait Looking: Send + Sync {
    /// What visual tokens depend on besides the picture: weights of the tower and the connector, their precision,
    /// how pictures are cut. `None` where that is not known, and nothing should be kept.
    fn look_key(&self) -> Option<&str>;

    /// The visual tokens of a picture. `on_tile(done, total)` may stop the work by returning `false`.
    ///
    /// # Errors
    /// When a layer fails, or [`crate::Error::Cancelled`].
    fn look(
        &self,
        image: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<VisualTokens>;

    /// The visual tokens of a frame of a video, which is not cut.
    ///
    /// # Errors
    /// As [`Looking::look`].
    fn look_at_frame(
        &self,
        image: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<VisualTokens>;

    /// Whether visual tokens from elsewhere are of the right size.
    fn fits(&self, tokens: &VisualTokens) -> bool;

    /// [`Generator::generate`] about pictures that were looked at, in the order in which the messages mention
    /// them.
    ///
    /// # Errors
    /// As there, or when visual tokens do not fit.
    fn generate_seen(
        &self,
        messages: &[Message],
        seen: &[VisualTokens],
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion>;

    /// Tiles that went through the tower so far.
    fn tiles_looked_at(&self) -> u64;

    /// Bytes of keys and values kept of earlier prompts.
    fn kept_bytes(&self) -> usize;
}
