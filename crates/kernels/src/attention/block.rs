//! One block of query rows against one key head.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]

use std::ops::Range;

use crate::attention::{AttentionShape, Mask};
use crate::gemm::Precision;
use crate::memory::{LINE, with_scratch};
use crate::micro::Tile;
use crate::pack::Panel;
use crate::parallel::SharedMut;
use crate::rows::Rows;
use crate::simd::{Kernels, MAX_PANEL_WIDTH};

/// Words of scores in a block: 192 KiB, beside which the keys and values of a head of 1024 rows still fit
/// the second level of cache.
const STRIPE_WORDS: usize = 49_152;
/// Rows in a block, at most.
const STRIPE_ROWS: usize = 48;

/// Steps of values packed at a time where they are taken as needed.
const PIECE_STEPS: usize = 64;

/// The operands of one call. Rows of a block count query rows and, within each, the query heads that share
/// the key head: block row `m` is query row `m / group`, head `kv · group + m % group`.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) precision: Precision,
    pub(super) shape: AttentionShape,
    /// Query rows of a sequence.
    pub(super) n_q: usize,
    /// Keys of a sequence.
    pub(super) n_k: usize,
    pub(super) mask: Mask<'a>,
    /// [`Mask::Keys`] as something to add to the scores, padded to whole vectors.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) out: SharedMut<f32>,
    pub(super) out_stride: usize,
}

/// The rows of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a> {
    pub(super) index: usize,
    pub(super) q: Rows<'a>,
    pub(super) k: Rows<'a>,
    pub(super) v: Rows<'a>,
}

/// Keys and values of one head, packed by [`Plan::pack_keys`] and [`Plan::pack_values`], or to be taken
/// from their rows as they are needed: a block alone reads them only once.
#[derive(Clone, Copy)]
pub(super) enum Packed<'a> {
    Whole { keys: &'a [u32], values: &'a [u32] },
    AsNeeded,
}

impl Plan<'_> {
    /// Query heads that share a key head.
    pub(super) fn group(&self) -> usize {
        self.shape.q_heads / self.shape.kv_heads
    }

    /// Rows of a block that holds the whole sequence.
    pub(super) fn num_rows(&self) -> usize {
        self.n_q * self.group()
    }

    /// Rows in a block, a whole number of tiles.
    pub(super) fn block_rows(&self) -> usize {
        let tile = self.kernels.tile_rows;
        let rows = (STRIPE_WORDS / self.padded_keys().max(1)).min(STRIPE_ROWS) / tile * tile;
        rows.max(tile)
    }

    fn padded_keys(&self) -> usize {
        self.n_k.next_multiple_of(self.kernels.lanes)
    }

    fn dim_words(&self) -> usize {
        self.precision.words(self.shape.head_dim)
    }

    /// Words of the packed keys of a head.
    pub(super) fn key_words(&self) -> usize {
        self.padded_keys() * self.dim_words()
    }

    /// Words of the packed values of a head.
    pub(super) fn value_words(&self) -> usize {
        self.precision.words(self.n_k) * self.shape.head_dim.next_multiple_of(self.kernels.lanes)
    }

    pub(super) fn num_key_panels(&self) -> usize {
        self.n_k.div_ceil(self.kernels.panel_width)
    }

    /// Keys of panel `panel`, and its width in words.
    fn panel(&self, panel: usize) -> (Range<usize>, usize) {
        let start = panel * self.kernels.panel_width;
        let end = (start + self.kernels.panel_width).min(self.n_k);
        (
            start..end,
            (end - start).next_multiple_of(self.kernels.lanes),
        )
    }

    /// Panels of the columns of a head: the columns and the width in words of each. They are as equal as
    /// possible, since a panel of one vector leaves the multipliers waiting for each other.
    fn column_panels(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let (dim, lanes) = (self.shape.head_dim, self.kernels.lanes);
        let vectors = dim.div_ceil(lanes);
        let panels = dim.div_ceil(self.kernels.panel_width);
        crate::gemm::split(vectors, panels).map(move |vectors| {
            let columns = vectors.start * lanes..(vectors.end * lanes).min(dim);
            (columns, vectors.len() * lanes)
        })
    }

    /// Where panel `panel` of the keys stands in the packed keys.
    pub(super) fn key_panel(&self, panel: usize) -> Range<usize> {
        let (keys, width) = self.panel(panel);
        keys.start * self.dim_words()..(keys.start + width) * self.dim_words()
    }

    /// Packs one panel of keys: step `d` has word `d` of every key.
    pub(super) fn pack_keys(&self, k: Rows<'_>, head: usize, panel: usize, to: &mut [u32]) {
        let (keys, width) = self.panel(panel);
        let dim = self.shape.head_dim;
        let words = self.dim_words();
        assert_eq!(to.len(), width * words, "a panel of another size is a bug");
        let k = k.slice(keys.clone()).columns(head * dim..(head + 1) * dim);
        let mut pack = |from: *const u32, from_stride| {
            // SAFETY: `from` has `keys.len()` rows of `words` words; the length of `to` was just checked.
            unsafe {
                (self.kernels.pack_panel)(&Panel {
                    from,
                    from_stride,
                    rows: keys.len(),
                    words,
                    to: to.as_mut_ptr(),
                    width,
                });
            }
        };
        if self.precision == Precision::F32 {
            pack(k.as_ptr().cast(), k.stride());
            return;
        }
        with_scratch(keys.len() * words, |narrow| {
            for (row, out) in narrow.chunks_exact_mut(words.max(1)).enumerate() {
                (self.kernels.narrow_bf16)(k.row(row), out);
            }
            pack(narrow.as_ptr(), words);
        });
    }

    /// Steps of the values: words of a dimension of `n_k` keys.
    pub(super) fn value_steps(&self) -> usize {
        self.precision.words(self.n_k)
    }

    /// Packs `steps` of the values of a head: one panel of columns after another, each step with one word of
    /// every column.
    pub(super) fn pack_values(
        &self,
        v: Rows<'_>,
        head: usize,
        steps: Range<usize>,
        to: &mut [u32],
    ) {
        let dim = self.shape.head_dim;
        let v = v.columns(head * dim..(head + 1) * dim);
        let mut to = to;
        for (columns, width) in self.column_panels() {
            let (whole, rest) = to.split_at_mut(steps.len() * width);
            to = rest;
            for (step, out) in steps.clone().zip(whole.chunks_exact_mut(width)) {
                self.pack_step(v, columns.clone(), step, out);
            }
        }
    }

    /// One step of a panel of values.
    fn pack_step(&self, v: Rows<'_>, columns: Range<usize>, step: usize, out: &mut [u32]) {
        let (used, padding) = out.split_at_mut(columns.len());
        padding.fill(0);
        if self.precision == Precision::F32 {
            used.copy_from_slice(bytemuck::cast_slice(&v.row(step)[columns]));
            return;
        }
        let zeros = [0.0; MAX_PANEL_WIDTH];
        let high = if 2 * step + 1 < self.n_k {
            &v.row(2 * step + 1)[columns.clone()]
        } else {
            &zeros[..columns.len()]
        };
        (self.kernels.pair_bf16)(&v.row(2 * step)[columns], high, used);
    }

    /// Keys that block row `row` may see, from the first.
    fn visible(&self, row: usize) -> usize {
        match self.mask {
            Mask::Full | Mask::Keys(_) => self.n_k,
            Mask::Causal { offset } => (row / self.group())
                .saturating_add(offset)
                .saturating_add(1)
                .min(self.n_k),
        }
    }

    /// Computes block rows `rows` of head `head`.
    pub(super) fn run(
        &self,
        sequence: Sequence<'_>,
        head: usize,
        rows: Range<usize>,
        packed: Packed<'_>,
    ) {
        let is_f32 = self.precision == Precision::F32;
        // Strides that are not a multiple of 4 KiB keep the rows of a tile in different cache lines.
        let query_stride = self.dim_words().next_multiple_of(LINE);
        let score_stride = self.padded_keys().next_multiple_of(LINE) + LINE;
        let weight_stride = if is_f32 {
            0
        } else {
            score_stride.div_ceil(2).next_multiple_of(LINE)
        };
        let panel_words = match packed {
            Packed::AsNeeded => self.kernels.panel_width * self.dim_words().next_multiple_of(LINE),
            Packed::Whole { .. } => 0,
        };
        let query_words = rows.len() * query_stride;
        let score_words = rows.len() * score_stride;
        let weight_words = rows.len() * weight_stride;
        let total = query_words + score_words + weight_words + panel_words;
        with_scratch(total, |scratch| {
            let (queries, scratch) = scratch.split_at_mut(query_words);
            let (scores, scratch) = scratch.split_at_mut(score_words);
            let (weights, panel) = scratch.split_at_mut(weight_words);
            self.take_queries(sequence.q, head, rows.clone(), queries, query_stride);
            self.score(
                sequence,
                head,
                &rows,
                packed,
                panel,
                (queries, query_stride),
                (scores, score_stride),
            );
            let mut sums = [0.0; 2 * STRIPE_ROWS];
            self.soften(
                &rows,
                (scores, score_stride),
                (weights, weight_stride),
                &mut sums,
            );
            let left = if is_f32 {
                (&*scores, score_stride)
            } else {
                (&*weights, weight_stride)
            };
            self.gather(sequence, head, &rows, packed, left, &sums);
        });
    }

    /// Copies the query rows, times the scale, as exponents of two.
    fn take_queries(
        &self,
        q: Rows<'_>,
        head: usize,
        rows: Range<usize>,
        queries: &mut [u32],
        stride: usize,
    ) {
        let (dim, group) = (self.shape.head_dim, self.group());
        let factor = self.shape.scale * std::f32::consts::LOG2_E;
        let mut scaled = vec![
            0.0;
            if self.precision == Precision::F32 {
                0
            } else {
                dim
            }
        ];
        for (row, out) in rows.zip(queries.chunks_exact_mut(stride.max(1))) {
            let start = (head * group + row % group) * dim;
            let from = &q.row(row / group)[start..start + dim];
            if self.precision == Precision::F32 {
                (self.kernels.scale)(from, factor, bytemuck::cast_slice_mut(&mut out[..dim]));
            } else {
                (self.kernels.scale)(from, factor, &mut scaled);
                (self.kernels.narrow_bf16)(&scaled, &mut out[..self.dim_words()]);
            }
        }
    }

    /// `scores[m][key] = <query m, key>` for every panel that some row sees.
    fn score(
        &self,
        sequence: Sequence<'_>,
        head: usize,
        rows: &Range<usize>,
        packed: Packed<'_>,
        panel_scratch: &mut [u32],
        (queries, query_stride): (&[u32], usize),
        (scores, score_stride): (&mut [u32], usize),
    ) {
        let tiles = self.precision.tiles(self.kernels);
        let last_visible = self.visible(rows.end - 1);
        for panel in 0..last_visible.div_ceil(self.kernels.panel_width) {
            let range = self.key_panel(panel);
            let (keys, width) = self.panel(panel);
            let steps = match packed {
                Packed::Whole { keys, .. } => &keys[range],
                Packed::AsNeeded => {
                    let steps = &mut panel_scratch[..range.len()];
                    self.pack_keys(sequence.k, head, panel, steps);
                    &*steps
                }
            };
            for tile_rows in tiles_of(rows.len(), self.kernels.tile_rows) {
                if keys.start >= self.visible(rows.start + tile_rows.end - 1) {
                    continue;
                }
                let tile = Kernels::tile(tiles, tile_rows.len(), width / self.kernels.lanes);
                // SAFETY: the tile's rows have `dim_words` words of queries; the panel has as many steps of
                // `width` words; the scores of a row reach to the padded number of keys.
                unsafe {
                    tile(&Tile {
                        words: self.dim_words(),
                        left: queries[tile_rows.start * query_stride..tile_rows.end * query_stride]
                            .as_ptr(),
                        left_stride: query_stride,
                        right: steps.as_ptr(),
                        right_stride: width,
                        sums: scores[tile_rows.start * score_stride..tile_rows.end * score_stride]
                            .as_mut_ptr()
                            .add(keys.start),
                        sums_stride: score_stride,
                        accumulate: false,
                        ahead: 0,
                    });
                }
            }
        }
    }

    /// Turns scores into weights, not yet divided by their sum; keys that a row does not see get zero.
    fn soften(
        &self,
        rows: &Range<usize>,
        (scores, score_stride): (&mut [u32], usize),
        (weights, weight_stride): (&mut [u32], usize),
        sums: &mut [f32],
    ) {
        for tile_rows in tiles_of(rows.len(), self.kernels.tile_rows) {
            let end = self
                .visible(rows.start + tile_rows.end - 1)
                .next_multiple_of(self.kernels.lanes);
            for row in tile_rows {
                let visible = self.visible(rows.start + row);
                let length = visible.next_multiple_of(self.kernels.lanes);
                let scores: &mut [f32] = bytemuck::cast_slice_mut(
                    &mut scores[row * score_stride..(row + 1) * score_stride],
                );
                scores[visible..length].fill(f32::NEG_INFINITY);
                let bias = self.bias.map(|bias| &bias[..length]);
                if weight_stride == 0 {
                    scores[length..end].fill(0.0);
                    sums[row] = (self.kernels.softmax)(&mut scores[..length], bias);
                } else {
                    let out = &mut weights[row * weight_stride..][..end.div_ceil(2)];
                    let (out, hidden) = out.split_at_mut(length.div_ceil(2));
                    hidden.fill(0);
                    sums[row] = (self.kernels.softmax_bf16)(&mut scores[..length], bias, out);
                }
            }
        }
    }

    /// `out[m] = Σ_key weight[m][key] · value[key] / sum[m]`.
    fn gather(
        &self,
        sequence: Sequence<'_>,
        head: usize,
        rows: &Range<usize>,
        packed: Packed<'_>,
        (weights, weight_stride): (&[u32], usize),
        sums: &[f32],
    ) {
        let dim = self.shape.head_dim;
        let tiles = self.precision.tiles(self.kernels);
        let steps = self.value_steps();
        // Whole vectors of `f32` are multiplied where they lie; anything else is packed a piece at a time.
        let in_place = self.precision == Precision::F32 && dim.is_multiple_of(self.kernels.lanes);
        let (pieces, rows_at_once) = match packed {
            Packed::Whole { .. } => (steps, self.kernels.tile_rows),
            Packed::AsNeeded if in_place => (steps, rows.len()),
            Packed::AsNeeded => (PIECE_STEPS, rows.len()),
        };
        let piece_words = match packed {
            Packed::AsNeeded if !in_place => PIECE_STEPS * MAX_PANEL_WIDTH,
            Packed::AsNeeded | Packed::Whole { .. } => 0,
        };
        let mut at = 0;
        with_scratch(piece_words + rows_at_once * MAX_PANEL_WIDTH, |scratch| {
            let (piece, tile_sums) = scratch.split_at_mut(piece_words);
            for (columns, width) in self.column_panels() {
                let v = sequence.v.columns(head * dim..(head + 1) * dim);
                for first in (0..steps.max(1)).step_by(pieces.max(1)) {
                    let last = (first + pieces).min(steps);
                    let (right, right_stride) = match packed {
                        Packed::Whole { values, .. } => {
                            (values[at..at + steps * width].as_ptr(), width)
                        }
                        Packed::AsNeeded if in_place => {
                            (v.columns(columns.clone()).as_ptr().cast(), v.stride())
                        }
                        Packed::AsNeeded => {
                            for (step, out) in (first..last).zip(piece.chunks_exact_mut(width)) {
                                self.pack_step(v, columns.clone(), step, out);
                            }
                            (piece.as_ptr(), width)
                        }
                    };
                    for tile_rows in tiles_of(rows.len(), self.kernels.tile_rows) {
                        let visible = self.visible(rows.start + tile_rows.end - 1);
                        let words = self
                            .precision
                            .words(visible)
                            .min(last)
                            .saturating_sub(first);
                        let sums_at = if rows_at_once == rows.len() {
                            tile_rows.start
                        } else {
                            0
                        };
                        let tile_sums = &mut tile_sums[sums_at * MAX_PANEL_WIDTH..]
                            [..tile_rows.len() * MAX_PANEL_WIDTH];
                        let left = &weights[tile_rows.start * weight_stride + first
                            ..tile_rows.end * weight_stride];
                        let tile =
                            Kernels::tile(tiles, tile_rows.len(), width / self.kernels.lanes);
                        // SAFETY: every row has weights up to `visible`, padded to whole vectors; `right` has
                        // a step of `width` words for each of them (values in place have whole vectors of
                        // columns); the sums were cut to the tile.
                        unsafe {
                            tile(&Tile {
                                words,
                                left: left.as_ptr(),
                                left_stride: weight_stride,
                                right,
                                right_stride,
                                sums: tile_sums.as_mut_ptr(),
                                sums_stride: MAX_PANEL_WIDTH,
                                accumulate: first > 0,
                                ahead: 0,
                            });
                        }
                        if last == steps {
                            self.write(
                                sequence, head, rows.start, tile_rows, &columns, tile_sums, sums,
                            );
                        }
                    }
                }
                at += steps * width;
            }
        });
    }

    /// Divides a tile by the sums of its rows and writes it.
    fn write(
        &self,
        sequence: Sequence<'_>,
        head: usize,
        first_row: usize,
        tile_rows: Range<usize>,
        columns: &Range<usize>,
        tile_sums: &[u32],
        sums: &[f32],
    ) {
        let (dim, group) = (self.shape.head_dim, self.group());
        for (row, sum) in tile_rows.zip(tile_sums.chunks_exact(MAX_PANEL_WIDTH)) {
            let block_row = first_row + row;
            let query_row = sequence.index * self.n_q + block_row / group;
            let start = (head * group + block_row % group) * dim + columns.start;
            // SAFETY: `check` compared the output's shape with the query's; this row and head of it belong to
            // this block alone.
            let out = unsafe {
                std::slice::from_raw_parts_mut(
                    self.out.get().add(query_row * self.out_stride + start),
                    columns.len(),
                )
            };
            let inverse = if sums[row] == 0.0 {
                0.0
            } else {
                1.0 / sums[row]
            };
            (self.kernels.scale)(bytemuck::cast_slice(&sum[..columns.len()]), inverse, out);
        }
    }
}

/// Cuts `rows` into tiles of at most `tile` rows, as equal as possible.
fn tiles_of(rows: usize, tile: usize) -> impl Iterator<Item = Range<usize>> {
    crate::gemm::split(rows, rows.div_ceil(tile))
}
