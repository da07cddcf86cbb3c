//! Unpacking of four-bit weights in registers, see [`crate::gemm::int4`] for what is unpacked.
//!
//! A look-up in a register turns codes into bytes, and one instruction multiplies and rounds: of a code in the
//! high byte of sixteen bits, `(code · 256 · multiplier + 2^14) >> 15` is `(code · multiplier + 64) >> 7`. About
//! seventeen instructions for 128 weights: in two registers at a time that is faster than memory brings them.

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
use crate::gemm::int4;

/// What products with four-bit weights need beyond [`Simd`].
pub(crate) trait Nibbles: Simd {
    /// The codes, ready for look-ups.
    fn codes(self) -> Self::W;
    /// Of words that hold four multipliers each, number `group`, ready for [`Nibbles::unpack`].
    fn multipliers(self, words: Self::W, group: usize) -> Self::W;
    /// The bytes of the low halves and of the high halves of a step.
    fn unpack(self, step: Self::W, codes: Self::W, multipliers: Self::W) -> [Self::W; 2];
}

/// Bytes 1 and 3 of every word from byte `group` of it, the others zero, four words.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn spread(group: usize) -> __m128i {
    const fn all() -> [[i8; 16]; 4] {
        let mut all = [[-1; 16]; 4];
        let mut at = 0;
        while at < 64 {
            if at % 2 == 1 {
                all[at / 16][at % 16] = (at % 16 / 4 * 4 + at / 16) as i8;
            }
            at += 1;
        }
        all
    }
    const SPREAD: [[i8; 16]; 4] = all();
    // SAFETY: both are sixteen bytes.
    unsafe { std::mem::transmute(SPREAD[group]) }
}

/// The codes as one register.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn table() -> __m128i {
    // SAFETY: both are sixteen bytes.
    unsafe { std::mem::transmute(int4::CODES) }
}

#[cfg(target_arch = "x86_64")]
impl Nibbles for super::avx512::Avx512 {
    #[inline(always)]
    fn codes(self) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_broadcast_i32x4(table()) }
    }
    #[inline(always)]
    fn multipliers(self, words: __m512i, group: usize) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe {
            let control = _mm512_broadcast_i32x4(spread(group));
            _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(words, control))
        }
    }
    #[inline(always)]
    fn unpack(self, step: __m512i, codes: __m512i, multipliers: __m512i) -> [__m512i; 2] {
        // SAFETY: the token proves the feature.
        unsafe {
            let (nibble, high) = (_mm512_set1_epi8(15), _mm512_set1_epi16(0xFF00_u16 as i16));
            let mut halves = [
                _mm512_and_si512(step, nibble),
                _mm512_and_si512(_mm512_srli_epi16::<4>(step), nibble),
            ];
            for half in &mut halves {
                let code = _mm512_shuffle_epi8(codes, *half);
                let even = _mm512_mulhrs_epi16(_mm512_slli_epi16::<8>(code), multipliers);
                let odd = _mm512_mulhrs_epi16(_mm512_and_si512(code, high), multipliers);
                let odd = _mm512_slli_epi16::<8>(odd);
                // Bits of `odd` where `high` has them, of `even` elsewhere.
                *half = _mm512_ternarylogic_epi32::<0b1100_1010>(high, odd, even);
            }
            halves
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Nibbles for super::avx2::Avx2<VNNI> {
    #[inline(always)]
    fn codes(self) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_broadcastsi128_si256(table()) }
    }
    #[inline(always)]
    fn multipliers(self, words: __m256i, group: usize) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe {
            let control = _mm256_broadcastsi128_si256(spread(group));
            _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(words, control))
        }
    }
    #[inline(always)]
    fn unpack(self, step: __m256i, codes: __m256i, multipliers: __m256i) -> [__m256i; 2] {
        // SAFETY: the token proves the feature.
        unsafe {
            let (nibble, high) = (_mm256_set1_epi8(15), _mm256_set1_epi16(0xFF00_u16 as i16));
            let mut halves = [
                _mm256_and_si256(step, nibble),
                _mm256_and_si256(_mm256_srli_epi16::<4>(step), nibble),
            ];
            for half in &mut halves {
                let code = _mm256_shuffle_epi8(codes, *half);
                let even = _mm256_mulhrs_epi16(_mm256_slli_epi16::<8>(code), multipliers);
                let odd = _mm256_mulhrs_epi16(_mm256_and_si256(code, high), multipliers);
                *half = _mm256_blendv_epi8(even, _mm256_slli_epi16::<8>(odd), high);
            }
            halves
        }
    }
}

impl Nibbles for Portable {
    #[inline(always)]
    fn codes(self) -> Self::W {
        // Looked up in the table itself.
        self.zero_words()
    }
    #[inline(always)]
    fn multipliers(self, words: Self::W, group: usize) -> Self::W {
        words.map(|word| u32::from(word.to_ne_bytes()[group]))
    }
    #[inline(always)]
    fn unpack(self, step: Self::W, _: Self::W, multipliers: Self::W) -> [Self::W; 2] {
        [0, 4].map(|shift| {
            std::array::from_fn(|lane| {
                let codes = step[lane].to_ne_bytes();
                let multiplier = multipliers[lane] as u8 as i8;
                let byte = |code: u8| int4::byte(multiplier, code >> shift & 15) as u8;
                u32::from_ne_bytes(codes.map(byte))
            })
        })
    }
}
