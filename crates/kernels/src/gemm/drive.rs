//! Cuts products into jobs.
//!
//! A job is a block of rows times a run of panels. Inside it one panel at a time (one block of the shared
//! dimension of it, where the panel is long) stays in the second level of cache while the rows of the block
//! pass by six at a time. With few rows a job is a run of panels, so that the weights are read once, spread
//! over the threads. So it is with weights larger than the caches: a run of them stays in the third level
//! while all blocks of rows are multiplied with it.

use std::ops::Range;

use crate::gemm::operand::{Form, Input, Operand, with_operands};
use crate::gemm::panel::{Out, Pass, multiply};
use crate::gemm::{Activation, PackedMatrix, Precision, Product, Write};
use crate::parallel::{self, SharedMut};
use crate::simd::Kernels;

/// Rows in a block, about.
const BLOCK_ROWS: usize = 192;
/// The same where weights are large: the more rows, the less often a panel is read from behind the second level.
const LARGE_BLOCK_ROWS: usize = 384;
/// Weights of a group from which on they are not read anew for every block of rows.
const LARGE_BYTES: usize = 8 << 20;
/// Weights in a run of panels of such a group.
const RUN_BYTES: usize = 1 << 20;
/// Jobs for each thread: enough that one slow thread does not hold up the others.
const JOBS_PER_THREAD: usize = 4;
/// The same where rows are few and every job waits for its first weights: as few as let a slow thread be helped.
const FEW_JOBS_PER_THREAD: usize = 2;
/// Rows that are few.
const FEW_ROWS: usize = 48;

/// What several jobs need of a product.
struct Task<'a> {
    product: &'a Product<'a>,
    out: Out,
}

/// The product that multiplies the results of another, which has to have its shape and precision.
#[derive(Clone, Copy)]
pub(super) struct Up<'a> {
    pub(super) weights: &'a PackedMatrix,
    pub(super) bias: Option<&'a [f32]>,
}

impl Task<'_> {
    /// Multiplies a block of rows with a run of panels: in one pass, or in two where the results are multiplied.
    fn multiply(
        &self,
        kernels: &Kernels,
        operand: Operand<'_>,
        up: Option<(Up<'_>, Operand<'_>)>,
        rows: Range<usize>,
        vectors: Range<usize>,
    ) {
        let first = Pass {
            weights: self.product.weights,
            operand,
            bias: self.product.bias,
            activation: self.product.activation,
            write: self.product.write,
        };
        match up {
            None => multiply(kernels, &[first], self.out, rows, vectors),
            Some((up, operand)) => {
                let second = Pass {
                    weights: up.weights,
                    operand,
                    bias: up.bias,
                    activation: Activation::Identity,
                    write: Write::Multiply,
                };
                multiply(kernels, &[first, second], self.out, rows, vectors);
            }
        }
    }

    /// Vectors of output features.
    fn num_vectors(&self, kernels: &Kernels) -> usize {
        self.product.weights.out_features().div_ceil(kernels.lanes)
    }
}

/// Runs all products in one region; `up` belongs to a product that is alone.
pub(super) fn run(
    kernels: &'static Kernels,
    x: Input<'_>,
    products: &mut [Product<'_>],
    up: Option<Up<'_>>,
) {
    let num_rows = x.num_rows();
    if num_rows == 0 {
        return;
    }
    let outs: Vec<_> = products
        .iter_mut()
        .map(|product| Out {
            data: SharedMut::new(product.out.as_mut_ptr()),
            stride: product.out.stride(),
        })
        .collect();
    let tasks: Vec<Task<'_>> = products
        .iter()
        .zip(outs)
        .map(|(product, out)| Task { product, out })
        .collect();
    let matrices = || {
        let first = tasks.iter().map(|task| task.product.weights);
        first.chain(up.map(|up| up.weights))
    };

    let forms: Vec<_> = matrices()
        .map(|weights| Form {
            precision: weights.precision().of_operand(),
            factors: weights.factors(),
        })
        .collect();
    let nanos: u64 = matrices().map(|weights| estimate(num_rows, weights)).sum();
    let bytes: usize = matrices().map(PackedMatrix::num_bytes).sum();
    let threads = if nanos < parallel::MIN_PARALLEL_NANOS {
        1
    } else {
        parallel::num_threads()
    };
    let wanted = if threads == 1 {
        1
    } else if num_rows <= FEW_ROWS {
        threads * FEW_JOBS_PER_THREAD
    } else {
        threads * JOBS_PER_THREAD
    };
    let is_large = num_rows > BLOCK_ROWS && bytes >= LARGE_BYTES;
    let row_blocks = if is_large {
        blocks_of(num_rows, LARGE_BLOCK_ROWS, kernels.tile_rows, 1)
    } else {
        blocks_of(num_rows, BLOCK_ROWS, kernels.tile_rows, threads)
    };

    if row_blocks.len() >= wanted && !is_large {
        parallel::for_each(row_blocks.len(), nanos, |job| {
            let rows = row_blocks[job].clone();
            with_operands(kernels, x.slice(rows.clone()), &forms, 0, |operands| {
                let up = up.zip(operands.get(tasks.len()).copied());
                for (task, operand) in tasks.iter().zip(operands) {
                    let vectors = 0..task.num_vectors(kernels);
                    task.multiply(kernels, *operand, up, rows.clone(), vectors);
                }
            });
        });
        return;
    }

    // Few rows, or large weights: the rows are narrowed here, once, and the panels are shared out.
    let runs_wanted = if is_large {
        wanted.max(bytes.div_ceil(RUN_BYTES))
    } else {
        wanted.div_ceil(row_blocks.len())
    };
    // A weight that is read once may be read by halves of panels: of nine panels two threads get four and a half each.
    let grain = if num_rows <= kernels.tile_rows && matrices().all(has_halves) {
        kernels.panel_width.div_ceil(2 * kernels.lanes)
    } else {
        kernels.panel_width / kernels.lanes
    };
    let grains_of = |task: &Task<'_>| task.num_vectors(kernels).div_ceil(grain);
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
            let vectors = from * grain..(to * grain).min(task.num_vectors(kernels));
            for rows in &row_blocks {
                jobs.push((index, rows.clone(), vectors.clone()));
            }
        }
        first = end;
    }
    let narrow_nanos = (num_rows * x.num_cols()) as u64 / 6;
    with_operands(kernels, x, &forms, narrow_nanos, |operands| {
        let operands: Vec<_> = operands.iter().map(Shared::of).collect();
        parallel::for_each(jobs.len(), nanos, |job| {
            let (index, rows, vectors) = jobs[job].clone();
            let up = up.zip(operands.get(tasks.len()));
            let up = up.map(|(up, operand)| (up, operand.slice(&rows)));
            let operand = operands[index].slice(&rows);
            tasks[index].multiply(kernels, operand, up, rows, vectors);
        });
    });
}

/// An operand that several threads read.
struct Shared<'a> {
    words: SharedMut<u32>,
    stride: usize,
    is_wide: bool,
    scales: &'a [f32],
}

impl<'a> Shared<'a> {
    fn of(operand: &Operand<'a>) -> Self {
        Self {
            words: SharedMut::new(operand.words.cast_mut()),
            stride: operand.stride,
            is_wide: operand.is_wide,
            scales: operand.scales,
        }
    }

    fn slice(&self, rows: &Range<usize>) -> Operand<'a> {
        let words = self.words.get().cast_const();
        Operand {
            words: words.wrapping_add(rows.start * self.stride),
            stride: self.stride,
            is_wide: self.is_wide,
            scales: self.scales.get(rows.clone()).unwrap_or(&[]),
        }
    }
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
