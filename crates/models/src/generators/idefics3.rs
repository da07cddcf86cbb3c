//! Idefics3 as a generator: SmolVLM 256M, 500M, 2.2B (Instruct, Base, Synthetic), Idefics3-8B.
//!
//! Upstream: `Idefics3ForConditionalGeneration` and `generate` in transformers 5.23, greedy by default.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor};
use colibri_nn::{KvCache, Linear, Weights};

use super::{Generator, Request};
use crate::{
    Error, NoTrace, Result, Trace,
    generate::{Completion, GenerateOptions, Sampler, Step, StopReason, end_ids},
    processor::{Idefics3Processor, ProcessorFiles, Prompt, TileOptions, VideoRecipe},
    registry::{Checkpoint, LoadOptions},
    vlm::idefics3::{Config, Idefics3},
};

/// The generator.
#[derive(Debug)]
pub struct Idefics3Generator {
    backbone: Idefics3,
    head: Linear,
    processor: Idefics3Processor,
    tiles: TileOptions,
    end_ids: Vec<u32>,
    num_bytes: usize,
}

impl Idefics3Generator {
    /// Loads the generator.
    ///
    /// # Errors
    /// When a tensor or file is missing or does not fit.
    pub fn load(
        config: &Config,
        weights: &Weights,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
    ) -> Result<Self> {
        let files = ProcessorFiles::new(&checkpoint.folder);
        let processor = Idefics3Processor::load(&files, Some(config.tokens_per_tile()))?;
        let end_ids = end_ids(
            &checkpoint.folder,
            Some(processor.tokenizer().end_of_utterance_id()),
        )?;
        let backbone = Idefics3::load(config, &weights.pp("model"))?;
        let head = backbone.load_head(weights)?;
        Ok(Self {
            backbone,
            head,
            processor,
            tiles: options.tiles,
            end_ids,
            num_bytes: weights.loaded_bytes(),
        })
    }

    /// The processor it was loaded with.
    pub fn processor(&self) -> &Idefics3Processor {
        &self.processor
    }

    /// [`Generator::generate`] with every stage of the prefill shown to `trace`.
    ///
    /// # Errors
    /// As there.
    pub fn generate_traced(
        &self,
        request: &Request<'_>,
        tiles: &TileOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
        trace: &mut dyn Trace,
    ) -> Result<Completion> {
        let prompt = self
            .processor
            .process(request.messages, request.images, true, tiles)?;
        let limit = self.num_positions();
        if prompt.ids.len() >= limit {
            return Err(Error::PromptTooLong {
                prompt: prompt.ids.len(),
                limit,
            });
        }
        match self.prefill(&prompt, request.options, on_step, trace) {
            Ok((logits, cache)) => {
                self.decode(&prompt.ids, logits, cache, request.options, on_step)
            }
            Err(Error::Cancelled) => Ok(Completion {
                text: String::new(),
                ids: Vec::new(),
                prompt_tokens: prompt.ids.len(),
                new_tokens: 0,
                stop: StopReason::Cancelled,
            }),
            Err(error) => Err(error),
        }
    }

    /// Looks at the pictures and reads the prompt: logits `(vocabulary,)` of the first new token.
    fn prefill(
        &self,
        prompt: &Prompt,
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
        trace: &mut dyn Trace,
    ) -> Result<(Vec<f32>, KvCache)> {
        let text = self.backbone.text();
        let tokens = prompt.ids.len();
        let mut on_tile = |done, total| on_step(Step::Tile { done, total }).is_continue();
        let visual = self.backbone.encode_images(
            &prompt.tiles,
            self.processor.images(),
            &mut on_tile,
            trace,
        )?;
        let merged = self.backbone.merge(&prompt.ids, visual.as_ref())?; // (1, tokens, hidden)
        trace.record("merged", &merged)?;
        if on_step(Step::Prefill { tokens }).is_break() {
            return Err(Error::Cancelled);
        }
        let capacity = tokens
            .saturating_add(options.max_new_tokens)
            .min(self.num_positions());
        let mut cache = text.new_cache(capacity);
        let hidden = text.forward(merged, Some(&mut cache), trace)?;
        let normed = text.norm(&hidden)?;
        trace.record("text.norm", &normed)?;
        // Only the last position is asked for a token; the head over all others would cost more than a layer.
        let last = normed.narrow(1, tokens - 1, 1)?.contiguous()?;
        let logits = self.logits(&last)?;
        trace.record(
            "logits",
            &Tensor::from_slice(&logits, (1, logits.len()), &Device::Cpu)?,
        )?;
        Ok((logits, cache))
    }

    fn logits(&self, normed: &Tensor) -> Result<Vec<f32>> {
        let logits = self.head.forward(normed)?.flatten_all()?; // (vocabulary,)
        Ok(logits
            .to_dtype(DType::F32)?
            .to_device(&Device::Cpu)?
            .to_vec1::<f32>()?)
    }

    fn decode(
        &self,
        prompt: &[u32],
        mut logits: Vec<f32>,
        mut cache: KvCache,
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let text = self.backbone.text();
        let room = (self.num_positions() - prompt.len()).min(options.max_new_tokens);
        let mut sampler = Sampler::new(options, prompt);
        let mut pieces = self.processor.tokenizer().stream();
        let mut answer = String::new();
        let mut ids = Vec::new();
        let mut stop = StopReason::Length;
        while ids.len() < room {
            let id = sampler.choose(&mut logits);
            ids.push(id);
            // An id that ends the turn is text as well, unless it is a special token (as upstream decodes it).
            if let Some(piece) = pieces.push(id)? {
                answer.push_str(&piece);
                if on_step(Step::Text(&piece)).is_break() {
                    stop = StopReason::Cancelled;
                    break;
                }
            }
            if self.end_ids.contains(&id) {
                stop = StopReason::EndOfTurn;
                break;
            }
            if ids.len() == room {
                break;
            }
            let embedded = text.embed_tokens().forward(&[id])?.unsqueeze(0)?; // (1, 1, hidden)
            let hidden = text.forward(embedded, Some(&mut cache), &mut NoTrace)?;
            logits = self.logits(&text.norm(&hidden)?)?;
        }
        if let Some(rest) = pieces.finish()? {
            answer.push_str(&rest);
            if stop != StopReason::Cancelled {
                // The answer is complete either way: whether to go on no longer matters.
                let _ = on_step(Step::Text(&rest));
            }
        }
        Ok(Completion {
            text: answer,
            new_tokens: ids.len(),
            ids,
            prompt_tokens: prompt.len(),
            stop,
        })
    }
}

impl Generator for Idefics3Generator {
    fn generate(
        &self,
        request: &Request<'_>,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        self.generate_traced(request, &self.tiles, on_step, &mut NoTrace)
    }

    fn video(&self) -> VideoRecipe {
        self.processor.video()
    }

    fn longest_edge(&self) -> u32 {
        self.processor.images().longest_edge(&self.tiles)
    }

    fn num_positions(&self) -> usize {
        self.backbone.config().text_config.num_positions()
    }

    fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}
