//! One block of query rows against one key head: scores, weights, sums of values.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]

use std::ops::Range;

use crate::attention::plan::{Columns, Plan, STRIPE_ROWS, Sequence};
use crate::gemm::Precision;
use crate::memory::{prefetch, with_scratch};
use crate::micro::Tile;
use crate::parallel::SharedMut;
use crate::simd::{Kernels, MAX_PANEL_WIDTH};

/// Steps of values packed at a time where they are taken as needed.
const PIECE_STEPS: usize = 64;
/// Rows of a cache that are asked for ahead of the one at hand: a head has a few cache lines in each row, so
/// that the machine does not foresee the next by itself.
const ROWS_AHEAD: usize = 24;

/// Keys and values of one head, packed by [`Plan::pack_keys`] and [`Plan::pack_values`], or to be taken
/// from their rows as they are needed: a block alone reads them only once.
#[derive(Clone, Copy)]
pub(super) enum Packed<'a> {
    Whole {
        keys: &'a [u32],
        values: &'a [u32],
    },
    /// A head of a [`super::KvStore`]: full panels, and steps of values `value_stride` words apart.
    Stored {
        keys: &'a [u32],
        values: &'a [u32],
        value_stride: usize,
    },
    /// The same in bytes, four dimensions of a key or four tokens of a value to a word, with a scale for every key and
    /// every value, padded to whole vectors. Widened a panel or a piece at a time; the scales go to scores and weights.
    Bytes {
        keys: &'a [u32],
        values: &'a [u32],
        value_stride: usize,
        key_scales: &'a [f32],
        value_scales: &'a [f32],
    },
    AsNeeded,
}

/// Rows of words in scratch.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) words: &'a [u32],
    pub(super) stride: usize,
}

/// Block rows `rows` of key head `head`.
#[derive(Clone)]
pub(super) struct Block<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) sequence: Sequence<'a>,
    pub(super) head: usize,
    pub(super) rows: Range<usize>,
    pub(super) packed: Packed<'a>,
}

impl Block<'_> {
    /// Computes the whole block.
    pub(super) fn run(&self) {
        let (plan, rows) = (self.plan, self.rows.len());
        self.fetch_ahead();
        let query_words = rows * plan.query_stride();
        let score_words = rows * plan.score_stride();
        with_scratch(
            query_words + score_words + rows * plan.weight_stride(),
            |scratch| {
                let (queries, scratch) = scratch.split_at_mut(query_words);
                let (scores, weights) = scratch.split_at_mut(score_words);
                self.take_queries(queries);
                self.score(
                    queries,
                    0..plan.num_key_panels(),
                    SharedMut::new(scores.as_mut_ptr()),
                );
                let mut sums = [0.0; STRIPE_ROWS];
                let weights = self.soften(scores, weights, &mut sums);
                for columns in plan.full_columns() {
                    self.gather(&columns, weights, &sums);
                }
            },
        );
    }

    /// Asks for the output of this block and the queries of the next. Each row of either is on a page of its own in
    /// the usual layouts, so that they would be waited for one after another.
    fn fetch_ahead(&self) {
        let (plan, group) = (self.plan, self.plan.group());
        let part = |width: usize| (self.head * group * width, group * width);
        let (start, len) = part(plan.shape.head_dim);
        for row in self.rows.start / group..self.rows.end.div_ceil(group) {
            let out_row = self.sequence.index * plan.n_q + row;
            prefetch(
                plan.out
                    .get()
                    .wrapping_add(out_row * plan.out_stride + start),
                len,
            );
        }
        let next = self.rows.end / group..(self.rows.end + self.rows.len()) / group;
        let (start, len) = part(plan.row_width());
        for row in next.start..next.end.min(plan.n_q) {
            prefetch(self.sequence.q.row(row)[start..].as_ptr(), len);
        }
    }

    /// Copies the query rows, in the type that is multiplied.
    pub(super) fn take_queries(&self, queries: &mut [u32]) {
        let plan = self.plan;
        let group = plan.group();
        let rows = queries.chunks_exact_mut(plan.query_stride().max(1));
        for (row, out) in self.rows.clone().zip(rows) {
            let head = self.head * group + row % group;
            let from = plan.head_of(self.sequence.q, head).row(row / group);
            let out = &mut out[..plan.dim_words()];
            if plan.is_rounded || plan.precision == Precision::F32 {
                out.copy_from_slice(bytemuck::cast_slice(from));
            } else {
                (plan.kernels.narrow_bf16)(from, out);
            }
        }
    }

    /// `scores[m][key] = <query m, key>` for those of `panels` that some row sees.
    ///
    /// `scores` must have room for the rows of the block, [`Plan::score_stride`] apart, and nobody else may use
    /// the columns of these panels.
    pub(super) fn score(&self, queries: &[u32], panels: Range<usize>, scores: SharedMut<u32>) {
        let plan = self.plan;
        let tiles = plan.precision.tiles(plan.kernels);
        let (words, query_stride) = (plan.dim_words(), plan.query_stride());
        let last_visible = plan.visible(self.rows.end - 1);
        let seen = last_visible.div_ceil(plan.kernels.panel_width);
        // What the first row has passed, the others have too.
        let passed = plan.passed(self.rows.start) / plan.kernels.panel_width;
        let wide_words = plan.wide_steps(plan.byte_words());
        with_scratch(plan.kernels.panel_width * wide_words, |scratch| {
            for panel in panels.start.max(passed)..panels.end.min(seen) {
                let (keys, width) = plan.key_panel(panel);
                let is_stored = matches!(self.packed, Packed::Stored { .. } | Packed::Bytes { .. });
                let right_stride = plan.key_stride(panel, is_stored);
                let steps = match self.packed {
                    Packed::Whole { keys, .. } => &keys[plan.key_panel_words(panel)],
                    Packed::Stored { keys, .. } => {
                        let size = plan.kernels.panel_width * words;
                        &keys[panel * size..(panel + 1) * size]
                    }
                    Packed::Bytes { keys, .. } => {
                        let (width, words) = (plan.kernels.panel_width, plan.byte_words());
                        let bytes = &keys[panel * width * words..(panel + 1) * width * words];
                        plan.widen((bytes, width), words, width, scratch);
                        &scratch[..width * wide_words]
                    }
                    Packed::AsNeeded => {
                        if panel + 1 < panels.end.min(seen) {
                            let next = self.sequence.k.slice(plan.key_panel(panel + 1).0);
                            let next = plan.head_of(next, self.head);
                            for row in 0..next.num_rows() {
                                prefetch(next.row(row).as_ptr(), next.num_cols());
                            }
                        }
                        let steps = &mut scratch[..width * words];
                        plan.pack_keys(self.sequence.k, self.head, panel, steps);
                        &*steps
                    }
                };
                for tile_rows in plan.tiles(self.rows.len()) {
                    if keys.start >= plan.visible(self.rows.start + tile_rows.end - 1) {
                        continue;
                    }
                    let tile = Kernels::tile(tiles, tile_rows.len(), width / plan.kernels.lanes);
                    let left =
                        &queries[tile_rows.start * query_stride..tile_rows.end * query_stride];
                    // SAFETY: the rows have `words` words of queries; the panel has as many steps of at least `width` words;
                    // the scores of a row reach to the padded number of keys, and these columns are ours.
                    unsafe {
                        tile(&Tile {
                            words,
                            left: left.as_ptr(),
                            left_stride: query_stride,
                            right: steps.as_ptr(),
                            right_stride,
                            sums: scores
                                .get()
                                .add(tile_rows.start * plan.score_stride() + keys.start),
                            sums_stride: plan.score_stride(),
                            accumulate: false,
                            ahead: 0,
                        });
                    }
                }
            }
        });
    }

    /// Turns scores into weights, in place or in `weights`, not yet divided by their sum; keys that a row does not
    /// see get zero.
    pub(super) fn soften<'a>(
        &self,
        scores: &'a mut [u32],
        weights: &'a mut [u32],
        sums: &mut [f32],
    ) -> Matrix<'a> {
        let plan = self.plan;
        let factor = plan.shape.scale * std::f32::consts::LOG2_E;
        let (score_stride, weight_stride) = (plan.score_stride(), plan.weight_stride());
        for tile_rows in plan.tiles(self.rows.len()) {
            let seen_by_tile = plan.visible(self.rows.start + tile_rows.end - 1);
            let end = seen_by_tile.next_multiple_of(plan.kernels.lanes);
            for row in tile_rows {
                let visible = plan.visible(self.rows.start + row);
                let length = visible.next_multiple_of(plan.kernels.lanes);
                let scores = &mut scores[row * score_stride..(row + 1) * score_stride];
                let scores: &mut [f32] = bytemuck::cast_slice_mut(scores);
                if let Packed::Bytes { key_scales, .. } = self.packed {
                    (plan.kernels.multiply)(&mut scores[..length], &key_scales[..length]);
                }
                scores[..plan.passed(self.rows.start + row).min(visible)].fill(f32::NEG_INFINITY);
                scores[visible..length].fill(f32::NEG_INFINITY);
                let bias = plan.bias.map(|bias| &bias[..length]);
                let value_scales = match self.packed {
                    Packed::Bytes { value_scales, .. } => Some(&value_scales[..length]),
                    Packed::Whole { .. } | Packed::Stored { .. } | Packed::AsNeeded => None,
                };
                if weight_stride == 0 || value_scales.is_some() {
                    sums[row] = (plan.kernels.softmax)(&mut scores[..length], factor, bias);
                }
                if let Some(scales) = value_scales {
                    (plan.kernels.multiply)(&mut scores[..length], scales);
                }
                if weight_stride == 0 {
                    scores[length..end].fill(0.0);
                } else {
                    let out = &mut weights[row * weight_stride..][..end.div_ceil(2)];
                    let (out, hidden) = out.split_at_mut(length.div_ceil(2));
                    hidden.fill(0);
                    if value_scales.is_some() {
                        (plan.kernels.narrow_bf16)(&scores[..length], out);
                    } else {
                        sums[row] =
                            (plan.kernels.softmax_bf16)(&mut scores[..length], factor, bias, out);
                    }
                }
            }
        }
        if weight_stride == 0 {
            Matrix {
                words: scores,
                stride: score_stride,
            }
        } else {
            Matrix {
                words: weights,
                stride: weight_stride,
            }
        }
    }

    /// `out[m] = Σ_key weight[m][key] · value[key] / sum[m]` for a run of columns.
    pub(super) fn gather(&self, columns: &Columns, weights: Matrix<'_>, sums: &[f32]) {
        let plan = self.plan;
        let (steps, width) = (plan.value_steps(), columns.width);
        // Whole vectors of `f32` are multiplied where they lie; anything else is packed a piece at a time.
        let is_whole = columns.range.len() == width && plan.precision == Precision::F32;
        let (right, stride, ahead) = match self.packed {
            Packed::Whole { values, .. } => {
                let start = columns.range.start * steps;
                let right = &values[start..start + steps * width];
                (right.as_ptr(), width, 0)
            }
            Packed::Stored {
                values,
                value_stride,
                ..
            } => {
                let right = &values[..steps * value_stride];
                let right = &right[columns.range.start.min(right.len())..];
                (right.as_ptr(), value_stride, 0)
            }
            Packed::AsNeeded if is_whole => {
                let v = plan.head_of(self.sequence.v, self.head);
                let v = v.columns(columns.range.clone());
                (v.as_ptr().cast(), v.stride(), ROWS_AHEAD * v.stride())
            }
            Packed::Bytes {
                values,
                value_stride,
                ..
            } => {
                let seen = plan.wide_steps(plan.visible(self.rows.end - 1).div_ceil(4));
                let wide = plan.wide_steps(1);
                return self.gather_pieces(columns, weights, sums, seen, |range, piece| {
                    let (first, count) = (range.start / wide, range.len() / wide);
                    let bytes = &values[first * value_stride + columns.range.start..];
                    plan.widen((bytes, value_stride), count, width, piece);
                });
            }
            Packed::AsNeeded => {
                let v = plan.head_of(self.sequence.v, self.head);
                return self.gather_pieces(columns, weights, sums, steps, |range, piece| {
                    for (step, out) in range.zip(piece.chunks_exact_mut(width)) {
                        plan.pack_step(v, columns, step, out);
                    }
                });
            }
        };
        with_scratch(self.rows.len() * MAX_PANEL_WIDTH, |tile_sums| {
            self.add_values(0..steps, (right, stride, ahead), width, weights, tile_sums);
            self.write(columns, tile_sums, sums);
        });
    }

    /// The same from `steps` steps that `make` writes a piece at a time.
    fn gather_pieces(
        &self,
        columns: &Columns,
        weights: Matrix<'_>,
        sums: &[f32],
        steps: usize,
        make: impl Fn(Range<usize>, &mut [u32]),
    ) {
        let width = columns.width;
        let words = (PIECE_STEPS + self.rows.len()) * MAX_PANEL_WIDTH;
        with_scratch(words, |scratch| {
            let (piece, tile_sums) = scratch.split_at_mut(PIECE_STEPS * MAX_PANEL_WIDTH);
            tile_sums.fill(0);
            for first in (0..steps).step_by(PIECE_STEPS) {
                let range = first..(first + PIECE_STEPS).min(steps);
                make(range.clone(), piece);
                let right = (piece.as_ptr(), width, 0);
                self.add_values(range, right, width, weights, tile_sums);
            }
            self.write(columns, tile_sums, sums);
        });
    }

    /// Adds the products of steps `range` to the sums, or begins them. `right` has these steps: where they start, the
    /// distance between them, and how far ahead to fetch.
    fn add_values(
        &self,
        range: Range<usize>,
        (right, right_stride, ahead): (*const u32, usize, usize),
        width: usize,
        weights: Matrix<'_>,
        tile_sums: &mut [u32],
    ) {
        let plan = self.plan;
        let tiles = plan.precision.tiles(plan.kernels);
        for tile_rows in plan.tiles(self.rows.len()) {
            let visible = plan.visible(self.rows.start + tile_rows.end - 1);
            // Weights before the window are zero, and so are their products.
            let passed = plan.passed(self.rows.start + tile_rows.start);
            let words_passed = plan.precision.words(passed.saturating_sub(1));
            let begin = words_passed.clamp(range.start, range.end);
            let words = plan
                .precision
                .words(visible)
                .min(range.end)
                .saturating_sub(begin);
            let tile = Kernels::tile(tiles, tile_rows.len(), width / plan.kernels.lanes);
            let left =
                &weights.words[tile_rows.start * weights.stride..tile_rows.end * weights.stride];
            let tile_sums =
                &mut tile_sums[tile_rows.start * MAX_PANEL_WIDTH..tile_rows.end * MAX_PANEL_WIDTH];
            // SAFETY: every row has weights up to `visible`, padded to whole vectors; `right` has a step of `width`
            // words for each of `range`, of which the first are left out; the sums were cut to the tile and begun by
            // the first piece.
            unsafe {
                tile(&Tile {
                    words,
                    left: left[begin.min(left.len())..].as_ptr(),
                    left_stride: weights.stride,
                    right: right.wrapping_add((begin - range.start) * right_stride),
                    right_stride,
                    sums: tile_sums.as_mut_ptr(),
                    sums_stride: MAX_PANEL_WIDTH,
                    accumulate: range.start > 0,
                    ahead,
                });
            }
        }
    }

    /// Divides sums of values by the sums of their weights and writes them.
    fn write(&self, columns: &Columns, tile_sums: &[u32], sums: &[f32]) {
        let plan = self.plan;
        let (dim, group) = (plan.shape.head_dim, plan.group());
        let count = columns.range.len();
        for ((row, values), &sum) in self
            .rows
            .clone()
            .zip(tile_sums.chunks_exact(MAX_PANEL_WIDTH))
            .zip(sums)
        {
            let query_row = self.sequence.index * plan.n_q + row / group;
            let start = (self.head * group + row % group) * dim + columns.range.start;
            // SAFETY: `check` compared the output's shape with the query's; these columns of this row and head
            // belong to this job alone.
            let out = unsafe {
                let start = plan.out.get().add(query_row * plan.out_stride + start);
                std::slice::from_raw_parts_mut(start, count)
            };
            let inverse = if sum == 0.0 { 0.0 } else { 1.0 / sum };
            (plan.kernels.scale)(bytemuck::cast_slice(&values[..count]), inverse, out);
        }
    }
}
