//! Cuts attention into jobs and decides who packs keys and values.

#![expect(unsafe_code, reason = "threads pack different heads of one buffer")]

use std::ops::Range;

use crate::attention::block::{Packed, Plan, Sequence};
use crate::attention::{AttentionShape, Inner, Mask};
use crate::gemm::{self, Precision};
use crate::isa::Isa;
use crate::memory::with_scratch;
use crate::parallel::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::Kernels;

/// Key heads for each thread from which every job packs its own head: then no thread waits for another.
const HEADS_PER_THREAD: usize = 4;

/// Tiles of block rows up to which a call counts as a decode step.
const SMALL_TILES: usize = 2;

#[expect(
    clippy::too_many_arguments,
    reason = "the operands of attention, each of another kind"
)]
pub(super) fn run(
    isa: Isa,
    inner: Inner,
    shape: &AttentionShape,
    batch: usize,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask<'_>,
    out: &mut RowsMut<'_>,
) {
    let kernels = Kernels::of(isa);
    let n_k = k.num_rows() / batch;
    let bias: Option<Vec<f32>> = match mask {
        Mask::Full | Mask::Causal { .. } => None,
        Mask::Keys(keys) => {
            let marked = keys
                .iter()
                .map(|&seen| if seen { 0.0 } else { f32::NEG_INFINITY });
            let padding = std::iter::repeat(f32::NEG_INFINITY);
            Some(
                marked
                    .chain(padding)
                    .take(n_k.next_multiple_of(kernels.lanes))
                    .collect(),
            )
        }
    };
    let plan = Plan {
        kernels,
        precision: match inner {
            Inner::Bf16 if kernels.fast_bf16 => Precision::Bf16,
            Inner::F32 | Inner::Bf16 => Precision::F32,
        },
        shape: *shape,
        n_q: q.num_rows() / batch,
        n_k,
        mask,
        bias: bias.as_deref(),
        out_stride: out.stride(),
        out: SharedMut::new(out.as_mut_ptr()),
    };
    let sequence = |index: usize| Sequence {
        index,
        q: q.slice(index * plan.n_q..(index + 1) * plan.n_q),
        k: k.slice(index * n_k..(index + 1) * n_k),
        v: v.slice(index * n_k..(index + 1) * n_k),
    };
    let heads = shape.kv_heads;
    let nanos = (q.num_rows() * shape.q_heads * n_k * shape.head_dim) as u64 / 50
        + (k.num_rows() * k.num_cols()) as u64 / 2;

    if plan.num_rows() <= SMALL_TILES * kernels.tile_rows {
        // A decode step reads the cache once: packing all of it first would only add to what is read.
        parallel::for_each(batch * heads, nanos, |job| {
            plan.run(
                sequence(job / heads),
                job % heads,
                0..plan.num_rows(),
                Packed::AsNeeded,
            );
        });
        return;
    }
    let rows = plan.num_rows();
    let blocks: Vec<_> = gemm::split(rows, rows.div_ceil(plan.block_rows())).collect();
    if batch * heads >= HEADS_PER_THREAD * parallel::num_threads() {
        parallel::for_each(batch * heads, nanos, |job| {
            let (sequence, head) = (sequence(job / heads), job % heads);
            with_scratch(plan.key_words() + plan.value_words(), |scratch| {
                let (keys, values) = scratch.split_at_mut(plan.key_words());
                for panel in 0..plan.num_key_panels() {
                    plan.pack_keys(sequence.k, head, panel, &mut keys[plan.key_panel(panel)]);
                }
                plan.pack_values(sequence.v, head, 0..plan.value_steps(), values);
                for block in &blocks {
                    plan.run(
                        sequence,
                        head,
                        block.clone(),
                        Packed::Whole { keys, values },
                    );
                }
            });
        });
        return;
    }
    for index in 0..batch {
        run_shared(&plan, sequence(index), &blocks, nanos / batch as u64);
    }
}

/// One sequence with few heads: all threads pack all heads, then all of them share out the blocks.
fn run_shared(plan: &Plan<'_>, sequence: Sequence<'_>, blocks: &[Range<usize>], nanos: u64) {
    let heads = plan.shape.kv_heads;
    let (key_words, value_words, panels) =
        (plan.key_words(), plan.value_words(), plan.num_key_panels());
    with_scratch(heads * (key_words + value_words), |scratch| {
        let (keys, values) = scratch.split_at_mut(heads * key_words);
        let (shared_keys, shared_values) = (
            SharedMut::new(keys.as_mut_ptr()),
            SharedMut::new(values.as_mut_ptr()),
        );
        parallel::for_each(heads * (panels + 1), nanos, |job| {
            // The values of all heads first: they are the longest jobs.
            if let Some(job) = job.checked_sub(heads) {
                let (head, panel) = (job / panels, job % panels);
                let range = plan.key_panel(panel);
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
                plan.pack_values(sequence.v, job, 0..plan.value_steps(), to);
            }
        });
        let (keys, values) = (&*keys, &*values);
        parallel::for_each(heads * blocks.len(), nanos, |job| {
            // From the last rows to the first: under a causal mask they take longest.
            let (block, head) = (&blocks[blocks.len() - 1 - job / heads], job % heads);
            let packed = Packed::Whole {
                keys: &keys[head * key_words..(head + 1) * key_words],
                values: &values[head * value_words..(head + 1) * value_words],
            };
            plan.run(sequence, head, block.clone(), packed);
        });
    });
}
