//! `x += mlp(norm(x))`.

use candle_core::{Device, Tensor};
use colibri_kernels::{
    activation::{gelu_tanh_mul, silu_mul},
    gemm::{Activation, Write},
    rows::{Rows, RowsMut},
};

use crate::{
    Linear, Norm, Result, Scratch, cpu,
    linear::{Target, project},
};

/// Rows taken through an MLP at a time. 512 rows of 3072 values are 6 MiB: within the last-level cache
/// of a laptop, and enough rows for the products to run at full speed.
const ROWS_AT_A_TIME: usize = 512;

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
    /// `down(gelu_tanh(gate(x)) * up(x))`, as in Gemma.
    GeluGated {
        /// `hidden → intermediate`.
        gate_proj: Linear,
        /// `hidden → intermediate`.
        up_proj: Linear,
        /// `intermediate → hidden`.
        down_proj: Linear,
    },
}

impl Mlp {
    /// The layer that the input enters.
    fn input(&self) -> &Linear {
        match self {
            Self::Gelu { fc1, .. } => fc1,
            Self::SiluGated { gate_proj, .. } | Self::GeluGated { gate_proj, .. } => gate_proj,
        }
    }

    /// The layer that the output leaves.
    fn output(&self) -> &Linear {
        match self {
            Self::Gelu { fc2, .. } => fc2,
            Self::SiluGated { down_proj, .. } | Self::GeluGated { down_proj, .. } => down_proj,
        }
    }

    /// `x` `(…, inputs)` → `(…, outputs)`, without norm and residual: a projection between two models.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !self.input().is_packed() {
            return self.forward_dense(x);
        }
        let (inputs, outputs) = (self.input().inputs(), self.output().outputs());
        let mut shape = x.dims().to_vec();
        if shape.pop() != Some(inputs) {
            return Err(candle_core::Error::Msg(format!(
                "an MLP over {inputs} features was given {:?}",
                x.dims()
            ))
            .into());
        }
        let num_rows: usize = shape.iter().product();
        shape.push(outputs);
        let width = self.input().outputs();
        let mut out = vec![0.0; num_rows * outputs];
        let mut inner = Scratch::take(num_rows.min(ROWS_AT_A_TIME) * width);
        cpu::with_values(&x.contiguous()?, |values| {
            for (x, out) in values
                .chunks(ROWS_AT_A_TIME * inputs)
                .zip(out.chunks_mut(ROWS_AT_A_TIME * outputs))
            {
                let rows = x.len() / inputs;
                self.forward_slices(
                    Rows::new(x, rows, inputs),
                    &mut inner[..rows * width],
                    out,
                    Write::Store,
                );
            }
        })?;
        Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
    }

    /// `inner` holds the rows between the two products.
    fn forward_slices(&self, x: Rows<'_>, inner: &mut [f32], out: &mut [f32], write: Write) {
        let rows = x.num_rows();
        match self {
            Self::Gelu { fc1, .. } => {
                let target = Target {
                    linear: fc1,
                    out: inner,
                    activation: Activation::GeluTanh,
                    write: Write::Store,
                };
                project(x, vec![target]);
            }
            Self::SiluGated {
                gate_proj, up_proj, ..
            }
            | Self::GeluGated {
                gate_proj, up_proj, ..
            } => {
                let mut up = Scratch::take(inner.len());
                let target = |linear, out| Target {
                    linear,
                    out,
                    activation: Activation::Identity,
                    write: Write::Store,
                };
                project(
                    x,
                    vec![target(gate_proj, &mut *inner), target(up_proj, &mut up)],
                );
                let width = gate_proj.outputs();
                let (gate, up) = (
                    RowsMut::new(inner, rows, width),
                    Rows::new(&up, rows, width),
                );
                if matches!(self, Self::SiluGated { .. }) {
                    silu_mul(gate, up);
                } else {
                    gelu_tanh_mul(gate, up);
                }
            }
        }
        let output = self.output();
        project(
            Rows::new(inner, rows, output.inputs()),
            vec![Target {
                linear: output,
                out,
                activation: Activation::Identity,
                write,
            }],
        );
    }

    /// The same with candle's operations.
    fn forward_dense(&self, x: &Tensor) -> Result<Tensor> {
        let gated = |gate: Tensor, up_proj: &Linear, down_proj: &Linear| {
            down_proj.forward_dense(&(gate * up_proj.forward_dense(x)?)?)
        };
        match self {
            Self::Gelu { fc1, fc2 } => fc2.forward_dense(&fc1.forward_dense(x)?.gelu()?),
            Self::SiluGated {
                gate_proj,
                up_proj,
                down_proj,
            } => gated(gate_proj.forward_dense(x)?.silu()?, up_proj, down_proj),
            Self::GeluGated {
                gate_proj,
                up_proj,
                down_proj,
            } => gated(gate_proj.forward_dense(x)?.gelu()?, up_proj, down_proj),
        }
    }
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
        let input = self.mlp.input();
        if !input.is_packed() {
            let out = self.mlp.forward_dense(&self.norm.forward(&x)?)?;
            return Ok((x + out)?);
        }
        let width = input.outputs();
        cpu::in_place(&x, "MLP half-block", |values| {
            let rows = (batch * seq).min(ROWS_AT_A_TIME);
            let mut normed = Scratch::take(rows * hidden);
            let mut inner = Scratch::take(rows * width);
            for chunk in values.chunks_mut(ROWS_AT_A_TIME * hidden) {
                let rows = chunk.len() / hidden;
                let normed = &mut normed[..rows * hidden];
                self.norm.apply(
                    Rows::new(chunk, rows, hidden),
                    RowsMut::new(normed, rows, hidden),
                );
                self.mlp.forward_slices(
                    Rows::new(normed, rows, hidden),
                    &mut inner[..rows * width],
                    chunk,
                    Write::Add,
                );
            }
            Ok(())
        })?;
        Ok(x)
    }
}
