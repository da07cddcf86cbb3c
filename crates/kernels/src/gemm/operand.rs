//! The left operand of products: activations, narrowed to the precision of the weights.

#![expect(unsafe_code, reason = "threads write the scales of different rows")]

use std::ops::Range;

use crate::gemm::Precision;
use crate::memory::{LINE, with_scratch};
use crate::parallel::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::Kernels;

/// The rows that products multiply.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// As they are.
    Floats(Rows<'a>),
    /// Rounded to bfloat16 already, two to a value ([`crate::gemm::Write::Round`]). For weights in anything but `f32`, on
    /// machines with an instruction for bfloat16 ([`crate::attention::takes_rounded`]).
    Rounded(Rows<'a>),
}

impl<'a> From<Rows<'a>> for Input<'a> {
    fn from(rows: Rows<'a>) -> Self {
        Self::Floats(rows)
    }
}

impl Input<'_> {
    fn rows(&self) -> &Rows<'_> {
        match self {
            Self::Floats(rows) | Self::Rounded(rows) => rows,
        }
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.rows().num_rows()
    }

    /// Number of input features.
    pub fn num_cols(&self) -> usize {
        let halves = if matches!(self, Self::Rounded(_)) {
            2
        } else {
            1
        };
        halves * self.rows().num_cols()
    }

    /// The rows in `range`.
    ///
    /// # Panics
    /// If the range reaches past the last row.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Self::Floats(rows) => Self::Floats(rows.slice(range)),
            Self::Rounded(rows) => Self::Rounded(rows.slice(range)),
        }
    }
}

/// The left operand of a product, as words.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    /// Row `r` starts at `words + r · stride`.
    pub(super) words: *const u32,
    pub(super) stride: usize,
    /// bfloat16 rounded and widened again: the panels are widened block by block and multiplied as `f32`. Without
    /// an instruction for bfloat16 that takes half as long, and the sums are the same.
    pub(super) is_wide: bool,
    /// int8: the scale of each row.
    pub(super) scales: &'a [f32],
}

/// What a product wants its left operand to be.
#[derive(Clone, Copy)]
pub(super) struct Form<'a> {
    pub(super) precision: Precision,
    /// int8: what each column is multiplied by first.
    pub(super) factors: Option<&'a [f32]>,
}

/// Narrows `x` to every form of `forms` and hands over one operand for each of them. `nanos` is the time
/// this takes if it is to be spread over the threads, zero inside a job.
pub(super) fn with_operands<R>(
    kernels: &Kernels,
    x: Input<'_>,
    forms: &[Form<'_>],
    nanos: u64,
    work: impl FnOnce(&[Operand<'_>]) -> R,
) -> R {
    // With a single tile of rows there is nothing to gain from widening the panels.
    let is_rounded = matches!(x, Input::Rounded(_));
    assert!(
        !is_rounded || kernels.fast_bf16,
        "rounded rows without an instruction for them is a bug"
    );
    let is_wide = !kernels.fast_bf16 && x.num_rows() > kernels.tile_rows;
    let stride_of = |precision: Precision| {
        let parts = if is_wide && precision == Precision::Bf16 {
            2
        } else {
            1
        };
        let stride = (parts * precision.words(x.num_cols())).next_multiple_of(LINE);
        // Rows a multiple of 4 KiB apart would fall into the same few cache lines.
        if stride.is_multiple_of(1024) {
            stride + LINE
        } else {
            stride
        }
    };
    let has_brains = !is_rounded && forms.iter().any(|form| form.precision == Precision::Bf16);
    // Bytes without factors are narrowed once for all that want them.
    let mut bytes_of: Vec<Option<&[f32]>> = Vec::new();
    for form in forms
        .iter()
        .filter(|form| form.precision == Precision::Int8)
    {
        if form.factors.is_some() || !bytes_of.contains(&None) {
            bytes_of.push(form.factors);
        }
    }
    let brain_words = if has_brains {
        x.num_rows() * stride_of(Precision::Bf16)
    } else {
        0
    };
    let byte_words = x.num_rows() * stride_of(Precision::Int8);
    with_scratch(
        brain_words + bytes_of.len() * (byte_words + x.num_rows()),
        |scratch| {
            let (brains, scratch) = scratch.split_at_mut(brain_words);
            let (bytes, scales) = scratch.split_at_mut(bytes_of.len() * byte_words);
            let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
            if has_brains {
                to_brains(
                    kernels,
                    *x.rows(),
                    brains,
                    stride_of(Precision::Bf16),
                    is_wide,
                    nanos,
                );
            }
            let stride = stride_of(Precision::Int8);
            for (index, factors) in bytes_of.iter().enumerate() {
                let bytes = &mut bytes[index * byte_words..(index + 1) * byte_words];
                let scales = &mut scales[index * x.num_rows()..(index + 1) * x.num_rows()];
                to_bytes(kernels, x, *factors, bytes, stride, scales, nanos);
            }
            let (bytes, scales) = (&*bytes, &*scales);
            let mut with_factors = bytes_of.iter().enumerate().filter(|of| of.1.is_some());
            let plain = bytes_of.iter().position(Option::is_none);
            let as_it_is = || Operand {
                words: x.rows().as_ptr().cast(),
                stride: x.rows().stride(),
                is_wide: false,
                scales: &[],
            };
            let operands: Vec<_> = forms
                .iter()
                .map(|form| match form.precision {
                    Precision::F32 => as_it_is(),
                    Precision::Bf16 | Precision::Bf16Short if is_rounded => as_it_is(),
                    Precision::Bf16 | Precision::Bf16Short => Operand {
                        words: brains.as_ptr(),
                        stride: stride_of(Precision::Bf16),
                        is_wide,
                        scales: &[],
                    },
                    Precision::Int8 | Precision::Int4 => {
                        let index = if form.factors.is_some() {
                            with_factors.next().map(|of| of.0)
                        } else {
                            plain
                        };
                        let index = index.unwrap_or_default();
                        Operand {
                            words: bytes[index * byte_words..].as_ptr(),
                            stride,
                            is_wide: false,
                            scales: &scales[index * x.num_rows()..(index + 1) * x.num_rows()],
                        }
                    }
                })
                .collect();
            work(&operands)
        },
    )
}

/// Rounds every row of `x` to bfloat16, two to a word, or with `is_wide` widened again.
fn to_brains(
    kernels: &Kernels,
    x: Rows<'_>,
    out: &mut [u32],
    stride: usize,
    is_wide: bool,
    nanos: u64,
) {
    let words = Precision::Bf16.words(x.num_cols());
    let width = if is_wide { 2 * words } else { words };
    let out = RowsMut::strided(bytemuck::cast_slice_mut(out), x.num_rows(), width, stride);
    parallel::for_each_row(out, nanos, |row, out| {
        let out: &mut [u32] = bytemuck::cast_slice_mut(out);
        // To be widened they start in the second half, where writing never overtakes reading.
        (kernels.narrow_bf16)(x.row(row), &mut out[width - words..]);
        if is_wide {
            for at in 0..words {
                let [low, high] = widen(out[words + at]);
                (out[2 * at], out[2 * at + 1]) = (low, high);
            }
        }
    });
}

/// Rounds every row of `x`, times `factors`, to bytes, with a scale for each.
fn to_bytes(
    kernels: &Kernels,
    x: Input<'_>,
    factors: Option<&[f32]>,
    out: &mut [u32],
    stride: usize,
    scales: &mut [f32],
    nanos: u64,
) {
    let words = Precision::Int8.words(x.num_cols());
    let scales = SharedMut::new(scales.as_mut_ptr());
    let out = RowsMut::strided(bytemuck::cast_slice_mut(out), x.num_rows(), words, stride);
    parallel::for_each_row(out, nanos, |row, out| {
        let out = bytemuck::cast_slice_mut(out);
        let offset = kernels.byte_offset;
        let scale = match (x, factors) {
            (Input::Floats(x), None) => (kernels.narrow_bytes)(x.row(row), offset, out),
            (Input::Rounded(x), None) => {
                (kernels.narrow_halves)(bytemuck::cast_slice(x.row(row)), offset, out)
            }
            (x, Some(factors)) => with_scratch(x.num_cols(), |scaled| {
                let scaled: &mut [f32] = bytemuck::cast_slice_mut(scaled);
                match x {
                    Input::Floats(x) => scaled.copy_from_slice(x.row(row)),
                    Input::Rounded(x) => {
                        for (scaled, &value) in scaled.chunks_exact_mut(2).zip(x.row(row)) {
                            scaled.copy_from_slice(&widen(value.to_bits()).map(f32::from_bits));
                        }
                    }
                }
                (kernels.multiply)(scaled, factors);
                (kernels.narrow_bytes)(scaled, offset, out)
            }),
        };
        // SAFETY: there is a scale for every row, and every row is one job's.
        unsafe { *scales.get().add(row) = scale };
    });
}

/// The two bfloat16 of a word as `f32`.
pub(crate) fn widen(word: u32) -> [u32; 2] {
    [word << 16, word & 0xFFFF_0000]
}
