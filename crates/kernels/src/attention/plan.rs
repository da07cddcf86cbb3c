//! The geometry of one call, and the packing of keys and values.

#![expect(unsafe_code, reason = "panels are packed behind raw pointers")]

use std::ops::Range;

use crate::attention::{AttentionShape, Mask};
use crate::gemm::{self, Precision};
use crate::memory::{LINE, with_scratch};
use crate::pack::Panel;
use crate::parallel::SharedMut;
use crate::rows::Rows;
use crate::simd::{Kernels, MAX_PANEL_WIDTH};
use crate::widen::Steps;

/// Words of scores in a block: 192 KiB, beside which the keys and values of a head of 1024 rows still fit
/// the second level of cache.
const STRIPE_WORDS: usize = 49_152;
/// Rows in a block, at most.
pub(super) const STRIPE_ROWS: usize = 48;

/// What all blocks of a call share.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) precision: Precision,
    /// Whether queries, keys and values are bfloat16 already, two to a value of their rows.
    pub(super) is_rounded: bool,
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

/// A run of columns of a head and the width in words of their panel.
#[derive(Clone)]
pub(super) struct Columns {
    pub(super) range: Range<usize>,
    pub(super) width: usize,
}

impl Plan<'_> {
    /// Query heads that share a key head.
    pub(super) fn group(&self) -> usize {
        self.shape.q_heads / self.shape.kv_heads
    }

    /// Rows of a block that holds the whole sequence: block row `m` is query row `m / group`, query head
    /// `head · group + m % group`.
    pub(super) fn num_rows(&self) -> usize {
        self.n_q * self.group()
    }

    /// The blocks of a sequence: whole tiles, but for the last.
    pub(super) fn blocks(&self) -> Vec<Range<usize>> {
        let (tile, rows) = (self.kernels.tile_rows, self.num_rows());
        let at_most = (STRIPE_WORDS / self.padded_keys().max(1)).min(STRIPE_ROWS) / tile;
        let tiles = rows.div_ceil(tile);
        gemm::split(tiles, tiles.div_ceil(at_most.max(1)))
            .map(|tiles| tiles.start * tile..(tiles.end * tile).min(rows))
            .collect()
    }

    /// Cuts rows of a block into tiles.
    pub(super) fn tiles(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        gemm::split(rows, rows.div_ceil(self.kernels.tile_rows))
    }

    /// Keys that block row `row` may see, from the first.
    pub(super) fn visible(&self, row: usize) -> usize {
        match self.mask {
            Mask::Full | Mask::Keys(_) => self.n_k,
            Mask::Causal { offset } | Mask::Window { offset, .. } => (row / self.group())
                .saturating_add(offset)
                .saturating_add(1)
                .min(self.n_k),
        }
    }

    /// Keys from the first that block row `row` does not see any more.
    pub(super) fn passed(&self, row: usize) -> usize {
        match self.mask {
            Mask::Full | Mask::Keys(_) | Mask::Causal { .. } => 0,
            Mask::Window { offset, window } => (row / self.group())
                .saturating_add(offset)
                .saturating_add(1)
                .saturating_sub(window)
                .min(self.n_k),
        }
    }

    pub(super) fn padded_keys(&self) -> usize {
        self.n_k.next_multiple_of(self.kernels.lanes)
    }

    /// Words of a query or key.
    pub(super) fn dim_words(&self) -> usize {
        self.precision.words(self.shape.head_dim)
    }

    /// Values of a row that a head has.
    pub(super) fn row_width(&self) -> usize {
        if self.is_rounded {
            self.dim_words()
        } else {
            self.shape.head_dim
        }
    }

    /// Distance between query rows in scratch.
    pub(super) fn query_stride(&self) -> usize {
        self.dim_words().next_multiple_of(LINE)
    }

    /// Distance between rows of scores: not a multiple of 4 KiB for the usual numbers of keys, so that the rows
    /// of a tile fall into different cache lines.
    pub(super) fn score_stride(&self) -> usize {
        self.padded_keys().next_multiple_of(LINE) + LINE
    }

    /// Distance between rows of weights, where they are kept apart from the scores.
    pub(super) fn weight_stride(&self) -> usize {
        match self.precision {
            Precision::F32 => 0,
            Precision::Bf16 | Precision::Bf16Short | Precision::Int8 | Precision::Int4 => {
                self.score_stride().div_ceil(2).next_multiple_of(LINE)
            }
        }
    }

    pub(super) fn num_key_panels(&self) -> usize {
        self.n_k.div_ceil(self.kernels.panel_width)
    }

    /// Keys of panel `panel`, and its width in words.
    pub(super) fn key_panel(&self, panel: usize) -> (Range<usize>, usize) {
        let start = panel * self.kernels.panel_width;
        let end = (start + self.kernels.panel_width).min(self.n_k);
        (
            start..end,
            (end - start).next_multiple_of(self.kernels.lanes),
        )
    }

    /// Distance between the steps of key panel `panel` in words: those of a store are all full.
    pub(super) fn key_stride(&self, panel: usize, is_stored: bool) -> usize {
        if is_stored {
            self.kernels.panel_width
        } else {
            self.key_panel(panel).1
        }
    }

    /// Words of the packed keys of a head.
    pub(super) fn key_words(&self) -> usize {
        self.padded_keys() * self.dim_words()
    }

    /// Where panel `panel` stands in the packed keys.
    pub(super) fn key_panel_words(&self, panel: usize) -> Range<usize> {
        let (keys, width) = self.key_panel(panel);
        keys.start * self.dim_words()..(keys.start + width) * self.dim_words()
    }

    /// Packs one panel of keys: step `d` has word `d` of every key.
    pub(super) fn pack_keys(&self, k: Rows<'_>, head: usize, panel: usize, to: &mut [u32]) {
        let (keys, width) = self.key_panel(panel);
        let words = self.dim_words();
        assert_eq!(to.len(), width * words, "a panel of another size is a bug");
        let k = self.head_of(k.slice(keys.clone()), head);
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
        if self.is_rounded || self.precision == Precision::F32 {
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

    /// Words of the packed values of a head. Those of the columns from `c` on start at `c · value_steps`.
    pub(super) fn value_words(&self) -> usize {
        self.value_steps() * self.shape.head_dim.next_multiple_of(self.kernels.lanes)
    }

    /// The columns of a head in runs of at most `vectors` vectors. They are as equal as possible, since a panel of
    /// one vector leaves the multipliers waiting for each other.
    pub(super) fn columns(&self, vectors: usize) -> impl Iterator<Item = Columns> + use<> {
        let (dim, lanes) = (self.shape.head_dim, self.kernels.lanes);
        let all = dim.div_ceil(lanes);
        gemm::split(all, all.div_ceil(vectors)).map(move |vectors| Columns {
            range: vectors.start * lanes..(vectors.end * lanes).min(dim),
            width: vectors.len() * lanes,
        })
    }

    /// Columns of a head as they are packed.
    pub(super) fn full_columns(&self) -> impl Iterator<Item = Columns> + use<> {
        self.columns(self.kernels.panel_width / self.kernels.lanes)
    }

    /// Packs the values of a head: one run of columns after another, each step with one word of every column.
    pub(super) fn pack_values(&self, v: Rows<'_>, head: usize, to: &mut [u32]) {
        let v = self.head_of(v, head);
        for columns in self.full_columns() {
            let start = columns.range.start * self.value_steps();
            let to = &mut to[start..start + self.value_steps() * columns.width];
            for (step, out) in to.chunks_exact_mut(columns.width).enumerate() {
                self.pack_step(v, &columns, step, out);
            }
        }
    }

    /// One step of a run of columns of the values of a head.
    pub(super) fn pack_step(&self, v: Rows<'_>, columns: &Columns, step: usize, out: &mut [u32]) {
        let (used, padding) = out.split_at_mut(columns.range.len());
        padding.fill(0);
        if self.precision == Precision::F32 {
            used.copy_from_slice(bytemuck::cast_slice(&v.row(step)[columns.range.clone()]));
            return;
        }
        if self.is_rounded {
            let halves =
                |row: usize| -> &[u16] { &bytemuck::cast_slice(v.row(row))[columns.range.clone()] };
            let zeros = [0; MAX_PANEL_WIDTH];
            let high = if 2 * step + 1 < self.n_k {
                halves(2 * step + 1)
            } else {
                &zeros[..columns.range.len()]
            };
            (self.kernels.pair_halves)(halves(2 * step), high, used);
            return;
        }
        let zeros = [0.0; MAX_PANEL_WIDTH];
        let high = if 2 * step + 1 < self.n_k {
            &v.row(2 * step + 1)[columns.range.clone()]
        } else {
            &zeros[..columns.range.len()]
        };
        (self.kernels.pair_bf16)(&v.row(2 * step)[columns.range.clone()], high, used);
    }

    /// Words of a key in bytes.
    pub(super) fn byte_words(&self) -> usize {
        Precision::Int8.words(self.shape.head_dim)
    }

    /// Steps that `count` steps of bytes become.
    pub(super) fn wide_steps(&self, count: usize) -> usize {
        match self.precision {
            Precision::F32 => 4 * count,
            Precision::Bf16 | Precision::Bf16Short | Precision::Int8 | Precision::Int4 => 2 * count,
        }
    }

    /// Widens `count` steps of bytes, given with their distance, to steps of `width` words.
    pub(super) fn widen(
        &self,
        (from, from_stride): (&[u32], usize),
        count: usize,
        width: usize,
        to: &mut [u32],
    ) {
        let read = count.saturating_sub(1) * from_stride + width;
        assert!(
            count == 0 || (read <= from.len() && self.wide_steps(count) * width <= to.len()),
            "steps of bytes without room is a bug"
        );
        let steps = Steps {
            from: from.as_ptr(),
            from_stride,
            count,
            width,
            to: to.as_mut_ptr(),
        };
        // SAFETY: the lengths were just checked.
        unsafe {
            match self.precision {
                Precision::F32 => (self.kernels.widen_bytes_f32)(&steps),
                Precision::Bf16 | Precision::Bf16Short | Precision::Int8 | Precision::Int4 => {
                    (self.kernels.widen_bytes_bf16)(&steps);
                }
            }
        }
    }

    /// The columns of one head.
    pub(super) fn head_of<'a>(&self, rows: Rows<'a>, head: usize) -> Rows<'a> {
        let width = self.row_width();
        rows.columns(head * width..(head + 1) * width)
    }
}
