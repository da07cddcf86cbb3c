//! The pixel-shuffle connector of Idefics3: `s × s` neighbouring patches become one visual token.
//!
//! Upstream: `Idefics3Connector` in transformers 5.23. Paper: Laurençon et al. 2024,
//! <https://arxiv.org/abs/2408.12637>.

use candle_core::Tensor;
use colibri_nn::{Linear, Weights};

use crate::Result;

/// Space-to-depth by `scale_factor`, then one projection without a bias.
#[derive(Debug)]
pub struct PixelShuffleConnector {
    scale_factor: usize,
    proj: Linear,
}

impl PixelShuffleConnector {
    /// Loads `modality_projection.proj`, `(text_hidden, vision_hidden * scale_factor²)`.
    ///
    /// # Errors
    /// When the tensor is missing or of another shape.
    pub fn load(
        scale_factor: usize,
        vision_hidden: usize,
        text_hidden: usize,
        vb: &Weights,
    ) -> Result<Self> {
        let inputs = vision_hidden * scale_factor * scale_factor;
        let proj = vb
            .pp("modality_projection")
            .linear("proj", inputs, text_hidden, false)?;
        Ok(Self { scale_factor, proj })
    }

    /// `(tiles, n * n, vision_hidden)` → `(tiles, (n / s)², text_hidden)`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.proj.forward(&pixel_shuffle(x, self.scale_factor)?)?)
    }
}

/// `(tiles, n * n, dim)` → `(tiles, (n / s)², s * s * dim)`: token `(R, C)` is the concatenation over row
/// offset, then column offset, of the patches it covers.
fn pixel_shuffle(x: &Tensor, s: usize) -> Result<Tensor> {
    let (tiles, patches, dim) = x.dims3()?;
    let side = patches.isqrt() / s;
    let x = x.reshape((tiles, side, s, side, s * dim))?; // (tiles, R, i, C, (j, dim))
    let x = x.transpose(2, 3)?.contiguous()?; // (tiles, R, C, i, (j, dim))
    Ok(x.reshape((tiles, side * side, s * s * dim))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_token_gathers_its_square_row_by_row() {
        // A grid of 4 × 4 patches, each holding its own index.
        let x = Tensor::arange(0_f32, 16.0, &Device::Cpu)
            .unwrap()
            .reshape((1, 16, 1))
            .unwrap();
        let tokens = pixel_shuffle(&x, 2).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(tokens[0][0], [0.0, 1.0, 4.0, 5.0]);
        assert_eq!(tokens[0][1], [2.0, 3.0, 6.0, 7.0]);
        assert_eq!(tokens[0][3], [10.0, 11.0, 14.0, 15.0]);
    }
}
