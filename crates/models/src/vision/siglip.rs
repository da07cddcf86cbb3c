//! The SigLIP vision transformer as Idefics2, Idefics3 and PaliGemma use it.
//!
//! Paper: Zhai et al. 2023, <https://arxiv.org/abs/2303.15343>. Upstream: `Idefics3VisionTransformer` in
//! transformers 5.23 (`models/idefics3/modeling_idefics3.py`), `Idefics2VisionTransformer` and
//! `SiglipVisionModel`. What differs from plain SigLIP: no pooling head, and a frame of any size, whose patches
//! take their positions from the fraction of the frame at which they lie ([`positions`]). Upstream pads the frames
//! of a batch and masks the padding; a frame alone has none, so there is no mask here.

use candle_core::{Device, Tensor};
use colibri_nn::{
    Linear, Norm, Placement, Scratch, Weights,
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
    placement: Placement,
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
            placement: vb.placement().clone(),
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A normalised frame `(3, height, width)` to features `(1, patches, hidden)`, row by row over its patches.
    /// Pixels at the right and the bottom that do not fill a patch are not looked at.
    ///
    /// # Errors
    /// When the frame is smaller than a patch, or a layer fails.
    ///
    /// # Panics
    /// If `pixels` has another length.
    pub fn encode(
        &self,
        pixels: &[f32],
        (width, height): (usize, usize),
        trace: &mut dyn Trace,
    ) -> Result<Tensor> {
        assert_eq!(
            pixels.len(),
            3 * width * height,
            "a frame of another size is a bug"
        );
        let patch = self.config.patch_size;
        let (rows, cols) = (height / patch, width / patch);
        let (num_patches, values) = (rows * cols, 3 * patch * patch);
        let mut patches = Scratch::take(num_patches * values);
        cut_patches(pixels, (width, height), patch, &mut patches);
        let side = self.config.patches_per_side();
        let places = if (rows, cols) == (side, side) {
            self.position_embedding.clone()
        } else {
            let places = Tensor::new(positions(rows, cols, side), self.placement.device())?;
            self.position_embedding.index_select(&places, 0)?
        };
        let mut x = self.embed(&patches, &places)?; // (1, patches, hidden)
        drop(patches);
        trace.record("patch_embeddings", &x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.mlp.forward(layer.attention.forward(x, None)?)?;
            trace.record(&format!("vision.block.{index}"), &x)?;
        }
        let x = self.post_layernorm.forward_in_place(x)?;
        trace.record("vision.post_layernorm", &x)?;
        Ok(x)
    }

    /// Patches `(patches, 3 * patch * patch)` and the embeddings of their places `(patches, hidden)` to `(1, patches, hidden)`.
    fn embed(&self, patches: &[f32], places: &Tensor) -> Result<Tensor> {
        let (num_patches, hidden) = places.dims2()?;
        if self.patch_embedding.is_packed() {
            // One buffer a frame, to which the product is added, and no other that has to be asked for anew.
            let mut x = places.flatten_all()?.to_vec1::<f32>()?;
            self.patch_embedding.add_to(patches, &mut x);
            return Ok(Tensor::from_vec(x, (1, num_patches, hidden), &Device::Cpu)?);
        }
        let patches = Tensor::from_slice(
            patches,
            (1, num_patches, patches.len() / num_patches),
            &Device::Cpu,
        )?
        .to_dtype(self.placement.dtype())?
        .to_device(self.placement.device())?;
        Ok(self
            .patch_embedding
            .forward(&patches)?
            .broadcast_add(places)?)
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

/// Where in a table of `side × side` positions the patches of a frame of `rows × cols` stand: by the fraction of the
/// frame at which they begin, in f32 as torch calculates it (a quotient that falls just short of a boundary is part
/// of the trained model). A frame of `side × side` gives `0, 1, 2, …`.
pub fn positions(rows: usize, cols: usize, side: usize) -> Vec<u32> {
    // `torch.arange(1 / side, 1.0, 1 / side)`: f64 inside, then f32.
    let step = 1.0 / side as f64;
    let count = ((1.0 - step) / step).ceil().max(0.0) as usize;
    let boundaries: Vec<f32> = (0..count)
        .map(|index| (step + index as f64 * step) as f32)
        .collect();
    let buckets = |len: usize| -> Vec<usize> {
        let step = 1.0 / len as f32;
        (0..len)
            .map(|index| {
                let fraction = (index as f32 * step).min((1.0_f64 - 1e-6) as f32);
                boundaries.partition_point(|&boundary| boundary <= fraction)
            })
            .collect()
    };
    let (down, across) = (buckets(rows), buckets(cols));
    let place = |row: &usize| {
        let row = row * side;
        across.iter().map(move |col| (row + col) as u32)
    };
    down.iter().flat_map(place).collect()
}

/// Cuts a normalised frame `(3, height, width)` into patches `(rows * cols, 3 * patch * patch)`, row-major
/// over the grid; inside a patch channel, row, column: the order of a convolution's weights, so that the
/// patch embedding (a convolution whose stride is its kernel) is a plain product.
fn cut_patches(frame: &[f32], (width, height): (usize, usize), patch: usize, out: &mut [f32]) {
    let cols = width / patch;
    for (index, out) in out.chunks_exact_mut(3 * patch * patch).enumerate() {
        let (row, col) = (index / cols, index % cols);
        for (line, out) in out.chunks_exact_mut(patch).enumerate() {
            let (channel, y) = (line / patch, line % patch);
            let start = (channel * height + row * patch + y) * width + col * patch;
            out.copy_from_slice(&frame[start..start + patch]);
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
        cut_patches(&tile, (4, 4), 2, &mut out);
        // The second patch: columns 2 and 3 of rows 0 and 1, channel by channel.
        assert_eq!(
            out[12..24],
            [
                2.0, 3.0, 6.0, 7.0, 18.0, 19.0, 22.0, 23.0, 34.0, 35.0, 38.0, 39.0
            ]
        );
    }

    #[test]
    fn a_frame_that_is_no_square_is_cut_row_by_row() {
        // Five pixels across and four down: the last column fills no patch.
        let frame: Vec<f32> = (0..3 * 20).map(|i| i as f32).collect();
        let mut out = vec![0.0; 48];
        cut_patches(&frame, (5, 4), 2, &mut out);
        assert_eq!(out[12..16], [2.0, 3.0, 7.0, 8.0]);
        assert_eq!(out[24..28], [10.0, 11.0, 15.0, 16.0]);
    }

    #[test]
    fn a_full_square_has_the_positions_of_the_table() {
        for side in [1, 2, 8, 26, 27, 32, 70] {
            let expected: Vec<u32> = (0..(side * side) as u32).collect();
            assert_eq!(positions(side, side, side), expected, "{side}");
        }
        // Half as many patches stand at every second position.
        assert_eq!(positions(1, 4, 8), [0, 2, 4, 6]);
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
