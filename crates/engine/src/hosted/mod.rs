//! Generators that run elsewhere: any service that speaks OpenAI's chat completions over HTTP, be it hosted
//! or a neighbour on this machine (vLLM, llama.cpp's server, Ollama, LM Studio).
//!
//! `openai:MODEL` names one. [`Hosted`] is a [`Generator`] like those that compute here, so nothing else of
//! the product knows the difference: the conversation goes out as JSON with pictures as data URLs
//! (`wire`, `picture`), the answer comes back as server-sent events (`sse`). Failures that pass are
//! tried again with growing waits, and a service that names a time is given it; a reply that has begun is
//! never asked for twice, since the reader has already seen it.
//!
//! Upstream: OpenAI's reference of `POST /chat/completions`, and the WHATWG's of event streams. Limits: one
//! choice, text only, no tools.

mod address;
mod clock;
mod config;
mod error;
mod picture;
mod send;
mod sse;
mod wire;

use std::{ops::ControlFlow, sync::Arc};

use colibri_models::{
    WeightBytes,
    generate::{Completion, Step},
    generators::{Generator, Request},
    processor::{VideoRecipe, VideoSampling},
};

pub use clock::{Clock, SystemClock, Wait, Waiting};
pub use config::{DEFAULT_BASE_URL, HostedConfig, Patience};
pub use error::Error;

/// What stands before the model's name where a hosted generator is meant.
pub const PREFIX: &str = "openai:";

/// Longest side in pixels of the pictures that are sent, where no detail is asked for. Services scale to
/// about this themselves (OpenAI: into 2048 × 2048, then to 768 on the short side); more only costs time.
const LONGEST_EDGE: u32 = 1536;
/// Pixels that one step of detail stands for: the tile of SmolVLM, and of OpenAI.
const TILE: u32 = 512;
/// Frames of a video that are sent.
const MOST_FRAMES: u32 = 32;
/// No picture is sent larger than this.
const MOST_EDGE: u32 = 4096;

/// A generator behind an OpenAI-compatible address.
pub struct Hosted {
    model: String,
    config: HostedConfig,
    sender: send::Sender,
    longest_edge: u32,
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosted")
            .field("model", &self.model)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Hosted {
    /// Prepares to ask `model`; nothing is sent yet. `detail` is the longest edge of pictures in tiles of
    /// 512 pixels.
    ///
    /// # Errors
    /// [`Error::Model`], [`Error::BaseUrl`], [`Error::Key`].
    pub fn new(model: &str, config: HostedConfig, detail: Option<u32>) -> Result<Self, Error> {
        Self::with_clock(model, config, detail, Arc::new(SystemClock))
    }

    /// The same with a clock of the caller's, so that tests need not wait.
    ///
    /// # Errors
    /// As [`Hosted::new`].
    pub fn with_clock(
        model: &str,
        config: HostedConfig,
        detail: Option<u32>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let model = model.trim();
        if model.is_empty() {
            return Err(Error::Model);
        }
        let sender = send::Sender::new(model, &config, clock)?;
        let longest_edge = detail.map_or(LONGEST_EDGE, |tiles| {
            tiles.saturating_mul(TILE).clamp(TILE, MOST_EDGE)
        });
        Ok(Self {
            model: model.to_owned(),
            config,
            sender,
            longest_edge,
        })
    }

    /// The model's name at the service.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The host that is asked.
    pub fn host(&self) -> &str {
        self.sender.host()
    }

    /// Whether the host is this machine.
    pub fn is_here(&self) -> bool {
        self.sender.is_here()
    }

    fn reply(
        &self,
        request: &Request<'_>,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion, Error> {
        let urls = request
            .images
            .iter()
            .map(|image| picture::data_url(image, self.longest_edge))
            .collect::<Result<Vec<_>, _>>()?;
        let body = wire::Body::new(&self.model, request.messages, &urls, request.options);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Runtime { source })?;
        runtime.block_on(self.sender.complete(body, on_step))
    }
}

impl Generator for Hosted {
    fn generate(
        &self,
        request: &Request<'_>,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> colibri_models::Result<Completion> {
        self.reply(request, on_step)
            .map_err(|error| colibri_models::Error::Elsewhere(Box::new(error)))
    }

    /// As SmolVLM2 is: with the time of each frame. Fewer of them, since they are paid for.
    fn video(&self) -> VideoRecipe {
        VideoRecipe::Timed(VideoSampling {
            fps: 1.0,
            max_frames: MOST_FRAMES,
            longest_edge: TILE,
        })
    }

    fn longest_edge(&self) -> u32 {
        self.longest_edge
    }

    /// Unknown: the service says when a prompt is too long.
    fn num_positions(&self) -> usize {
        usize::MAX
    }

    /// None of them are on this machine.
    fn weight_bytes(&self) -> WeightBytes {
        WeightBytes::default()
    }
}
