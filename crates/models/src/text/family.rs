//! What the relatives of Llama do otherwise.
//!
//! - **Mistral** 7B v0.1 (Jiang et al. 2023, <https://arxiv.org/abs/2310.06825>): other class defaults, and
//!   attention to the last 4096 tokens only.
//! - **Gemma** (2024, <https://arxiv.org/abs/2403.08295>): embeddings times `√hidden`, norms that multiply by
//!   `1 + weight`, a gate of GELU, heads of 256 values whatever the width.
//!
//! Upstream: `MistralConfig`, `GemmaConfig`, `GemmaModel` in transformers 5.23.

use colibri_nn::{Linear, Norm, Weights, blocks::Mlp};
use serde_json::{Map, Value, json};

use super::llama::Config;
use crate::Result;

/// Whose layers a text model has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Llama, SmolLM2.
    #[default]
    Llama,
    /// Mistral.
    Mistral,
    /// Gemma, first version.
    Gemma,
}

impl Family {
    /// Class defaults that differ from Llama's.
    fn defaults(self) -> Value {
        match self {
            Self::Llama => json!({}),
            Self::Mistral => json!({
                "intermediate_size": 14_336, "num_key_value_heads": 8,
                "max_position_embeddings": 131_072, "sliding_window": 4096,
            }),
            Self::Gemma => json!({
                "vocab_size": 256_000, "hidden_size": 3072, "intermediate_size": 24_576,
                "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16,
                "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 8192,
                "tie_word_embeddings": true,
            }),
        }
    }

    /// The MLP's activation, by its name upstream.
    pub(super) fn activation(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral => "silu",
            Self::Gemma => "gelu_pytorch_tanh",
        }
    }

    /// What token embeddings are multiplied by.
    pub(super) fn embedding_scale(self, config: &Config) -> Option<f64> {
        match self {
            Self::Llama | Self::Mistral => None,
            Self::Gemma => Some((config.hidden_size as f64).sqrt()),
        }
    }

    pub(super) fn norm(self, vb: &Weights, name: &str, hidden: usize, eps: f64) -> Result<Norm> {
        Ok(match self {
            Self::Llama | Self::Mistral => vb.rms_norm(name, hidden, eps)?,
            Self::Gemma => vb.rms_norm_from_one(name, hidden, eps)?,
        })
    }

    pub(super) fn mlp(self, gate_proj: Linear, up_proj: Linear, down_proj: Linear) -> Mlp {
        match self {
            Self::Llama | Self::Mistral => Mlp::SiluGated {
                gate_proj,
                up_proj,
                down_proj,
            },
            Self::Gemma => Mlp::GeluGated {
                gate_proj,
                up_proj,
                down_proj,
            },
        }
    }

    /// Reads a `text_config` of this family; what it leaves out takes the class defaults.
    ///
    /// # Errors
    /// When a value is of another kind.
    pub fn read(self, mut text_config: Value) -> std::result::Result<Config, serde_json::Error> {
        fill(&mut text_config, &self.defaults());
        // transformers reads Gemma's first files so: they say `gelu` and mean the tanh form.
        if self == Self::Gemma && text_config["hidden_act"] == "gelu" {
            text_config["hidden_act"] = Value::from(self.activation());
        }
        let mut config: Config = serde_json::from_value(text_config)?;
        config.family = self;
        Ok(config)
    }
}

/// Adds the entries of `defaults` that `object` does not have. An object that is missing altogether becomes one.
pub(crate) fn fill(object: &mut Value, defaults: &Value) {
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    if let (Some(object), Some(defaults)) = (object.as_object_mut(), defaults.as_object()) {
        for (key, value) in defaults {
            object.entry(key).or_insert_with(|| value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_is_the_class_default_and_null_is_none() {
        let mistral = Family::Mistral
            .read(json!({"sliding_window": null}))
            .unwrap();
        assert_eq!(
            (mistral.sliding_window, mistral.num_key_value_heads()),
            (None, 8)
        );
        assert_eq!(
            Family::Mistral.read(Value::Null).unwrap().sliding_window,
            Some(4096)
        );
        let gemma = json!({
            "hidden_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 1, "hidden_act": "gelu",
        });
        let gemma = Family::Gemma.read(gemma).unwrap();
        assert_eq!((gemma.head_dim(), gemma.family), (256, Family::Gemma));
        assert!(gemma.check().is_ok());
        assert!(Family::Gemma.read(json!({"hidden_size": "wide"})).is_err());
        assert!(Family::Mistral.read(json!("wide")).is_err());
    }
}
