//! Weighted sums of 8-bit samples in 22-bit fixed point: the arithmetic of resizing pictures as Pillow does.
//!
//! A sample of the result is `clamp((Σ weight · sample + 2^21) >> 22)`. Every path computes the same whole number, so all
//! agree to the bit. Weights need 24 bits and no instruction multiplies those by bytes: AVX-512 VNNI takes a weight
//! as three signed bytes and adds four products at once, the others take it as two 16-bit halves.

#![expect(unsafe_code, reason = "a transposition in registers")]

use crate::isa::Isa;
use crate::simd::Kernels;

/// Fractional bits of a weight (`PRECISION_BITS` in Pillow: 32 - 8 - 2).
pub const FRACTION_BITS: u32 = 22;

/// Bits of the lower half of a weight.
const LOW_BITS: u32 = 11;

/// Samples that the portable path computes side by side.
const LANES: usize = 16;

/// Weights taken at a time.
pub(crate) const GROUP: usize = 4;

/// Four weights in the forms that instructions want.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Group {
    /// Digits to base 256 from -128 to 127, the lowest first; four weights to a word.
    pub(crate) digits: [u32; 3],
    /// `[high, low]` of the first two weights and of the last two, two to a word: weight = high · 2^11 + low.
    pub(crate) halves: [[u32; 2]; 2],
}

/// The weights of the samples that make one sample.
#[derive(Clone, Debug)]
pub struct Weights {
    groups: Box<[Group]>,
    len: usize,
    has_digits: bool,
}

impl Weights {
    /// From weights in units of `2^-22`, each between -16 and 16 times one.
    pub fn new(weights: &[i32]) -> Self {
        let groups = weights.chunks(GROUP).map(|weights| {
            let weight = |at: usize| weights.get(at).copied().unwrap_or(0);
            let half = |at: usize| {
                let (high, low) = (weight(at) >> LOW_BITS, weight(at) & ((1 << LOW_BITS) - 1));
                [high as u16, low as u16].map(u32::from)
            };
            let pair = |first: usize| {
                let (left, right) = (half(first), half(first + 1));
                std::array::from_fn(|part| left[part] | right[part] << 16)
            };
            let digit = |number: usize| {
                u32::from_le_bytes(std::array::from_fn(|at| digits(weight(at))[number] as u8))
            };
            Group {
                digits: std::array::from_fn(digit),
                halves: [pair(0), pair(2)],
            }
        });
        Self {
            groups: groups.collect(),
            len: weights.len(),
            has_digits: weights.iter().all(|weight| weight.abs() <= 0x7F_7F7F),
        }
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no weights.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Whether every weight fits three digits.
    pub(crate) fn has_digits(&self) -> bool {
        self.has_digits
    }
}

/// Digits to base 256, the lowest first.
fn digits(weight: i32) -> [i8; 3] {
    let low = weight as i8;
    let rest = (weight - i32::from(low)) >> 8;
    let middle = rest as i8;
    [low, middle, ((rest - i32::from(middle)) >> 8) as i8]
}

/// `out[i]` = the sum over weights `t` of weight `t` · `source[t · stride + i]`, rounded and clamped to 8 bits.
///
/// # Panics
/// If `source` is too short.
pub fn weighted_sums(weights: &Weights, source: &[u8], stride: usize, out: &mut [u8]) {
    weighted_sums_with(Isa::detect(), weights, source, stride, out);
}

/// [`weighted_sums`] on a given instruction set.
///
/// # Panics
/// If `source` is too short or the running machine does not have the instruction set.
pub fn weighted_sums_with(
    isa: Isa,
    weights: &Weights,
    source: &[u8],
    stride: usize,
    out: &mut [u8],
) {
    let needed = (weights.len.max(1) - 1) * stride + out.len();
    assert!(
        source.len() >= needed,
        "{} samples where {needed} are summed up is a bug",
        source.len()
    );
    (Kernels::of(isa).weighted_sums)(weights, source, stride, out);
}

/// The portable path, also for what is left over by wider ones. The weights are split so that compilers can use
/// multipliers of 16 bits, which every x86-64 and `AArch64` has.
#[expect(
    clippy::inline_always,
    reason = "has target features only where it is inlined into a function that has them"
)]
#[inline(always)]
pub(crate) fn portable(weights: &Weights, source: &[u8], stride: usize, out: &mut [u8]) {
    for first in (0..out.len()).step_by(LANES) {
        let count = (out.len() - first).min(LANES);
        let (mut high, mut low) = ([0_i32; LANES], [0_i32; LANES]);
        for at in 0..weights.len {
            let [highs, lows] = weights.groups[at / GROUP].halves[at % GROUP / 2];
            let of = |word: u32| i32::from((word >> (16 * (at % 2))) as i16);
            let (h, l) = (of(highs), of(lows));
            let samples = &source[at * stride + first..][..count];
            let mut lanes = [0_u8; LANES];
            let samples = if let Ok(samples) = samples.try_into() {
                samples
            } else {
                lanes[..count].copy_from_slice(samples);
                &lanes
            };
            let samples: &[u8; LANES] = samples;
            for lane in 0..LANES {
                // Wrapping: the total stays within 32 bits (Pillow computes it in an int), so partial wraps cancel.
                let sample = i32::from(samples[lane]);
                high[lane] = high[lane].wrapping_add(h.wrapping_mul(sample));
                low[lane] = low[lane].wrapping_add(l.wrapping_mul(sample));
            }
        }
        for ((out, high), low) in out[first..][..count].iter_mut().zip(high).zip(low) {
            let sum = (high << LOW_BITS)
                .wrapping_add(low)
                .wrapping_add(1 << (FRACTION_BITS - 1));
            *out = (sum >> FRACTION_BITS).clamp(0, 255) as u8;
        }
    }
}

/// Writes sample `c` of row `r` to `to[c · to_stride + r]`, for `rows × columns` samples.
///
/// # Panics
/// If a slice is too short.
pub fn transpose(
    from: &[u8],
    from_stride: usize,
    [rows, columns]: [usize; 2],
    to: &mut [u8],
    to_stride: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(
        from.len() >= (rows - 1) * from_stride + columns
            && to.len() >= (columns - 1) * to_stride + rows,
        "a picture of another size than stated is a bug"
    );
    for row in (0..rows).step_by(LANES) {
        for column in (0..columns).step_by(LANES) {
            let (high, wide) = ((rows - row).min(LANES), (columns - column).min(LANES));
            let (from, to) = (
                &from[row * from_stride + column..],
                &mut to[column * to_stride + row..],
            );
            if high == LANES && wide == LANES {
                transpose_block(from, from_stride, to, to_stride);
                continue;
            }
            for r in 0..high {
                for c in 0..wide {
                    to[c * to_stride + r] = from[r * from_stride + c];
                }
            }
        }
    }
}

/// Sixteen rows of sixteen samples: shuffling all 256 perfectly four times exchanges rows and columns.
#[cfg(target_arch = "x86_64")]
fn transpose_block(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm_storeu_si128, _mm_unpackhi_epi8, _mm_unpacklo_epi8,
    };
    assert!(from.len() >= 15 * from_stride + 16 && to.len() >= 15 * to_stride + 16);
    // SAFETY: every x86-64 has SSE2; the lengths were just checked.
    unsafe {
        let mut rows: [_; LANES] = std::array::from_fn(|row| {
            _mm_loadu_si128(from.as_ptr().wrapping_add(row * from_stride).cast())
        });
        for _ in 0..4 {
            rows = std::array::from_fn(|at| {
                let (low, high) = (rows[at / 2], rows[at / 2 + 8]);
                if at % 2 == 0 {
                    _mm_unpacklo_epi8(low, high)
                } else {
                    _mm_unpackhi_epi8(low, high)
                }
            });
        }
        for (column, value) in rows.into_iter().enumerate() {
            _mm_storeu_si128(
                to.as_mut_ptr().wrapping_add(column * to_stride).cast(),
                value,
            );
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose_block(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    for row in 0..LANES {
        for column in 0..LANES {
            to[column * to_stride + row] = from[row * from_stride + column];
        }
    }
}
