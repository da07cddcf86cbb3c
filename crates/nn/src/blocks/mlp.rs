//! `x += mlp(norm(x))`.

use candle_core::{Device, Tensor};
use colibri_kernels::{
    gemm::{Activation, Input, Write},
    parallel,
    rows::{Rows, RowsMut},
};

use crate::{
    Linear, Norm, Result, Scratch, cpu,
    linear::{Target, project, project_gated},
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

    /// Bytes held by the matrices.
    fn num_bytes(&self) -> usize {
        let up = match self {
            Self::Gelu { .. } => 0,
            Self::SiluGated { up_proj, .. } | Self::GeluGated { up_proj, .. } => {
                up_proj.num_bytes()
            }
        };
        self.input().num_bytes() + up + self.output().num_bytes()
    }

    /// Values of a row between the two products.
    fn inner_width(&self) -> usize {
        self.inner_write().width(self.input().outputs())
    }

    /// How the first product writes: rounded where the second would round, so that half as much goes out of the caches and
    /// comes back.
    fn inner_write(&self) -> Write {
        match self {
            Self::Gelu { fc1, fc2 }
                if fc1.takes_rounded()
                    && fc2.takes_rounded()
                    && fc1.outputs().is_multiple_of(2) =>
            {
                Write::Round
            }
            Self::Gelu { .. } | Self::SiluGated { .. } | Self::GeluGated { .. } => Write::Store,
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
        let nanos = (2 * num_rows * inputs * width) as u64 / 100;
        cpu::with_values(&x.contiguous()?, |values| {
            let x = Rows::new(values, num_rows, inputs);
            parallel::for_each_block(
                num_rows,
                nanos,
                self.num_bytes(),
                [&mut out],
                |rows, [out]| {
                    let mut inner = Scratch::take(rows.len() * self.inner_width());
                    self.forward_slices(x.slice(rows), &mut inner, out, Write::Store);
                },
            );
        })?;
        Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
    }

    /// `inner` holds the rows between the two products.
    fn forward_slices(&self, x: Rows<'_>, inner: &mut [f32], out: &mut [f32], write: Write) {
        let rows = x.num_rows();
        let inner_write = self.inner_write();
        match self {
            Self::Gelu { fc1, .. } => {
                let target = Target {
                    linear: fc1,
                    out: inner,
                    activation: Activation::GeluTanh,
                    write: inner_write,
                };
                project(x, vec![target]);
            }
            Self::SiluGated {
                gate_proj, up_proj, ..
            }
            | Self::GeluGated {
                gate_proj, up_proj, ..
            } => {
                let is_silu = matches!(self, Self::SiluGated { .. });
                let activation = if is_silu {
                    Activation::Silu
                } else {
                    Activation::GeluTanh
                };
                project_gated(x, gate_proj, activation, up_proj, inner);
            }
        }
        let output = self.output();
        let inner = Rows::new(inner, rows, self.inner_width());
        project(
            if inner_write == Write::Round {
                Input::Rounded(inner)
            } else {
                Input::Floats(inner)
            },
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
            let rows = batch * seq;
            let nanos = (2 * rows * hidden * width) as u64 / 100;
            // One region for the whole half-block: each row is taken through all of it by itself.
            parallel::for_each_block(rows, nanos, self.mlp.num_bytes(), [values], |rows, [x]| {
                let mut normed = Scratch::take(rows.len() * hidden);
                let mut inner = Scratch::take(rows.len() * self.mlp.inner_width());
                self.norm.apply(
                    Rows::new(x, rows.len(), hidden),
                    RowsMut::new(&mut normed, rows.len(), hidden),
                );
                let normed = Rows::new(&normed, rows.len(), hidden);
                self.mlp.forward_slices(normed, &mut inner, x, Write::Add);
            });
            Ok(())
        })?;
        Ok(x)
    }
}
