//! The left operand of products: activations, narrowed to the precision of the weights.

#![expect(unsafe_code, reason = "threads write the scales of different rows")]

use crate::gemm::Precision;
use crate::memory::{LINE, with_scratch};
use crate::parallel::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::Kernels;

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

/// Narrows `x` to every precision of `precisions` and hands over one operand for each of them. `nanos` is the time
/// this takes if it is to be spread over the threads, zero inside a job.
pub(super) fn with_operands<R>(
    kernels: &Kernels,
    x: Rows<'_>,
    precisions: &[Precision],
    nanos: u64,
    work: impl FnOnce(&[Operand<'_>]) -> R,
) -> R {
    let wants = |precision| precisions.contains(&precision);
    // With a single tile of rows there is nothing to gain from widening the panels.
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
    let size_of = |precision| {
        if wants(precision) {
            x.num_rows() * stride_of(precision)
        } else {
            0
        }
    };
    let scales = if wants(Precision::Int8) {
        x.num_rows()
    } else {
        0
    };
    with_scratch(
        size_of(Precision::Bf16) + size_of(Precision::Int8) + scales,
        |scratch| {
            let (brains, scratch) = scratch.split_at_mut(size_of(Precision::Bf16));
            let (bytes, scales) = scratch.split_at_mut(size_of(Precision::Int8));
            let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
            if !brains.is_empty() {
                to_brains(
                    kernels,
                    x,
                    brains,
                    stride_of(Precision::Bf16),
                    is_wide,
                    nanos,
                );
            }
            if !bytes.is_empty() {
                to_bytes(kernels, x, bytes, stride_of(Precision::Int8), scales, nanos);
            }
            let operands: Vec<_> = precisions
                .iter()
                .map(|precision| match precision {
                    Precision::F32 => Operand {
                        words: x.as_ptr().cast(),
                        stride: x.stride(),
                        is_wide: false,
                        scales: &[],
                    },
                    Precision::Bf16 => Operand {
                        words: brains.as_ptr(),
                        stride: stride_of(Precision::Bf16),
                        is_wide,
                        scales: &[],
                    },
                    Precision::Int8 | Precision::Int4 => Operand {
                        words: bytes.as_ptr(),
                        stride: stride_of(Precision::Int8),
                        is_wide: false,
                        scales,
                    },
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

/// Rounds every row of `x` to bytes, with a scale for each.
fn to_bytes(
    kernels: &Kernels,
    x: Rows<'_>,
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
        let scale = (kernels.narrow_bytes)(x.row(row), kernels.byte_offset, out);
        // SAFETY: there is a scale for every row, and every row is one job's.
        unsafe { *scales.get().add(row) = scale };
    });
}

/// The two bfloat16 of a word as `f32`.
pub(super) fn widen(word: u32) -> [u32; 2] {
    [word << 16, word & 0xFFFF_0000]
}
