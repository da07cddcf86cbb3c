//! The inner kernels of products with bfloat16 in twelve bits ([`crate::gemm::short`]): a tile that spells weights out in
//! registers, for a few rows, and the spelling out of a block of a panel, which the tiles of bfloat16 then read many times.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use crate::gemm::short::{Codes, Escape, QUAD, QUAD_WORDS, SPAN};
use crate::micro;
use crate::simd::MAX_PANEL_WIDTH;
use crate::simd::shorts::Shorts;

/// Words of a column that are fetched ahead: 12 KiB of a wide panel. So much is done with each that memory would otherwise
/// wait.
const AHEAD: usize = 48;
/// Quads whose escapes are listed together.
const SPAN_QUADS: usize = SPAN / QUAD;

/// Part of the columns of a panel. Distances are in words.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// The first vector wanted of the first quad.
    pub(crate) from: *const u32,
    /// Columns of the panel, whole vectors.
    pub(crate) stride: usize,
    /// Columns before those wanted.
    pub(crate) skipped: usize,
    /// Columns wanted, whole vectors.
    pub(crate) width: usize,
    pub(crate) codes: &'a Codes,
}

impl Columns<'_> {
    /// The same from quad `quad` on.
    #[inline(always)]
    fn quad(&self, quad: usize) -> Self {
        let from = self
            .from
            .wrapping_add(quad.wrapping_mul(QUAD_WORDS * self.stride));
        Self { from, ..*self }
    }

    /// The two steps of pairs of vector `vector` of the first quad, twice.
    ///
    /// # Safety
    /// The vector must be readable.
    #[inline(always)]
    unsafe fn spell<S: Shorts>(&self, s: S, codes: S::W, vector: usize) -> [S::W; QUAD] {
        let at = |part: usize| {
            self.from
                .wrapping_add((QUAD_WORDS * vector + part) * S::LANES)
        };
        for part in 0..QUAD_WORDS {
            s.prefetch(at(part).wrapping_add(AHEAD * self.stride));
        }
        // SAFETY: the caller vouches for the vector.
        unsafe {
            let [low, high] = s.uppers(s.load_words(at(2)), codes);
            let [first, second] = s.join(s.load_words(at(0)), low);
            let [third, fourth] = s.join(s.load_words(at(1)), high);
            [first, second, third, fourth]
        }
    }
}

/// Spells out `quads` quads, escapes left out, to `to`: `width` words a step.
///
/// # Safety
/// The vectors of all quads must be readable, their steps writable.
#[inline(always)]
pub(crate) unsafe fn lengthen<S: Shorts>(s: S, columns: &Columns<'_>, quads: usize, to: *mut u32) {
    let codes = s.codes(columns.codes);
    for quad in 0..quads {
        let from = columns.quad(quad);
        let to = to.wrapping_add(quad.wrapping_mul(QUAD * columns.width));
        for vector in 0..columns.width / S::LANES {
            // SAFETY: the caller vouches for the quads on both sides.
            unsafe {
                let words = from.spell(s, codes, vector);
                for (step, words) in words.into_iter().enumerate() {
                    s.store_words(
                        words,
                        to.wrapping_add(step * columns.width + vector * S::LANES),
                    );
                }
            }
        }
    }
}

/// A tile over all steps of some columns.
pub(crate) struct Tile<'a> {
    pub(crate) columns: Columns<'a>,
    /// As in [`micro::Tile`], from here on.
    pub(crate) words: usize,
    pub(crate) left: *const u32,
    pub(crate) left_stride: usize,
    pub(crate) sums: *mut u32,
    pub(crate) sums_stride: usize,
    /// The escapes of each span.
    pub(crate) escapes: &'a dyn Fn(usize) -> &'a [Escape],
}

/// [`micro::tile`] over bfloat16 in twelve bits: nothing is accumulated.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn tile<S: Shorts, const ROWS: usize, const VECTORS: usize>(
    s: S,
    tile: &Tile<'_>,
) {
    let codes = s.codes(tile.columns.codes);
    let mut sums = [[s.zero_words(); VECTORS]; ROWS];
    let mut left = tile.left;
    for span in 0..tile.words.div_ceil(SPAN) {
        let mut escapes = (tile.escapes)(span);
        let words = (tile.words - span * SPAN).min(SPAN);
        for quad in 0..words.div_ceil(QUAD) {
            let columns = tile.columns.quad(span * SPAN_QUADS + quad);
            let steps = (words - quad * QUAD).min(QUAD);
            let is_plain = escapes
                .first()
                .is_none_or(|escape| escape.step() / QUAD > quad);
            if is_plain && steps == QUAD {
                for vector in 0..VECTORS {
                    // SAFETY: the caller vouches for the panel and the rows.
                    unsafe {
                        let words = columns.spell(s, codes, vector);
                        add::<S, ROWS, VECTORS>(
                            s,
                            &mut sums,
                            vector,
                            words,
                            (left, tile.left_stride),
                            QUAD,
                        );
                    }
                }
            } else {
                let mut block = [0; QUAD * MAX_PANEL_WIDTH];
                let width = VECTORS * S::LANES;
                // SAFETY: the caller vouches for the panel; the block holds a quad of the widest one.
                unsafe { lengthen(s, &columns, 1, block.as_mut_ptr()) };
                while let Some((escape, rest)) = escapes.split_first()
                    && escape.step() / QUAD == quad
                {
                    escape.restore(escape.step() % QUAD, [columns.skipped, width], &mut block);
                    escapes = rest;
                }
                for vector in 0..VECTORS {
                    let mut words = [s.zero_words(); QUAD];
                    // SAFETY: the block holds a quad; the caller vouches for the rows, which have `steps` words more.
                    unsafe {
                        for (step, words) in words.iter_mut().enumerate() {
                            *words = s.load_words(
                                block
                                    .as_ptr()
                                    .wrapping_add(step * width + vector * S::LANES),
                            );
                        }
                        add::<S, ROWS, VECTORS>(
                            s,
                            &mut sums,
                            vector,
                            words,
                            (left, tile.left_stride),
                            steps,
                        );
                    }
                }
            }
            left = left.wrapping_add(QUAD);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (vector, &sum) in sums.iter().enumerate() {
            let place = tile
                .sums
                .wrapping_add(row.wrapping_mul(tile.sums_stride))
                .wrapping_add(vector * S::LANES);
            // SAFETY: the caller vouches for the sums.
            unsafe { s.store_words(sum, place) };
        }
    }
}

/// Adds the first `steps` of `words` times those of every row.
///
/// # Safety
/// The rows must have so many words from `left` on.
#[inline(always)]
unsafe fn add<S: Shorts, const ROWS: usize, const VECTORS: usize>(
    s: S,
    sums: &mut [[S::W; VECTORS]; ROWS],
    vector: usize,
    words: [S::W; QUAD],
    (left, left_stride): (*const u32, usize),
    steps: usize,
) {
    for (row, sums) in sums.iter_mut().enumerate() {
        let left = left.wrapping_add(row.wrapping_mul(left_stride));
        for (step, &words) in words.iter().enumerate().take(steps) {
            // SAFETY: the caller vouches for the rows.
            let value = s.splat_word(unsafe { *left.wrapping_add(step) });
            sums[vector] = <micro::Brains as micro::Dot<S>>::step(s, sums[vector], value, words);
        }
    }
}
