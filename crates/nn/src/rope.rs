//! Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>), "rotate half" layout.

use candle_core::{Device, Tensor};
use colibri_kernels::rope::RopeTable;

use crate::{Error, Placement, Result};

/// Cosines and sines for positions `0 .. num_positions`.
#[derive(Debug)]
pub struct Rope {
    table: RopeTable,
    num_positions: usize,
    /// Cosines and sines `(num_positions, head_dim)`, where candle calculates.
    dense: Option<(Tensor, Tensor)>,
}

impl Rope {
    /// A table from the inverse frequencies `(head_dim / 2,)`. Angles are products in f32, as torch
    /// makes them: a model was trained with their rounding.
    ///
    /// # Errors
    /// When a tensor cannot be made on the device.
    pub fn new(
        inv_freq: &[f32],
        num_positions: usize,
        scaling: f32,
        placement: &Placement,
    ) -> Result<Self> {
        let table = RopeTable::new(inv_freq, num_positions, scaling);
        let dense = if placement.is_packed() {
            None
        } else {
            let angles: Vec<f32> = (0..num_positions)
                .flat_map(|position| {
                    let row = inv_freq.iter().map(move |freq| position as f32 * freq);
                    row.clone().chain(row)
                })
                .collect();
            let angles =
                Tensor::from_vec(angles, (num_positions, 2 * inv_freq.len()), &Device::Cpu)?;
            let place = |t: Tensor| (t * f64::from(scaling))?.to_device(placement.device());
            Some((place(angles.cos()?)?, place(angles.sin()?)?))
        };
        Ok(Self {
            table,
            num_positions,
            dense,
        })
    }

    /// The table for slices.
    pub(crate) fn table(&self) -> &RopeTable {
        &self.table
    }

    /// Fails when a sequence of `end` tokens does not fit.
    pub(crate) fn check(&self, end: usize) -> Result<()> {
        if end > self.num_positions {
            return Err(Error::TooLong {
                found: end,
                limit: self.num_positions,
            });
        }
        Ok(())
    }

    /// Number of positions.
    pub fn num_positions(&self) -> usize {
        self.num_positions
    }

    /// Rotates `x` `(batch, heads, seq, head_dim)`, whose first position is `first`.
    pub(crate) fn forward_dense(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let Some((cos, sin)) = &self.dense else {
            return Err(candle_core::Error::Msg(
                "this rope was made for the CPU's kernels".to_owned(),
            )
            .into());
        };
        let (_, _, seq, head_dim) = x.dims4()?;
        let dtype = x.dtype();
        let cos = cos.narrow(0, first, seq)?.to_dtype(dtype)?;
        let sin = sin.narrow(0, first, seq)?.to_dtype(dtype)?;
        let half = head_dim / 2;
        let rotated = Tensor::cat(
            &[&x.narrow(3, half, half)?.neg()?, &x.narrow(3, 0, half)?],
            3,
        )?;
        Ok((x.broadcast_mul(&cos)? + rotated.broadcast_mul(&sin)?)?)
    }
}
