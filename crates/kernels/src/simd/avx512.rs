//! AVX-512 with VNNI and BF16: sixteen values in a register, thirty-two registers.
//!
//! A tile of 6 × 64 keeps 24 sums in registers and leaves room for four vectors of weights and a
//! broadcast: ten loads for every twenty-four multiplications, below the two loads a cycle that the first
//! level of cache delivers, and enough independent sums to hide the latency of either multiplier.

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

/// Proof that the machine has the features named in [`kernel_table`]'s use below.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

const LANES: usize = 16;

#[inline(always)]
fn low_lanes(count: usize) -> __mmask16 {
    debug_assert!(count <= LANES);
    ((1_u32 << count) - 1) as __mmask16
}

// Every method below calls intrinsics. SAFETY, for all of them: a value of `Avx512` exists only inside
// functions compiled with these features, which `Kernels::of` hands out on machines that have them.
impl Simd for Avx512 {
    type F = __m512;
    type W = __m512i;

    const LANES: usize = LANES;
    const PANEL_VECTORS: usize = 4;
    const TILE_ROWS: usize = 6;
    const BYTE_OFFSET: i32 = 128;
    const MIN_EXPONENT: f32 = -151.0;
    const FAST_BF16: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        assert!(from.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe { read(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> __m512 {
        // SAFETY: the token proves the feature; the mask leaves out what lies past the slice.
        unsafe { _mm512_maskz_loadu_ps(low_lanes(from.len()), from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, value: __m512, to: &mut [f32]) {
        assert!(to.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe { write(value, to.as_mut_ptr()) }
    }
    #[inline(always)]
    fn store_part(self, value: __m512, to: &mut [f32]) {
        // SAFETY: the token proves the feature; the mask leaves out what lies past the slice.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), low_lanes(to.len()), value) }
    }

    #[inline(always)]
    fn add(self, left: __m512, right: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_add_ps(left, right) }
    }
    #[inline(always)]
    fn sub(self, left: __m512, right: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_sub_ps(left, right) }
    }
    #[inline(always)]
    fn mul(self, left: __m512, right: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_mul_ps(left, right) }
    }
    #[inline(always)]
    fn div(self, left: __m512, right: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_div_ps(left, right) }
    }
    #[inline(always)]
    fn mul_add(self, left: __m512, right: __m512, addend: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_fmadd_ps(left, right, addend) }
    }
    #[inline(always)]
    fn max(self, left: __m512, right: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_max_ps(left, right) }
    }
    #[inline(always)]
    fn min(self, left: __m512, right: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_min_ps(left, right) }
    }
    #[inline(always)]
    fn abs(self, value: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_abs_ps(value) }
    }
    #[inline(always)]
    fn round(self, value: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value) }
    }
    #[inline(always)]
    fn reciprocal(self, value: __m512) -> __m512 {
        // One step of Newton doubles the fourteen bits of the estimate; a division would take four times as
        // long in an activation that follows an int8 product.
        // SAFETY: the token proves the feature.
        unsafe {
            let estimate = _mm512_rcp14_ps(value);
            let error = _mm512_fnmadd_ps(value, estimate, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(estimate, error, estimate)
        }
    }
    #[inline(always)]
    fn reciprocal_brief(self, value: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_rcp14_ps(value) }
    }
    #[inline(always)]
    fn split_exponent(self, x: __m512) -> (__m512, __m512) {
        // What the rounding down leaves, zero for infinities; the scaling rounds its exponent down by itself, and gives zero
        // or infinity beyond the range.
        // SAFETY: the token proves the feature.
        let rest = unsafe { _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(x) };
        (rest, x)
    }
    #[inline(always)]
    fn scale_exponent(self, value: __m512, exponent: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_scalef_ps(value, exponent) }
    }
    #[inline(always)]
    fn sum(self, value: __m512) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_reduce_add_ps(value) }
    }
    #[inline(always)]
    fn greatest(self, value: __m512) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_reduce_max_ps(value) }
    }

    #[inline(always)]
    fn splat_word(self, word: u32) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_set1_epi32(word as i32) }
    }
    #[inline(always)]
    unsafe fn load_words(self, from: *const u32) -> __m512i {
        // SAFETY: the token proves the feature; the caller vouches for `LANES` words.
        unsafe { read(from) }
    }
    #[inline(always)]
    unsafe fn store_words(self, value: __m512i, to: *mut u32) {
        // SAFETY: the token proves the feature; the caller vouches for `LANES` words.
        unsafe { write(value, to) }
    }
    #[inline(always)]
    fn prefetch(self, from: *const u32) {
        // SAFETY: a prefetch of an address that cannot be read does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    fn zero_words(self) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    fn floats(self, words: __m512i) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_castsi512_ps(words) }
    }
    #[inline(always)]
    fn words(self, floats: __m512) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_castps_si512(floats) }
    }
    #[inline(always)]
    fn sub_words(self, left: __m512i, right: __m512i) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_sub_epi32(left, right) }
    }
    #[inline(always)]
    fn integers_to_floats(self, words: __m512i) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_cvtepi32_ps(words) }
    }

    #[inline(always)]
    fn dot_bf16(self, addend: __m512, left: __m512i, right: __m512i) -> __m512 {
        // SAFETY: the token proves the feature; both types are 64 bytes of bits.
        unsafe {
            let left = std::mem::transmute::<__m512i, __m512bh>(left);
            let right = std::mem::transmute::<__m512i, __m512bh>(right);
            _mm512_dpbf16_ps(addend, left, right)
        }
    }
    #[inline(always)]
    fn dot_bytes(self, addend: __m512i, left: __m512i, right: __m512i) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_dpbusd_epi32(addend, left, right) }
    }

    #[inline(always)]
    fn store_bf16(self, value: __m512, to: &mut [u16]) {
        assert!(to.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked; both types are 32 bytes of bits.
        unsafe {
            let narrow = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value));
            write(narrow, to.as_mut_ptr());
        }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16]) -> __m512 {
        assert!(from.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(read(from.as_ptr()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn pair_bf16(self, low: __m512, high: __m512) -> __m512i {
        // SAFETY: the token proves the feature; both types are 32 bytes of bits.
        unsafe {
            let low = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(low));
            let high = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(high));
            _mm512_or_si512(
                _mm512_cvtepu16_epi32(low),
                _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high)),
            )
        }
    }
    #[inline(always)]
    fn store_bytes(self, value: __m512, offset: i32, to: &mut [u8]) {
        assert!(to.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe {
            let whole = _mm512_add_epi32(_mm512_cvtps_epi32(value), _mm512_set1_epi32(offset));
            write(_mm512_cvtepi32_epi8(whole), to.as_mut_ptr());
        }
    }
    #[inline(always)]
    fn byte_on_top(self, words: __m512i, index: usize) -> __m512 {
        // A shuffle for those in the middle: it has a port of its own, where shifts share that of the products.
        // SAFETY: the token proves the feature.
        unsafe {
            _mm512_cvtepi32_ps(match index {
                0 => _mm512_slli_epi32::<24>(words),
                3 => _mm512_and_si512(words, _mm512_set1_epi32(0xFF00_0000_u32 as i32)),
                _ => _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(top_byte(index))),
            })
        }
    }
    #[inline(always)]
    fn upper_halves(self, low: __m512, high: __m512) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe {
            let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(low));
            _mm512_mask_blend_epi16(0xAAAA_AAAA, low, _mm512_castps_si512(high))
        }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16]) -> __m512 {
        assert!(from.len() >= LANES);
        // SAFETY: the token proves the feature; the length was checked.
        unsafe { _mm512_cvtph_ps(read(from.as_ptr())) }
    }

    #[inline(always)]
    unsafe fn weighted_sums(self, weights: &Weights, source: &[u8], stride: usize, out: &mut [u8]) {
        // SAFETY: the token proves the feature; the caller vouches for the samples.
        unsafe { samples::avx512(weights, source, stride, out) }
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
            let zero = _mm512_setzero_si512();
            let mut rows = [zero; LANES];
            for (row, value) in rows.iter_mut().enumerate() {
                *value = read(from.wrapping_add(row.wrapping_mul(from_stride)));
            }
            // Four rounds: 32-bit pairs, 64-bit pairs, then quarters of the register twice.
            let mut pairs = [zero; LANES];
            for half in 0..8 {
                let (a, b) = (rows[2 * half], rows[2 * half + 1]);
                pairs[2 * half] = _mm512_unpacklo_epi32(a, b);
                pairs[2 * half + 1] = _mm512_unpackhi_epi32(a, b);
            }
            let mut quads = [zero; LANES];
            for group in 0..4 {
                for part in 0..2 {
                    let (a, b) = (pairs[4 * group + part], pairs[4 * group + 2 + part]);
                    quads[4 * group + 2 * part] = _mm512_unpacklo_epi64(a, b);
                    quads[4 * group + 2 * part + 1] = _mm512_unpackhi_epi64(a, b);
                }
            }
            // quads[4 g + j] holds columns j, j+4, j+8, j+12 of rows 4 g … 4 g + 3, a quarter each.
            for column in 0..4 {
                let (a, b, c, d) = (
                    quads[column],
                    quads[4 + column],
                    quads[8 + column],
                    quads[12 + column],
                );
                let even_low = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
                let odd_low = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
                let even_high = _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d);
                let odd_high = _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d);
                let columns = [
                    _mm512_shuffle_i32x4::<0b10_00_10_00>(even_low, even_high),
                    _mm512_shuffle_i32x4::<0b10_00_10_00>(odd_low, odd_high),
                    _mm512_shuffle_i32x4::<0b11_01_11_01>(even_low, even_high),
                    _mm512_shuffle_i32x4::<0b11_01_11_01>(odd_low, odd_high),
                ];
                for (group, value) in columns.into_iter().enumerate() {
                    write(
                        value,
                        to.wrapping_add((4 * group + column).wrapping_mul(to_stride)),
                    );
                }
            }
        }
    }
}

kernel_table!(
    Avx512,
    Avx512(()),
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma,f16c"
);
