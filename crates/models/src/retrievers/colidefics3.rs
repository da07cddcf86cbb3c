//! ColIdefics3: the Idefics3 backbone under a 128-dimensional projection (colSmol-256M, colSmol-500M,
//! colsmolvlm-alpha).
//!
//! Paper: Faysse et al. 2024, <https://arxiv.org/abs/2407.01449>. Upstream: `ColIdefics3` in colpali-engine
//! 0.3.18. Every token of a page's prompt becomes a row, text and tags as well as visual tokens; the
//! projection is `linear.*` of the base checkpoint and is never adapted. Pages go through one at a time, so
//! that there is no padding and a row of a batch is trivially the row of the page alone.

use candle_core::Tensor;
use colibri_nn::{Linear, Weights};
use image::RgbImage;

use super::{
    DIM, PageEmbedding, QueryToken, Retriever, RetrieverSettings, Rows, project, query_tokens,
};
use crate::{
    NoTrace, Result, Trace, VisualTokens, WeightBytes,
    processor::{ColIdefics3Processor, TileGrid, TileOptions},
    registry::{Checkpoint, LoadOptions},
    vlm::idefics3::{Config, Idefics3, LookKey},
};

/// The retriever.
#[derive(Debug)]
pub struct ColIdefics3 {
    backbone: Idefics3,
    linear: Linear,
    processor: ColIdefics3Processor,
    tiles: TileOptions,
    precision: &'static str,
    weight_bytes: WeightBytes,
    look_key: LookKey,
}

impl ColIdefics3 {
    /// Loads the retriever: backbone and projection from the base, the adapter over the text layers, the
    /// processor's files from the adapter's folder first.
    ///
    /// # Errors
    /// When a tensor or file is missing or does not fit.
    pub fn load(
        config: &Config,
        weights: &Weights,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
    ) -> Result<Self> {
        let files = checkpoint.processor_files();
        let version = options.prompt_version.unwrap_or_default();
        let processor =
            ColIdefics3Processor::load(&files, Some(config.tokens_per_tile()), version)?;
        let (backbone, linear) = Self::network(config, weights)?;
        let look_key = backbone.look_key(weights.pp("model"), processor.images(), options.tiles);
        let weight_bytes = WeightBytes::of(weights, backbone.vision_bytes());
        Ok(Self {
            backbone,
            linear,
            processor,
            tiles: options.tiles,
            precision: options.placement.precision_name(),
            weight_bytes,
            look_key,
        })
    }

    /// Backbone and projection.
    pub(crate) fn network(config: &Config, weights: &Weights) -> Result<(Idefics3, Linear)> {
        let backbone = Idefics3::load(config, &weights.pp("model"))?;
        let linear = weights.linear("linear", config.text_config.hidden_size, DIM, true)?;
        Ok((backbone, linear))
    }

    /// The processor it was loaded with.
    pub fn processor(&self) -> &ColIdefics3Processor {
        &self.processor
    }

    /// [`Retriever::embed_page`], with every stage shown to `trace`.
    ///
    /// # Errors
    /// As there.
    pub fn embed_page_traced(
        &self,
        page: &RgbImage,
        tiles: &TileOptions,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
        trace: &mut dyn Trace,
    ) -> Result<PageEmbedding> {
        Ok(self.embed(page, *tiles, on_tile, trace)?.0)
    }

    /// The embedding and the visual tokens `(tokens, hidden)` it was made from.
    fn embed(
        &self,
        page: &RgbImage,
        tiles: TileOptions,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
        trace: &mut dyn Trace,
    ) -> Result<(PageEmbedding, TileGrid, Option<Tensor>)> {
        let prompt = self.processor.document(page, &tiles)?;
        let grid = prompt.tiles.grid();
        let visual = self.backbone.encode_images(
            &[prompt.tiles],
            self.processor.images(),
            on_tile,
            trace,
        )?;
        let rows = self.project(&prompt.ids, visual.as_ref(), trace)?;
        let embedding = PageEmbedding {
            rows,
            geometry: self.processor.geometry(&prompt.ids, grid),
        };
        Ok((embedding, grid, visual))
    }

    /// [`Retriever::embed_query`], with every stage shown to `trace`.
    ///
    /// # Errors
    /// As there.
    pub fn embed_query_traced(&self, query: &str, trace: &mut dyn Trace) -> Result<Rows> {
        self.project(&self.processor.query_ids(query)?, None, trace)
    }

    fn project(&self, ids: &[u32], visual: Option<&Tensor>, trace: &mut dyn Trace) -> Result<Rows> {
        let merged = self.backbone.merge(ids, visual)?; // (1, tokens, hidden)
        project(self.backbone.text(), &self.linear, merged, trace)
    }
}

impl Retriever for ColIdefics3 {
    fn settings(&self) -> RetrieverSettings {
        RetrieverSettings {
            dim: DIM,
            prompt_version: self.processor.version(),
            precision: self.precision.to_owned(),
            longest_edge: self.processor.images().longest_edge(&self.tiles),
        }
    }

    fn embed_page(
        &self,
        page: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<PageEmbedding> {
        self.embed_page_traced(page, &self.tiles, on_tile, &mut NoTrace)
    }

    fn embed_page_seen(
        &self,
        page: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<(PageEmbedding, Option<VisualTokens>)> {
        let (embedding, grid, visual) = self.embed(page, self.tiles, on_tile, &mut NoTrace)?;
        let seen = visual.map(|visual| VisualTokens::new(grid, &visual));
        Ok((embedding, seen.transpose()?))
    }

    fn look_key(&self) -> Option<&str> {
        self.look_key.get()
    }

    fn embed_query(&self, query: &str) -> Result<Rows> {
        self.embed_query_traced(query, &mut NoTrace)
    }

    fn query_tokens(&self, query: &str) -> Result<Vec<QueryToken>> {
        query_tokens(
            self.processor.tokenizer(),
            &self.processor.query_ids(query)?,
        )
    }

    fn weight_bytes(&self) -> WeightBytes {
        self.weight_bytes
    }
}
