//! The inner kernels of products with bfloat16 in twelve bits ([`crate::gemm::short`]): a tile that spells weights out in
//! registers, for a few rows, and the spelling out of a block of a panel, which the tiles of bfloat16 then read many times.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use crate::gemm::short::{Codes, Escape, QUAD, QUAD_WORDS, SPAN};
use crate::micro::{self, Dot};
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
            .wrapping_add(quad.wrapping_mul(QUAD_WORDS.wrapping_mul(self.stride)));
        Self { from, ..*self }
    }

    /// The steps of vector `vector` of the first quad, escapes left out.
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
            s.prefetch(at(part).wrapping_add(AHEAD.wrapping_mul(self.stride)));
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
                let mut values = [[s.zero_words(); QUAD]; ROWS];
                for (row, values) in values.iter_mut().enumerate() {
                    let left = left.wrapping_add(row.wrapping_mul(tile.left_stride));
                    for (step, value) in values.iter_mut().enumerate() {
                        // SAFETY: the caller vouches for the rows.
                        *value = s.splat_word(unsafe { *left.wrapping_add(step) });
                    }
                }
                // Spelt out by hand: a loop over vectors would keep the sums in memory.
                macro_rules! add {
                    ($($vector:literal)*) => {$(
                        if $vector < VECTORS {
                            // SAFETY: the caller vouches for the panel.
                            let words = unsafe { columns.spell(s, codes, $vector) };
                            for (values, sums) in values.iter().zip(&mut sums) {
                                for (&value, words) in values.iter().zip(words) {
                                    sums[$vector] = micro::Brains::step(s, sums[$vector], value, words);
                                }
                            }
                        }
                    )*};
                }
                add!(0 1 2 3);
            } else {
                let count = escapes.partition_point(|escape| escape.step() / QUAD <= quad);
                let (here, rest) = escapes.split_at(count);
                escapes = rest;
                // Through memory, and a copy of the sums: so these stay in registers everywhere else.
                let mut copy = sums;
                // SAFETY: the caller vouches for the panel and the rows, which have `steps` words more.
                unsafe {
                    add_restored(s, &mut copy, &columns, here, left, tile.left_stride, steps);
                }
                sums = copy;
            }
            left = left.wrapping_add(QUAD);
        }
    }
    // SAFETY: the caller vouches for the sums.
    unsafe { micro::store(s, &sums, tile.sums, tile.sums_stride) };
}

/// Adds a quad with escapes, or the first `steps` of one.
///
/// # Safety
/// The quad must be readable, and so many words from `left` on of every row.
#[inline(always)]
unsafe fn add_restored<S: Shorts, const ROWS: usize, const VECTORS: usize>(
    s: S,
    sums: &mut [[S::W; VECTORS]; ROWS],
    columns: &Columns<'_>,
    escapes: &[Escape],
    left: *const u32,
    left_stride: usize,
    steps: usize,
) {
    let mut block = [0; QUAD * MAX_PANEL_WIDTH];
    let width = VECTORS * S::LANES;
    // SAFETY: the caller vouches for the quad; the block holds the widest one.
    unsafe { lengthen(s, columns, 1, block.as_mut_ptr()) };
    for escape in escapes {
        let place = [columns.skipped, width];
        escape.restore(escape.step() % QUAD, place, &mut block);
    }
    for (row, sums) in sums.iter_mut().enumerate() {
        let left = left.wrapping_add(row.wrapping_mul(left_stride));
        for (step, words) in block.chunks_exact(width).enumerate().take(steps) {
            // SAFETY: the caller vouches for the rows.
            let value = s.splat_word(unsafe { *left.wrapping_add(step) });
            for (sum, words) in sums.iter_mut().zip(words.chunks_exact(S::LANES)) {
                // SAFETY: it is a whole vector.
                let words = unsafe { s.load_words(words.as_ptr()) };
                *sum = micro::Brains::step(s, *sum, value, words);
            }
        }
    }
}
