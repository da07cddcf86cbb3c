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

/// The rows that attention reads.
struct Operands<'a> {
    inner: Inner,
    /// Whether they are bfloat16 already, two to a value.
    is_rounded: bool,
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
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
    out: RowsMut<'_>,
) {
    let operands = Operands {
        inner,
        is_rounded: false,
        q,
        k,
        v,
    };
    run(isa, shape, batch, &operands, mask, out);
}

/// Whether [`attention_rounded`] and [`crate::gemm::Input::Rounded`] serve with this instruction set: whether it has an
/// instruction for bfloat16.
pub fn takes_rounded(isa: Isa) -> bool {
    Kernels::of(isa).fast_bf16
}

/// [`attention_with`] of queries, keys and values that products have rounded ([`crate::gemm::Write::Round`]): two to a
/// value of the rows, which are half as wide. `out` is as wide as ever. The same bits as [`Inner::Bf16`] gives over
/// the same values in `f32`.
///
/// # Panics
/// If the shapes do not fit together, a head has an odd number of values, or the instruction set has none for bfloat16
/// ([`takes_rounded`]).
pub fn attention_rounded(
    isa: Isa,
    shape: &AttentionShape,
    batch: usize,
    [q, k, v]: [Rows<'_>; 3],
    mask: Mask<'_>,
    out: RowsMut<'_>,
) {
    assert!(
        takes_rounded(isa) && shape.head_dim.is_multiple_of(2),
        "heads of {} rounded values on {isa} is a bug",
        shape.head_dim
    );
    let operands = Operands {
        inner: Inner::Bf16,
        is_rounded: true,
        q,
        k,
        v,
    };
    run(isa, shape, batch, &operands, mask, out);
}

/// Checks the shapes and calculates.
fn run(
    isa: Isa,
    shape: &AttentionShape,
    batch: usize,
    operands: &Operands<'_>,
    mask: Mask<'_>,
    mut out: RowsMut<'_>,
) {
    check(shape, batch, operands, mask, &out);
    if batch > 0 && operands.q.num_rows() > 0 {
        drive::run(isa, shape, batch, operands, mask, &mut out);
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
    let queries = (q.num_rows(), q.num_cols());
    check_shapes(shape, 1, queries, (store.len(), width), mask, &out);
    if q.num_rows() > 0 {
        drive::run_stored(shape, q, store, mask, &mut out);
    }
}

fn check(
    shape: &AttentionShape,
    batch: usize,
    operands: &Operands<'_>,
    mask: Mask<'_>,
    out: &RowsMut<'_>,
) {
    let Operands { q, k, v, .. } = *operands;
    let halves = if operands.is_rounded { 2 } else { 1 };
    assert_eq!(
        (v.num_rows(), v.num_cols()),
        (k.num_rows(), k.num_cols()),
        "values of another shape than the keys is a bug"
    );
    let queries = (q.num_rows(), halves * q.num_cols());
    let keys = (k.num_rows(), halves * k.num_cols());
    check_shapes(shape, batch, queries, keys, mask, out);
}

/// `queries` and `keys` are their number and width.
fn check_shapes(
    shape: &AttentionShape,
    batch: usize,
    queries: (usize, usize),
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
    assert!(shape.scale >= 0.0, "a scale of {} is a bug", shape.scale);
    assert_eq!(
        queries.1,
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
        queries,
        "an output of another shape than the queries is a bug"
    );
    assert!(
        queries.0.is_multiple_of(batch.max(1)) && keys.0.is_multiple_of(batch.max(1)),
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
