//! Scaled dot-product attention over rows that may lie in a fused buffer or in a cache.
//!
//! The score matrix is never held: a block of query rows sees all keys, takes the exact maximum and sum of
//! its scores, and is multiplied with the values. The order of every sum depends on the keys only, so a row
//! of a batch is bit-identical to the same row alone.

#![expect(unsafe_code, reason = "threads write disjoint heads of one output")]

use crate::parallel::{self, SharedMut};
use crate::rows::{Rows, RowsMut};

/// The heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Number of query heads; a multiple of `kv_heads`.
    pub q_heads: usize,
    /// Number of key and value heads; query head `h` reads head `h / (q_heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Multiplies every score, usually `1 / √head_dim`.
    pub scale: f32,
}

/// Which keys a query row sees.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// All of them.
    Full,
    /// Query row `i` sees keys `0 ..= offset + i`.
    Causal {
        /// Number of keys before the first query row.
        offset: usize,
    },
    /// Only the keys marked `true`, one mark for each key.
    Keys(&'a [bool]),
}

/// `out = softmax(scale · q · kᵀ, masked) · v` for every head.
///
/// `q` and `out` are `(n_q, q_heads · head_dim)`, `k` and `v` are `(n_k, kv_heads · head_dim)`. A row that
/// sees no key gives zeros.
///
/// # Panics
/// If the shapes do not fit together.
pub fn attention(
    shape: &AttentionShape,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask<'_>,
    out: RowsMut<'_>,
) {
    attention_batch(shape, 1, q, k, v, mask, out);
}

/// [`attention`] of `batch` independent sequences of equal length whose rows stand one sequence after
/// another (the tiles of a page), in one parallel region. Marks of [`Mask::Keys`] hold for every sequence.
///
/// # Panics
/// If the shapes do not fit together.
pub fn attention_batch(
    shape: &AttentionShape,
    batch: usize,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask<'_>,
    mut out: RowsMut<'_>,
) {
    check(shape, batch, q, k, v, mask, &out);
    if batch == 0 || q.num_rows() == 0 {
        return;
    }
    let (n_q, n_k, dim) = (q.num_rows() / batch, k.num_rows() / batch, shape.head_dim);
    let stride = out.stride();
    let out = SharedMut::new(out.as_mut_ptr());
    let nanos = (q.num_rows() * n_k * shape.q_heads * dim) as u64 / 4;
    parallel::for_each(q.num_rows() * shape.q_heads, nanos, |job| {
        let (row, head) = (job / shape.q_heads, job % shape.q_heads);
        let sequence = row / n_q;
        let kv = head / (shape.q_heads / shape.kv_heads) * dim;
        // SAFETY: `check` compared the output's shape with the query's; every row and head is one job.
        let out = unsafe {
            std::slice::from_raw_parts_mut(out.get().add(row * stride + head * dim), dim)
        };
        out.fill(0.0);
        let query = &q.row(row)[head * dim..(head + 1) * dim];
        let sees = |key: usize| match mask {
            Mask::Full => true,
            Mask::Causal { offset } => key <= offset + row % n_q,
            Mask::Keys(keys) => keys[key],
        };
        let scores: Vec<f32> = (0..n_k)
            .map(|key| {
                if sees(key) {
                    dot(query, &k.row(sequence * n_k + key)[kv..kv + dim]) * shape.scale
                } else {
                    f32::NEG_INFINITY
                }
            })
            .collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if max == f32::NEG_INFINITY {
            return;
        }
        let mut total = 0.0;
        for (key, score) in scores.iter().enumerate() {
            if sees(key) {
                let weight = (score - max).exp();
                total += weight;
                for (out, value) in out
                    .iter_mut()
                    .zip(&v.row(sequence * n_k + key)[kv..kv + dim])
                {
                    *out += weight * value;
                }
            }
        }
        out.iter_mut().for_each(|value| *value /= total);
    });
}

fn check(
    shape: &AttentionShape,
    batch: usize,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask<'_>,
    out: &RowsMut<'_>,
) {
    assert!(
        shape.kv_heads > 0 && shape.q_heads.is_multiple_of(shape.kv_heads),
        "{} query heads over {} key heads is a bug",
        shape.q_heads,
        shape.kv_heads
    );
    assert_eq!(
        q.num_cols(),
        shape.q_heads * shape.head_dim,
        "queries of another width is a bug"
    );
    assert_eq!(
        k.num_cols(),
        shape.kv_heads * shape.head_dim,
        "keys of another width is a bug"
    );
    assert_eq!(
        (v.num_rows(), v.num_cols()),
        (k.num_rows(), k.num_cols()),
        "values of another shape than the keys is a bug"
    );
    assert_eq!(
        (out.num_rows(), out.num_cols()),
        (q.num_rows(), q.num_cols()),
        "an output of another shape than the queries is a bug"
    );
    assert!(
        q.num_rows().is_multiple_of(batch.max(1)) && k.num_rows().is_multiple_of(batch.max(1)),
        "sequences of different lengths is a bug"
    );
    if let Mask::Keys(keys) = mask {
        assert_eq!(
            keys.len(),
            k.num_rows() / batch.max(1),
            "marks for another number of keys is a bug"
        );
    }
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (left_blocks, left_rest) = left.as_chunks::<LANES>();
    let (right_blocks, right_rest) = right.as_chunks::<LANES>();
    for (l, r) in left_blocks.iter().zip(right_blocks) {
        for lane in 0..LANES {
            sums[lane] += l[lane] * r[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(l, r)| l * r).sum();
    sums.iter().sum::<f32>() + rest
}
