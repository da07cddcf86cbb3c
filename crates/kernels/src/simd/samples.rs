//! Weighted sums of bytes with the instructions for them, see [`crate::resample`].
//!
//! Neighbouring rows are interleaved byte by byte inside each 128 bits, so that one instruction multiplies and adds
//! several of them; packing the sums at the end undoes exactly that order.

#![expect(unsafe_code, reason = "intrinsics behind raw pointers")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "the names of intrinsics begin alike and clash with nothing"
)]

use std::arch::x86_64::*;

use super::{read, write};
use crate::resample::{FRACTION_BITS, GROUP, Weights, portable};

const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// 64 samples at a time, four weights at a time, the weights in three digits.
///
/// # Safety
/// The machine must have AVX-512 BW and VNNI; `source` must hold `out.len()` samples for every weight.
#[inline(always)]
pub(super) unsafe fn avx512(weights: &Weights, source: &[u8], stride: usize, out: &mut [u8]) {
    if !weights.has_digits() {
        portable(weights, source, stride, out);
        return;
    }
    let last = weights.len().max(1) - 1;
    for first in (0..out.len()).step_by(64) {
        let count = (out.len() - first).min(64);
        let mask = u64::MAX >> (64 - count);
        let from = source.as_ptr().wrapping_add(first);
        // SAFETY: the caller vouches for the features and for `count` samples at every row up to `last`.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); 4]; 3];
            for (number, group) in weights.groups().iter().enumerate() {
                // A row past the last one has no weight, but must exist.
                let row = |at: usize| {
                    let row = (number * GROUP + at).min(last);
                    _mm512_maskz_loadu_epi8(mask, from.wrapping_add(row * stride).cast())
                };
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
                let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
                let fours = [
                    _mm512_unpacklo_epi16(ab, cd),
                    _mm512_unpackhi_epi16(ab, cd),
                    _mm512_unpacklo_epi16(ab_high, cd_high),
                    _mm512_unpackhi_epi16(ab_high, cd_high),
                ];
                for (sums, digit) in sums.iter_mut().zip(group.digits) {
                    let digit = _mm512_set1_epi32(digit as i32);
                    for (sum, four) in sums.iter_mut().zip(fours) {
                        *sum = _mm512_dpbusd_epi32(*sum, four, digit);
                    }
                }
            }
            let half = _mm512_set1_epi32(HALF);
            let total: [__m512i; 4] = std::array::from_fn(|at| {
                let upper = _mm512_slli_epi32::<8>(sums[2][at]);
                let upper = _mm512_slli_epi32::<8>(_mm512_add_epi32(upper, sums[1][at]));
                let sum = _mm512_add_epi32(_mm512_add_epi32(upper, sums[0][at]), half);
                _mm512_srai_epi32::<FRACTION_BITS>(sum)
            });
            let low = _mm512_packs_epi32(total[0], total[1]);
            let high = _mm512_packs_epi32(total[2], total[3]);
            let samples = _mm512_packus_epi16(low, high);
            _mm512_mask_storeu_epi8(out.as_mut_ptr().wrapping_add(first).cast(), mask, samples);
        }
    }
}

/// 32 samples at a time, two weights at a time, the weights in two halves.
///
/// # Safety
/// The machine must have AVX2; `source` must hold `out.len()` samples for every weight.
#[inline(always)]
pub(super) unsafe fn avx2(weights: &Weights, source: &[u8], stride: usize, out: &mut [u8]) {
    let last = weights.len().max(1) - 1;
    let whole = out.len() / 32 * 32;
    for first in (0..whole).step_by(32) {
        let from = source.as_ptr().wrapping_add(first);
        // SAFETY: the caller vouches for the feature and for 32 samples at every row up to `last`.
        unsafe {
            let zero = _mm256_setzero_si256();
            let mut sums = [[zero; 4]; 2];
            for (number, group) in weights.groups().iter().enumerate() {
                for (pair, halves) in group.halves.into_iter().enumerate() {
                    let row = |at: usize| -> __m256i {
                        let row = (number * GROUP + 2 * pair + at).min(last);
                        read(from.wrapping_add(row * stride))
                    };
                    let (a, b) = (row(0), row(1));
                    let (ab, ab_high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                    let twos = [
                        _mm256_unpacklo_epi8(ab, zero),
                        _mm256_unpackhi_epi8(ab, zero),
                        _mm256_unpacklo_epi8(ab_high, zero),
                        _mm256_unpackhi_epi8(ab_high, zero),
                    ];
                    for (sums, half) in sums.iter_mut().zip(halves) {
                        let half = _mm256_set1_epi32(half as i32);
                        for (sum, two) in sums.iter_mut().zip(twos) {
                            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(two, half));
                        }
                    }
                }
            }
            let half = _mm256_set1_epi32(HALF);
            let total: [__m256i; 4] = std::array::from_fn(|at| {
                let high = _mm256_slli_epi32::<11>(sums[0][at]);
                let sum = _mm256_add_epi32(_mm256_add_epi32(high, sums[1][at]), half);
                _mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(sum)
            });
            let low = _mm256_packs_epi32(total[0], total[1]);
            let high = _mm256_packs_epi32(total[2], total[3]);
            write(
                _mm256_packus_epi16(low, high),
                out.as_mut_ptr().wrapping_add(first),
            );
        }
    }
    if whole < out.len() {
        portable(weights, &source[whole..], stride, &mut out[whole..]);
    }
}
