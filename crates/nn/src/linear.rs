//! A linear layer: dense, packed for the CPU, with or without LoRA factors beside it.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use colibri_kernels::{
    activation::{gelu_tanh, gelu_tanh_mul, silu_mul},
    attention::{Inner, takes_rounded},
    gemm::{
        Activation, Input, PackedMatrix, Precision, Product, Write, matmul, matmul_gated,
        matmul_group,
    },
    isa::Isa,
    rows::{Rows, RowsMut},
};

use crate::{Placement, Result, Scratch, cpu};

/// The form a matrix `(outputs, inputs)` is held in.
#[derive(Clone)]
pub(crate) enum Storage {
    /// Packed for the running instruction set.
    Packed(Arc<PackedMatrix>),
    /// A tensor on any device.
    Dense(Tensor),
}

impl std::fmt::Debug for Storage {
    /// Sizes only: the values of a matrix say nothing to a reader.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Packed(matrix) => write!(
                f,
                "Packed({} × {})",
                matrix.out_features(),
                matrix.in_features()
            ),
            Self::Dense(tensor) => write!(f, "Dense({:?}, {:?})", tensor.dims(), tensor.dtype()),
        }
    }
}

impl Storage {
    fn dims(&self) -> Result<(usize, usize)> {
        Ok(match self {
            Self::Packed(matrix) => (matrix.out_features(), matrix.in_features()),
            Self::Dense(tensor) => tensor.dims2()?,
        })
    }

    fn num_bytes(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.num_bytes(),
            Self::Dense(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        }
    }
}

#[derive(Clone, Debug)]
enum Bias {
    Values(Arc<[f32]>),
    Tensor(Tensor),
}

/// `y = W·x + b`, plus `B·(A·x)` where an adapter is kept beside the weights.
#[derive(Clone, Debug)]
pub struct Linear {
    storage: Storage,
    bias: Option<Bias>,
    /// `A` `(rank, inputs)` and the scaled `B` `(outputs, rank)`.
    lora: Option<(Storage, Storage)>,
    inputs: usize,
    outputs: usize,
}

/// One product of a group that shares its input.
pub(crate) struct Target<'a> {
    pub(crate) linear: &'a Linear,
    /// `(rows, outputs)`, row-major; half as wide where results are rounded ([`Write::Round`], plain layers only).
    pub(crate) out: &'a mut [f32],
    pub(crate) activation: Activation,
    pub(crate) write: Write,
}

impl Linear {
    pub(crate) fn new(
        storage: Storage,
        bias: Option<Vec<f32>>,
        lora: Option<(Storage, Storage)>,
        placement: &Placement,
    ) -> Result<Self> {
        let (outputs, inputs) = storage.dims()?;
        let bias = match (bias, &storage) {
            (None, _) => None,
            (Some(values), Storage::Packed(_)) => Some(Bias::Values(values.into())),
            (Some(values), Storage::Dense(_)) => Some(Bias::Tensor(
                Tensor::from_vec(values, outputs, &Device::Cpu)?
                    .to_dtype(placement.dtype())?
                    .to_device(placement.device())?,
            )),
        };
        Ok(Self {
            storage,
            bias,
            lora,
            inputs,
            outputs,
        })
    }

    /// A layer over the same matrix as an embedding table, for tied output heads.
    pub(crate) fn tied(storage: Storage) -> Result<Self> {
        let (outputs, inputs) = storage.dims()?;
        Ok(Self {
            storage,
            bias: None,
            lora: None,
            inputs,
            outputs,
        })
    }

    /// Number of input features.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of output features.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes held by the matrices.
    pub fn num_bytes(&self) -> usize {
        let lora = self
            .lora
            .as_ref()
            .map_or(0, |(a, b)| a.num_bytes() + b.num_bytes());
        self.storage.num_bytes() + lora
    }

    /// In what attention multiplies what this layer projects, and in what keys and values are kept. Where weights are rounded anyway,
    /// so may queries and keys be: that is a third faster over a tile, and a decode step reads half as much.
    pub(crate) fn inner(&self) -> Inner {
        match &self.storage {
            Storage::Packed(matrix) if matrix.precision() != Precision::F32 => Inner::Bf16,
            Storage::Packed(_) | Storage::Dense(_) => Inner::F32,
        }
    }

    /// The packed matrix, where no adapter stands beside it.
    fn plain(&self) -> Option<&PackedMatrix> {
        match (&self.storage, &self.lora) {
            (Storage::Packed(matrix), None) => Some(matrix),
            _ => None,
        }
    }

    /// Whether this layer may write rounded results ([`Write::Round`]) or read what was rounded: one product, with no
    /// adapter beside it, whose weights are rounded as well, on a machine that multiplies bfloat16.
    pub(crate) fn takes_rounded(&self) -> bool {
        self.plain()
            .is_some_and(|weights| weights.precision() != Precision::F32)
            && takes_rounded(Isa::detect())
    }

    fn bias_values(&self) -> Option<&[f32]> {
        match &self.bias {
            Some(Bias::Values(values)) => Some(values),
            Some(Bias::Tensor(_)) | None => None,
        }
    }

    /// Whether `kernels` calculates this layer.
    pub fn is_packed(&self) -> bool {
        matches!(self.storage, Storage::Packed(_))
    }

    /// `x` `(…, inputs)` → `(…, outputs)`.
    ///
    /// # Errors
    /// When the shape or the type of `x` does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !self.is_packed() {
            return self.forward_dense(x);
        }
        let mut shape = x.dims().to_vec();
        let num_rows: usize = shape[..shape.len() - 1].iter().product();
        if shape.pop() != Some(self.inputs) {
            return Err(candle_core::Error::Msg(format!(
                "a linear layer over {} features was given {:?}",
                self.inputs,
                x.dims()
            ))
            .into());
        }
        shape.push(self.outputs);
        let mut out = vec![0.0; num_rows * self.outputs];
        cpu::with_values(&x.contiguous()?, |values| {
            project(
                Rows::new(values, num_rows, self.inputs),
                vec![Target {
                    linear: self,
                    out: &mut out,
                    activation: Activation::Identity,
                    write: Write::Store,
                }],
            );
        })?;
        Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
    }

    /// `out (rows, outputs) += x (rows, inputs) · Wᵀ + b` over slices, without a tensor between.
    ///
    /// # Panics
    /// If the lengths do not fit, or where candle calculates ([`Linear::is_packed`]).
    pub fn add_to(&self, x: &[f32], out: &mut [f32]) {
        let target = Target {
            linear: self,
            out,
            activation: Activation::Identity,
            write: Write::Add,
        };
        project(
            Rows::new(x, x.len() / self.inputs, self.inputs),
            vec![target],
        );
    }

    pub(crate) fn forward_dense(&self, x: &Tensor) -> Result<Tensor> {
        let (Storage::Dense(weight), lora) = (&self.storage, &self.lora) else {
            return self.forward(x);
        };
        let mut y = dense_product(x, weight)?;
        if let Some(Bias::Tensor(bias)) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
        if let Some((Storage::Dense(a), Storage::Dense(b))) = lora {
            y = (y + dense_product(&dense_product(x, a)?, b)?)?;
        }
        Ok(y)
    }
}

/// `x` `(…, k)` times the transpose of `weight` `(n, k)`.
fn dense_product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let inputs = shape.pop().unwrap_or(0);
    let flat = x.reshape(((), inputs))?.matmul(&weight.t()?)?;
    shape.push(weight.dim(0)?);
    Ok(flat.reshape(shape)?)
}

/// Calculates all targets from the same rows: one conversion of the input, one parallel region for the
/// base products and the adapters' `A`, then the adapters' `B` added on top.
pub(crate) fn project<'a>(x: impl Into<Input<'a>>, mut targets: Vec<Target<'_>>) {
    let x = x.into();
    let num_rows = x.num_rows();
    let mut low: Vec<Option<Scratch>> = targets
        .iter()
        .map(|target| {
            let (Storage::Packed(a), _) = target.linear.lora.as_ref()? else {
                return None;
            };
            Some(Scratch::take(num_rows * a.out_features()))
        })
        .collect();
    // The adapter's contribution belongs under the activation: then the activation waits.
    let deferred: Vec<Activation> = targets
        .iter_mut()
        .zip(&low)
        .map(|(target, low)| {
            if low.is_some() {
                std::mem::replace(&mut target.activation, Activation::Identity)
            } else {
                Activation::Identity
            }
        })
        .collect();
    let mut products = Vec::with_capacity(2 * targets.len());
    for (target, low) in targets.iter_mut().zip(&mut low) {
        let Storage::Packed(weights) = &target.linear.storage else {
            unreachable!("dense layers are calculated by candle")
        };
        products.push(Product {
            weights,
            bias: target.linear.bias_values(),
            activation: target.activation,
            write: target.write,
            out: RowsMut::new(
                &mut *target.out,
                num_rows,
                target.write.width(target.linear.outputs),
            ),
        });
        if let (Some((Storage::Packed(a), _)), Some(low)) = (&target.linear.lora, low) {
            products.push(Product {
                weights: a,
                bias: None,
                activation: Activation::Identity,
                write: Write::Store,
                out: RowsMut::new(low, num_rows, a.out_features()),
            });
        }
    }
    matmul_group(x, &mut products);
    drop(products);
    for ((target, low), activation) in targets.iter_mut().zip(&low).zip(deferred) {
        let (Some((_, Storage::Packed(b))), Some(low)) = (&target.linear.lora, low) else {
            continue;
        };
        matmul(
            Rows::new(low, num_rows, b.in_features()),
            Product {
                weights: b,
                bias: None,
                activation: Activation::Identity,
                write: Write::Add,
                out: RowsMut::new(&mut *target.out, num_rows, target.linear.outputs),
            },
        );
        match activation {
            Activation::Identity => {}
            Activation::GeluTanh => gelu_tanh(target.out),
            Activation::Silu => {
                for value in target.out.iter_mut() {
                    *value /= 1.0 + (-*value).exp();
                }
            }
        }
    }
}

/// `out = activation(gate(x)) · up(x)`, value by value: in one pass where both layers are plain and of one form.
/// `activation` is SiLU or GELU.
pub(crate) fn project_gated(
    x: Rows<'_>,
    gate: &Linear,
    activation: Activation,
    up: &Linear,
    out: &mut [f32],
) {
    let (rows, width) = (x.num_rows(), gate.outputs);
    if let (Some(gate_weights), Some(up_weights)) = (gate.plain(), up.plain())
        && gate_weights.precision() == up_weights.precision()
    {
        let product = Product {
            weights: gate_weights,
            bias: gate.bias_values(),
            activation,
            write: Write::Store,
            out: RowsMut::new(out, rows, width),
        };
        matmul_gated(x, product, (up_weights, up.bias_values()));
        return;
    }
    let mut passing = Scratch::take(out.len());
    let target = |linear, out| Target {
        linear,
        out,
        activation: Activation::Identity,
        write: Write::Store,
    };
    project(x, vec![target(gate, &mut *out), target(up, &mut passing)]);
    let (out, passing) = (
        RowsMut::new(out, rows, width),
        Rows::new(&passing, rows, width),
    );
    if activation == Activation::GeluTanh {
        gelu_tanh_mul(out, passing);
    } else {
        silu_mul(out, passing);
    }
}
