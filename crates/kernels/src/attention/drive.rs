//! Cuts attention into jobs and decides who packs keys and values.

#![expect(unsafe_code, reason = "threads write different parts of one buffer")]

use std::ops::Range;

use crate::attention::block::{Block, Packed};
use crate::attention::plan::{Plan, STRIPE_ROWS, Sequence};
use crate::attention::{AttentionShape, KvStore, Mask, Operands};
use crate::gemm;
use crate::isa::Isa;
use crate::memory::with_scratch;
use crate::parallel::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::Kernels;

/// Key heads for each thread from which every job packs its own head: then no thread waits for another.
const HEADS_PER_THREAD: usize = 4;
/// Tiles of block rows up to which a call counts as a decode step.
const STEP_TILES: usize = 2;
/// Keys from which it pays to spread a head of a decode step over several jobs.
const STEP_KEYS: usize = 256;

pub(super) fn run(
    isa: Isa,
    shape: &AttentionShape,
    batch: usize,
    operands: &Operands<'_>,
    mask: Mask<'_>,
    out: &mut RowsMut<'_>,
) {
    let kernels = Kernels::of(isa);
    let Operands { q, k, v, .. } = *operands;
    let (n_q, n_k) = (q.num_rows() / batch, k.num_rows() / batch);
    let bias = bias_of(mask, n_k, kernels);
    let plan = Plan {
        kernels,
        precision: operands.inner.precision(kernels),
        is_rounded: operands.is_rounded,
        shape: *shape,
        n_q,
        n_k,
        mask,
        bias: bias.as_deref(),
        out_stride: out.stride(),
        out: SharedMut::new(out.as_mut_ptr()),
    };
    let sequence = |index: usize| Sequence {
        index,
        q: q.slice(index * n_q..(index + 1) * n_q),
        k: k.slice(index * n_k..(index + 1) * n_k),
        v: v.slice(index * n_k..(index + 1) * n_k),
    };
    let heads = shape.kv_heads;
    let nanos = (q.num_rows() * shape.q_heads * n_k * shape.head_dim) as u64 / 50
        + (k.num_rows() * k.num_cols()) as u64 / 3;

    if plan.num_rows() <= STEP_TILES * kernels.tile_rows {
        let threads = parallel::num_threads();
        let is_long = n_k >= STEP_KEYS && nanos >= parallel::MIN_PARALLEL_NANOS;
        if is_long && threads > 1 && batch * heads < HEADS_PER_THREAD * threads {
            for index in 0..batch {
                let packed = |_| Packed::AsNeeded;
                run_step(&plan, sequence(index), packed, nanos / batch as u64);
            }
            return;
        }
        // A step reads the cache once: packing all of it first would only add to what is read.
        parallel::for_each(batch * heads, nanos, |job| {
            let rows = 0..plan.num_rows();
            let (sequence, head) = (sequence(job / heads), job % heads);
            Block {
                plan: &plan,
                sequence,
                head,
                rows,
                packed: Packed::AsNeeded,
            }
            .run();
        });
        return;
    }
    let blocks = plan.blocks();
    let threads = parallel::num_threads();
    if batch * heads >= HEADS_PER_THREAD * threads {
        // The last heads are halved, so that threads which are not equally fast still end together; both halves pack.
        let halved = if blocks.len() > 1 { threads } else { 0 };
        let whole = batch * heads - halved;
        let (first, second) = blocks.split_at(blocks.len() / 2);
        parallel::for_each(whole + 2 * halved, nanos, |job| {
            let (head, blocks) = match job.checked_sub(whole) {
                None => (job, &blocks[..]),
                Some(half) if half % 2 == 0 => (whole + half / 2, first),
                Some(half) => (whole + half / 2, second),
            };
            run_head(&plan, sequence(head / heads), head % heads, blocks);
        });
        return;
    }
    for index in 0..batch {
        run_shared(&plan, sequence(index), &blocks, nanos / batch as u64);
    }
}

/// [`run`] over a store: nothing is left to pack.
pub(super) fn run_stored(
    shape: &AttentionShape,
    q: Rows<'_>,
    store: &KvStore,
    mask: Mask<'_>,
    out: &mut RowsMut<'_>,
) {
    let (kernels, n_k) = (store.kernels, store.len());
    let bias = bias_of(mask, n_k, kernels);
    let plan = Plan {
        kernels,
        precision: store.precision,
        is_rounded: false,
        shape: *shape,
        n_q: q.num_rows(),
        n_k,
        mask,
        bias: bias.as_deref(),
        out_stride: out.stride(),
        out: SharedMut::new(out.as_mut_ptr()),
    };
    let none = Rows::new(&[], 0, shape.kv_heads * shape.head_dim);
    let sequence = Sequence {
        index: 0,
        q,
        k: none,
        v: none,
    };
    let packed = |head| store.head(head);
    let heads = shape.kv_heads;
    let nanos = (q.num_rows() * shape.q_heads * n_k * shape.head_dim) as u64 / 50
        + (n_k * heads * shape.head_dim) as u64 / 12;
    let threads = parallel::num_threads();
    let is_step = plan.num_rows() <= STEP_TILES * kernels.tile_rows;
    if is_step
        && n_k >= STEP_KEYS
        && nanos >= parallel::MIN_PARALLEL_NANOS
        && threads > 1
        && heads < HEADS_PER_THREAD * threads
    {
        run_step(&plan, sequence, packed, nanos);
        return;
    }
    let blocks = plan.blocks();
    parallel::for_each(heads * blocks.len(), nanos, |job| {
        // From the last rows to the first: under a causal mask they take longest.
        let (rows, head) = (blocks[blocks.len() - 1 - job / heads].clone(), job % heads);
        Block {
            plan: &plan,
            sequence,
            head,
            rows,
            packed: packed(head),
        }
        .run();
    });
}

/// [`Mask::Keys`] as something to add to the scores, padded to whole vectors.
fn bias_of(mask: Mask<'_>, n_k: usize, kernels: &Kernels) -> Option<Vec<f32>> {
    match mask {
        Mask::Full | Mask::Causal { .. } | Mask::Window { .. } => None,
        Mask::Keys(keys) => {
            let marked = keys
                .iter()
                .map(|&seen| if seen { 0.0 } else { f32::NEG_INFINITY });
            let padding = std::iter::repeat(f32::NEG_INFINITY);
            let padded = n_k.next_multiple_of(kernels.lanes);
            Some(marked.chain(padding).take(padded).collect())
        }
    }
}

/// One head of one sequence on one thread.
fn run_head(plan: &Plan<'_>, sequence: Sequence<'_>, head: usize, blocks: &[Range<usize>]) {
    with_scratch(plan.key_words() + plan.value_words(), |scratch| {
        let (keys, values) = scratch.split_at_mut(plan.key_words());
        for panel in 0..plan.num_key_panels() {
            plan.pack_keys(
                sequence.k,
                head,
                panel,
                &mut keys[plan.key_panel_words(panel)],
            );
        }
        plan.pack_values(sequence.v, head, values);
        let packed = Packed::Whole { keys, values };
        for rows in blocks {
            Block {
                plan,
                sequence,
                head,
                rows: rows.clone(),
                packed,
            }
            .run();
        }
    });
}

/// One sequence with few heads: all threads pack all heads, then all of them share out the blocks.
fn run_shared(plan: &Plan<'_>, sequence: Sequence<'_>, blocks: &[Range<usize>], nanos: u64) {
    let heads = plan.shape.kv_heads;
    let (key_words, value_words) = (plan.key_words(), plan.value_words());
    let panels = plan.num_key_panels();
    with_scratch(heads * (key_words + value_words), |scratch| {
        let (keys, values) = scratch.split_at_mut(heads * key_words);
        let shared_keys = SharedMut::new(keys.as_mut_ptr());
        let shared_values = SharedMut::new(values.as_mut_ptr());
        parallel::for_each(heads * (panels + 1), nanos, |job| {
            // The values of all heads first: they are the longest jobs.
            if let Some(job) = job.checked_sub(heads) {
                let (head, panel) = (job / panels, job % panels);
                let range = plan.key_panel_words(panel);
                // SAFETY: `keys` has `heads` parts of `key_words`; panels lie side by side inside a part and
                // each is one job.
                let to = unsafe {
                    let start = shared_keys.get().add(head * key_words + range.start);
                    std::slice::from_raw_parts_mut(start, range.len())
                };
                plan.pack_keys(sequence.k, head, panel, to);
            } else {
                // SAFETY: `values` has `heads` parts of `value_words` and each is one job.
                let to = unsafe {
                    let start = shared_values.get().add(job * value_words);
                    std::slice::from_raw_parts_mut(start, value_words)
                };
                plan.pack_values(sequence.v, job, to);
            }
        });
        let (keys, values) = (&*keys, &*values);
        parallel::for_each(heads * blocks.len(), nanos, |job| {
            // From the last rows to the first: under a causal mask they take longest.
            let (rows, head) = (blocks[blocks.len() - 1 - job / heads].clone(), job % heads);
            let packed = Packed::Whole {
                keys: &keys[head * key_words..(head + 1) * key_words],
                values: &values[head * value_words..(head + 1) * value_words],
            };
            Block {
                plan,
                sequence,
                head,
                rows,
                packed,
            }
            .run();
        });
    });
}

/// A decode step with fewer heads than would keep all threads busy: first the scores, cut by keys, then the values,
/// cut by columns. The sums of one output element are the same as in a block.
fn run_step<'a>(
    plan: &Plan<'_>,
    sequence: Sequence<'_>,
    packed: impl Fn(usize) -> Packed<'a> + Sync,
    nanos: u64,
) {
    let (heads, rows) = (plan.shape.kv_heads, plan.num_rows());
    let (query_words, score_words) = (rows * plan.query_stride(), rows * plan.score_stride());
    let block = |head| Block {
        plan,
        sequence,
        head,
        rows: 0..rows,
        packed: packed(head),
    };
    let wanted = 4 * parallel::num_threads();
    with_scratch(heads * (query_words + score_words), |scratch| {
        let (queries, scores) = scratch.split_at_mut(heads * query_words);
        for (head, queries) in queries.chunks_exact_mut(query_words.max(1)).enumerate() {
            block(head).take_queries(queries);
        }
        let queries = &*queries;
        let shared = SharedMut::new(scores.as_mut_ptr());
        let panels: Vec<_> = {
            let parts = wanted.div_ceil(heads).min(plan.num_key_panels());
            gemm::split(plan.num_key_panels(), parts).collect()
        };
        parallel::for_each(heads * panels.len(), nanos, |job| {
            let (head, panels) = (job / panels.len(), panels[job % panels.len()].clone());
            let queries = &queries[head * query_words..(head + 1) * query_words];
            // SAFETY: `scores` has `heads` parts of `score_words`.
            let scores = SharedMut::new(unsafe { shared.get().add(head * score_words) });
            block(head).score(queries, panels, scores);
        });
        let scores = &*scores;
        // Half panels, where that is needed to give every thread a job.
        let vectors = plan.kernels.panel_width / plan.kernels.lanes;
        let columns: Vec<_> = plan.columns(vectors.div_ceil(2)).collect();
        parallel::for_each(heads * columns.len(), nanos, |job| {
            let (head, columns) = (job / columns.len(), &columns[job % columns.len()]);
            // Every job softens the scores for itself: a few rows, against waiting for another.
            with_scratch(score_words + rows * plan.weight_stride(), |scratch| {
                let (own, weights) = scratch.split_at_mut(score_words);
                own.copy_from_slice(&scores[head * score_words..(head + 1) * score_words]);
                let mut sums = [0.0; STRIPE_ROWS];
                let weights = block(head).soften(own, weights, &mut sums);
                block(head).gather(columns, weights, &sums);
            });
        });
    });
}
