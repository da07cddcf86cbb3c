//! Products with packed weights: `out = act(x · Wᵀ + bias)`.
//!
//! Weights are packed once, when they are loaded ([`PackedMatrix`]); activations arrive as `f32` and are
//! narrowed to the precision of the weights once for a whole group of products. Sums are `f32` (`i32` for
//! int8) and run over the shared dimension from the first value to the last in one chain, whatever the
//! number of rows: a row of a batch is bit-identical to the same row alone.

mod columns;
mod drive;
pub(crate) mod int4;
mod operand;
mod packed;
mod panel;
mod parts;
mod precision;
pub(crate) mod short;
mod unpack;

use crate::isa::Isa;
use crate::rows::{Rows, RowsMut};
use crate::simd::Kernels;

pub(crate) use drive::split;
pub use operand::Input;
pub(crate) use operand::widen;
pub use packed::PackedMatrix;
pub use parts::{Foreign, Parts, packing};
pub use precision::Precision;

/// What is applied to a result before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// `0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`.
    GeluTanh,
    /// `x / (1 + exp(-x))`.
    Silu,
}

/// How a result reaches the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Write {
    /// `out = result`.
    #[default]
    Store,
    /// `out += result`: a residual, or a low-rank addition.
    Add,
    /// `out *= result`: what passes a gate.
    Multiply,
    /// `out = result`, rounded to bfloat16 and two to a value of the output, the first in its lower half: rows are half
    /// as wide, for what multiplies in bfloat16 next ([`crate::attention::attention_rounded`], [`Input::Rounded`]).
    Round,
}

impl Write {
    /// Values of a row of the output that `results` results take, an even number where they are rounded.
    pub fn width(self, results: usize) -> usize {
        match self {
            Self::Round => results / 2,
            Self::Store | Self::Add | Self::Multiply => results,
        }
    }
}

/// One product of a group: the weights and what happens to the result.
#[derive(Debug)]
pub struct Product<'a> {
    /// The weights, `(out_features, in_features)`.
    pub weights: &'a PackedMatrix,
    /// Added to every row, `out_features` values.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Activation,
    /// Whether the result replaces the output or is added to it.
    pub write: Write,
    /// `(rows of x, out_features)`, any stride; half as many columns where results are rounded.
    pub out: RowsMut<'a>,
}

/// `out[r] (=|+=) activation(x[r] · Wᵀ + bias)`.
///
/// # Panics
/// If the shapes do not fit together.
pub fn matmul<'a>(x: impl Into<Input<'a>>, product: Product<'_>) {
    matmul_group(x, &mut [product]);
}

/// Several products of the same `x` (q, k and v; gate and up; the first halves of adapters): `x` is narrowed
/// once and all of them run in one parallel region.
///
/// # Panics
/// If the shapes do not fit together, or if the weights were packed for different instruction sets.
pub fn matmul_group<'a>(x: impl Into<Input<'a>>, products: &mut [Product<'_>]) {
    let x = x.into();
    let Some(first) = products.first() else {
        return;
    };
    let isa = first.weights.isa();
    for product in &*products {
        check(x, product, isa);
    }
    drive::run(Kernels::of(isa), x, products, None);
}

/// `out[r] = activation(x[r] · Gᵀ + b) · (x[r] · Uᵀ + c)`, value by value: `gate` with what passes it, `up`, and its bias.
/// The same bits as a product that is stored and one that is multiplied to it, in one pass over the output.
///
/// # Panics
/// If the shapes do not fit together, or if the two matrices differ in shape, precision or instruction set.
pub fn matmul_gated(
    x: Rows<'_>,
    gate: Product<'_>,
    (up, up_bias): (&PackedMatrix, Option<&[f32]>),
) {
    let isa = gate.weights.isa();
    check(x.into(), &gate, isa);
    let kind = |of: &PackedMatrix| {
        (
            of.isa(),
            of.precision(),
            of.out_features(),
            of.in_features(),
        )
    };
    assert_eq!(
        kind(gate.weights),
        kind(up),
        "a gate of another kind than what passes it is a bug"
    );
    assert!(
        up_bias.is_none_or(|bias| bias.len() == up.out_features()),
        "a bias of another length than the output is a bug"
    );
    let up = drive::Up {
        weights: up,
        bias: up_bias,
    };
    drive::run(Kernels::of(isa), x.into(), &mut [gate], Some(up));
}

fn check(x: Input<'_>, product: &Product<'_>, isa: Isa) {
    let weights = product.weights;
    assert_eq!(
        weights.isa(),
        isa,
        "weights packed for different instruction sets is a bug"
    );
    assert!(
        matches!(x, Input::Floats(_)) || weights.precision() != Precision::F32,
        "rounded rows for weights in f32 is a bug"
    );
    assert_eq!(
        x.num_cols(),
        weights.in_features(),
        "an input of another width than the weights is a bug"
    );
    assert!(
        product.write != Write::Round || weights.out_features().is_multiple_of(2),
        "rounding an odd number of results is a bug"
    );
    assert_eq!(
        (product.out.num_rows(), product.out.num_cols()),
        (x.num_rows(), product.write.width(weights.out_features())),
        "an output of another shape than the product is a bug"
    );
    if let Some(bias) = product.bias {
        assert_eq!(
            bias.len(),
            weights.out_features(),
            "a bias of another length than the output is a bug"
        );
    }
}
