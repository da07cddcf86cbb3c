//! How many operations a model needs, from its configuration: what measured rates are calculated from.
//!
//! Two for each product of a matrix or of attention; norms, activations and the adapter are left out, as they are
//! in every published figure.

use colibri_models::vlm::idefics3::Config;

/// Operations of the tower and the connector for one tile.
pub(super) fn tile(config: &Config) -> f64 {
    let vision = &config.vision_config;
    let patches = (vision.patches_per_side() as f64).powi(2);
    let (width, inner) = (vision.hidden_size as f64, vision.intermediate_size as f64);
    let embedding = 2.0 * patches * 3.0 * (vision.patch_size as f64).powi(2) * width;
    let products = 2.0 * patches * (4.0 * width * width + 2.0 * width * inner);
    let attention = 4.0 * patches * patches * width;
    let layers = vision.num_hidden_layers as f64 * (products + attention);
    let shuffled = width * (config.scale_factor() as f64).powi(2);
    let connector =
        2.0 * config.tokens_per_tile() as f64 * shuffled * config.text_config.hidden_size as f64;
    embedding + layers + connector
}

/// Operations of the text model for `tokens` tokens, each of which sees those before it.
pub(super) fn text(config: &Config, tokens: usize) -> f64 {
    let text = &config.text_config;
    let tokens = tokens as f64;
    let queries = (text.num_attention_heads * text.head_dim()) as f64;
    let layers = text.num_hidden_layers as f64;
    2.0 * tokens * weights(config) + layers * 2.0 * tokens * tokens * queries
}

/// Values in the matrices of the text model's layers.
pub(super) fn weights(config: &Config) -> f64 {
    let text = &config.text_config;
    let (hidden, inner) = (text.hidden_size as f64, text.intermediate_size as f64);
    let queries = (text.num_attention_heads * text.head_dim()) as f64;
    let keys = (text.num_key_value_heads() * text.head_dim()) as f64;
    text.num_hidden_layers as f64 * (hidden * (2.0 * queries + 2.0 * keys) + 3.0 * hidden * inner)
}

/// Values in the output head.
pub(super) fn head(config: &Config) -> f64 {
    (config.text_config.vocab_size * config.text_config.hidden_size) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures worked out by hand for a page of 17 tiles with colSmol-256M: 3.94 · 10¹² operations.
    #[test]
    fn a_page_of_the_small_model() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "scale_factor": 4,
            "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                "num_attention_heads": 12, "image_size": 512, "patch_size": 16},
            "text_config": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280},
        }))
        .unwrap();
        assert!((weights(&config) - 106.2e6).abs() < 0.1e6);
        let page = 17.0 * tile(&config) + text(&config, 1141);
        assert!((3.8e12..4.1e12).contains(&page), "{page}");
    }
}
