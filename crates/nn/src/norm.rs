//! Layer and root-mean-square normalisation.

use candle_core::{D, DType, Device, Tensor};
use colibri_kernels::{
    norm::{layer_norm, rms_norm},
    parallel,
    rows::{Rows, RowsMut},
};

use crate::{Placement, Result, Scratch, cpu};

/// A normalisation over the last dimension.
#[derive(Clone, Debug)]
pub struct Norm {
    weight: Vec<f32>,
    /// `Some` makes it layer normalisation; without a mean and a bias it is RMS.
    bias: Option<Vec<f32>>,
    eps: f64,
    /// Weight and bias in f32 on the device, where candle calculates.
    dense: Option<(Tensor, Option<Tensor>)>,
}

impl Norm {
    pub(crate) fn layer(
        weight: Vec<f32>,
        bias: Vec<f32>,
        eps: f64,
        placement: &Placement,
    ) -> Result<Self> {
        Self {
            weight,
            bias: Some(bias),
            eps,
            dense: None,
        }
        .placed(placement)
    }

    pub(crate) fn rms(weight: Vec<f32>, eps: f64, placement: &Placement) -> Result<Self> {
        Self {
            weight,
            bias: None,
            eps,
            dense: None,
        }
        .placed(placement)
    }

    fn placed(mut self, placement: &Placement) -> Result<Self> {
        if !placement.is_packed() {
            let to_device = |values: &Vec<f32>| {
                Tensor::from_slice(values, values.len(), &Device::Cpu)?
                    .to_device(placement.device())
            };
            let bias = self.bias.as_ref().map(to_device).transpose()?;
            self.dense = Some((to_device(&self.weight)?, bias));
        }
        Ok(self)
    }

    /// Normalises rows of slices on the CPU.
    pub(crate) fn apply(&self, x: Rows<'_>, out: RowsMut<'_>) {
        match &self.bias {
            Some(bias) => layer_norm(x, &self.weight, bias, self.eps as f32, out),
            None => rms_norm(x, &self.weight, self.eps as f32, out),
        }
    }

    /// `x` `(…, hidden)` → the same shape, normalised in f32.
    ///
    /// # Errors
    /// When the shape or type of `x` does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some((weight, bias)) = &self.dense {
            return self.forward_dense(x, weight, bias.as_ref());
        }
        let hidden = self.weight.len();
        let num_rows = x.elem_count() / hidden;
        let mut out = vec![0.0; x.elem_count()];
        cpu::with_values(&x.contiguous()?, |values| {
            self.apply(
                Rows::new(values, num_rows, hidden),
                RowsMut::new(&mut out, num_rows, hidden),
            );
        })?;
        Ok(Tensor::from_vec(out, x.dims(), &Device::Cpu)?)
    }

    /// [`Norm::forward`] in the storage of `x`, which the caller gives up.
    ///
    /// # Errors
    /// As there.
    pub fn forward_in_place(&self, x: Tensor) -> Result<Tensor> {
        if self.dense.is_some() {
            return self.forward(&x);
        }
        let hidden = self.weight.len();
        let num_rows = x.elem_count() / hidden;
        cpu::in_place(&x, "norm", |values| {
            let nanos = values.len() as u64 / 6;
            parallel::for_each_block(num_rows, nanos, 0, [values], |rows, [values]| {
                let mut copy = Scratch::take(values.len());
                copy.copy_from_slice(values);
                self.apply(
                    Rows::new(&copy, rows.len(), hidden),
                    RowsMut::new(values, rows.len(), hidden),
                );
            });
            Ok(())
        })?;
        Ok(x)
    }

    fn forward_dense(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let dtype = x.dtype();
        let mut x = x.to_dtype(DType::F32)?;
        if bias.is_some() {
            x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        }
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = x.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        let scaled = normed.broadcast_mul(weight)?;
        let shifted = match bias {
            Some(bias) => scaled.broadcast_add(bias)?,
            None => scaled,
        };
        Ok(shifted.to_dtype(dtype)?)
    }
}
