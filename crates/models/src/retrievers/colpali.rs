//! ColPali: the PaliGemma backbone under a 128-dimensional projection (v1.2, v1.3; adapters, merged, and the layout of
//! transformers' `ColPaliForRetrieval`).
//!
//! Paper: Faysse et al. 2024, <https://arxiv.org/abs/2407.01449>. Upstream: `ColPali` in colpali-engine 0.3.18. Unlike
//! ColIdefics3's, the projection is adapted with the text model, and every token sees the whole prompt, a question's
//! too. (transformers 5.23 makes questions causal where a batch is padded or attention is `eager`; the checkpoints
//! were trained without that.)

use candle_core::Tensor;
use colibri_nn::{Linear, Weights};
use image::RgbImage;

use super::{
    DIM, PageEmbedding, QueryToken, Retriever, RetrieverSettings, Rows, project, query_tokens,
};
use crate::{
    Error, NoTrace, Result, Trace, WeightBytes,
    processor::{ColPaliProcessor, PromptVersion, TileOptions},
    registry::{Checkpoint, LoadOptions},
    vlm::paligemma::{Config, PaliGemma},
};

/// How the projection is called: by colpali-engine, and by transformers.
const PROJECTIONS: [&str; 2] = ["custom_text_proj", "embedding_proj_layer"];

/// The retriever.
#[derive(Debug)]
pub struct ColPali {
    backbone: PaliGemma,
    projection: Linear,
    processor: ColPaliProcessor,
    precision: &'static str,
    weight_bytes: WeightBytes,
}

impl ColPali {
    /// Whether the checkpoint has ColPali's projection.
    pub(crate) fn is_in(weights: &Weights) -> bool {
        find_projection(weights).is_some()
    }

    /// Loads the retriever: backbone and projection from the base, the adapter over both, the processor's files from
    /// the adapter's folder first.
    ///
    /// # Errors
    /// When a tensor or file is missing or does not fit.
    pub fn load(
        config: &Config,
        weights: &Weights,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
    ) -> Result<Self> {
        if let Some(found) = config.embedding_dim.filter(|&dim| dim != DIM) {
            return Err(Error::Config {
                path: checkpoint.base_folder().join("config.json"),
                reason: format!("`embedding_dim` is {found}, only {DIM} is implemented"),
            });
        }
        let files = checkpoint.processor_files();
        // What the checkpoint's own library would do.
        let usual = if config.is_transformers_colpali {
            PromptVersion::V0_3_1
        } else {
            PromptVersion::V0_3_11
        };
        let processor = ColPaliProcessor::load(
            &files,
            config.tokens_per_page(),
            options.prompt_version.unwrap_or(usual),
        )?;
        let side = processor.images().config().tile_side as usize;
        if side != config.vision_config.image_size {
            return Err(Error::Config {
                path: checkpoint.folder.join("preprocessor_config.json"),
                reason: format!(
                    "pages of {side} pixels do not fit a tower for {}",
                    config.vision_config.image_size
                ),
            });
        }
        let (backbone, projection) = Self::network(config, weights)?;
        let weight_bytes = WeightBytes::of(weights, backbone.vision_bytes());
        Ok(Self {
            backbone,
            projection,
            processor,
            precision: options.placement.precision_name(),
            weight_bytes,
        })
    }

    /// Backbone and projection.
    pub(crate) fn network(config: &Config, weights: &Weights) -> Result<(PaliGemma, Linear)> {
        let backbone = PaliGemma::load(config, weights)?;
        let hidden = config.text_config.hidden_size;
        let (place, name) =
            find_projection(weights).unwrap_or_else(|| (weights.clone(), PROJECTIONS[0]));
        Ok((backbone, place.linear(name, hidden, DIM, true)?))
    }

    /// The processor it was loaded with.
    pub fn processor(&self) -> &ColPaliProcessor {
        &self.processor
    }

    /// [`Retriever::embed_page`], with every stage shown to `trace`.
    ///
    /// # Errors
    /// As there.
    pub fn embed_page_traced(
        &self,
        page: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
        trace: &mut dyn Trace,
    ) -> Result<PageEmbedding> {
        let prompt = self.processor.document(page)?;
        if !on_tile(0, 1) {
            return Err(Error::Cancelled);
        }
        let mut pixels = vec![0.0; prompt.tiles.as_bytes().len()];
        self.processor
            .images()
            .normalize_tile(prompt.tiles.as_bytes(), &mut pixels);
        let visual = self.backbone.encode_page(&pixels, trace)?;
        Ok(PageEmbedding {
            rows: self.project(&prompt.ids, Some(&visual), trace)?,
            geometry: self.processor.geometry(&prompt.ids, &prompt.tiles),
        })
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
        project(self.backbone.text(), &self.projection, merged, trace)
    }
}

/// Where the projection stands and how it is called: at the root, save in files that kept PEFT's prefix.
fn find_projection(weights: &Weights) -> Option<(Weights, &'static str)> {
    let at_root = |name: &&str| weights.contains(&format!("{name}.weight"));
    if let Some(name) = PROJECTIONS.into_iter().find(at_root) {
        return Some((weights.clone(), name));
    }
    PROJECTIONS.into_iter().find_map(|name| {
        weights.names().find_map(|found| {
            let place = found.strip_suffix(&format!("{name}.weight"))?;
            Some((weights.pp(place.strip_suffix('.')?), name))
        })
    })
}

impl Retriever for ColPali {
    fn settings(&self) -> RetrieverSettings {
        RetrieverSettings {
            dim: DIM,
            prompt_version: self.processor.version(),
            precision: self.precision.to_owned(),
            longest_edge: self
                .processor
                .images()
                .longest_edge(&TileOptions::default()),
        }
    }

    fn embed_page(
        &self,
        page: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<PageEmbedding> {
        self.embed_page_traced(page, on_tile, &mut NoTrace)
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
