//! Spelling out bfloat16 in twelve bits, see [`crate::gemm::short`] for the format.
//!
//! A look-up in a register turns codes into upper bytes, and interleaving puts them above the lower ones: nine
//! instructions for 128 weights.

#![expect(unsafe_code, reason = "intrinsics")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "the names of intrinsics begin alike and clash with nothing"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Simd;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::read;
use crate::gemm::short::{Codes, place};

/// What products with bfloat16 in twelve bits need beyond [`Simd`].
pub(crate) trait Shorts: Simd {
    /// The upper bytes of a panel, ready for look-ups.
    fn codes(self, codes: &Codes) -> Self::W;
    /// The upper bytes of the codes in the low halves of the bytes and of those in the high halves.
    fn uppers(self, words: Self::W, codes: Self::W) -> [Self::W; 2];
    /// Lower and upper bytes as two steps of pairs.
    fn join(self, lower: Self::W, upper: Self::W) -> [Self::W; 2];
}

#[cfg(target_arch = "x86_64")]
impl Shorts for super::avx512::Avx512 {
    #[inline(always)]
    fn codes(self, codes: &Codes) -> __m512i {
        // SAFETY: the token proves the feature; there are sixteen bytes.
        unsafe { _mm512_broadcast_i32x4(read(codes.as_ptr())) }
    }
    #[inline(always)]
    fn uppers(self, words: __m512i, codes: __m512i) -> [__m512i; 2] {
        // SAFETY: the token proves the feature.
        unsafe {
            let nibble = _mm512_set1_epi8(15);
            [words, _mm512_srli_epi16::<4>(words)]
                .map(|half| _mm512_shuffle_epi8(codes, _mm512_and_si512(half, nibble)))
        }
    }
    #[inline(always)]
    fn join(self, lower: __m512i, upper: __m512i) -> [__m512i; 2] {
        // SAFETY: the token proves the feature.
        unsafe {
            [
                _mm512_unpacklo_epi8(lower, upper),
                _mm512_unpackhi_epi8(lower, upper),
            ]
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Shorts for super::avx2::Avx2<VNNI> {
    #[inline(always)]
    fn codes(self, codes: &Codes) -> __m256i {
        // SAFETY: the token proves the feature; there are sixteen bytes.
        unsafe { _mm256_broadcastsi128_si256(read(codes.as_ptr())) }
    }
    #[inline(always)]
    fn uppers(self, words: __m256i, codes: __m256i) -> [__m256i; 2] {
        // SAFETY: the token proves the feature.
        unsafe {
            let nibble = _mm256_set1_epi8(15);
            [words, _mm256_srli_epi16::<4>(words)]
                .map(|half| _mm256_shuffle_epi8(codes, _mm256_and_si256(half, nibble)))
        }
    }
    #[inline(always)]
    fn join(self, lower: __m256i, upper: __m256i) -> [__m256i; 2] {
        // SAFETY: the token proves the feature.
        unsafe {
            [
                _mm256_unpacklo_epi8(lower, upper),
                _mm256_unpackhi_epi8(lower, upper),
            ]
        }
    }
}

impl Shorts for Portable {
    #[inline(always)]
    fn codes(self, codes: &Codes) -> Self::W {
        std::array::from_fn(|at| {
            u32::from_ne_bytes(std::array::from_fn(|byte| codes[4 * at + byte]))
        })
    }
    #[inline(always)]
    fn uppers(self, words: Self::W, codes: Self::W) -> [Self::W; 2] {
        let codes = bytes_of(codes);
        [0, 4].map(|shift| {
            words.map(|word| {
                let upper = |code: u8| codes[usize::from(code >> shift & 15)];
                u32::from_ne_bytes(word.to_ne_bytes().map(upper))
            })
        })
    }
    #[inline(always)]
    fn join(self, lower: Self::W, upper: Self::W) -> [Self::W; 2] {
        let (lower, upper) = (bytes_of(lower), bytes_of(upper));
        let weight = |at: usize| u32::from(lower[at]) | u32::from(upper[at]) << 8;
        [0, 1].map(|step| {
            std::array::from_fn(|lane| {
                let (_, at) = place(step, lane);
                weight(at) | weight(at + 1) << 16
            })
        })
    }
}

#[inline(always)]
fn bytes_of(words: [u32; 4]) -> [u8; 16] {
    std::array::from_fn(|at| words[at / 4].to_ne_bytes()[at % 4])
}
