//! The portable path: arrays of four values, which every compiler turns into the vectors of its target.

#![expect(
    unsafe_code,
    reason = "the operations on raw tiles are unsafe by contract"
)]

use half::{bf16, f16};

use super::table::kernel_table;
use super::{Simd, read, write};

/// Needs no proof: every machine runs plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

const LANES: usize = 4;

impl Portable {
    #[inline(always)]
    fn each(left: [f32; LANES], right: [f32; LANES], op: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
        std::array::from_fn(|lane| op(left[lane], right[lane]))
    }
}

impl Simd for Portable {
    type F = [f32; LANES];
    type W = [u32; LANES];

    const LANES: usize = LANES;
    const PANEL_VECTORS: usize = 2;
    const TILE_ROWS: usize = 4;
    const BYTE_OFFSET: i32 = 0;
    const MIN_EXPONENT: f32 = -127.0;
    const FAST_BF16: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        std::array::from_fn(|lane| from[lane])
    }
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::F {
        std::array::from_fn(|lane| from.get(lane).copied().unwrap_or(0.0))
    }
    #[inline(always)]
    fn store(self, value: Self::F, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&value);
    }
    #[inline(always)]
    fn store_part(self, value: Self::F, to: &mut [f32]) {
        to.copy_from_slice(&value[..to.len()]);
    }

    #[inline(always)]
    fn add(self, left: Self::F, right: Self::F) -> Self::F {
        Self::each(left, right, |l, r| l + r)
    }
    #[inline(always)]
    fn sub(self, left: Self::F, right: Self::F) -> Self::F {
        Self::each(left, right, |l, r| l - r)
    }
    #[inline(always)]
    fn mul(self, left: Self::F, right: Self::F) -> Self::F {
        Self::each(left, right, |l, r| l * r)
    }
    #[inline(always)]
    fn div(self, left: Self::F, right: Self::F) -> Self::F {
        Self::each(left, right, |l, r| l / r)
    }
    // Two roundings: without an instruction for it `f32::mul_add` would be a call into the C library.
    #[inline(always)]
    fn mul_add(self, left: Self::F, right: Self::F, addend: Self::F) -> Self::F {
        std::array::from_fn(|lane| left[lane] * right[lane] + addend[lane])
    }
    #[inline(always)]
    fn max(self, left: Self::F, right: Self::F) -> Self::F {
        Self::each(left, right, |l, r| if l > r { l } else { r })
    }
    #[inline(always)]
    fn min(self, left: Self::F, right: Self::F) -> Self::F {
        Self::each(left, right, |l, r| if l < r { l } else { r })
    }
    #[inline(always)]
    fn abs(self, value: Self::F) -> Self::F {
        value.map(f32::abs)
    }
    #[inline(always)]
    fn round(self, value: Self::F) -> Self::F {
        // Adding and taking away 1.5 · 2^23 leaves the nearest whole number, as long as it is below 2^22;
        // above that every value that reaches this function is already whole.
        const SHIFT: f32 = 12_582_912.0;
        value.map(|value| {
            if value.abs() < 4_194_304.0 {
                value + SHIFT - SHIFT
            } else {
                value
            }
        })
    }
    #[inline(always)]
    fn reciprocal(self, value: Self::F) -> Self::F {
        value.map(|value| 1.0 / value)
    }
    #[inline(always)]
    fn scale_exponent(self, value: Self::F, exponent: Self::F) -> Self::F {
        Self::each(value, exponent, |value, exponent| {
            value * f32::from_bits(((exponent as i32 + 127) as u32) << 23)
        })
    }
    #[inline(always)]
    fn sum(self, value: Self::F) -> f32 {
        (value[0] + value[2]) + (value[1] + value[3])
    }
    #[inline(always)]
    fn greatest(self, value: Self::F) -> f32 {
        value.into_iter().fold(
            f32::NEG_INFINITY,
            |max, value| if max > value { max } else { value },
        )
    }

    #[inline(always)]
    fn splat_word(self, word: u32) -> Self::W {
        [word; LANES]
    }
    #[inline(always)]
    unsafe fn load_words(self, from: *const u32) -> Self::W {
        // SAFETY: the caller vouches for `LANES` words.
        unsafe { read(from) }
    }
    #[inline(always)]
    unsafe fn store_words(self, value: Self::W, to: *mut u32) {
        // SAFETY: the caller vouches for `LANES` words.
        unsafe { write(value, to) }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u32) {}
    #[inline(always)]
    fn zero_words(self) -> Self::W {
        [0; LANES]
    }
    #[inline(always)]
    fn floats(self, words: Self::W) -> Self::F {
        words.map(f32::from_bits)
    }
    #[inline(always)]
    fn words(self, floats: Self::F) -> Self::W {
        floats.map(f32::to_bits)
    }
    #[inline(always)]
    fn sub_words(self, left: Self::W, right: Self::W) -> Self::W {
        std::array::from_fn(|lane| left[lane].wrapping_sub(right[lane]))
    }
    #[inline(always)]
    fn integers_to_floats(self, words: Self::W) -> Self::F {
        words.map(|word| word as i32 as f32)
    }

    #[inline(always)]
    fn dot_bf16(self, addend: Self::F, left: Self::W, right: Self::W) -> Self::F {
        std::array::from_fn(|lane| {
            let low = f32::from_bits(left[lane] << 16) * f32::from_bits(right[lane] << 16);
            let high = f32::from_bits(left[lane] & 0xFFFF_0000)
                * f32::from_bits(right[lane] & 0xFFFF_0000);
            addend[lane] + low + high
        })
    }
    #[inline(always)]
    fn dot_bytes(self, addend: Self::W, left: Self::W, right: Self::W) -> Self::W {
        std::array::from_fn(|lane| {
            let mut sum = addend[lane] as i32;
            for shift in [24, 16, 8, 0] {
                let byte = |word: u32| ((word << shift) as i32) >> 24;
                sum = sum.wrapping_add(byte(left[lane]) * byte(right[lane]));
            }
            sum as u32
        })
    }

    #[inline(always)]
    fn store_bf16(self, value: Self::F, to: &mut [u16]) {
        for (to, value) in to[..LANES].iter_mut().zip(value) {
            *to = bf16::from_f32(value).to_bits();
        }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16]) -> Self::F {
        std::array::from_fn(|lane| bf16::from_bits(from[lane]).to_f32())
    }
    #[inline(always)]
    fn pair_bf16(self, low: Self::F, high: Self::F) -> Self::W {
        std::array::from_fn(|lane| {
            let (low, high) = (bf16::from_f32(low[lane]), bf16::from_f32(high[lane]));
            u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
        })
    }
    #[inline(always)]
    fn store_bytes(self, value: Self::F, offset: i32, to: &mut [u8]) {
        for (to, value) in to[..LANES].iter_mut().zip(self.round(value)) {
            *to = (value as i32 + offset) as u8;
        }
    }
    #[inline(always)]
    fn byte_on_top(self, words: Self::W, index: usize) -> Self::F {
        words.map(|word| (i32::from(word.to_ne_bytes()[index] as i8) << 24) as f32)
    }
    #[inline(always)]
    fn upper_halves(self, low: Self::F, high: Self::F) -> Self::W {
        std::array::from_fn(|lane| low[lane].to_bits() >> 16 | high[lane].to_bits() & 0xFFFF_0000)
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16]) -> Self::F {
        std::array::from_fn(|lane| f16::from_bits(from[lane]).to_f32())
    }

    #[inline(always)]
    unsafe fn transpose(
        self,
        from: *const u32,
        from_stride: usize,
        to: *mut u32,
        to_stride: usize,
    ) {
        for row in 0..LANES {
            for column in 0..LANES {
                // SAFETY: the caller vouches for both blocks.
                unsafe {
                    *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
                }
            }
        }
    }
}

kernel_table!(Portable, Portable);
