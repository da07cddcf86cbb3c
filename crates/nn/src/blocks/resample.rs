//! `latents += o_proj(attention(norm(latents), [norm(context); norm(latents)]))`: a fixed number of latents look at
//! a sequence of any length and at themselves (Jaegle et al. 2021, <https://arxiv.org/abs/2103.03206>; as in
//! Idefics2's resampler).

use candle_core::Tensor;
use colibri_kernels::{
    attention::{AttentionShape, Mask, attention_with},
    gemm::{Activation, Write},
    isa::Isa,
    rows::{Rows, RowsMut},
};

use super::attention::attend_dense;
use crate::{
    Linear, Norm, Result, Scratch, cpu,
    linear::{Target, project},
};

/// The attention half of a resampler's layer. No positions, no mask: whoever pads the context cuts it first.
#[derive(Debug)]
pub struct ResampleBlock {
    /// Applied to the latents.
    pub latents_norm: Norm,
    /// Applied to the context.
    pub context_norm: Norm,
    /// `hidden → q_heads * head_dim`, of the latents.
    pub q_proj: Linear,
    /// `hidden → kv_heads * head_dim`, of the context and, behind it, the latents.
    pub k_proj: Linear,
    /// `hidden → kv_heads * head_dim`, of the same.
    pub v_proj: Linear,
    /// `q_heads * head_dim → hidden`.
    pub o_proj: Linear,
    /// Heads and scale.
    pub shape: AttentionShape,
}

impl ResampleBlock {
    /// `latents` `(1, num_latents, hidden)` and `context` `(1, seq, hidden)` → the shape of the latents. On the CPU
    /// the storage of `latents` is changed in place, so the caller gives them up.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, latents: Tensor, context: &Tensor) -> Result<Tensor> {
        let (_, num_latents, hidden) = latents.dims3()?;
        let (_, seq, context_hidden) = context.dims3()?;
        if hidden != self.q_proj.inputs() || context_hidden != hidden {
            return Err(candle_core::Error::Msg(format!(
                "a resampler over {} features was given latents of {hidden} and a context of {context_hidden}",
                self.q_proj.inputs()
            ))
            .into());
        }
        if !self.q_proj.is_packed() {
            return self.forward_dense(&latents, context);
        }
        let total = seq + num_latents;
        let mut normed = Scratch::take(total * hidden);
        cpu::with_values(&context.contiguous()?, |values| {
            self.context_norm.apply(
                Rows::new(values, seq, hidden),
                RowsMut::new(&mut normed[..seq * hidden], seq, hidden),
            );
        })?;
        cpu::in_place(&latents, "resampler half-block", |values| {
            self.latents_norm.apply(
                Rows::new(values, num_latents, hidden),
                RowsMut::new(&mut normed[seq * hidden..], num_latents, hidden),
            );
            self.attend(Rows::new(&normed, total, hidden), num_latents, values);
            Ok(())
        })?;
        Ok(latents)
    }

    /// `normed` holds the context and then the latents; the result is added to `latents`.
    fn attend(&self, normed: Rows<'_>, num_latents: usize, latents: &mut [f32]) {
        let total = normed.num_rows();
        let (q_width, kv_width) = (self.q_proj.outputs(), self.k_proj.outputs());
        let mut q = Scratch::take(num_latents * q_width);
        let mut k = Scratch::take(total * kv_width);
        let mut v = Scratch::take(total * kv_width);
        let mut out = Scratch::take(num_latents * q_width);
        let target = |linear, out| Target {
            linear,
            out,
            activation: Activation::Identity,
            write: Write::Store,
        };
        project(
            normed.slice(total - num_latents..total),
            vec![target(&self.q_proj, &mut q)],
        );
        project(
            normed,
            vec![target(&self.k_proj, &mut k), target(&self.v_proj, &mut v)],
        );
        attention_with(
            Isa::detect(),
            self.q_proj.inner(),
            &self.shape,
            1,
            Rows::new(&q, num_latents, q_width),
            Rows::new(&k, total, kv_width),
            Rows::new(&v, total, kv_width),
            Mask::Full,
            RowsMut::new(&mut out, num_latents, q_width),
        );
        project(
            Rows::new(&out, num_latents, q_width),
            vec![Target {
                linear: &self.o_proj,
                out: latents,
                activation: Activation::Identity,
                write: Write::Add,
            }],
        );
    }

    /// The same with candle's operations.
    fn forward_dense(&self, latents: &Tensor, context: &Tensor) -> Result<Tensor> {
        let latent_rows = self.latents_norm.forward(latents)?;
        let all = Tensor::cat(&[&self.context_norm.forward(context)?, &latent_rows], 1)?;
        let heads = |linear: &Linear, x: &Tensor, count: usize| -> Result<Tensor> {
            let projected = linear.forward_dense(x)?;
            let (batch, seq, _) = projected.dims3()?;
            Ok(projected
                .reshape((batch, seq, count, self.shape.head_dim))?
                .transpose(1, 2)?
                .contiguous()?)
        };
        let q = heads(&self.q_proj, &latent_rows, self.shape.q_heads)?;
        let k = heads(&self.k_proj, &all, self.shape.kv_heads)?;
        let v = heads(&self.v_proj, &all, self.shape.kv_heads)?;
        let out = attend_dense(&self.shape, &q, &k, &v, None)?;
        Ok((latents + self.o_proj.forward_dense(&out)?)?)
    }
}
