//! How many operations a model needs, from its configuration: what measured rates are calculated from.
//!
//! Two for each product of a matrix or of attention; norms, activations and the adapter are left out, as they are
//! in every published figure.

use std::path::Path;

use colibri_models::{
    registry::Architecture,
    text::llama,
    vision::siglip,
    vlm::{idefics3, paligemma},
};

/// A model whose arithmetic is known.
#[derive(Debug)]
pub(super) struct Model {
    vision: siglip::Config,
    text: llama::Config,
    /// Patches of a frame.
    patches: f64,
    /// Operations between tower and text model for a frame.
    connector: f64,
    /// Whether every token sees all others.
    sees_all: bool,
}

impl Model {
    /// From the `config.json` of a folder, where it is one of these.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        Some(match Architecture::load(folder).ok()? {
            Architecture::Idefics(config) => Self::idefics(&config),
            Architecture::PaliGemma(config) => Self::paligemma(&config),
        })
    }

    fn paligemma(config: &paligemma::Config) -> Self {
        let (vision, text) = (config.vision_config.clone(), config.text_config.clone());
        let patches = (vision.patches_per_side() as f64).powi(2);
        Self {
            patches,
            connector: 2.0 * patches * vision.hidden_size as f64 * text.hidden_size as f64,
            sees_all: true,
            vision,
            text,
        }
    }

    fn idefics(config: &idefics3::Config) -> Self {
        let (vision, text) = (config.vision_config.clone(), config.text_config.clone());
        let side = vision.patches_per_side() as f64;
        let (width, hidden) = (vision.hidden_size as f64, text.hidden_size as f64);
        let (patches, connector) = if let Some(perceiver) = &config.perceiver_config {
            // The page of these measurements, US Letter, keeps its shape, and its quarters have the same.
            let patches = side * (side * 17.0 / 22.0).floor();
            let inner = text.intermediate_size as f64;
            let gated = 2.0 * patches * (2.0 * width * inner + inner * hidden);
            let latents = perceiver.resampler_n_latents as f64;
            let head = perceiver.resampler_head_dim as f64;
            let queries = perceiver.resampler_n_heads as f64 * head;
            let keys = perceiver.num_key_value_heads as f64 * head;
            let seen = patches + latents;
            let layer = 2.0 * seen * hidden * 2.0 * keys
                + 2.0 * latents * (2.0 * hidden * queries + 3.0 * hidden * 4.0 * hidden)
                + 4.0 * latents * seen * queries;
            (patches, gated + perceiver.resampler_depth as f64 * layer)
        } else {
            let shuffled = width * (config.scale_factor() as f64).powi(2);
            let tokens = config.tokens_per_tile() as f64;
            (side.powi(2), 2.0 * tokens * shuffled * hidden)
        };
        Self {
            vision,
            text,
            patches,
            connector,
            sees_all: false,
        }
    }

    /// Operations of the tower and what follows it for one frame: a tile, or a picture in its own shape.
    pub(super) fn frame(&self) -> f64 {
        let (vision, patches) = (&self.vision, self.patches);
        let (width, inner) = (vision.hidden_size as f64, vision.intermediate_size as f64);
        let embedding = 2.0 * patches * 3.0 * (vision.patch_size as f64).powi(2) * width;
        let products = 2.0 * patches * (4.0 * width * width + 2.0 * width * inner);
        let attention = 4.0 * patches * patches * width;
        embedding + vision.num_hidden_layers as f64 * (products + attention) + self.connector
    }

    /// Operations of the text model for `tokens` tokens, each of which sees those before it or all.
    pub(super) fn text(&self, tokens: usize) -> f64 {
        let text = &self.text;
        let tokens = tokens as f64;
        let queries = (text.num_attention_heads * text.head_dim()) as f64;
        let layers = text.num_hidden_layers as f64;
        let seen = if self.sees_all { 4.0 } else { 2.0 };
        2.0 * tokens * self.weights() + layers * seen * tokens * tokens * queries
    }

    /// Values in the matrices of the text model's layers.
    pub(super) fn weights(&self) -> f64 {
        let text = &self.text;
        let (hidden, inner) = (text.hidden_size as f64, text.intermediate_size as f64);
        let queries = (text.num_attention_heads * text.head_dim()) as f64;
        let keys = (text.num_key_value_heads() * text.head_dim()) as f64;
        text.num_hidden_layers as f64
            * (hidden * (2.0 * queries + 2.0 * keys) + 3.0 * hidden * inner)
    }

    /// Values in the output head.
    pub(super) fn head(&self) -> f64 {
        (self.text.vocab_size * self.text.hidden_size) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures worked out by hand for a page of 17 tiles with colSmol-256M: 3.94 · 10¹² operations.
    #[test]
    fn a_page_of_the_small_model() {
        let config: idefics3::Config = serde_json::from_value(serde_json::json!({
            "scale_factor": 4,
            "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                "num_attention_heads": 12, "image_size": 512, "patch_size": 16},
            "text_config": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280},
        }))
        .unwrap();
        let model = Model::idefics(&config);
        assert!((model.weights() - 106.2e6).abs() < 0.1e6);
        let page = 17.0 * model.frame() + model.text(1141);
        assert!((3.8e12..4.1e12).contains(&page), "{page}");
    }

    /// ColPali: 0.41 · 10⁹ values in the tower's layers and 1.98 · 10⁹ in the text model's, over 1031 tokens; and
    /// Idefics2: 7.0 · 10⁹ values in Mistral.
    #[test]
    fn the_larger_shapes() {
        let model = |name: &str| {
            let scratch = tempfile::tempdir().unwrap();
            let shape: crate::bench::Shape = name.parse().unwrap();
            let pair = shape
                .write(scratch.path(), &scratch.path().join("cache"), false)
                .unwrap();
            let located = pair.retriever.or(pair.generator).unwrap();
            Model::of(&located.checkpoint.folder).unwrap()
        };
        let colpali = model("ColPali-v1.3");
        assert!((colpali.weights() - 1.98e9).abs() < 0.01e9);
        let page = colpali.frame() + colpali.text(1031);
        assert!((5.0e12..5.3e12).contains(&page), "{page}");
        let idefics2 = model("Idefics2-8B");
        assert!((idefics2.weights() - 6.98e9).abs() < 0.02e9);
    }
}
