//! Weights in four bits: the format, and how a row is brought into it.
//!
//! A value is one of sixteen codes; every 32 values share a multiplier of eight bits and every output feature a
//! scale. What a code stands for is defined as a *byte*, `(multiplier · code + 64) >> 7`, so that a matrix in
//! four bits is an int8 matrix in a shorter spelling: products unpack it on the way, take the integer kernels
//! as they are, and are exact whichever way they unpack. 4.25 bits a value in all.
//!
//! The codes were fitted to groups of 32 normally distributed values, each with the best multiplier of either
//! sign (k-means, alternating between codes and multipliers). Mean square error relative to that of the values:
//!
//! | values | this code | NF4 in blocks of 64 (4.13 bits) | NF4 in blocks of 32 |
//! |---|---|---|---|
//! | normal | 0.0056 | 0.0085 | 0.0076 |
//! | uniform | 0.0045 | 0.0084 | 0.0080 |
//! | Student, 5 degrees of freedom | 0.0073 | 0.0110 | 0.0087 |
//!
//! Layout of a panel: for every [`SPAN_WORDS`] steps of bytes one step of multipliers (the four groups of a
//! column are the bytes of its word), then half as many steps of codes: a word holds the codes of one step of
//! bytes in the low halves of its bytes and those of the next step in the high halves.

#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]
#![expect(unsafe_code, reason = "threads write different panels of one buffer")]

use crate::parallel::{self, SharedMut};
use crate::simd::Kernels;

/// What the codes stand for, in 128ths of the multiplier.
pub(crate) const CODES: [i8; 16] = [
    -124, -92, -71, -54, -39, -26, -14, -2, 9, 21, 33, 46, 61, 78, 100, 127,
];
/// Values that share a multiplier.
pub(crate) const GROUP: usize = 32;
/// Steps of four bytes in a group.
pub(crate) const GROUP_WORDS: usize = GROUP / 4;
/// Steps of four bytes that one step of multipliers serves.
pub(crate) const SPAN_WORDS: usize = 4 * GROUP_WORDS;
/// Steps of a panel for a whole span.
pub(crate) const SPAN_STEPS: usize = 1 + SPAN_WORDS / 2;

/// Multipliers tried, relative to the one that maps the greatest value of a group to the end of the code.
const FACTORS: [f32; 5] = [0.8, 0.87, 0.94, 1.0, 1.07];

/// The byte that code number `code` stands for.
pub(crate) const fn byte(multiplier: i8, code: u8) -> i8 {
    ((multiplier as i32 * CODES[code as usize] as i32 + 64) >> 7) as i8
}

/// Steps of a panel whose shared dimension has `words` steps of bytes.
pub(crate) fn steps(words: usize) -> usize {
    words.div_ceil(SPAN_WORDS) + words.div_ceil(2)
}

/// Where the steps for the bytes from step `word` on begin; `word` begins a span.
pub(crate) fn step_of(word: usize) -> usize {
    word / SPAN_WORDS * SPAN_STEPS
}

/// The bytes of the sixteen codes in ascending order under one multiplier, as numbers.
#[derive(Clone, Copy)]
struct Levels {
    /// The least of them.
    least: f32,
    /// From each to the next.
    gaps: [f32; 15],
    /// Half-way between each and the next.
    bounds: [f32; 15],
}

/// [`Levels`] for multipliers 1 to 127 and then -1 to -127.
static LEVELS: [Levels; 254] = {
    let mut all = [Levels {
        least: 0.0,
        gaps: [0.0; 15],
        bounds: [0.0; 15],
    }; 254];
    let mut at = 0;
    while at < 254 {
        let is_negative = at >= 127;
        let multiplier = (at % 127 + 1) as i8;
        let mut last = 0.0;
        let mut rank = 0_usize;
        while rank < 16 {
            let level = if is_negative {
                byte(-multiplier, 15 - rank as u8)
            } else {
                byte(multiplier, rank as u8)
            } as f32;
            if rank == 0 {
                all[at].least = level;
            } else {
                all[at].gaps[rank - 1] = level - last;
                all[at].bounds[rank - 1] = (level + last) * 0.5;
            }
            last = level;
            rank += 1;
        }
        at += 1;
    }
    all
};

/// Brings a row into codes and multipliers (`codes` is padded to whole words, `multipliers` has one for every
/// group) and returns its scale. Of each group the multiplier with the least square error is taken, of ten. A
/// row that is not finite gives zeros and a scale of NaN.
#[inline(always)]
pub(crate) fn quantise_row(row: &[f32], codes: &mut [u8], multipliers: &mut [i8]) -> f32 {
    let greatest = row.iter().fold(0.0_f32, |greatest, value| {
        let size = value.abs();
        if size > greatest { size } else { greatest }
    });
    let is_finite = row.iter().map(|value| value * 0.0).sum::<f32>() == 0.0;
    codes.fill(0);
    multipliers.fill(0);
    if !is_finite {
        return f32::NAN;
    }
    // Of smaller rows the inverse of the scale would not be finite.
    if greatest < f32::MIN_POSITIVE * 128.0 {
        return greatest / 127.0;
    }
    let inverse = 127.0 / greatest;
    let groups = row.chunks(GROUP).zip(codes.chunks_mut(GROUP));
    for ((values, codes), multiplier) in groups.zip(multipliers) {
        let mut group = [0.0; GROUP];
        for (to, value) in group.iter_mut().zip(values) {
            *to = value * inverse;
        }
        *multiplier = quantise_group(&group, codes);
    }
    greatest / 127.0
}

#[inline(always)]
fn quantise_group(group: &[f32; GROUP], codes: &mut [u8]) -> i8 {
    let mut greatest = 0.0_f32;
    for value in group {
        let size = value.abs();
        greatest = if size > greatest { size } else { greatest };
    }
    let mut best = None;
    let mut least = f32::INFINITY;
    for factor in FACTORS {
        let multiplier = (greatest * factor * (128.0 / 127.0)).round_ties_even();
        if multiplier < 1.0 {
            continue;
        }
        let index = multiplier.min(127.0) as usize - 1;
        for at in [index, index + 127] {
            let error = error_of(group, &LEVELS[at]);
            if error < least {
                (least, best) = (error, Some(at));
            }
        }
    }
    // A group in which everything rounds to zero.
    let Some(best) = best else { return 0 };
    let mut ranks = [0_u32; GROUP];
    for bound in LEVELS[best].bounds {
        for (rank, &value) in ranks.iter_mut().zip(group) {
            *rank += u32::from(value > bound);
        }
    }
    let is_negative = best >= 127;
    for (code, rank) in codes.iter_mut().zip(ranks) {
        *code = if is_negative { 15 - rank } else { rank } as u8;
    }
    let multiplier = (best % 127 + 1) as i8;
    if is_negative { -multiplier } else { multiplier }
}

/// The square error of a group whose values go to the nearest levels.
#[inline(always)]
fn error_of(group: &[f32; GROUP], levels: &Levels) -> f32 {
    let mut nearest = [levels.least; GROUP];
    for (bound, gap) in levels.bounds.iter().zip(levels.gaps) {
        for (nearest, value) in nearest.iter_mut().zip(group) {
            *nearest += if value > bound { gap } else { 0.0 };
        }
    }
    for (nearest, value) in nearest.iter_mut().zip(group) {
        *nearest = (*nearest - value) * (*nearest - value);
    }
    // By halves, so that the order is the same in vectors of every width.
    let mut half = GROUP / 2;
    while half > 0 {
        for at in 0..half {
            nearest[at] += nearest[at + half];
        }
        half /= 2;
    }
    nearest[0]
}

/// A block of rows on its way into panels.
pub(super) struct Block<'a> {
    /// Output feature of the first row; begins a panel.
    pub(super) first: usize,
    /// Whole rows, row-major.
    pub(super) rows: &'a [f32],
    pub(super) in_features: usize,
    /// Output features padded to whole vectors.
    pub(super) padded: usize,
}

/// Packs the panels that the rows of `block` fill, spread over the threads.
pub(super) fn pack_panels(
    kernels: &'static Kernels,
    block: &Block<'_>,
    panels: &mut [u32],
    scales: &mut [f32],
    compensation: &mut [u32],
) {
    let width = kernels.panel_width;
    let count = block.rows.len() / block.in_features.max(1);
    let words = block.in_features.div_ceil(4);
    assert!(
        block.first + count <= scales.len() && scales.len() == compensation.len(),
        "rows past the end of a matrix is a bug"
    );
    assert_eq!(
        panels.len(),
        block.padded * steps(words),
        "panels of another size than the matrix is a bug"
    );
    let (to, scale_to) = (
        SharedMut::new(panels.as_mut_ptr()),
        SharedMut::new(scales.as_mut_ptr()),
    );
    let sum_to = SharedMut::new(compensation.as_mut_ptr());
    // About a nanosecond a value: always worth the threads.
    let nanos = block.rows.len() as u64;
    parallel::for_each(count.div_ceil(width), nanos, |index| {
        let first = block.first + index * width;
        let count = (count - index * width).min(width);
        let columns = (block.padded - first).min(width);
        // SAFETY: the asserts above bound all three; panels and their columns belong to one job each.
        let (panel, scales, sums) = unsafe {
            (
                std::slice::from_raw_parts_mut(
                    to.get().add(first * steps(words)),
                    columns * steps(words),
                ),
                std::slice::from_raw_parts_mut(scale_to.get().add(first), count),
                std::slice::from_raw_parts_mut(sum_to.get().add(first), count),
            )
        };
        let rows = &block.rows[index * width * block.in_features..][..count * block.in_features];
        let mut codes = vec![0; 4 * words.next_multiple_of(2)];
        let mut multipliers = vec![0; words.div_ceil(GROUP_WORDS)];
        for (column, row) in rows.chunks_exact(block.in_features).enumerate() {
            scales[column] = (kernels.quantise_nibbles)(row, &mut codes, &mut multipliers);
            let sum = sum_of_bytes(&codes[..4 * words], &multipliers);
            sums[column] = sum.wrapping_mul(kernels.byte_offset) as u32;
            place(&codes, &multipliers, column, columns, panel);
        }
    });
}

/// What the codes of a row stand for, added up, padding included: it is multiplied like the rest.
fn sum_of_bytes(codes: &[u8], multipliers: &[i8]) -> i32 {
    codes
        .chunks(GROUP)
        .zip(multipliers)
        .flat_map(|(codes, &multiplier)| codes.iter().map(move |&code| byte(multiplier, code)))
        .map(i32::from)
        .sum()
}

/// Writes one column of a panel that is `width` words wide.
fn place(codes: &[u8], multipliers: &[i8], column: usize, width: usize, panel: &mut [u32]) {
    let mut steps = panel[column..].iter_mut().step_by(width);
    let spans = codes
        .chunks(4 * SPAN_WORDS)
        .zip(multipliers.chunks(SPAN_WORDS / GROUP_WORDS));
    for (codes, multipliers) in spans {
        let mut bytes = [0_u8; 4];
        for (byte, &multiplier) in bytes.iter_mut().zip(multipliers) {
            *byte = multiplier as u8;
        }
        let codes = codes.chunks_exact(8).map(|pair| {
            u32::from_ne_bytes(std::array::from_fn(|at| pair[at] | (pair[4 + at] << 4)))
        });
        for word in std::iter::once(u32::from_ne_bytes(bytes)).chain(codes) {
            if let Some(step) = steps.next() {
                *step = word;
            }
        }
    }
}

/// The bytes of one column of a panel, four to a step.
pub(super) fn bytes_of(
    panel: &[u32],
    column: usize,
    width: usize,
    words: usize,
) -> impl Iterator<Item = i8> {
    let at = move |step: usize| panel[step * width + column];
    (0..4 * words).map(move |value| {
        let word = value / 4;
        let span = step_of(word - word % SPAN_WORDS);
        let group = word % SPAN_WORDS / GROUP_WORDS;
        let multiplier = at(span).to_ne_bytes()[group] as i8;
        let pair = at(span + 1 + word % SPAN_WORDS / 2).to_ne_bytes()[value % 4];
        byte(
            multiplier,
            if word % 2 == 0 { pair & 15 } else { pair >> 4 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        let mut state = 88_172_645_463_325_252_u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 24) as f32
        };
        // The sum of twelve is close enough to normal.
        (0..count)
            .map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
            .collect()
    }

    fn unpacked(row: &[f32]) -> Vec<f32> {
        let mut codes = vec![0; row.len().next_multiple_of(4)];
        let mut multipliers = vec![0; row.len().div_ceil(GROUP)];
        let scale = quantise_row(row, &mut codes, &mut multipliers);
        (0..row.len())
            .map(|at| f32::from(byte(multipliers[at / GROUP], codes[at])) * scale)
            .collect()
    }

    fn error(row: &[f32]) -> f64 {
        let square = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|value| f64::from(value).powi(2)).sum::<f64>()
        };
        let found = unpacked(row);
        let lost = square(&mut row.iter().zip(&found).map(|(left, right)| left - right));
        lost / square(&mut row.iter().copied())
    }

    #[test]
    fn the_error_is_what_the_table_above_says() {
        let error = error(&values(1 << 16));
        assert!((0.0052..0.0062).contains(&error), "{error}");
    }

    #[test]
    fn every_value_goes_to_the_nearest_byte_of_its_group() {
        let row = values(640);
        let mut codes = vec![0; 640];
        let mut multipliers = vec![0; 20];
        let scale = quantise_row(&row, &mut codes, &mut multipliers);
        for (at, value) in row.iter().enumerate() {
            let distance =
                |code| (f32::from(byte(multipliers[at / GROUP], code)) * scale - value).abs();
            let least = (0..16).map(distance).fold(f32::INFINITY, f32::min);
            assert!(distance(codes[at]) <= least + 1e-6, "{at}");
        }
    }

    #[test]
    fn special_rows() {
        assert!(unpacked(&[0.0; 50]).iter().all(|&value| value == 0.0));
        assert!(unpacked(&[1e-45; 50]).iter().all(|&value| value == 0.0));
        assert!(
            unpacked(&[1.0, f32::INFINITY, 2.0])
                .iter()
                .all(|value| value.is_nan())
        );
        assert!(unpacked(&[f32::NAN; 3]).iter().all(|value| value.is_nan()));
        // One value alone in its group, of either sign: nothing is lost but the rounding to a byte.
        for value in [3.0, -3.0] {
            let found = unpacked(&[value])[0];
            assert!((found - value).abs() < 0.01 * value.abs(), "{found}");
        }
        // A group beside one a thousand times greater vanishes, and does not turn into something else.
        let mut row = [1e-3; 64];
        row[40] = 1.0;
        assert!(unpacked(&row)[..32].iter().all(|&value| value == 0.0));
    }
}
