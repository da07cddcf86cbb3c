//! The inner kernels of products with four-bit weights: a tile that unpacks in registers, for a few rows, and
//! the unpacking of a block of a panel into bytes, which the tiles of int8 then read many times.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use crate::gemm::int4::{GROUP_WORDS, SPAN_STEPS, SPAN_WORDS};
use crate::micro::{self, Tile};
use crate::simd::nibbles::Nibbles;

/// Steps of codes that are fetched ahead: 4 KiB of a wide panel. So much is done with each that memory would
/// otherwise wait.
const AHEAD: usize = 16;

/// A block of a panel on its way into bytes. Distances are in words.
pub(crate) struct Unpack {
    /// The multipliers of the block's first span.
    pub(crate) from: *const u32,
    /// Width of the panel, whole vectors.
    pub(crate) width: usize,
    /// Steps of bytes wanted.
    pub(crate) words: usize,
    /// Receives `words` steps of `width` words, rounded up to an even number of steps.
    pub(crate) to: *mut u32,
}

/// Unpacks one block.
///
/// # Safety
/// The spans that hold `words` steps must be readable, the steps, rounded up to an even number, writable.
#[inline(always)]
pub(crate) unsafe fn unpack<S: Nibbles>(s: S, block: &Unpack) {
    let codes = s.codes();
    let width = block.width;
    for span in 0..block.words.div_ceil(SPAN_WORDS) {
        let from = block.from.wrapping_add(span * SPAN_STEPS * width);
        let to = block.to.wrapping_add(span * SPAN_WORDS * width);
        let words = (block.words - span * SPAN_WORDS).min(SPAN_WORDS);
        for lane in (0..width).step_by(S::LANES) {
            // SAFETY: the caller vouches for the span.
            let four = unsafe { s.load_words(from.wrapping_add(lane)) };
            let (mut from, mut to) = (from.wrapping_add(width + lane), to.wrapping_add(lane));
            for group in 0..words.div_ceil(GROUP_WORDS) {
                let multipliers = s.multipliers(four, group);
                let words = (words - group * GROUP_WORDS).min(GROUP_WORDS);
                for _ in 0..words.div_ceil(2) {
                    // SAFETY: the caller vouches for the steps on both sides.
                    unsafe {
                        s.prefetch(from.wrapping_add(AHEAD * width));
                        let [low, high] = s.unpack(s.load_words(from), codes, multipliers);
                        s.store_words(low, to);
                        s.store_words(high, to.wrapping_add(width));
                    }
                    from = from.wrapping_add(width);
                    to = to.wrapping_add(2 * width);
                }
            }
        }
    }
}

/// [`crate::micro::tile`] over a whole panel in four bits: `right` is its first step, `words` are steps of bytes,
/// nothing is accumulated and nothing fetched ahead.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn tile<S: Nibbles, const ROWS: usize, const VECTORS: usize>(s: S, tile: &Tile) {
    let codes = s.codes();
    let mut sums = [[s.zero_words(); VECTORS]; ROWS];
    let (mut left, mut right) = (tile.left, tile.right);
    let (left_stride, width) = (tile.left_stride, tile.right_stride);
    let mut rest = tile.words;
    while rest > 0 {
        let mut four = [s.zero_words(); VECTORS];
        for (vector, four) in four.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the panel.
            *four = unsafe { s.load_words(right.wrapping_add(vector * S::LANES)) };
        }
        right = right.wrapping_add(width);
        let span = rest.min(SPAN_WORDS);
        rest -= span;
        for group in 0..span.div_ceil(GROUP_WORDS) {
            let mut multipliers = four;
            for multipliers in &mut multipliers {
                *multipliers = s.multipliers(*multipliers, group);
            }
            let words = (span - group * GROUP_WORDS).min(GROUP_WORDS);
            for pair in 0..words.div_ceil(2) {
                let is_whole = 2 * pair + 1 < words;
                for (vector, multipliers) in multipliers.iter().enumerate() {
                    // SAFETY: the caller vouches for the panel and the rows.
                    unsafe {
                        let at = right.wrapping_add(vector * S::LANES);
                        s.prefetch(at.wrapping_add(AHEAD * width));
                        let step = s.load_words(at);
                        let [low, high] = s.unpack(step, codes, *multipliers);
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let left = left.wrapping_add(row.wrapping_mul(left_stride));
                            let sum = &mut sums[vector];
                            *sum = s.dot_bytes(*sum, s.splat_word(*left), low);
                            if is_whole {
                                let next = s.splat_word(*left.wrapping_add(1));
                                *sum = s.dot_bytes(*sum, next, high);
                            }
                        }
                    }
                }
                left = left.wrapping_add(2);
                right = right.wrapping_add(width);
            }
        }
    }
    // SAFETY: the caller vouches for the sums.
    unsafe { micro::store(s, &sums, tile.sums, tile.sums_stride) };
}
