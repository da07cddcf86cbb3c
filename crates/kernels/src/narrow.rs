//! Rows of `f32` in fewer bits: bfloat16 and bytes, as products and attention take them.

#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use crate::simd::Simd;
use crate::vector::halves;

/// Rounds a row to bfloat16, two to a word; the last word is filled with zero.
#[inline(always)]
pub(crate) fn narrow_bf16<S: Simd>(s: S, row: &[f32], out: &mut [u32]) {
    let out: &mut [u16] = halves(out);
    let mut blocks = row.chunks_exact(S::LANES);
    let mut at = 0;
    for block in &mut blocks {
        s.store_bf16(s.load(block), &mut out[at..]);
        at += S::LANES;
    }
    let rest = blocks.remainder();
    if !rest.is_empty() {
        let mut last = [0; 16];
        s.store_bf16(s.load_part(rest), &mut last);
        let end = out.len();
        out[at..].copy_from_slice(&last[..end - at]);
    }
}

/// Rounds two rows to bfloat16 and interleaves them, the first in the low half of each word.
#[inline(always)]
pub(crate) fn pair_bf16<S: Simd>(s: S, low: &[f32], high: &[f32], out: &mut [u32]) {
    let floats = floats(out);
    let mut at = 0;
    while at < low.len() {
        let end = (at + S::LANES).min(low.len());
        if end - at == S::LANES {
            let words = s.pair_bf16(s.load(&low[at..end]), s.load(&high[at..end]));
            s.store(s.floats(words), &mut floats[at..end]);
        } else {
            let words = s.pair_bf16(s.load_part(&low[at..end]), s.load_part(&high[at..end]));
            s.store_part(s.floats(words), &mut floats[at..end]);
        }
        at = end;
    }
}

/// Interleaves two rows of bfloat16, the first in the low half of each word.
#[inline(always)]
pub(crate) fn pair_halves(low: &[u16], high: &[u16], out: &mut [u32]) {
    for ((&low, &high), out) in low.iter().zip(high).zip(out) {
        *out = u32::from(low) | u32::from(high) << 16;
    }
}

/// What rows that are narrowed to bytes are made of.
pub(crate) trait Value<S: Simd>: Sized {
    /// The first `LANES` values.
    fn load(s: S, from: &[Self]) -> S::F;
    /// The first `from.len() < LANES` values, zeros above.
    fn load_part(s: S, from: &[Self]) -> S::F;
}

impl<S: Simd> Value<S> for f32 {
    #[inline(always)]
    fn load(s: S, from: &[Self]) -> S::F {
        s.load(from)
    }
    #[inline(always)]
    fn load_part(s: S, from: &[Self]) -> S::F {
        s.load_part(from)
    }
}

/// bfloat16, given as bits.
impl<S: Simd> Value<S> for u16 {
    #[inline(always)]
    fn load(s: S, from: &[Self]) -> S::F {
        s.load_bf16(from)
    }
    #[inline(always)]
    fn load_part(s: S, from: &[Self]) -> S::F {
        let mut last = [0; 16];
        last[..from.len()].copy_from_slice(from);
        s.load_bf16(&last)
    }
}

/// Rounds `row / scale` to whole numbers of at most 127, stores them with `offset` added, four to a word, and
/// returns the scale. A row that is not finite gives zeros and a scale of NaN.
#[inline(always)]
pub(crate) fn narrow_bytes<S: Simd, V: Value<S>>(
    s: S,
    row: &[V],
    offset: i32,
    out: &mut [u32],
) -> f32 {
    let (whole, rest) = row.split_at(row.len() - row.len() % S::LANES);
    let mut greatest = s.splat(0.0);
    // Zero times a finite value is zero; times anything else it is NaN.
    let mut finite = s.splat(0.0);
    let zero = s.splat(0.0);
    for block in whole.chunks_exact(S::LANES) {
        let value = V::load(s, block);
        greatest = s.max(greatest, s.abs(value));
        finite = s.mul_add(value, zero, finite);
    }
    if !rest.is_empty() {
        let value = V::load_part(s, rest);
        greatest = s.max(greatest, s.abs(value));
        finite = s.mul_add(value, zero, finite);
    }
    let (greatest, is_finite) = (s.greatest(greatest), s.sum(finite) == 0.0);
    let scale = if is_finite {
        greatest / 127.0
    } else {
        f32::NAN
    };
    // Denormal scales have no finite inverse: such a row is zero to the last bit of anything it is added to.
    let inverse = if is_finite && greatest >= f32::MIN_POSITIVE * 128.0 {
        127.0 / greatest
    } else {
        0.0
    };
    // No product is above 127 by more than its own rounding.
    let factor = s.splat(inverse);
    let bytes = bytes(out);
    if !is_finite {
        bytes.fill(offset as u8);
        return scale;
    }
    let mut at = 0;
    for block in whole.chunks_exact(S::LANES) {
        s.store_bytes(s.mul(V::load(s, block), factor), offset, &mut bytes[at..]);
        at += S::LANES;
    }
    if !rest.is_empty() {
        let mut last = [0; 16];
        s.store_bytes(s.mul(V::load_part(s, rest), factor), offset, &mut last);
        let end = bytes.len();
        bytes[at..].copy_from_slice(&last[..end - at]);
    }
    scale
}

fn bytes(words: &mut [u32]) -> &mut [u8] {
    bytemuck::cast_slice_mut(words)
}

fn floats(words: &mut [u32]) -> &mut [f32] {
    bytemuck::cast_slice_mut(words)
}
