//! Bytes widened to what attention multiplies: four to a word become two words of bfloat16 or four of `f32`, all of them
//! 2²⁴ times as large as they were ([`Simd::byte_on_top`]). Whole numbers of at most 127 have no bit that a bfloat16
//! lacks, so nothing is rounded.

#![expect(unsafe_code, reason = "steps are moved behind raw pointers")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use crate::simd::Simd;

/// What a scale of bytes is multiplied by, since they come out larger.
pub(crate) const BACK: f32 = 1.0 / (1 << 24) as f32;

/// Steps that are fetched ahead: so much is done with each that memory would otherwise wait.
const AHEAD: usize = 16;

/// Steps of bytes on their way. Distances are in words.
pub(crate) struct Steps {
    /// Step `i` starts at `from + i · from_stride`.
    pub(crate) from: *const u32,
    pub(crate) from_stride: usize,
    pub(crate) count: usize,
    /// Words of a step, whole vectors.
    pub(crate) width: usize,
    /// Receives two or four steps for each, `width` apart.
    pub(crate) to: *mut u32,
}

/// `WIDE` steps for each step of bytes: two of bfloat16 or four of `f32`.
///
/// # Safety
/// `count` steps must be readable, `WIDE` times as many writable.
#[inline(always)]
pub(crate) unsafe fn widen_bytes<S: Simd, const WIDE: usize>(s: S, steps: &Steps) {
    const { assert!(WIDE == 2 || WIDE == 4) };
    for step in 0..steps.count {
        let from = steps
            .from
            .wrapping_add(step.wrapping_mul(steps.from_stride));
        let to = steps.to.wrapping_add(WIDE * step.wrapping_mul(steps.width));
        for lane in (0..steps.width).step_by(S::LANES) {
            // SAFETY: the caller vouches for the steps on both sides.
            unsafe {
                let at = from.wrapping_add(lane);
                s.prefetch(at.wrapping_add(AHEAD.wrapping_mul(steps.from_stride)));
                let words = s.load_words(at);
                for index in 0..WIDE {
                    let value = if WIDE == 2 {
                        let byte = |half| s.byte_on_top(words, 2 * index + half);
                        s.upper_halves(byte(0), byte(1))
                    } else {
                        s.words(s.byte_on_top(words, index))
                    };
                    s.store_words(value, to.wrapping_add(index * steps.width + lane));
                }
            }
        }
    }
}
