//! Scaled dot-product attention over rows that may lie in a fused buffer or in a cache.
//!
//! The score matrix is never held: a block of query rows takes its scores of all keys (a stripe that fits
//! the second level of cache), the exact maximum and sum of each, and is multiplied with the values. With
//! grouped heads the query heads that share a key head form one block, so that keys and values are read once
//! for all of them. The order of every sum depends on the keys only: a row of a batch is bit-identical to
//! the same row alone, and a decode step to the same row of a prefill.
//!
//! Keys that a row does not see have weight zero, exactly; an infinity or NaN among their *values* still
//! gives NaN, as it does in every implementation that multiplies by the weights.

mod block;
mod cache;
mod drive;
mod plan;

use crate::gemm::Precision;
use crate::isa::Isa;
use crate::rows::{Rows, RowsMut};
use crate::simd::Kernels;

pub use cache::{KvPrecision, KvStore};

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
    /// Query row `i` sees the last `window` of the keys `0 ..= offset + i` (Mistral).
    Window {
        /// Number of keys before the first query row.
        offset: usize,
        /// Keys that a row sees at most, its own included.
        window: usize,
    },
    /// Only the keys marked `true`, one mark for each key.
    Keys(&'a [bool]),
}

/// The type in which attention multiplies. Scores, softmax and sums are `f32` in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Inner {
    /// `f32` products.
    #[default]
    F32,
    /// bfloat16 products where the machine has an instruction for them, `f32` elsewhere: queries, keys,
    /// weights and values are rounded.
    Bf16,
}

impl Inner {
    fn precision(self, kernels: &Kernels) -> Precision {
        match self {
            Self::Bf16 if kernels.fast_bf16 => Precision::Bf16,
            Self::F32 | Self::Bf16 => Precision::F32,
        }
    }
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
    attention_with(Isa::detect(), Inner::F32, shape, 1, q, k, v, mask, out);
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
    out: RowsMut<'_>,
) {
    attention_with(Isa::detect(), Inner::F32, shape, batch, q, k, v, mask, out);
}

/// [`attention_batch`] with a choice of instruction set and of the type of its products.
///
/// # Panics
/// If the shapes do not fit together or the running machine does not have the instruction set.
#[expect(
    clippy::too_many_arguments,
    reason = "the operands of attention, each of another kind"
)]
pub fn attention_with(
    isa: Isa,
    inner: Inner,
    shape: &AttentionShape,
    batch: usize,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask<'_>,
    mut out: RowsMut<'_>,
) {
    check(shape, batch, q, k, v, mask, &out);
    if batch > 0 && q.num_rows() > 0 {
        drive::run(isa, inner, shape, batch, q, k, v, mask, &mut out);
    }
}

/// [`attention`] over the keys and values of a store, in the type it keeps them in: the same bits as
/// [`attention_with`] gives over the rows that were appended.
///
/// # Panics
/// If the shapes do not fit together.
pub fn attention_stored(
    shape: &AttentionShape,
    q: Rows<'_>,
    store: &KvStore,
    mask: Mask<'_>,
    mut out: RowsMut<'_>,
) {
    assert_eq!(
        (shape.kv_heads, shape.head_dim),
        (store.kv_heads(), store.head_dim()),
        "a store of other heads than the layer's is a bug"
    );
    let width = shape.kv_heads * shape.head_dim;
    check_shapes(shape, 1, q, (store.len(), width), mask, &out);
    if q.num_rows() > 0 {
        drive::run_stored(shape, q, store, mask, &mut out);
    }
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
    assert_eq!(
        (v.num_rows(), v.num_cols()),
        (k.num_rows(), k.num_cols()),
        "values of another shape than the keys is a bug"
    );
    check_shapes(shape, batch, q, (k.num_rows(), k.num_cols()), mask, out);
}

/// `keys` are their number and width.
fn check_shapes(
    shape: &AttentionShape,
    batch: usize,
    q: Rows<'_>,
    keys: (usize, usize),
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
        keys.1,
        shape.kv_heads * shape.head_dim,
        "keys of another width is a bug"
    );
    assert_eq!(
        (out.num_rows(), out.num_cols()),
        (q.num_rows(), q.num_cols()),
        "an output of another shape than the queries is a bug"
    );
    assert!(
        q.num_rows().is_multiple_of(batch.max(1)) && keys.0.is_multiple_of(batch.max(1)),
        "sequences of different lengths is a bug"
    );
    if let Mask::Keys(marks) = mask {
        assert_eq!(
            marks.len(),
            keys.0 / batch.max(1),
            "marks for another number of keys is a bug"
        );
    }
}
