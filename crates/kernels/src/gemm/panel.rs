//! Takes the rows of a job through panels of weights: which tile, in what blocks of the shared dimension, and what
//! happens to finished sums.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]

use std::ops::Range;

use crate::gemm::drive::split;
use crate::gemm::operand::Operand;
use crate::gemm::{Activation, PackedMatrix, Precision, Write, int4, short, widen};
use crate::memory::with_scratch;
use crate::micro::{Finish, Tile};
use crate::nibble_tile::Unpack;
use crate::parallel::SharedMut;
use crate::short_tile;
use crate::simd::{Kernels, MAX_PANEL_WIDTH, MAX_TILE_ROWS};

/// Steps of the shared dimension in a block: 1024 steps of a 64-wide panel are 256 KiB.
const BLOCK_WORDS: usize = 1024;
/// The same for a few tiles of rows: 16 KiB, so that all but the first find the panel in the first level of cache, beside
/// the block fetched ahead.
const SHORT_BLOCK_WORDS: usize = 64;
/// So many tiles at most; with more the time to bring a block hardly counts.
const SHORT_BLOCK_TILES: usize = 8;
/// How far ahead weights are fetched that are read once, by a single tile: 16 KiB.
const AHEAD_WORDS: usize = 4096;
/// Rows up to which four-bit weights are unpacked in registers; from there on the registers do not hold the sums.
const NIBBLE_ROWS: usize = 4;
/// The same for bfloat16 in twelve bits.
const SHORT_ROWS: usize = 4;

/// A product of rows with a run of panels, and where its results go.
pub(super) struct Pass<'a> {
    pub(super) weights: &'a PackedMatrix,
    /// The rows, narrowed for these weights.
    pub(super) operand: Operand<'a>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
    pub(super) write: Write,
}

/// The output that the passes of a job share.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) data: SharedMut<f32>,
    pub(super) stride: usize,
}

/// How the passes of a job go through their panels; the same for all, since precision and shapes are.
struct Plan<'a> {
    kernels: &'a Kernels,
    num_tiles: usize,
    num_blocks: usize,
    /// Steps that are spelt out together: where there are such, a block begins where they do.
    grain: usize,
    /// What a panel is before it is multiplied.
    form: Form,
    /// Of a few tiles all but the first find their block in the first level of cache.
    is_short: bool,
}

/// How the panels of a product are spelt, and whether they are spelt out before tiles read them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As tiles read them.
    Plain,
    /// Four-bit weights that go from memory to registers, as each does of the few rows of a decode step.
    NibblesInRegisters,
    /// Four-bit weights whose bytes are written for the tiles.
    Nibbles,
    /// bfloat16 in twelve bits that goes from memory to registers.
    ShortInRegisters,
    /// bfloat16 in twelve bits, written in sixteen for the tiles.
    Short,
}

impl Form {
    fn of(precision: Precision, rows: usize) -> Self {
        match precision {
            Precision::Int4 if rows <= NIBBLE_ROWS => Self::NibblesInRegisters,
            Precision::Int4 => Self::Nibbles,
            Precision::Bf16Short if rows <= SHORT_ROWS => Self::ShortInRegisters,
            Precision::Bf16Short => Self::Short,
            Precision::F32 | Precision::Bf16 | Precision::Int8 => Self::Plain,
        }
    }

    /// Whether panels are spelt out in scratch.
    fn is_spelt(self) -> bool {
        matches!(self, Self::Nibbles | Self::Short)
    }

    fn grain(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::NibblesInRegisters | Self::Nibbles => int4::SPAN_WORDS,
            Self::ShortInRegisters | Self::Short => short::SPAN,
        }
    }
}

/// Multiplies the rows of the operands, which are `rows` of the output, with a run of vectors of output features: whole
/// panels, but for what can be halved. Each panel is taken by all passes (of one precision and shape, which are one or two)
/// before the next, so that the second finds in the cache what the first wrote.
pub(super) fn multiply(
    kernels: &Kernels,
    passes: &[Pass<'_>],
    out: Out,
    rows: Range<usize>,
    vectors: Range<usize>,
) {
    let Some(first) = passes.first() else { return };
    let words = first.weights.words();
    let form = Form::of(first.weights.precision(), rows.len());
    let num_tiles = rows.len().div_ceil(kernels.tile_rows);
    let is_short = (2..=SHORT_BLOCK_TILES).contains(&num_tiles);
    let block_words = match num_tiles {
        0 | 1 if !form.is_spelt() => usize::MAX,
        0 | 1 => SHORT_BLOCK_WORDS,
        _ if is_short => SHORT_BLOCK_WORDS,
        _ => BLOCK_WORDS,
    };
    let plan = Plan {
        kernels,
        num_tiles,
        num_blocks: words.div_ceil(block_words).max(1),
        grain: form.grain(),
        form,
        is_short,
    };
    // Sums wait in memory only where the shared dimension is cut; otherwise each tile is finished at once.
    let waiting_rows = if plan.num_blocks > 1 {
        rows.len()
    } else {
        MAX_TILE_ROWS
    };
    let waiting_words = waiting_rows * MAX_PANEL_WIDTH;
    let block_steps = words.div_ceil(plan.grain).div_ceil(plan.num_blocks) * plan.grain;
    let spelt_words = if form.is_spelt() {
        block_steps * kernels.panel_width
    } else {
        0
    };
    let wide_words = if first.operand.is_wide {
        2 * block_steps * kernels.panel_width
    } else {
        0
    };
    with_scratch(waiting_words + spelt_words + wide_words, |scratch| {
        let (sums, scratch) = scratch.split_at_mut(waiting_words);
        let (spelt, wide) = scratch.split_at_mut(spelt_words);
        let in_panel = kernels.panel_width / kernels.lanes;
        let last_panel = vectors.end.div_ceil(in_panel);
        for panel in vectors.start / in_panel..last_panel {
            // Words of a step, where the part of this job begins in it, and how many it has.
            let stride = first.weights.panel_width(kernels, panel);
            let skipped = vectors.start.saturating_sub(panel * in_panel) * kernels.lanes;
            let width = stride.min((vectors.end - panel * in_panel) * kernels.lanes) - skipped;
            let at = Columns {
                panel,
                stride,
                skipped,
                width,
            };
            for pass in passes {
                plan.take(pass, out, &at, rows.clone(), [sums, spelt, wide]);
            }
        }
    });
}

/// The part of a panel that a job has.
struct Columns {
    panel: usize,
    /// Words of a step of the panel.
    stride: usize,
    /// Words of each step before the part.
    skipped: usize,
    /// Words of each step in the part.
    width: usize,
}

impl Plan<'_> {
    /// Takes all rows through a panel, with scratch for sums that wait, for a block that is spelt out and for a wide one.
    fn take(
        &self,
        pass: &Pass<'_>,
        out: Out,
        at: &Columns,
        rows: Range<usize>,
        [sums, spelt, wide]: [&mut [u32]; 3],
    ) {
        let Self {
            kernels,
            num_tiles,
            num_blocks,
            grain,
            form,
            is_short,
        } = *self;
        let Columns {
            panel,
            stride,
            skipped,
            width,
        } = *at;
        let (weights, operand) = (pass.weights, pass.operand);
        let (words, precision) = (weights.words(), weights.precision());
        let tiles = if operand.is_wide {
            &kernels.tiles_f32
        } else if form == Form::NibblesInRegisters {
            &kernels.tiles_nibbles
        } else {
            precision.tiles(kernels)
        };
        let parts = if operand.is_wide { 2 } else { 1 };
        let finish = match precision {
            Precision::Int8 | Precision::Int4 => kernels.finish_integers,
            Precision::F32 | Precision::Bf16 | Precision::Bf16Short => kernels.finish_floats,
        };
        let first_column = panel * kernels.panel_width + skipped;
        let columns = width.min(weights.out_features() - first_column);
        let steps = weights.panel(kernels, panel);
        let bias = pass
            .bias
            .map(|bias| &bias[first_column..first_column + columns]);
        let (column_scales, compensation) = weights.scales_from(first_column);
        for (block, range) in split(words.div_ceil(grain), num_blocks).enumerate() {
            let range = range.start * grain..(range.end * grain).min(words);
            let (mut right, right_stride) = match form {
                Form::Plain => (
                    &steps[range.start * stride + skipped..range.end * stride],
                    stride,
                ),
                Form::NibblesInRegisters => (&steps[int4::step_of(range.start) * width..], stride),
                Form::ShortInRegisters => (steps, stride),
                Form::Nibbles | Form::Short => {
                    self.spell(weights, at, &range, spelt);
                    (&spelt[..range.len() * width], width)
                }
            };
            if operand.is_wide {
                let wide = &mut wide[..2 * right.len()];
                widen_steps(right, width, wide);
                right = wide;
            }
            // The last tile over a short block fetches the next one: without it memory would wait while the tiles after
            // the first run from the cache, or while weights are spelt out.
            let ahead = match form {
                Form::Short if is_short || num_tiles == 1 => {
                    let next = short::steps(range.end) * stride + short::QUAD_WORDS * skipped;
                    let next = steps.as_ptr().wrapping_add(next);
                    next.addr().wrapping_sub(right.as_ptr().addr()) / size_of::<u32>()
                }
                Form::Plain if is_short => range.len() * width,
                Form::Plain if num_tiles == 1 => AHEAD_WORDS,
                Form::Plain
                | Form::NibblesInRegisters
                | Form::Nibbles
                | Form::ShortInRegisters
                | Form::Short => 0,
            };
            for tile_rows in split(rows.len(), num_tiles) {
                let start = if num_blocks > 1 {
                    tile_rows.start * MAX_PANEL_WIDTH
                } else {
                    0
                };
                let sums = &mut sums[start..start + tile_rows.len() * MAX_PANEL_WIDTH];
                let (height, vectors) = (tile_rows.len(), width / kernels.lanes);
                // SAFETY: the tile's rows are rows of the operand, whose words reach to `range.end`; the
                // panel has `width` words from there on in each of its steps; the sums were cut to the tile's rows.
                unsafe {
                    if form == Form::ShortInRegisters {
                        let (columns, escapes) = short_columns(steps, weights, at, 0);
                        let tile = Kernels::tile(&kernels.tiles_shorts, height, vectors);
                        tile(&short_tile::Tile {
                            columns,
                            words,
                            left: operand.words.add(tile_rows.start * operand.stride),
                            left_stride: operand.stride,
                            sums: sums.as_mut_ptr(),
                            sums_stride: MAX_PANEL_WIDTH,
                            escapes: &|span| escapes.of(panel, span),
                        });
                    } else {
                        let tile = Kernels::tile(tiles, height, vectors);
                        tile(&Tile {
                            words: parts * range.len(),
                            left: operand
                                .words
                                .add(tile_rows.start * operand.stride + parts * range.start),
                            left_stride: operand.stride,
                            right: right.as_ptr(),
                            right_stride,
                            sums: sums.as_mut_ptr(),
                            sums_stride: MAX_PANEL_WIDTH,
                            accumulate: block > 0,
                            ahead: if tile_rows.end == rows.len() {
                                ahead
                            } else {
                                0
                            },
                        });
                    }
                }
                if block + 1 < num_blocks {
                    continue;
                }
                let row = rows.start + tile_rows.start;
                let first = pass.write.width(first_column);
                // SAFETY: `check` compared the output's shape with the rows and the features; these rows
                // and columns of it belong to this job alone.
                unsafe {
                    finish(&Finish {
                        sums: sums.as_ptr(),
                        sums_stride: MAX_PANEL_WIDTH,
                        rows: tile_rows.len(),
                        columns,
                        out: out.data.get().add(row * out.stride + first),
                        out_stride: out.stride,
                        bias,
                        row_scales: operand.scales.get(tile_rows.clone()).unwrap_or(&[]),
                        column_scales,
                        compensation,
                        activation: pass.activation,
                        write: pass.write,
                    });
                }
            }
        }
    }

    /// Spells out the steps `range` of a part of a panel, `at.width` words each.
    fn spell(&self, weights: &PackedMatrix, at: &Columns, range: &Range<usize>, out: &mut [u32]) {
        let kernels = self.kernels;
        let steps = weights.panel(kernels, at.panel);
        if self.form == Form::Nibbles {
            let from = &steps[int4::step_of(range.start) * at.width..];
            // SAFETY: the panel has all steps up to its last, the scratch an even number for each block.
            unsafe {
                (kernels.unpack_nibbles)(&Unpack {
                    from: from.as_ptr(),
                    width: at.width,
                    words: range.len(),
                    to: out.as_mut_ptr(),
                });
            }
            return;
        }
        let (columns, escapes) = short_columns(steps, weights, at, range.start);
        // SAFETY: the panel has all quads up to its last, the scratch whole quads for each block.
        unsafe {
            (kernels.lengthen)(
                &columns,
                range.len().div_ceil(short::QUAD),
                out.as_mut_ptr(),
            );
        }
        let block = &mut out[..range.len() * at.width];
        escapes.restore(at.panel, range.start, [at.skipped, at.width], block);
    }
}

/// The part of a panel that a job has, from step `first` on.
fn short_columns<'a>(
    steps: &[u32],
    weights: &'a PackedMatrix,
    at: &Columns,
    first: usize,
) -> (short_tile::Columns<'a>, &'a short::Escapes) {
    let Some(escapes) = weights.escapes() else {
        unreachable!("weights in twelve bits have escapes")
    };
    let start = short::steps(first) * at.stride + short::QUAD_WORDS * at.skipped;
    let columns = short_tile::Columns {
        from: steps[start..].as_ptr(),
        stride: at.stride,
        skipped: at.skipped,
        width: at.width,
        codes: escapes.codes(at.panel),
    };
    (columns, escapes)
}

/// The two bfloat16 of every step of a panel as two steps of `f32`.
fn widen_steps(steps: &[u32], width: usize, out: &mut [u32]) {
    for (step, out) in steps
        .chunks_exact(width)
        .zip(out.chunks_exact_mut(2 * width))
    {
        let (low, high) = out.split_at_mut(width);
        for ((&word, low), high) in step.iter().zip(low).zip(high) {
            [*low, *high] = widen(word);
        }
    }
}
