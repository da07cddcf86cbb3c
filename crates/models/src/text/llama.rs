//! The Llama text model and its relatives.
//!
//! Paper: Touvron et al. 2023, <https://arxiv.org/abs/2302.13971>. Upstream: `LlamaModel` in transformers
//! 5.23; Llama 3.1's frequency scaling as in its `modeling_rope_utils.py`. What Mistral and Gemma do otherwise
//! is a value, [`Family`].

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use colibri_nn::{
    Embedding, KvCache, KvPrecision, Linear, Norm, Placement, Rope, Weights,
    blocks::{AttentionBlock, AttentionShape, MlpBlock, Visibility},
};

use super::Family;
use crate::{Result, Trace};

/// Positions a table is built for at most: 32 768 tokens are about twenty-eight pages, and the table of
/// a model that allows 131 072 would cost as much as its KV cache.
const MAX_POSITIONS: usize = 32_768;

/// No known model is wider; beyond this a configuration is damaged, and its numbers must not size an
/// allocation.
const MAX_WIDTH: usize = 1 << 20;

/// `text_config`, with the defaults of transformers' `LlamaConfig`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; as many as query heads if not given.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` if not given.
    pub head_dim: Option<usize>,
    /// The MLP's activation; each family has one.
    pub hidden_act: String,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies, in the older layout.
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies, in the older layout.
    pub rope_scaling: Option<RopeParameters>,
    /// Both, in the newer layout.
    pub rope_parameters: Option<RopeParameters>,
    /// Biases in the attention projections.
    pub attention_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Tokens that a token of Mistral sees at most, itself included.
    pub sliding_window: Option<usize>,
    /// Whether every token sees the whole prompt (Gemma in PaliGemma).
    pub use_bidirectional_attention: Option<bool>,
    /// Whose configuration it is.
    #[serde(skip)]
    pub family: Family,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: "silu".to_owned(),
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: None,
            rope_scaling: None,
            rope_parameters: None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            sliding_window: None,
            use_bidirectional_attention: None,
            family: Family::Llama,
        }
    }
}

/// How rotary frequencies are derived; the older layout says `type` for `rope_type`.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct RopeParameters {
    /// `default`, `linear` or `llama3`.
    #[serde(alias = "type")]
    pub rope_type: Option<String>,
    /// Base of the frequencies.
    pub rope_theta: Option<f64>,
    /// By how much the context is stretched.
    pub factor: Option<f64>,
    /// Below this many turns over the original context, frequencies are divided by `factor`.
    pub low_freq_factor: Option<f64>,
    /// Above this many turns, they stay.
    pub high_freq_factor: Option<f64>,
    /// The original context.
    pub original_max_position_embeddings: Option<usize>,
}

impl Config {
    /// What is impossible in the configuration, if anything is.
    ///
    /// # Errors
    /// The reason in words.
    pub fn check(&self) -> std::result::Result<(), String> {
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads(),
            self.max_position_embeddings,
        ];
        if sizes.iter().any(|&size| size == 0 || size > MAX_WIDTH) {
            return Err("`text_config` has a size of zero or beyond any model".to_owned());
        }
        let head_dim = self.head_dim();
        if head_dim == 0 || head_dim > MAX_WIDTH || !head_dim.is_multiple_of(2) {
            return Err(format!(
                "`text_config` gives heads of {head_dim} values, which cannot be rotated"
            ));
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads())
        {
            return Err(format!(
                "`text_config` spreads {} query heads over {} key heads",
                self.num_attention_heads,
                self.num_key_value_heads()
            ));
        }
        let activation = self.family.activation();
        if self.hidden_act != activation {
            return Err(format!(
                "`text_config.hidden_act` is `{}`, only `{activation}` is implemented",
                self.hidden_act
            ));
        }
        if self.sliding_window == Some(0) {
            return Err("`text_config.sliding_window` is zero".to_owned());
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err("`text_config.rms_norm_eps` must be positive".to_owned());
        }
        self.inv_freq().map(|_| ())
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Key and value heads.
    pub fn num_key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Positions that can be used.
    pub fn num_positions(&self) -> usize {
        self.max_position_embeddings.min(MAX_POSITIONS)
    }

    /// Who sees whom.
    fn visibility(&self) -> Visibility {
        match self.sliding_window {
            _ if self.use_bidirectional_attention == Some(true) => Visibility::Full,
            Some(window) if self.family == Family::Mistral => Visibility::Window(window),
            Some(_) | None => Visibility::Causal,
        }
    }

    /// Inverse frequencies `(head_dim / 2,)`, in f32 as torch computes them.
    fn inv_freq(&self) -> std::result::Result<Vec<f32>, String> {
        let scaling = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = scaling
            .and_then(|s| s.rope_theta)
            .or(self.rope_theta)
            .unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(format!("`rope_theta` {theta} is impossible"));
        }
        let dim = self.head_dim();
        let plain = (0..dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / dim as f32;
            1.0 / theta.powf(f64::from(exponent)) as f32
        });
        let Some(scaling) = scaling else {
            return Ok(plain.collect());
        };
        match scaling.rope_type.as_deref().unwrap_or("default") {
            "default" => Ok(plain.collect()),
            "linear" => {
                let factor = RopeParameters::required(scaling.factor, "factor")? as f32;
                Ok(plain.map(|freq| freq / factor).collect())
            }
            "llama3" => {
                let factor = RopeParameters::required(scaling.factor, "factor")? as f32;
                let low = RopeParameters::required(scaling.low_freq_factor, "low_freq_factor")?;
                let high = RopeParameters::required(scaling.high_freq_factor, "high_freq_factor")?;
                let context = scaling
                    .original_max_position_embeddings
                    .unwrap_or(self.max_position_embeddings) as f64;
                Ok(plain
                    .map(|freq| llama3_frequency(freq, factor, low, high, context))
                    .collect())
            }
            other => Err(format!(
                "`rope_type` `{other}` is not implemented (default, linear, llama3 are)"
            )),
        }
    }
}

impl RopeParameters {
    fn required(value: Option<f64>, name: &str) -> std::result::Result<f64, String> {
        value
            .filter(|value| value.is_finite() && *value > 0.0)
            .ok_or_else(|| format!("rope scaling needs a positive `{name}`"))
    }
}

/// Llama 3.1: long waves are slowed down by `factor`, short ones kept, those between blended.
fn llama3_frequency(freq: f32, factor: f32, low: f64, high: f64, context: f64) -> f32 {
    let wavelength = std::f32::consts::TAU / freq;
    if wavelength < (context / high) as f32 {
        return freq;
    }
    if wavelength > (context / low) as f32 {
        return freq / factor;
    }
    let smooth = (context as f32 / wavelength - low as f32) / (high - low) as f32;
    (1.0 - smooth) * (freq / factor) + smooth * freq
}

#[derive(Debug)]
struct Layer {
    attention: AttentionBlock,
    mlp: MlpBlock,
}

/// The text model, without its output head.
#[derive(Debug)]
pub struct Llama {
    config: Config,
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: Norm,
    placement: Placement,
}

impl Llama {
    /// Loads the model from `text_model.*`.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn load(config: &Config, vb: &Weights) -> Result<Self> {
        let vb = &vb.decoding();
        let embed_tokens = vb.embedding("embed_tokens", config.vocab_size, config.hidden_size)?;
        let inv_freq = config.inv_freq().map_err(|reason| crate::Error::Config {
            path: "config.json".into(),
            reason,
        })?;
        let rope = Arc::new(Rope::new(
            &inv_freq,
            config.num_positions(),
            1.0,
            vb.placement(),
        )?);
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::load(config, &rope, &vb.pp("layers").pp(index)))
            .collect::<Result<Vec<_>>>()?;
        let norm = config
            .family
            .norm(vb, "norm", config.hidden_size, config.rms_norm_eps)?;
        Ok(Self {
            config: config.clone(),
            embed_tokens,
            layers,
            norm,
            placement: vb.placement().clone(),
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device its tensors are on.
    pub fn device(&self) -> &Device {
        self.placement.device()
    }

    /// The type of its residual stream.
    pub fn dtype(&self) -> DType {
        self.placement.dtype()
    }

    /// The embedding table.
    pub fn embed_tokens(&self) -> &Embedding {
        &self.embed_tokens
    }

    /// `ids` `(tokens,)` → `(tokens, hidden)`, as the first layer takes them.
    ///
    /// # Errors
    /// When an id lies beyond the table.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let embedded = self.embed_tokens.forward(ids)?;
        Ok(match self.config.family.embedding_scale(&self.config) {
            Some(scale) => (embedded * scale)?,
            None => embedded,
        })
    }

    /// An empty KV cache with room for `capacity` tokens.
    pub fn new_cache(&self, capacity: usize, precision: KvPrecision) -> KvCache {
        KvCache::new(self.layers.len(), capacity, precision)
    }

    /// Bytes of a KV cache with room for `capacity` tokens, at most: in f32.
    pub fn cache_bytes(&self, capacity: usize) -> usize {
        let width = self.config.num_key_value_heads() * self.config.head_dim();
        8 * self.layers.len() * width * capacity
    }

    /// `x` `(1, seq, hidden)` → hidden states of the same shape before the final norm. With a cache, the
    /// tokens follow those it holds. Gives up `x`.
    ///
    /// # Errors
    /// When the sequence outgrows the model.
    pub fn forward(
        &self,
        mut x: Tensor,
        mut cache: Option<&mut KvCache>,
        trace: &mut dyn Trace,
    ) -> Result<Tensor> {
        for (index, layer) in self.layers.iter().enumerate() {
            let cache = cache.as_mut().map(|cache| &mut cache.layers_mut()[index]);
            x = layer.mlp.forward(layer.attention.forward(x, cache)?)?;
            trace.record(&format!("text.block.{index}"), &x)?;
        }
        Ok(x)
    }

    /// The final norm.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn norm(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(x)?)
    }

    /// The output head: `lm_head.weight` at the root of the checkpoint, or the embedding table if tied.
    ///
    /// # Errors
    /// When the tensor is missing or of another shape.
    pub fn load_head(&self, tied: bool, root: &Weights) -> Result<Linear> {
        if tied {
            return Ok(self.embed_tokens.tied_head()?);
        }
        Ok(root.decoding().linear(
            "lm_head",
            self.config.hidden_size,
            self.config.vocab_size,
            false,
        )?)
    }
}

impl Layer {
    fn load(config: &Config, rope: &Arc<Rope>, vb: &Weights) -> Result<Self> {
        let (hidden, inner, eps) = (
            config.hidden_size,
            config.intermediate_size,
            config.rms_norm_eps,
        );
        let (q_heads, kv_heads, head_dim) = (
            config.num_attention_heads,
            config.num_key_value_heads(),
            config.head_dim(),
        );
        let bias = config.attention_bias;
        let attn = vb.pp("self_attn");
        let attention = AttentionBlock {
            norm: config.family.norm(vb, "input_layernorm", hidden, eps)?,
            q_proj: attn.linear("q_proj", hidden, q_heads * head_dim, bias)?,
            k_proj: attn.linear("k_proj", hidden, kv_heads * head_dim, bias)?,
            v_proj: attn.linear("v_proj", hidden, kv_heads * head_dim, bias)?,
            o_proj: attn.linear("o_proj", q_heads * head_dim, hidden, bias)?,
            shape: AttentionShape {
                q_heads,
                kv_heads,
                head_dim,
                scale: (head_dim as f32).powf(-0.5),
            },
            rope: Some(Arc::clone(rope)),
            visibility: config.visibility(),
        };
        let linears = vb.pp("mlp");
        let bias = config.mlp_bias;
        let gate_proj = linears.linear("gate_proj", hidden, inner, bias)?;
        let up_proj = linears.linear("up_proj", hidden, inner, bias)?;
        let down_proj = linears.linear("down_proj", inner, hidden, bias)?;
        let mlp = MlpBlock {
            norm: config
                .family
                .norm(vb, "post_attention_layernorm", hidden, eps)?,
            mlp: config.family.mlp(gate_proj, up_proj, down_proj),
        };
        Ok(Self { attention, mlp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_rope_layouts_give_the_same_frequencies() {
        let old: Config =
            serde_json::from_str(r#"{"rope_theta": 100000, "rope_scaling": null, "head_dim": 8}"#)
                .unwrap();
        let new: Config =
            serde_json::from_str(r#"{"rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}, "head_dim": 8}"#)
                .unwrap();
        assert_eq!(old.inv_freq(), new.inv_freq());
        assert_eq!(old.inv_freq().unwrap()[0], 1.0);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for json in [
            r#"{"hidden_size": 0}"#,
            r#"{"num_attention_heads": 3, "num_key_value_heads": 2}"#,
            r#"{"vocab_size": 99999999999}"#,
            r#"{"rope_parameters": {"rope_type": "yarn"}}"#,
            r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}"#,
            r#"{"hidden_act": "relu"}"#,
        ] {
            let config: Config = serde_json::from_str(json).unwrap();
            assert!(config.check().is_err(), "{json}");
        }
    }
}
