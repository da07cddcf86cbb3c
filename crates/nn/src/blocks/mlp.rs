//! `x += mlp(norm(x))`.

use candle_core::Tensor;
use colibri_kernels::{
    activation::silu_mul,
    gemm::{Activation, Write},
    parallel,
    rows::{Rows, RowsMut},
};

use crate::{
    Linear, Norm, Result, Scratch, cpu,
    linear::{Target, project},
};

/// The network between the norm and the residual.
#[derive(Debug)]
pub enum Mlp {
    /// `fc2(gelu_tanh(fc1(x)))`, as in SigLIP.
    Gelu {
        /// `hidden → intermediate`.
        fc1: Linear,
        /// `intermediate → hidden`.
        fc2: Linear,
    },
    /// `down(silu(gate(x)) * up(x))`, as in Llama.
    SiluGated {
        /// `hidden → intermediate`.
        gate_proj: Linear,
        /// `hidden → intermediate`.
        up_proj: Linear,
        /// `intermediate → hidden`.
        down_proj: Linear,
    },
}

/// The MLP half of a transformer layer.
#[derive(Debug)]
pub struct MlpBlock {
    /// Applied to the residual stream first.
    pub norm: Norm,
    /// The network.
    pub mlp: Mlp,
}

impl MlpBlock {
    /// `x` `(batch, seq, hidden)` → the same shape. On the CPU the storage of `x` is changed in place, so
    /// the caller gives up `x`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let (batch, seq, hidden) = x.dims3()?;
        let input = match &self.mlp {
            Mlp::Gelu { fc1, .. } => fc1,
            Mlp::SiluGated { gate_proj, .. } => gate_proj,
        };
        if !input.is_packed() {
            return self.forward_dense(&x);
        }
        let width = input.outputs();
        cpu::in_place(&x, "MLP half-block", |values| {
            let rows = batch * seq;
            let nanos = (2 * rows * hidden * width) as u64 / 100;
            // One region for the whole half-block: each row is taken through all of it by itself.
            parallel::for_each_block(rows, nanos, [values], |rows, [x]| {
                let mut normed = Scratch::take(rows.len() * hidden);
                let mut inner = Scratch::take(rows.len() * width);
                self.norm.apply(
                    Rows::new(x, rows.len(), hidden),
                    RowsMut::new(&mut normed, rows.len(), hidden),
                );
                self.forward_slices(Rows::new(&normed, rows.len(), hidden), &mut inner, x);
            });
            Ok(())
        })?;
        Ok(x)
    }

    fn forward_slices(&self, normed: Rows<'_>, inner: &mut [f32], x: &mut [f32]) {
        let rows = normed.num_rows();
        let output = match &self.mlp {
            Mlp::Gelu { fc1, fc2 } => {
                let target = Target {
                    linear: fc1,
                    out: inner,
                    activation: Activation::GeluTanh,
                    write: Write::Store,
                };
                project(normed, vec![target]);
                fc2
            }
            Mlp::SiluGated {
                gate_proj,
                up_proj,
                down_proj,
            } => {
                let mut up = Scratch::take(inner.len());
                let target = |linear, out| Target {
                    linear,
                    out,
                    activation: Activation::Identity,
                    write: Write::Store,
                };
                project(
                    normed,
                    vec![target(gate_proj, &mut *inner), target(up_proj, &mut up)],
                );
                let width = gate_proj.outputs();
                silu_mul(
                    RowsMut::new(inner, rows, width),
                    Rows::new(&up, rows, width),
                );
                down_proj
            }
        };
        project(
            Rows::new(inner, rows, output.inputs()),
            vec![Target {
                linear: output,
                out: x,
                activation: Activation::Identity,
                write: Write::Add,
            }],
        );
    }

    /// The same with candle's operations.
    fn forward_dense(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.norm.forward(x)?;
        let out = match &self.mlp {
            Mlp::Gelu { fc1, fc2 } => fc2.forward_dense(&fc1.forward_dense(&normed)?.gelu()?)?,
            Mlp::SiluGated {
                gate_proj,
                up_proj,
                down_proj,
            } => {
                let gate = gate_proj.forward_dense(&normed)?.silu()?;
                down_proj.forward_dense(&(gate * up_proj.forward_dense(&normed)?)?)?
            }
        };
        Ok((x + out)?)
    }
}
