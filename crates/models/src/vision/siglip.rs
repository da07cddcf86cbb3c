//! The SigLIP vision transformer as Idefics3 uses it.
//!
//! Paper: Zhai et al. 2023, <https://arxiv.org/abs/2303.15343>. Upstream: `Idefics3VisionTransformer` in
//! transformers 5.23 (`models/idefics3/modeling_idefics3.py`). What differs from plain SigLIP: no pooling
//! head, and position ids by fractional buckets of a patch mask. The shipped processors only make full
//! square tiles, for which those buckets are the identity, so positions here are `0 .. num_patches`.

use candle_core::Tensor;
use colibri_nn::{
    Linear, Norm, Weights,
    blocks::{AttentionBlock, AttentionShape, Mlp, MlpBlock, Visibility},
};

use crate::{Result, Trace};

/// `vision_config`, with the defaults of transformers' `Idefics3VisionConfig`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Colour channels; only 3 is possible here.
    pub num_channels: usize,
    /// Side of a tile in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// The MLP's activation; only `gelu_pytorch_tanh` occurs.
    pub hidden_act: String,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_size: 1152,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 16,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "gelu_pytorch_tanh".to_owned(),
            layer_norm_eps: 1e-6,
        }
    }
}

/// No known tower is wider, deeper or finer; beyond this a configuration is damaged, and its numbers
/// must not size an allocation.
const MAX_WIDTH: usize = 1 << 16;

impl Config {
    /// What is impossible in the configuration, if anything is.
    ///
    /// # Errors
    /// The reason in words.
    pub fn check(&self) -> std::result::Result<(), String> {
        let Self {
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            image_size,
            patch_size,
            ..
        } = *self;
        let sizes = [
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            image_size,
            patch_size,
        ];
        if sizes.iter().any(|&size| size == 0 || size > MAX_WIDTH) {
            return Err("`vision_config` has a size of zero or beyond any model".to_owned());
        }
        if self.num_channels != 3 {
            return Err(format!(
                "`vision_config.num_channels` is {}, only 3 is implemented",
                self.num_channels
            ));
        }
        if hidden_size % num_attention_heads != 0 {
            return Err(format!(
                "`vision_config.hidden_size` {hidden_size} does not divide by {num_attention_heads} heads"
            ));
        }
        if patch_size > image_size {
            return Err(format!(
                "`vision_config.patch_size` {patch_size} is greater than a tile of {image_size}"
            ));
        }
        if self.hidden_act != "gelu_pytorch_tanh" {
            return Err(format!(
                "`vision_config.hidden_act` is `{}`, only `gelu_pytorch_tanh` is implemented",
                self.hidden_act
            ));
        }
        Ok(())
    }

    /// Patches along one side of a tile. Pixels that do not fill a patch are not looked at: 384 / 14
    /// leaves six of them.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size
    }
}

#[derive(Debug)]
struct Layer {
    attention: AttentionBlock,
    mlp: MlpBlock,
}

/// The tower.
#[derive(Debug)]
pub struct SiglipTower {
    config: Config,
    patch_embedding: Linear,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    post_layernorm: Norm,
}

impl SiglipTower {
    /// Loads the tower from `vision_model.*`.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn load(config: &Config, vb: &Weights) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        let num_patches = config.patches_per_side().pow(2);
        let embeddings = vb.pp("embeddings");
        let patch_embedding = embeddings.linear_shaped(
            "patch_embedding",
            &[hidden, config.num_channels, patch, patch],
            true,
        )?;
        let position_embedding = embeddings
            .pp("position_embedding")
            .tensor("weight", &[num_patches, hidden])?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::load(config, &vb.pp("encoder.layers").pp(index)))
            .collect::<Result<Vec<_>>>()?;
        let post_layernorm = vb.layer_norm("post_layernorm", hidden, config.layer_norm_eps)?;
        Ok(Self {
            config: config.clone(),
            patch_embedding,
            position_embedding,
            layers,
            post_layernorm,
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Patches `(tiles, num_patches, 3 * patch * patch)`, each in the order channel, row, column
    /// ([`cut_patches`]), to features `(tiles, num_patches, hidden)`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, patches: &Tensor, trace: &mut dyn Trace) -> Result<Tensor> {
        let embedded = self.patch_embedding.forward(patches)?; // (tiles, num_patches, hidden)
        let mut x = embedded.broadcast_add(&self.position_embedding)?;
        trace.record("patch_embeddings", &x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.mlp.forward(layer.attention.forward(x, None)?)?;
            trace.record(&format!("vision.block.{index}"), &x)?;
        }
        let x = self.post_layernorm.forward(&x)?;
        trace.record("vision.post_layernorm", &x)?;
        Ok(x)
    }
}

impl Layer {
    fn load(config: &Config, vb: &Weights) -> Result<Self> {
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        let head_dim = hidden / config.num_attention_heads;
        let attn = vb.pp("self_attn");
        let attention = AttentionBlock {
            norm: vb.layer_norm("layer_norm1", hidden, eps)?,
            q_proj: attn.linear("q_proj", hidden, hidden, true)?,
            k_proj: attn.linear("k_proj", hidden, hidden, true)?,
            v_proj: attn.linear("v_proj", hidden, hidden, true)?,
            o_proj: attn.linear("out_proj", hidden, hidden, true)?,
            shape: AttentionShape {
                q_heads: config.num_attention_heads,
                kv_heads: config.num_attention_heads,
                head_dim,
                scale: (head_dim as f32).powf(-0.5),
            },
            rope: None,
            visibility: Visibility::Full,
        };
        let mlp = MlpBlock {
            norm: vb.layer_norm("layer_norm2", hidden, eps)?,
            mlp: Mlp::Gelu {
                fc1: vb
                    .pp("mlp")
                    .linear("fc1", hidden, config.intermediate_size, true)?,
                fc2: vb
                    .pp("mlp")
                    .linear("fc2", config.intermediate_size, hidden, true)?,
            },
        };
        Ok(Self { attention, mlp })
    }
}

/// Cuts a normalised tile `(3, side, side)` into patches `((side / patch)², 3 * patch * patch)`, row-major
/// over the grid; inside a patch channel, row, column: the order of a convolution's weights, so that the
/// patch embedding (a convolution whose stride is its kernel) is a plain product.
pub fn cut_patches(tile: &[f32], side: usize, patch: usize, out: &mut [f32]) {
    let grid = side / patch;
    let width = 3 * patch * patch;
    for (index, out) in out.chunks_exact_mut(width).enumerate() {
        let (row, col) = (index / grid, index % grid);
        for (line, out) in out.chunks_exact_mut(patch).enumerate() {
            let (channel, y) = (line / patch, line % patch);
            let start = (channel * side + row * patch + y) * side + col * patch;
            out.copy_from_slice(&tile[start..start + patch]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_follow_the_convolution_order() {
        let tile: Vec<f32> = (0..3 * 16).map(|i| i as f32).collect();
        let mut out = vec![0.0; 48];
        cut_patches(&tile, 4, 2, &mut out);
        // The second patch: columns 2 and 3 of rows 0 and 1, channel by channel.
        assert_eq!(
            out[12..24],
            [
                2.0, 3.0, 6.0, 7.0, 18.0, 19.0, 22.0, 23.0, 34.0, 35.0, 38.0, 39.0
            ]
        );
    }

    #[test]
    fn defaults_are_those_of_the_class() {
        let config: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(
            (
                config.hidden_size,
                config.num_hidden_layers,
                config.patch_size
            ),
            (1152, 12, 32)
        );
        assert!(config.check().is_ok());
        let lying: Config = serde_json::from_str(r#"{"hidden_size": 1000000000000}"#).unwrap();
        assert!(lying.check().is_err());
    }
}
