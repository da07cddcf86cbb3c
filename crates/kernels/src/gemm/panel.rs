//! Takes the rows of a job through panels of weights: which tile, in what blocks of the shared dimension, and what
//! happens to finished sums.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]

use std::ops::Range;

use crate::gemm::drive::split;
use crate::gemm::operand::Operand;
use crate::gemm::{Activation, PackedMatrix, Precision, Write, int4, widen};
use crate::memory::with_scratch;
use crate::micro::{Finish, Tile};
use crate::nibble_tile::Unpack;
use crate::parallel::SharedMut;
use crate::simd::{Kernels, MAX_PANEL_WIDTH, MAX_TILE_ROWS};

/// Steps of the shared dimension in a block: 1024 steps of a 64-wide panel are 256 KiB.
const BLOCK_WORDS: usize = 1024;
/// The same for two or three tiles of rows: 16 KiB, so that all but the first find the panel in the first level
/// of cache, beside the block fetched ahead.
const SHORT_BLOCK_WORDS: usize = 64;
/// How far ahead weights are fetched that are read once, by a single tile: 16 KiB.
const AHEAD_WORDS: usize = 4096;
/// Rows up to which four-bit weights are unpacked in registers; from there on the registers do not hold the sums.
const NIBBLE_ROWS: usize = 4;

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
    /// Unpacking begins where a step of multipliers does.
    grain: usize,
    /// Four-bit weights that go from memory to registers, as each does of the few rows of a decode step.
    in_registers: bool,
    /// Of two or three tiles all but the first find their block in the first level of cache.
    is_short: bool,
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
    let (words, precision) = (first.weights.words(), first.weights.precision());
    let is_nibbles = precision == Precision::Int4;
    let in_registers = is_nibbles && rows.len() <= NIBBLE_ROWS;
    let num_tiles = rows.len().div_ceil(kernels.tile_rows);
    let is_short = (2..=3).contains(&num_tiles);
    let block_words = match num_tiles {
        0 | 1 if in_registers || !is_nibbles => usize::MAX,
        0 | 1 => SHORT_BLOCK_WORDS,
        _ if is_short => SHORT_BLOCK_WORDS,
        _ => BLOCK_WORDS,
    };
    let plan = Plan {
        kernels,
        num_tiles,
        num_blocks: words.div_ceil(block_words).max(1),
        grain: if is_nibbles { int4::SPAN_WORDS } else { 1 },
        in_registers,
        is_short,
    };
    // Sums wait in memory only where the shared dimension is cut; otherwise each tile is finished at once.
    let waiting_rows = if plan.num_blocks > 1 {
        rows.len()
    } else {
        MAX_TILE_ROWS
    };
    let waiting_words = waiting_rows * MAX_PANEL_WIDTH;
    let wide_words = if first.operand.is_wide {
        2 * words.div_ceil(plan.num_blocks) * kernels.panel_width
    } else if is_nibbles && !in_registers {
        words.div_ceil(plan.grain).div_ceil(plan.num_blocks) * plan.grain * kernels.panel_width
    } else {
        0
    };
    with_scratch(waiting_words + wide_words, |scratch| {
        let (sums, wide) = scratch.split_at_mut(waiting_words);
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
                plan.take(pass, out, &at, rows.clone(), [sums, wide]);
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
    /// Takes all rows through a panel, with scratch for sums that wait and for an unpacked block.
    fn take(
        &self,
        pass: &Pass<'_>,
        out: Out,
        at: &Columns,
        rows: Range<usize>,
        [sums, wide]: [&mut [u32]; 2],
    ) {
        let Self {
            kernels,
            num_tiles,
            num_blocks,
            grain,
            in_registers,
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
        let is_nibbles = precision == Precision::Int4;
        let tiles = if operand.is_wide {
            &kernels.tiles_f32
        } else if in_registers {
            &kernels.tiles_nibbles
        } else {
            precision.tiles(kernels)
        };
        let parts = if operand.is_wide { 2 } else { 1 };
        let finish = match precision {
            Precision::Int8 | Precision::Int4 => kernels.finish_integers,
            Precision::F32 | Precision::Bf16 => kernels.finish_floats,
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
            let mut right = if is_nibbles {
                &steps[int4::step_of(range.start) * width..]
            } else {
                &steps[range.start * stride + skipped..range.end * stride]
            };
            if is_nibbles && !in_registers {
                // SAFETY: the panel has all steps up to its last, the scratch an even number for each block.
                unsafe {
                    (kernels.unpack_nibbles)(&Unpack {
                        from: right.as_ptr(),
                        width,
                        words: range.len(),
                        to: wide.as_mut_ptr(),
                    });
                }
                right = &wide[..range.len() * width];
            } else if operand.is_wide {
                let wide = &mut wide[..2 * right.len()];
                widen_steps(right, width, wide);
                right = wide;
            }
            for tile_rows in split(rows.len(), num_tiles) {
                let start = if num_blocks > 1 {
                    tile_rows.start * MAX_PANEL_WIDTH
                } else {
                    0
                };
                let sums = &mut sums[start..start + tile_rows.len() * MAX_PANEL_WIDTH];
                let tile = Kernels::tile(tiles, tile_rows.len(), width / kernels.lanes);
                // SAFETY: the tile's rows are rows of the operand, whose words reach to `range.end`; the
                // panel has `width` words from there on in each of its steps; the sums were cut to the tile's rows.
                unsafe {
                    tile(&Tile {
                        words: parts * range.len(),
                        left: operand
                            .words
                            .add(tile_rows.start * operand.stride + parts * range.start),
                        left_stride: operand.stride,
                        right: right.as_ptr(),
                        right_stride: stride,
                        sums: sums.as_mut_ptr(),
                        sums_stride: MAX_PANEL_WIDTH,
                        accumulate: block > 0,
                        // The last tile over a short block fetches the next one: without it memory would
                        // wait while the tiles after the first run from the cache.
                        ahead: if is_short && tile_rows.end == rows.len() {
                            range.len() * width
                        } else if num_tiles == 1 {
                            AHEAD_WORDS
                        } else {
                            0
                        },
                    });
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
