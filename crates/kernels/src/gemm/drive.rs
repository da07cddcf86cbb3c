//! Cuts products into jobs and walks the caches.
//!
//! A job is a block of rows times a run of panels. Inside it one panel at a time (one block of the shared
//! dimension of it, where the panel is long) stays in the second level of cache while the rows of the block
//! pass by six at a time. With few rows a job is a run of panels, so that the weights are read once, spread
//! over the threads.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]

use std::ops::Range;

use crate::gemm::operand::{Form, Operand, widen, with_operands};
use crate::gemm::{PackedMatrix, Precision, Product, int4};
use crate::memory::with_scratch;
use crate::micro::{Finish, Tile};
use crate::nibble_tile::Unpack;
use crate::parallel::{self, SharedMut};
use crate::rows::Rows;
use crate::simd::{Kernels, MAX_PANEL_WIDTH, MAX_TILE_ROWS};

/// Steps of the shared dimension in a block: 1024 steps of a 64-wide panel are 256 KiB.
const BLOCK_WORDS: usize = 1024;
/// The same for two or three tiles of rows: 16 KiB, so that all but the first find the panel in the first level
/// of cache, beside the block fetched ahead.
const SHORT_BLOCK_WORDS: usize = 64;
/// How far ahead weights are fetched that are read once, by a single tile: 16 KiB.
const AHEAD_WORDS: usize = 4096;
/// Rows in a block, about.
const BLOCK_ROWS: usize = 144;
/// Rows up to which four-bit weights are unpacked in registers; from there on the registers do not hold the sums.
const NIBBLE_ROWS: usize = 4;
/// Jobs for each thread: enough that one slow thread does not hold up the others.
const JOBS_PER_THREAD: usize = 4;

/// What several jobs need of a product.
struct Task<'a> {
    weights: &'a PackedMatrix,
    product: &'a Product<'a>,
    out: SharedMut<f32>,
    out_stride: usize,
}

pub(super) fn run(kernels: &'static Kernels, x: Rows<'_>, products: &mut [Product<'_>]) {
    let num_rows = x.num_rows();
    if num_rows == 0 {
        return;
    }
    let outs: Vec<_> = products
        .iter_mut()
        .map(|product| {
            (
                SharedMut::new(product.out.as_mut_ptr()),
                product.out.stride(),
            )
        })
        .collect();
    let tasks: Vec<Task<'_>> = products
        .iter()
        .zip(outs)
        .map(|(product, (out, out_stride))| Task {
            weights: product.weights,
            product,
            out,
            out_stride,
        })
        .collect();

    let forms: Vec<_> = tasks
        .iter()
        .map(|task| Form {
            precision: task.weights.precision().of_operand(),
            factors: task.weights.factors(),
        })
        .collect();
    let nanos: u64 = tasks
        .iter()
        .map(|task| estimate(num_rows, task.weights))
        .sum();
    let threads = if nanos < parallel::MIN_PARALLEL_NANOS {
        1
    } else {
        parallel::num_threads()
    };
    let wanted = if threads == 1 {
        1
    } else {
        threads * JOBS_PER_THREAD
    };
    let row_blocks = blocks_of(num_rows, BLOCK_ROWS, kernels.tile_rows, threads);

    if row_blocks.len() >= wanted {
        parallel::for_each(row_blocks.len(), nanos, |job| {
            let rows = row_blocks[job].clone();
            with_operands(kernels, x.slice(rows.clone()), &forms, 0, |operands| {
                for (task, operand) in tasks.iter().zip(operands) {
                    let vectors = 0..num_vectors(kernels, task);
                    multiply(kernels, task, *operand, rows.clone(), vectors);
                }
            });
        });
        return;
    }

    // Few rows: they are narrowed here, once, and the panels are shared out.
    let runs_wanted = wanted.div_ceil(row_blocks.len());
    // A weight that is read once may be read by halves of panels: of nine panels two threads get four and a half each.
    let grain =
        if num_rows <= kernels.tile_rows && tasks.iter().all(|task| has_halves(task.weights)) {
            kernels.panel_width.div_ceil(2 * kernels.lanes)
        } else {
            kernels.panel_width / kernels.lanes
        };
    let grains_of = |task: &Task<'_>| num_vectors(kernels, task).div_ceil(grain);
    let all_grains: usize = tasks.iter().map(grains_of).sum();
    let mut jobs = Vec::new();
    let mut first = 0;
    let runs: Vec<_> = split(all_grains, runs_wanted.min(all_grains)).collect();
    for (index, task) in tasks.iter().enumerate() {
        let end = first + grains_of(task);
        for run in &runs {
            let (from, to) = (
                run.start.max(first) - first,
                run.end.min(end).saturating_sub(first),
            );
            if from >= to {
                continue;
            }
            let vectors = from * grain..(to * grain).min(num_vectors(kernels, task));
            for rows in &row_blocks {
                jobs.push((index, rows.clone(), vectors.clone()));
            }
        }
        first = end;
    }
    let narrow_nanos = (num_rows * x.num_cols()) as u64 / 6;
    with_operands(kernels, x, &forms, narrow_nanos, |operands| {
        let operands: Vec<_> = operands
            .iter()
            .map(|operand| (SharedMut::new(operand.words.cast_mut()), operand))
            .map(|(words, operand)| (words, operand.stride, operand.is_wide, operand.scales))
            .collect();
        parallel::for_each(jobs.len(), nanos, |job| {
            let (index, rows, vectors) = jobs[job].clone();
            let (words, stride, is_wide, scales) = operands[index];
            let operand = Operand {
                words: words.get().cast_const().wrapping_add(rows.start * stride),
                stride,
                is_wide,
                scales: if scales.is_empty() {
                    scales
                } else {
                    &scales[rows.clone()]
                },
            };
            multiply(kernels, &tasks[index], operand, rows, vectors);
        });
    });
}

/// Vectors of output features.
fn num_vectors(kernels: &Kernels, task: &Task<'_>) -> usize {
    task.weights.out_features().div_ceil(kernels.lanes)
}

/// Whether a part of a panel can be multiplied alone.
fn has_halves(weights: &PackedMatrix) -> bool {
    weights.precision() != Precision::Int4
}

/// Nanoseconds on one thread, roughly: the greater of arithmetic and reading the weights.
fn estimate(num_rows: usize, weights: &PackedMatrix) -> u64 {
    let products = (num_rows * weights.words() * weights.out_features()) as u64;
    products / 100 + weights.num_bytes() as u64 / 20
}

/// Cuts `count` rows into blocks of about `size`, as equal as whole tiles allow and, where there are several,
/// a multiple of the number of threads.
fn blocks_of(count: usize, size: usize, tile: usize, threads: usize) -> Vec<Range<usize>> {
    let mut blocks = count.div_ceil(size);
    if blocks > 1 {
        blocks = blocks.next_multiple_of(threads).min(count.div_ceil(tile));
    }
    split(count, blocks).collect()
}

/// Cuts `0..count` into `parts` ranges whose lengths differ by at most one.
pub(crate) fn split(count: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let (length, longer) = (count / parts.max(1), count % parts.max(1));
    (0..parts).map(move |part| {
        let start = part * length + part.min(longer);
        start..start + length + usize::from(part < longer)
    })
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

/// Multiplies the rows of `operand`, which are `rows` of the output, with a run of vectors of output features: whole
/// panels, but for what [`has_halves`].
fn multiply(
    kernels: &Kernels,
    task: &Task<'_>,
    operand: Operand<'_>,
    rows: Range<usize>,
    vectors: Range<usize>,
) {
    let weights = task.weights;
    let (words, precision) = (weights.words(), weights.precision());
    let is_nibbles = precision == Precision::Int4;
    // Of the few rows of a decode step each weight goes from memory to registers.
    let in_registers = is_nibbles && rows.len() <= NIBBLE_ROWS;
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
    let num_tiles = rows.len().div_ceil(kernels.tile_rows);
    let is_short = (2..=3).contains(&num_tiles);
    let block_words = match num_tiles {
        0 | 1 if in_registers || !is_nibbles => usize::MAX,
        0 | 1 => SHORT_BLOCK_WORDS,
        _ if is_short => SHORT_BLOCK_WORDS,
        _ => BLOCK_WORDS,
    };
    let num_blocks = words.div_ceil(block_words).max(1);
    // Unpacking begins where a step of multipliers does.
    let grain = if is_nibbles { int4::SPAN_WORDS } else { 1 };
    // Sums wait in memory only where the shared dimension is cut; otherwise each tile is finished at once.
    let waiting_rows = if num_blocks > 1 {
        rows.len()
    } else {
        MAX_TILE_ROWS
    };
    let waiting_words = waiting_rows * MAX_PANEL_WIDTH;
    let wide_words = if operand.is_wide {
        2 * words.div_ceil(num_blocks) * kernels.panel_width
    } else if is_nibbles && !in_registers {
        words.div_ceil(grain).div_ceil(num_blocks) * grain * kernels.panel_width
    } else {
        0
    };
    with_scratch(waiting_words + wide_words, |scratch| {
        let (sums, wide) = scratch.split_at_mut(waiting_words);
        let in_panel = kernels.panel_width / kernels.lanes;
        for panel in vectors.start / in_panel..vectors.end.div_ceil(in_panel) {
            // Words of a step, where the part of this job begins in it, and how many it has.
            let stride = weights.panel_width(kernels, panel);
            let skipped = vectors.start.saturating_sub(panel * in_panel) * kernels.lanes;
            let width = stride.min((vectors.end - panel * in_panel) * kernels.lanes) - skipped;
            let first_column = panel * kernels.panel_width + skipped;
            let columns = width.min(weights.out_features() - first_column);
            let steps = weights.panel(kernels, panel);
            let bias = task
                .product
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
                    let at = if num_blocks > 1 {
                        tile_rows.start * MAX_PANEL_WIDTH
                    } else {
                        0
                    };
                    let sums = &mut sums[at..at + tile_rows.len() * MAX_PANEL_WIDTH];
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
                    // SAFETY: `check` compared the output's shape with the rows and the features; these rows
                    // and columns of it belong to this job alone.
                    unsafe {
                        finish(&Finish {
                            sums: sums.as_ptr(),
                            sums_stride: MAX_PANEL_WIDTH,
                            rows: tile_rows.len(),
                            columns,
                            out: task.out.get().add(row * task.out_stride + first_column),
                            out_stride: task.out_stride,
                            bias,
                            row_scales: operand.scales.get(tile_rows.clone()).unwrap_or(&[]),
                            column_scales,
                            compensation,
                            activation: task.product.activation,
                            write: task.product.write,
                        });
                    }
                }
            }
        }
    });
}
