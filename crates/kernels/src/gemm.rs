//! Products with packed weights: `out = act(x · Wᵀ + bias)`.
//!
//! Weights are packed once, when they are loaded; activations arrive as `f32` and are narrowed to the
//! precision of the weights once for a whole group of products. Accumulation is `f32` (`i32` for int8), over
//! the shared dimension from the first value to the last, whatever the number of rows: a row of a batch is
//! bit-identical to the same row alone.

#![expect(unsafe_code, reason = "threads write disjoint columns of one output")]

use std::ops::Range;

use half::bf16;

use crate::activation::{gelu_tanh_one, silu_one};
use crate::parallel::{self, SharedMut};
use crate::rows::{Rows, RowsMut};

/// The type in which weights are kept and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// `f32` weights and activations.
    F32,
    /// bfloat16 weights and activations, both rounded to nearest even; `f32` sums.
    Bf16,
    /// 8-bit integers: weights symmetric per output feature, activations symmetric per row; exact `i32`
    /// sums, scaled in `f32`. A row of activations that holds an infinity or NaN gives NaN.
    Int8,
}

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
}

enum Storage {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    Int8 { values: Vec<i8>, scales: Vec<f32> },
}

/// Weights of a linear layer, `(out_features, in_features)`, in the layout the products want.
pub struct PackedMatrix {
    out_features: usize,
    in_features: usize,
    storage: Storage,
}

impl PackedMatrix {
    /// Packs weights that arrive in pieces: `fill` is asked for consecutive ranges of output rows, from the
    /// first to the last, each range once, and writes them row-major (`range.len() × in_features`). The
    /// buffer is a few hundred kilobytes, so that loading never holds two copies.
    ///
    /// # Errors
    /// The first error of `fill`.
    pub fn pack<E>(
        precision: Precision,
        out_features: usize,
        in_features: usize,
        mut fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let count = out_features * in_features;
        let mut storage = match precision {
            Precision::F32 => Storage::F32(Vec::with_capacity(count)),
            Precision::Bf16 => Storage::Bf16(Vec::with_capacity(count)),
            Precision::Int8 => Storage::Int8 {
                values: Vec::with_capacity(count),
                scales: Vec::with_capacity(out_features),
            },
        };
        let block = (65_536 / in_features.max(1)).clamp(1, out_features.max(1));
        let mut buffer = vec![0.0; block * in_features];
        let mut first = 0;
        while first < out_features {
            let range = first..(first + block).min(out_features);
            first = range.end;
            let buffer = &mut buffer[..range.len() * in_features];
            fill(range, buffer)?;
            match &mut storage {
                Storage::F32(values) => values.extend_from_slice(buffer),
                Storage::Bf16(values) => {
                    values.extend(buffer.iter().map(|&value| bf16::from_f32(value)))
                }
                Storage::Int8 { values, scales } => {
                    for row in buffer.chunks_exact(in_features.max(1)) {
                        let mut quantised = vec![0.0; in_features];
                        scales.push(quantise(row, &mut quantised));
                        values.extend(quantised.iter().map(|&value| value as i8));
                    }
                }
            }
        }
        Ok(Self {
            out_features,
            in_features,
            storage,
        })
    }

    /// Packs `rows`, row-major `out_features × in_features`.
    ///
    /// # Panics
    /// If `rows` has another length.
    pub fn from_rows(
        precision: Precision,
        out_features: usize,
        in_features: usize,
        rows: &[f32],
    ) -> Self {
        assert_eq!(
            rows.len(),
            out_features * in_features,
            "weights of another size than stated is a bug"
        );
        let packed = Self::pack(precision, out_features, in_features, |range, buffer| {
            buffer.copy_from_slice(&rows[range.start * in_features..range.end * in_features]);
            Ok::<(), std::convert::Infallible>(())
        });
        match packed {
            Ok(packed) => packed,
            Err(never) => match never {},
        }
    }

    /// Number of values a product gives for each row.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Number of values a product takes from each row.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// The type of the weights.
    pub fn precision(&self) -> Precision {
        match self.storage {
            Storage::F32(_) => Precision::F32,
            Storage::Bf16(_) => Precision::Bf16,
            Storage::Int8 { .. } => Precision::Int8,
        }
    }

    /// Memory held by the weights and their scales.
    pub fn num_bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(values) => size_of_val(values.as_slice()),
            Storage::Bf16(values) => size_of_val(values.as_slice()),
            Storage::Int8 { values, scales } => {
                size_of_val(values.as_slice()) + size_of_val(scales.as_slice())
            }
        }
    }

    /// Writes the weights of output feature `row`, widened to `f32`: an embedding looked up in a table that
    /// is also the last layer.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `in_features` long.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let scale = self.integers(row, out);
        if scale != 1.0 {
            out.iter_mut().for_each(|value| *value *= scale);
        }
    }

    /// Writes one row without its scale, and returns the scale.
    fn integers(&self, row: usize, out: &mut [f32]) -> f32 {
        assert!(
            row < self.out_features,
            "row {row} of {} is a bug",
            self.out_features
        );
        assert_eq!(
            out.len(),
            self.in_features,
            "a row of another length is a bug"
        );
        let range = row * self.in_features..(row + 1) * self.in_features;
        match &self.storage {
            Storage::F32(values) => out.copy_from_slice(&values[range]),
            Storage::Bf16(values) => {
                out.iter_mut()
                    .zip(&values[range])
                    .for_each(|(out, value)| *out = value.to_f32());
            }
            Storage::Int8 { values, scales } => {
                out.iter_mut()
                    .zip(&values[range])
                    .for_each(|(out, &value)| *out = f32::from(value));
                return scales[row];
            }
        }
        1.0
    }
}

/// One product of a group: the weights and what happens to the result.
pub struct Product<'a> {
    /// The weights, `(out_features, in_features)`.
    pub weights: &'a PackedMatrix,
    /// Added to every row, `out_features` values.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Activation,
    /// Whether the result replaces the output or is added to it.
    pub write: Write,
    /// `(rows of x, out_features)`, any stride.
    pub out: RowsMut<'a>,
}

/// `out[r] (=|+=) activation(x[r] · Wᵀ + bias)`.
///
/// # Panics
/// If the shapes do not fit together.
pub fn matmul(x: Rows<'_>, product: Product<'_>) {
    matmul_group(x, &mut [product]);
}

/// Several products of the same `x` (q, k and v; gate and up; the first halves of adapters): `x` is narrowed
/// once and all of them run in one parallel region.
///
/// # Panics
/// If the shapes do not fit together.
pub fn matmul_group(x: Rows<'_>, products: &mut [Product<'_>]) {
    for product in products {
        let weights = product.weights;
        check(x, product);
        let k = weights.in_features;
        let mut narrowed = vec![0.0; x.num_rows() * k];
        let mut scales = vec![1.0; x.num_rows()];
        for (row, narrowed) in narrowed.chunks_exact_mut(k.max(1)).enumerate() {
            match weights.precision() {
                Precision::F32 => narrowed.copy_from_slice(x.row(row)),
                Precision::Bf16 => narrowed
                    .iter_mut()
                    .zip(x.row(row))
                    .for_each(|(out, &value)| *out = bf16::from_f32(value).to_f32()),
                Precision::Int8 => scales[row] = quantise(x.row(row), narrowed),
            }
        }
        let stride = product.out.stride();
        let out = SharedMut::new(product.out.as_mut_ptr());
        let (bias, activation, write) = (product.bias, product.activation, product.write);
        let block = 8;
        let nanos = (x.num_rows() * k * weights.out_features) as u64 / 8;
        parallel::for_each(weights.out_features.div_ceil(block), nanos, |index| {
            let mut weight = vec![0.0; k];
            for feature in index * block..((index + 1) * block).min(weights.out_features) {
                let scale = weights.integers(feature, &mut weight);
                for (row, row_scale) in scales.iter().enumerate() {
                    let mut value =
                        dot(&narrowed[row * k..(row + 1) * k], &weight) * (scale * row_scale);
                    value += bias.map_or(0.0, |bias| bias[feature]);
                    value = match activation {
                        Activation::Identity => value,
                        Activation::GeluTanh => gelu_tanh_one(value),
                        Activation::Silu => silu_one(value),
                    };
                    // SAFETY: `check` compared the output's shape with the rows and features; every
                    // feature belongs to one job.
                    let out = unsafe { &mut *out.get().add(row * stride + feature) };
                    match write {
                        Write::Store => *out = value,
                        Write::Add => *out += value,
                    }
                }
            }
        });
    }
}

fn check(x: Rows<'_>, product: &Product<'_>) {
    let weights = product.weights;
    assert_eq!(
        x.num_cols(),
        weights.in_features,
        "an input of another width than the weights is a bug"
    );
    assert_eq!(
        (product.out.num_rows(), product.out.num_cols()),
        (x.num_rows(), weights.out_features),
        "an output of another shape than the product is a bug"
    );
    if let Some(bias) = product.bias {
        assert_eq!(
            bias.len(),
            weights.out_features,
            "a bias of another length than the output is a bug"
        );
    }
}

/// Rounds `row / scale` to integers of at most 127 and returns the scale. A row that is not finite gives
/// zeros and a scale of NaN.
fn quantise(row: &[f32], out: &mut [f32]) -> f32 {
    let mut max = 0.0_f32;
    for value in row {
        max = if value.is_finite() {
            max.max(value.abs())
        } else {
            f32::NAN
        };
        if max.is_nan() {
            out.fill(0.0);
            return f32::NAN;
        }
    }
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    out.iter_mut()
        .zip(row)
        .for_each(|(out, value)| *out = (value * inverse).round_ties_even());
    max / 127.0
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let (left_blocks, left_rest) = left.as_chunks::<LANES>();
    let (right_blocks, right_rest) = right.as_chunks::<LANES>();
    for (l, r) in left_blocks.iter().zip(right_blocks) {
        for lane in 0..LANES {
            sums[lane] += l[lane] * r[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(l, r)| l * r).sum();
    sums.iter().sum::<f32>() + rest
}
