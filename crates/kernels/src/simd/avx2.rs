//! AVX2 with FMA and F16C: eight values in a register, sixteen registers.
//!
//! A tile of 6 × 16 keeps twelve sums in registers and leaves four for two vectors of weights, a broadcast
//! and a product.

#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "intrinsics, and tiles behind raw pointers")]
#![allow(
    clippy::wildcard_imports,
    reason = "the names of intrinsics begin alike and clash with nothing"
)]

use std::arch::x86_64::*;

use super::table::kernel_table;
use super::{Simd, read, samples, top_byte, write};
use crate::resample::Weights;

/// Proof that the machine has the features named in [`kernel_table`]'s use below; with `VNNI` also the instruction
/// that multiplies and adds four bytes, in its 256-bit form.
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>(());

const LANES: usize = 8;

#[expect(
    clippy::unused_self,
    reason = "the token is the proof that the features are there"
)]
impl<const VNNI: bool> Avx2<VNNI> {
    /// All bits set in the first `count` lanes.
    #[inline(always)]
    fn low_lanes(self, count: usize) -> __m256i {
        const MASKS: [i32; 2 * LANES] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        let from = &MASKS[LANES - count..][..LANES];
        // SAFETY: the token proves the feature; the slice has eight values.
        unsafe { read(from.as_ptr()) }
    }

    /// bfloat16 of each lane in its low half, nearest even; NaN stays NaN.
    #[inline(always)]
    fn round_bf16(self, value: __m256) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe {
            let bits = _mm256_castps_si256(value);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
            let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, bias));
            let quiet = _mm256_or_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(0x40));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
            _mm256_blendv_epi8(rounded, quiet, nan)
        }
    }
}

// Every method below calls intrinsics. SAFETY, for all of them: a value of `Avx2` exists only inside
// functions compiled with these features, which `Kernels::of` hands out on machines that have them.
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F = __m256;
    type W = __m256i;

    const LANES: usize = LANES;
    const PANEL_VECTORS: usize = 2;
    const TILE_ROWS: usize = 6;
    const BYTE_OFFSET: i32 = if VNNI { 128 } else { 0 };
    const MIN_EXPONENT: f32 = -127.0;
    const FAST_BF16: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        assert!(from.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe { read(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> __m256 {
        // SAFETY: the token proves the feature; the mask leaves out what lies past the slice.
        unsafe { _mm256_maskload_ps(from.as_ptr(), self.low_lanes(from.len())) }
    }
    #[inline(always)]
    fn store(self, value: __m256, to: &mut [f32]) {
        assert!(to.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe { write(value, to.as_mut_ptr()) }
    }
    #[inline(always)]
    fn store_part(self, value: __m256, to: &mut [f32]) {
        // SAFETY: the token proves the feature; the mask leaves out what lies past the slice.
        unsafe { _mm256_maskstore_ps(to.as_mut_ptr(), self.low_lanes(to.len()), value) }
    }

    #[inline(always)]
    fn add(self, left: __m256, right: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_add_ps(left, right) }
    }
    #[inline(always)]
    fn sub(self, left: __m256, right: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_sub_ps(left, right) }
    }
    #[inline(always)]
    fn mul(self, left: __m256, right: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_mul_ps(left, right) }
    }
    #[inline(always)]
    fn div(self, left: __m256, right: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_div_ps(left, right) }
    }
    #[inline(always)]
    fn mul_add(self, left: __m256, right: __m256, addend: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_fmadd_ps(left, right, addend) }
    }
    #[inline(always)]
    fn max(self, left: __m256, right: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_max_ps(left, right) }
    }
    #[inline(always)]
    fn min(self, left: __m256, right: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_min_ps(left, right) }
    }
    #[inline(always)]
    fn abs(self, value: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), value) }
    }
    #[inline(always)]
    fn round(self, value: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value) }
    }
    #[inline(always)]
    fn reciprocal(self, value: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), value) }
    }
    #[inline(always)]
    fn scale_exponent(self, value: __m256, exponent: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
            _mm256_mul_ps(value, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
        }
    }
    #[inline(always)]
    fn sum(self, value: __m256) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let four = _mm_add_ps(
                _mm256_castps256_ps128(value),
                _mm256_extractf128_ps::<1>(value),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn greatest(self, value: __m256) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let four = _mm_max_ps(
                _mm256_castps256_ps128(value),
                _mm256_extractf128_ps::<1>(value),
            );
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn splat_word(self, word: u32) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_set1_epi32(word as i32) }
    }
    #[inline(always)]
    unsafe fn load_words(self, from: *const u32) -> __m256i {
        // SAFETY: the token proves the feature; the caller vouches for `LANES` words.
        unsafe { read(from) }
    }
    #[inline(always)]
    unsafe fn store_words(self, value: __m256i, to: *mut u32) {
        // SAFETY: the token proves the feature; the caller vouches for `LANES` words.
        unsafe { write(value, to) }
    }
    #[inline(always)]
    fn prefetch(self, from: *const u32) {
        // SAFETY: a prefetch of an address that cannot be read does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    fn zero_words(self) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    fn floats(self, words: __m256i) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_castsi256_ps(words) }
    }
    #[inline(always)]
    fn words(self, floats: __m256) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_castps_si256(floats) }
    }
    #[inline(always)]
    fn sub_words(self, left: __m256i, right: __m256i) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_sub_epi32(left, right) }
    }
    #[inline(always)]
    fn integers_to_floats(self, words: __m256i) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_cvtepi32_ps(words) }
    }

    #[inline(always)]
    fn dot_bf16(self, addend: __m256, left: __m256i, right: __m256i) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe {
            let high = _mm256_set1_epi32(0xFFFF_0000_u32 as i32);
            let low_sum = _mm256_fmadd_ps(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(left)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(right)),
                addend,
            );
            _mm256_fmadd_ps(
                _mm256_castsi256_ps(_mm256_and_si256(left, high)),
                _mm256_castsi256_ps(_mm256_and_si256(right, high)),
                low_sum,
            )
        }
    }
    #[inline(always)]
    fn dot_bytes(self, addend: __m256i, left: __m256i, right: __m256i) -> __m256i {
        // Both instructions want `left` unsigned. The older one saturates sums of two products at 16 bits:
        // instead of an offset the sign of `left` is moved to `right`, and they stay within 2 · 127².
        // SAFETY: the token proves the features.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(addend, left, right);
            }
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(left), _mm256_sign_epi8(right, left));
            _mm256_add_epi32(addend, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn store_bf16(self, value: __m256, to: &mut [u16]) {
        assert!(to.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe {
            let words = self.round_bf16(value);
            let narrow = _mm_packus_epi32(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            write(narrow, to.as_mut_ptr());
        }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16]) -> __m256 {
        assert!(from.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(read(from.as_ptr()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn pair_bf16(self, low: __m256, high: __m256) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe {
            let (low, high) = (self.round_bf16(low), self.round_bf16(high));
            _mm256_or_si256(low, _mm256_slli_epi32::<16>(high))
        }
    }
    #[inline(always)]
    fn store_bytes(self, value: __m256, offset: i32, to: &mut [u8]) {
        assert!(to.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe {
            let whole = _mm256_add_epi32(_mm256_cvtps_epi32(value), _mm256_set1_epi32(offset));
            let low_bytes = _mm256_and_si256(whole, _mm256_set1_epi32(0xFF));
            let words = _mm_packus_epi32(
                _mm256_castsi256_si128(low_bytes),
                _mm256_extracti128_si256::<1>(low_bytes),
            );
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packus_epi16(words, words));
        }
    }
    #[inline(always)]
    fn byte_on_top(self, words: __m256i, index: usize) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe {
            let control = _mm256_broadcastsi128_si256(top_byte(index));
            _mm256_cvtepi32_ps(_mm256_shuffle_epi8(words, control))
        }
    }
    #[inline(always)]
    fn upper_halves(self, low: __m256, high: __m256) -> __m256i {
        // SAFETY: the token proves the feature.
        unsafe {
            let low = _mm256_srli_epi32::<16>(_mm256_castps_si256(low));
            _mm256_blend_epi16::<0b1010_1010>(low, _mm256_castps_si256(high))
        }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16]) -> __m256 {
        assert!(from.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe { _mm256_cvtph_ps(read(from.as_ptr())) }
    }

    #[inline(always)]
    unsafe fn weighted_sums(self, weights: &Weights, source: &[u8], stride: usize, out: &mut [u8]) {
        // SAFETY: the token proves the feature; the caller vouches for the samples.
        unsafe { samples::avx2(weights, source, stride, out) }
    }

    #[inline(always)]
    unsafe fn transpose(
        self,
        from: *const u32,
        from_stride: usize,
        to: *mut u32,
        to_stride: usize,
    ) {
        // SAFETY: the token proves the feature; the caller vouches for both blocks.
        unsafe {
            let zero = _mm256_setzero_si256();
            let mut rows = [zero; LANES];
            for (row, value) in rows.iter_mut().enumerate() {
                *value = read(from.wrapping_add(row.wrapping_mul(from_stride)));
            }
            let mut pairs = [zero; LANES];
            for half in 0..4 {
                let (a, b) = (rows[2 * half], rows[2 * half + 1]);
                pairs[2 * half] = _mm256_unpacklo_epi32(a, b);
                pairs[2 * half + 1] = _mm256_unpackhi_epi32(a, b);
            }
            // quads[4 g + j] holds columns j and j + 4 of rows 4 g … 4 g + 3, half a register each.
            let mut quads = [zero; LANES];
            for group in 0..2 {
                for part in 0..2 {
                    let (a, b) = (pairs[4 * group + part], pairs[4 * group + 2 + part]);
                    quads[4 * group + 2 * part] = _mm256_unpacklo_epi64(a, b);
                    quads[4 * group + 2 * part + 1] = _mm256_unpackhi_epi64(a, b);
                }
            }
            for column in 0..4 {
                let (a, b) = (quads[column], quads[4 + column]);
                let low = _mm256_permute2x128_si256::<0x20>(a, b);
                let high = _mm256_permute2x128_si256::<0x31>(a, b);
                write(low, to.wrapping_add(column.wrapping_mul(to_stride)));
                write(high, to.wrapping_add((column + 4).wrapping_mul(to_stride)));
            }
        }
    }
}

/// Without VNNI.
pub(super) mod plain {
    use super::{Avx2, Simd, kernel_table};
    type Plain = Avx2<false>;
    kernel_table!(Plain, Avx2::<false>(()), "avx2,fma,f16c");
}

/// With VNNI.
pub(super) mod vnni {
    use super::{Avx2, Simd, kernel_table};
    type Vnni = Avx2<true>;
    kernel_table!(Vnni, Avx2::<true>(()), "avx2,fma,f16c,avxvnni");
}
