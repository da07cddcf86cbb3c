//! The Idefics family as a generator: SmolVLM 256M, 500M, 2.2B (Instruct, Base, Synthetic), Idefics3-8B, Idefics2-8B.
//!
//! Upstream: `Idefics3ForConditionalGeneration`, `Idefics2ForConditionalGeneration` and `generate` in transformers
//! 5.23, greedy by default.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor};
use colibri_nn::{KvCache, KvPrecision, Linear, Weights};
use image::RgbImage;

use super::{
    Generator, Looking, Request,
    prefix::{self, Position, Prefix, Prefixes},
};
use crate::{
    Error, NoTrace, Result, Trace, VisualTokens, WeightBytes,
    generate::{Completion, GenerateOptions, Sampler, Step, StopReason, end_ids},
    processor::{
        Idefics3Processor, Message, ProcessorFiles, TileGrid, TileOptions, Tiles, VideoRecipe,
    },
    registry::{Checkpoint, LoadOptions},
    vlm::idefics3::{Config, Idefics3, LookKey},
};

/// The generator.
#[derive(Debug)]
pub struct Idefics3Generator {
    backbone: Idefics3,
    head: Linear,
    processor: Idefics3Processor,
    tiles: TileOptions,
    end_ids: Vec<u32>,
    weight_bytes: WeightBytes,
    look_key: LookKey,
    prefixes: Prefixes,
    kv: KvPrecision,
}

/// A prompt with what was seen of its pictures.
struct Looked {
    ids: Vec<u32>,
    /// `(visual tokens, hidden)`.
    visual: Option<Tensor>,
    positions: Vec<Position>,
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
        let tokens = config.tokens_per_tile();
        let processor = if config.is_idefics2() {
            Idefics3Processor::load_idefics2(&files, tokens)?
        } else {
            Idefics3Processor::load(&files, Some(tokens))?
        };
        let end_ids = end_ids(
            &checkpoint.folder,
            processor.tokenizer().end_of_utterance_id(),
        )?;
        let (backbone, head) = Self::network(config, weights)?;
        let look_key = backbone.look_key(weights.pp("model"), processor.images(), options.tiles);
        let weight_bytes = WeightBytes::of(weights, backbone.vision_bytes());
        Ok(Self {
            backbone,
            head,
            processor,
            tiles: options.tiles,
            end_ids,
            weight_bytes,
            look_key,
            prefixes: Prefixes::new(options.prefix_bytes),
            kv: options.kv,
        })
    }

    /// Backbone and output head.
    pub(crate) fn network(config: &Config, weights: &Weights) -> Result<(Idefics3, Linear)> {
        let backbone = Idefics3::load(config, &weights.pp("model"))?;
        let head = backbone.load_head(weights)?;
        Ok((backbone, head))
    }

    /// The processor it was loaded with.
    pub fn processor(&self) -> &Idefics3Processor {
        &self.processor
    }

    /// [`Generator::generate`] with every stage of the prefill shown to `trace`; the whole prompt is read, whatever
    /// is known of it.
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
        self.prefixes.clear();
        let completion = self.generate_from(request, *tiles, on_step, trace);
        self.prefixes.clear();
        completion
    }

    /// [`Looking::generate_seen`] with every stage of the prefill shown to `trace`; the whole prompt is read.
    ///
    /// # Errors
    /// As there.
    pub fn generate_seen_traced(
        &self,
        messages: &[Message],
        seen: &[VisualTokens],
        options: &GenerateOptions,
        trace: &mut dyn Trace,
    ) -> Result<Completion> {
        self.prefixes.clear();
        let mut go_on = |_: Step<'_>| ControlFlow::Continue(());
        let completion = self.generate_from_seen(messages, seen, options, &mut go_on, trace);
        self.prefixes.clear();
        completion
    }

    fn generate_from_seen(
        &self,
        messages: &[Message],
        seen: &[VisualTokens],
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
        trace: &mut dyn Trace,
    ) -> Result<Completion> {
        let grids: Vec<TileGrid> = seen.iter().map(VisualTokens::grid).collect();
        let ids = self.processor.ids(messages, &grids, true)?;
        self.check_length(ids.len())?;
        let text = self.backbone.text();
        let visual = VisualTokens::all(seen)?
            .map(|visual| visual.to_device(text.device()))
            .transpose()?;
        let pictures: Vec<([u8; 32], usize)> = seen
            .iter()
            .map(|seen| (seen.hash(), seen.num_tokens()))
            .collect();
        let looked = Looked {
            positions: prefix::positions(&ids, self.backbone.config().image_token_id(), &pictures),
            ids,
            visual,
        };
        let num_tokens = looked.ids.len();
        let answer = self.answer(looked, options, on_step, trace);
        or_cancelled(answer, num_tokens)
    }

    fn generate_from(
        &self,
        request: &Request<'_>,
        tiles: TileOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
        trace: &mut dyn Trace,
    ) -> Result<Completion> {
        let prompt = self
            .processor
            .process(request.messages, request.images, true, &tiles)?;
        self.check_length(prompt.ids.len())?;
        let num_tokens = prompt.ids.len();
        let looked = self.look_at(prompt.ids, &prompt.tiles, on_step, trace);
        drop(prompt.tiles);
        let looked = looked.and_then(|looked| self.answer(looked, request.options, on_step, trace));
        or_cancelled(looked, num_tokens)
    }

    fn check_length(&self, prompt: usize) -> Result<()> {
        let limit = self.num_positions();
        if prompt >= limit {
            return Err(Error::PromptTooLong { prompt, limit });
        }
        Ok(())
    }

    /// The visual tokens of one picture.
    fn look_at_tiles(
        &self,
        tiles: Tiles,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<VisualTokens> {
        let (grid, tiles) = (tiles.grid(), [tiles]);
        let images = self.processor.images();
        let visual = self
            .backbone
            .encode_images(&tiles, images, on_tile, &mut NoTrace)?;
        let visual = visual.ok_or(Error::ImageTokens { ids: 1, visual: 0 })?;
        VisualTokens::new(grid, &visual)
    }

    /// Looks at the pictures of a prompt.
    fn look_at(
        &self,
        ids: Vec<u32>,
        tiles: &[Tiles],
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
        trace: &mut dyn Trace,
    ) -> Result<Looked> {
        let mut on_tile = |done, total| on_step(Step::Tile { done, total }).is_continue();
        let images = self.processor.images();
        let visual = self
            .backbone
            .encode_images(tiles, images, &mut on_tile, trace)?;
        let per_tile = self.backbone.config().tokens_per_tile();
        let pictures: Vec<([u8; 32], usize)> = tiles
            .iter()
            .map(|tiles| {
                // The unrounded tokens of these pixels: other values than rounded ones.
                let mut hasher = blake3::Hasher::new();
                hasher.update(b"pixels");
                for frame in tiles.frames() {
                    hasher.update(&frame.width.to_le_bytes());
                    hasher.update(&frame.height.to_le_bytes());
                    hasher.update(frame.pixels);
                }
                (*hasher.finalize().as_bytes(), tiles.num_frames() * per_tile)
            })
            .collect();
        Ok(Looked {
            positions: prefix::positions(&ids, self.backbone.config().image_token_id(), &pictures),
            ids,
            visual,
        })
    }

    fn answer(
        &self,
        mut looked: Looked,
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
        trace: &mut dyn Trace,
    ) -> Result<Completion> {
        let visual = looked.visual.take();
        let (logits, mut cache) = self.prefill(&looked, visual, options, on_step, trace)?;
        let completion = self.decode(&looked.ids, logits, &mut cache, options, on_step)?;
        let mut positions = looked.positions;
        positions.extend(completion.ids.iter().map(|&id| prefix::written(id)));
        self.prefixes.keep(Prefix { positions, cache });
        Ok(completion)
    }

    /// Reads what is new in the prompt: logits `(vocabulary,)` of the first new token. What was seen is given up, since
    /// it is as large as the residual stream and is in it from then on.
    fn prefill(
        &self,
        looked: &Looked,
        visual: Option<Tensor>,
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
        trace: &mut dyn Trace,
    ) -> Result<(Vec<f32>, KvCache)> {
        let text = self.backbone.text();
        let tokens = looked.ids.len();
        let mut merged = self.backbone.merge(&looked.ids, visual.as_ref())?; // (1, tokens, hidden)
        drop(visual);
        trace.record("merged", &merged)?;
        if on_step(Step::Prefill { tokens }).is_break() {
            return Err(Error::Cancelled);
        }
        let capacity = tokens
            .saturating_add(options.max_new_tokens)
            .min(self.num_positions());
        let known = self
            .prefixes
            .take(&looked.positions, text.cache_bytes(capacity))?;
        let (known, mut cache) = match known {
            Some(mut prefix) => {
                prefix.cache.reserve(capacity);
                (prefix.positions.len(), prefix.cache)
            }
            None => (0, text.new_cache(capacity, self.kv)),
        };
        if known > 0 {
            merged = merged.narrow(1, known, tokens - known)?.contiguous()?;
        }
        let hidden = text.forward(merged, Some(&mut cache), trace)?;
        let normed = text.norm(&hidden)?;
        trace.record("text.norm", &normed)?;
        // Only the last position is asked for a token; the head over all others would cost more than a layer.
        let last = normed.narrow(1, tokens - known - 1, 1)?.contiguous()?;
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
        cache: &mut KvCache,
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
            // A token that completes no character asks all the same whether to go on.
            let piece = pieces.push(id)?;
            answer.push_str(piece.as_deref().unwrap_or_default());
            if on_step(piece.as_deref().map_or(Step::Waiting, Step::Text)).is_break() {
                stop = StopReason::Cancelled;
                break;
            }
            if self.end_ids.contains(&id) {
                stop = StopReason::EndOfTurn;
                break;
            }
            if ids.len() == room {
                break;
            }
            let embedded = text.embed_tokens().forward(&[id])?.unsqueeze(0)?; // (1, 1, hidden)
            let hidden = text.forward(embedded, Some(&mut *cache), &mut NoTrace)?;
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
        self.generate_from(request, self.tiles, on_step, &mut NoTrace)
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

    fn weight_bytes(&self) -> WeightBytes {
        self.weight_bytes
    }

    fn looking(&self) -> Option<&dyn Looking> {
        Some(self)
    }

    fn forget(&self) {
        self.prefixes.clear();
    }
}

impl Looking for Idefics3Generator {
    fn look_key(&self) -> Option<&str> {
        self.look_key.get()
    }

    fn look(
        &self,
        image: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<VisualTokens> {
        let tiles = self.processor.images().cut(image, &self.tiles)?;
        self.look_at_tiles(tiles, on_tile)
    }

    fn look_at_frame(
        &self,
        image: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<VisualTokens> {
        self.look_at_tiles(self.processor.cut_frame(image)?, on_tile)
    }

    fn fits(&self, tokens: &VisualTokens) -> bool {
        let config = self.backbone.config();
        tokens.fits(
            config.vision_config.image_size,
            config.tokens_per_tile(),
            config.text_config.hidden_size,
        )
    }

    fn generate_seen(
        &self,
        messages: &[Message],
        seen: &[VisualTokens],
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        self.generate_from_seen(messages, seen, options, on_step, &mut NoTrace)
    }

    fn tiles_looked_at(&self) -> u64 {
        self.backbone.tiles_looked_at()
    }

    fn kept_bytes(&self) -> usize {
        self.prefixes.num_bytes()
    }
}

/// An answer that was stopped before its first word is an empty one.
fn or_cancelled(answer: Result<Completion>, prompt_tokens: usize) -> Result<Completion> {
    match answer {
        Err(Error::Cancelled) => Ok(Completion {
            text: String::new(),
            ids: Vec::new(),
            prompt_tokens,
            new_tokens: 0,
            stop: StopReason::Cancelled,
        }),
        other => other,
    }
}
