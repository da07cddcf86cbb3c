//! The vector machine the kernels are written for.
//!
//! A kernel is written once, generic over [`Simd`], and compiled once for each instruction set: the module
//! of an instruction set implements the operations with its intrinsics and instantiates every kernel inside
//! functions that carry its target features ([`table::kernel_table`]). A value of the implementing type is
//! the proof that the running machine has those features; [`table::Kernels::of`] is the one place that
//! hands out the compiled kernels, after [`crate::isa::Isa`] has looked.

#![expect(unsafe_code, reason = "operations on raw tiles are unsafe by contract")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

mod avx2;
mod avx512;
pub(crate) mod nibbles;
mod portable;
#[cfg(target_arch = "x86_64")]
mod samples;
pub(crate) mod shorts;
pub(crate) mod table;

pub(crate) use table::Kernels;

use crate::resample::{Weights, portable};

/// The registers of an instruction set and what can be done with them.
///
/// `F` holds [`Simd::LANES`] `f32` values, `W` as many 32-bit words. A word of an operand is one `f32`, two
/// bfloat16 or four bytes, in the order of the shared dimension.
pub(crate) trait Simd: Copy {
    type F: Copy;
    type W: Copy;

    const LANES: usize;
    /// Vectors in a full panel of packed weights, at most [`MAX_PANEL_VECTORS`].
    const PANEL_VECTORS: usize;
    /// Rows of the largest register tile, at most [`MAX_TILE_ROWS`].
    const TILE_ROWS: usize;
    /// Added to activations before they are stored as bytes, because the instruction wants them unsigned.
    const BYTE_OFFSET: i32;
    /// The least exponent that `scale_exponent` takes; below it `exp2` gives zero.
    const MIN_EXPONENT: f32;
    /// Whether the machine multiplies bfloat16 faster than `f32`.
    const FAST_BF16: bool;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &[f32]) -> Self::F;
    /// The first `from.len() < LANES` values, zeros above.
    fn load_part(self, from: &[f32]) -> Self::F;
    fn store(self, value: Self::F, to: &mut [f32]);
    /// The first `to.len() < LANES` values.
    fn store_part(self, value: Self::F, to: &mut [f32]);

    fn add(self, left: Self::F, right: Self::F) -> Self::F;
    fn sub(self, left: Self::F, right: Self::F) -> Self::F;
    fn mul(self, left: Self::F, right: Self::F) -> Self::F;
    fn div(self, left: Self::F, right: Self::F) -> Self::F;
    /// `left · right + addend`, rounded once where the machine can.
    fn mul_add(self, left: Self::F, right: Self::F, addend: Self::F) -> Self::F;
    /// The greater; `right` when either is NaN.
    fn max(self, left: Self::F, right: Self::F) -> Self::F;
    /// The lesser; `right` when either is NaN.
    fn min(self, left: Self::F, right: Self::F) -> Self::F;
    fn abs(self, value: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, value: Self::F) -> Self::F;
    /// `1 / value` to about one unit in the last place, for normal numbers whose inverse is normal.
    fn reciprocal(self, value: Self::F) -> Self::F;
    /// `1 / value` to 2e-4 at least, for the same numbers.
    fn reciprocal_brief(self, value: Self::F) -> Self::F {
        self.reciprocal(value)
    }
    /// `x` as a fraction from 0 to 1 and what goes to `scale_exponent`, for any `x`: what is below `MIN_EXPONENT` or above 128
    /// counts as these, or better.
    fn split_exponent(self, x: Self::F) -> (Self::F, Self::F) {
        let least = self.splat(Self::MIN_EXPONENT + 0.5);
        let x = self.max(least, self.min(self.splat(128.0), x));
        let whole = self.round(self.sub(x, self.splat(0.5)));
        (self.sub(x, whole), whole)
    }
    /// `value · 2^exponent` for whole exponents from `MIN_EXPONENT` to 128, and for what `split_exponent` gives.
    fn scale_exponent(self, value: Self::F, exponent: Self::F) -> Self::F;
    fn sum(self, value: Self::F) -> f32;
    fn greatest(self, value: Self::F) -> f32;

    fn splat_word(self, word: u32) -> Self::W;
    /// # Safety
    /// `LANES` words must be readable at `from`.
    unsafe fn load_words(self, from: *const u32) -> Self::W;
    /// # Safety
    /// `LANES` words must be writable at `to`.
    unsafe fn store_words(self, value: Self::W, to: *mut u32);
    /// Asks for the cache line at `from`, which may be any address.
    fn prefetch(self, from: *const u32);
    fn zero_words(self) -> Self::W;
    fn floats(self, words: Self::W) -> Self::F;
    fn words(self, floats: Self::F) -> Self::W;
    /// Wrapping difference of the words as integers.
    fn sub_words(self, left: Self::W, right: Self::W) -> Self::W;
    /// The words as signed integers, converted.
    fn integers_to_floats(self, words: Self::W) -> Self::F;

    /// `addend` plus the products of the two bfloat16 of each word.
    fn dot_bf16(self, addend: Self::F, left: Self::W, right: Self::W) -> Self::F;
    /// `addend` plus the products of the four bytes of each word; `left` carries `BYTE_OFFSET`, `right` is
    /// signed and never -128.
    fn dot_bytes(self, addend: Self::W, left: Self::W, right: Self::W) -> Self::W;

    /// Rounds to bfloat16, nearest even, `LANES` of them.
    fn store_bf16(self, value: Self::F, to: &mut [u16]);
    /// `LANES` bfloat16 values, given as bits, widened.
    fn load_bf16(self, from: &[u16]) -> Self::F;
    /// `low | high << 16` of both values rounded to bfloat16.
    fn pair_bf16(self, low: Self::F, high: Self::F) -> Self::W;
    /// Rounds to whole numbers, which are at most 127, adds `offset` and stores bytes, `LANES` of them.
    fn store_bytes(self, value: Self::F, offset: i32, to: &mut [u8]);
    /// Byte `index` of every word, signed, times 2²⁴: as the highest byte of an integer, which is exact and saves
    /// bringing it down.
    fn byte_on_top(self, words: Self::W, index: usize) -> Self::F;
    /// The upper half of `low` below the upper half of `high`: two bfloat16, where that is all the values have.
    fn upper_halves(self, low: Self::F, high: Self::F) -> Self::W;
    /// `LANES` binary16 values, given as bits, widened.
    fn load_f16(self, from: &[u16]) -> Self::F;

    /// See [`crate::resample::weighted_sums`].
    ///
    /// # Safety
    /// `source` must hold `out.len()` samples for every weight.
    unsafe fn weighted_sums(self, weights: &Weights, source: &[u8], stride: usize, out: &mut [u8]) {
        portable(weights, source, stride, out);
    }

    /// Transposes a block of `LANES × LANES` words.
    ///
    /// # Safety
    /// `LANES` words must be readable at `from + r · from_stride` and writable at `to + r · to_stride` for
    /// `r` in `0..LANES`.
    unsafe fn transpose(self, from: *const u32, from_stride: usize, to: *mut u32, to_stride: usize);
}

/// A shuffle of four words that brings byte `index` of each to its top, and zeros below.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn top_byte(index: usize) -> std::arch::x86_64::__m128i {
    let index = index as i8;
    let mut control = [-1_i8; 16];
    for word in 0..4 {
        control[4 * word + 3] = 4 * word as i8 + index;
    }
    // SAFETY: both are sixteen bytes.
    unsafe { std::mem::transmute(control) }
}

/// Widest panel of any instruction set, in vectors.
pub(crate) const MAX_PANEL_VECTORS: usize = 4;
/// Tallest register tile of any instruction set.
pub(crate) const MAX_TILE_ROWS: usize = 6;
/// Widest panel of any instruction set, in words.
pub(crate) const MAX_PANEL_WIDTH: usize = 64;

/// A value at any address.
#[repr(C, packed)]
struct Unaligned<T>(T);

/// Reads a vector from any address.
///
/// Not `ptr::read_unaligned`, nor the intrinsics that call it: with debug assertions it checks its argument at
/// every call, which makes the innermost loops three times slower in the builds that run the tests.
///
/// # Safety
/// `size_of::<T>()` bytes must be readable at `from` and be a valid `T`.
#[inline(always)]
unsafe fn read<T: Copy, U>(from: *const U) -> T {
    // SAFETY: the caller vouches for the bytes; a packed struct has no alignment.
    unsafe { (*from.cast::<Unaligned<T>>()).0 }
}

/// Writes a vector to any address.
///
/// # Safety
/// `size_of::<T>()` bytes must be writable at `to`.
#[inline(always)]
unsafe fn write<T: Copy, U>(value: T, to: *mut U) {
    // SAFETY: the caller vouches for the bytes; a packed struct has no alignment.
    unsafe { (*to.cast::<Unaligned<T>>()).0 = value };
}
