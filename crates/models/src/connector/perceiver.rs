//! The connector of Idefics2: a gated projection, then a resampler that makes 64 visual tokens of a frame of any size.
//!
//! Upstream: `Idefics2Connector` and `Idefics2PerceiverResampler` in transformers 5.23. Papers: Laurençon et al. 2024,
//! <https://arxiv.org/abs/2405.02246>; Jaegle et al. 2021, <https://arxiv.org/abs/2103.03206>.

use candle_core::Tensor;
use colibri_nn::{
    Norm, Weights,
    blocks::{AttentionShape, Mlp, MlpBlock, ResampleBlock},
};
use serde_json::Value;

use crate::{Result, Trace, text::llama};

/// `perceiver_config`, with the defaults of transformers' `Idefics2PerceiverConfig`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// Width of latents and context.
    pub hidden_size: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Visual tokens of a frame.
    pub resampler_n_latents: usize,
    /// Number of layers.
    pub resampler_depth: usize,
    /// Query heads.
    pub resampler_n_heads: usize,
    /// Width of a head.
    pub resampler_head_dim: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// The MLP's activation; only `silu` occurs.
    pub hidden_act: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_size: 4096,
            rms_norm_eps: 1e-6,
            resampler_n_latents: 64,
            resampler_depth: 3,
            resampler_n_heads: 16,
            resampler_head_dim: 96,
            num_key_value_heads: 4,
            hidden_act: "silu".to_owned(),
        }
    }
}

/// No resampler has more of anything; beyond this a configuration is damaged.
const MAX_SIZE: usize = 1 << 16;

impl Config {
    /// Reads the configuration. One of another width than the text model's was written without either, and
    /// upstream then takes both from there.
    pub(crate) fn read(
        value: Value,
        text: &llama::Config,
    ) -> std::result::Result<Self, serde_json::Error> {
        let mut config = if value.is_null() {
            Self::default()
        } else {
            serde_json::from_value(value)?
        };
        if config.hidden_size != text.hidden_size {
            config.hidden_size = text.hidden_size;
            config.rms_norm_eps = text.rms_norm_eps;
        }
        Ok(config)
    }

    /// What is impossible in the configuration, if anything is.
    pub(crate) fn check(&self, text: &llama::Config) -> std::result::Result<(), String> {
        let sizes = [
            self.resampler_n_latents,
            self.resampler_depth,
            self.resampler_n_heads,
            self.resampler_head_dim,
            self.num_key_value_heads,
        ];
        if sizes.iter().any(|&size| size == 0 || size > MAX_SIZE) {
            return Err("`perceiver_config` has a size of zero or beyond any model".to_owned());
        }
        if !self
            .resampler_n_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return Err(format!(
                "`perceiver_config` spreads {} query heads over {} key heads",
                self.resampler_n_heads, self.num_key_value_heads
            ));
        }
        if self.hidden_act != "silu" || text.hidden_act != "silu" {
            return Err("Idefics2 is implemented with the activation `silu` alone".to_owned());
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err("`perceiver_config.rms_norm_eps` must be positive".to_owned());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Layer {
    attention: ResampleBlock,
    mlp: MlpBlock,
}

/// Projection and resampler.
#[derive(Debug)]
pub struct PerceiverConnector {
    projection: Mlp,
    /// `(1, latents, hidden)`.
    latents: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
}

impl PerceiverConnector {
    /// Loads `modality_projection.*` and `perceiver_resampler.*`.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn load(
        config: &Config,
        vision_hidden: usize,
        text: &llama::Config,
        vb: &Weights,
    ) -> Result<Self> {
        let projection = gated(
            &vb.pp("modality_projection"),
            [vision_hidden, text.intermediate_size, text.hidden_size],
        )?;
        let vb = vb.pp("perceiver_resampler");
        let latents = vb
            .tensor("latents", &[config.resampler_n_latents, config.hidden_size])?
            .unsqueeze(0)?;
        let layers = (0..config.resampler_depth)
            .map(|index| Layer::load(config, &vb.pp("layers").pp(index)))
            .collect::<Result<Vec<_>>>()?;
        let norm = vb.rms_norm("norm", config.hidden_size, config.rms_norm_eps)?;
        Ok(Self {
            projection,
            latents,
            layers,
            norm,
        })
    }

    /// `(1, patches, vision_hidden)` → `(1, latents, text_hidden)`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, features: &Tensor, trace: &mut dyn Trace) -> Result<Tensor> {
        let context = self.projection.forward(features)?; // (1, patches, text_hidden)
        trace.record("modality_projection", &context)?;
        // Half-blocks work in place; the latents themselves are the weights.
        let mut latents = self.latents.copy()?;
        for (index, layer) in self.layers.iter().enumerate() {
            latents = layer
                .mlp
                .forward(layer.attention.forward(latents, &context)?)?;
            trace.record(&format!("perceiver.layer.{index}"), &latents)?;
        }
        Ok(self.norm.forward(&latents)?)
    }
}

impl Layer {
    fn load(config: &Config, vb: &Weights) -> Result<Self> {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let (q_heads, kv_heads, head_dim) = (
            config.resampler_n_heads,
            config.num_key_value_heads,
            config.resampler_head_dim,
        );
        let attn = vb.pp("self_attn");
        Ok(Self {
            attention: ResampleBlock {
                latents_norm: vb.rms_norm("input_latents_norm", hidden, eps)?,
                context_norm: vb.rms_norm("input_context_norm", hidden, eps)?,
                q_proj: attn.linear("q_proj", hidden, q_heads * head_dim, false)?,
                k_proj: attn.linear("k_proj", hidden, kv_heads * head_dim, false)?,
                v_proj: attn.linear("v_proj", hidden, kv_heads * head_dim, false)?,
                o_proj: attn.linear("o_proj", q_heads * head_dim, hidden, false)?,
                shape: AttentionShape {
                    q_heads,
                    kv_heads,
                    head_dim,
                    scale: (head_dim as f32).powf(-0.5),
                },
            },
            mlp: MlpBlock {
                norm: vb.rms_norm("post_attention_layernorm", hidden, eps)?,
                mlp: gated(&vb.pp("mlp"), [hidden, 4 * hidden, hidden])?,
            },
        })
    }
}

/// `Idefics2MLP`: `inputs → inner → outputs`, no biases.
fn gated(vb: &Weights, [inputs, inner, outputs]: [usize; 3]) -> Result<Mlp> {
    Ok(Mlp::SiluGated {
        gate_proj: vb.linear("gate_proj", inputs, inner, false)?,
        up_proj: vb.linear("up_proj", inputs, inner, false)?,
        down_proj: vb.linear("down_proj", inner, outputs, false)?,
    })
}
