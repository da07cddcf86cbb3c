//! The inner kernels of every product: a tile of sums held in registers, and what happens to it afterwards.
//!
//! One tile serves weights in `f32`, bfloat16 and bytes, attention and `MaxSim`: both operands are read as
//! 32-bit words ([`crate::simd::Simd`]), the left one broadcast word by word from rows, the right one in
//! vectors from a panel. The sums of one output element form a single chain from the first word to the last,
//! carried through memory when the shared dimension is cut into blocks, so the size of the tile and of the
//! blocks never changes a bit of the result.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use crate::gemm::{Activation, Write};
use crate::simd::Simd;
use crate::vector;

/// The operands of one tile. All distances are in words.
pub(crate) struct Tile {
    /// Length of the shared dimension.
    pub(crate) words: usize,
    /// Row `r` of the left operand starts at `left + r · left_stride`.
    pub(crate) left: *const u32,
    pub(crate) left_stride: usize,
    /// Step `k` of the panel starts at `right + k · right_stride`.
    pub(crate) right: *const u32,
    pub(crate) right_stride: usize,
    /// Row `r` of the sums starts at `sums + r · sums_stride`.
    pub(crate) sums: *mut u32,
    pub(crate) sums_stride: usize,
    /// Whether to go on from the sums in memory instead of zero.
    pub(crate) accumulate: bool,
    /// Words that lie this far behind the step at hand are fetched into the cache; it need not be inside the
    /// panel.
    pub(crate) ahead: usize,
}

/// The multiplication of a kind of word.
pub(crate) trait Dot<S: Simd> {
    fn step(s: S, sum: S::W, left: S::W, right: S::W) -> S::W;
}

/// Words are `f32`.
pub(crate) struct Floats;
/// Words are pairs of bfloat16, sums `f32`.
pub(crate) struct Brains;
/// Words are four bytes, sums `i32`.
pub(crate) struct Bytes;

impl<S: Simd> Dot<S> for Floats {
    #[inline(always)]
    fn step(s: S, sum: S::W, left: S::W, right: S::W) -> S::W {
        s.words(s.mul_add(s.floats(left), s.floats(right), s.floats(sum)))
    }
}

impl<S: Simd> Dot<S> for Brains {
    #[inline(always)]
    fn step(s: S, sum: S::W, left: S::W, right: S::W) -> S::W {
        s.words(s.dot_bf16(s.floats(sum), left, right))
    }
}

impl<S: Simd> Dot<S> for Bytes {
    #[inline(always)]
    fn step(s: S, sum: S::W, left: S::W, right: S::W) -> S::W {
        s.dot_bytes(sum, left, right)
    }
}

/// `sums[r][c] (=|+=) Σ_k left[r][k] · right[k][c]` for `ROWS` rows and `VECTORS · LANES` columns.
///
/// # Safety
/// The `ROWS × words` words of the left operand and the `words × VECTORS · LANES` words of the right one must
/// be readable, the `ROWS × VECTORS · LANES` sums writable, and initialised when `accumulate` is set.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, D: Dot<S>, const ROWS: usize, const VECTORS: usize>(
    s: S,
    tile: &Tile,
) {
    // All places are computed with wrapping arithmetic: they are inside the operands by contract, and checked
    // arithmetic would cost more than the products in builds with overflow checks.
    let place = |row: usize, vector: usize| {
        tile.sums
            .wrapping_add(row.wrapping_mul(tile.sums_stride))
            .wrapping_add(vector * S::LANES)
    };
    let mut sums = [[s.zero_words(); VECTORS]; ROWS];
    if tile.accumulate {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (vector, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller vouches for the sums.
                *sum = unsafe { s.load_words(place(row, vector)) };
            }
        }
    }
    let (mut left, mut right) = (tile.left, tile.right);
    let (left_stride, right_stride, ahead) = (tile.left_stride, tile.right_stride, tile.ahead);
    for _ in 0..tile.words {
        let mut columns = [s.zero_words(); VECTORS];
        for (vector, column) in columns.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the panel.
            *column = unsafe { s.load_words(right.wrapping_add(vector * S::LANES)) };
            s.prefetch(right.wrapping_add(ahead).wrapping_add(vector * S::LANES));
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the rows.
            let value = s.splat_word(unsafe { *left.wrapping_add(row.wrapping_mul(left_stride)) });
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = D::step(s, *sum, value, column);
            }
        }
        left = left.wrapping_add(1);
        right = right.wrapping_add(right_stride);
    }
    // SAFETY: the caller vouches for the sums.
    unsafe { store(s, &sums, tile.sums, tile.sums_stride) };
}

/// Writes the sums of a tile, rows `stride` words apart.
///
/// # Safety
/// So many sums must be writable from `to` on.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
    s: S,
    sums: &[[S::W; VECTORS]; ROWS],
    to: *mut u32,
    stride: usize,
) {
    for (row, sums) in sums.iter().enumerate() {
        let to = to.wrapping_add(row.wrapping_mul(stride));
        for (vector, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller vouches for the sums.
            unsafe { s.store_words(sum, to.wrapping_add(vector * S::LANES)) };
        }
    }
}

/// What turns a tile of sums into output.
pub(crate) struct Finish<'a> {
    pub(crate) sums: *const u32,
    pub(crate) sums_stride: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    /// One for each column.
    pub(crate) bias: Option<&'a [f32]>,
    /// Integer sums only: the scale of each row.
    pub(crate) row_scales: &'a [f32],
    /// Integer sums only: the scale of each column, padded to whole vectors.
    pub(crate) column_scales: &'a [f32],
    /// Integer sums only: what the offset of the left operand added to each column, padded to whole vectors.
    pub(crate) compensation: &'a [u32],
    pub(crate) activation: Activation,
    pub(crate) write: Write,
}

/// Scales integer sums, adds the bias, applies the activation and writes.
///
/// # Safety
/// The sums must be readable in whole vectors, the output writable for `rows × columns`.
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd, const INTEGERS: bool>(s: S, finish: &Finish<'_>) {
    // SAFETY: the caller vouches for the places named in `finish`.
    unsafe {
        match finish.activation {
            Activation::Identity => finish_as::<S, INTEGERS, IDENTITY>(s, finish),
            Activation::GeluTanh => finish_as::<S, INTEGERS, GELU_TANH>(s, finish),
            Activation::Silu => finish_as::<S, INTEGERS, SILU>(s, finish),
        }
    }
}

const IDENTITY: u8 = 0;
const GELU_TANH: u8 = 1;
const SILU: u8 = 2;

const STORE: u8 = 0;
const ADD: u8 = 1;
const MULTIPLY: u8 = 2;
const ROUND: u8 = 3;

/// # Safety
/// As for [`finish`].
#[inline(always)]
unsafe fn finish_as<S: Simd, const INTEGERS: bool, const ACTIVATION: u8>(
    s: S,
    finish: &Finish<'_>,
) {
    // SAFETY: the caller vouches for the places named in `finish`.
    unsafe {
        match finish.write {
            Write::Store => finish_tile::<S, INTEGERS, ACTIVATION, STORE>(s, finish),
            Write::Add => finish_tile::<S, INTEGERS, ACTIVATION, ADD>(s, finish),
            Write::Multiply => finish_tile::<S, INTEGERS, ACTIVATION, MULTIPLY>(s, finish),
            Write::Round => finish_tile::<S, INTEGERS, ACTIVATION, ROUND>(s, finish),
        }
    }
}

/// # Safety
/// As for [`finish`].
#[inline(always)]
unsafe fn finish_tile<S: Simd, const INTEGERS: bool, const ACTIVATION: u8, const WRITE: u8>(
    s: S,
    finish: &Finish<'_>,
) {
    let whole = finish.columns / S::LANES;
    // SAFETY: the caller vouches for the places named in `finish`; these are the vectors that its columns fill.
    unsafe {
        match whole {
            0 => {}
            1 => finish_columns::<S, INTEGERS, ACTIVATION, WRITE, 1>(s, finish),
            2 => finish_columns::<S, INTEGERS, ACTIVATION, WRITE, 2>(s, finish),
            3 => finish_columns::<S, INTEGERS, ACTIVATION, WRITE, 3>(s, finish),
            _ => finish_columns::<S, INTEGERS, ACTIVATION, WRITE, 4>(s, finish),
        }
        if !finish.columns.is_multiple_of(S::LANES) {
            finish_rest::<S, INTEGERS, ACTIVATION, WRITE>(s, finish, whole * S::LANES);
        }
    }
}

/// What every value of a column is treated with.
#[derive(Clone, Copy)]
struct Column<S: Simd> {
    /// Integer sums only.
    offset: S::W,
    /// Integer sums only.
    scale: S::F,
    bias: S::F,
}

impl<S: Simd> Column<S> {
    /// The vector of columns from `at` on, of which the first `len` exist.
    #[inline(always)]
    fn load<const INTEGERS: bool>(s: S, finish: &Finish<'_>, at: usize, len: usize) -> Self {
        let bias = match finish.bias {
            Some(bias) if len == S::LANES => s.load(&bias[at..]),
            Some(bias) => s.load_part(&bias[at..at + len]),
            None => s.splat(0.0),
        };
        if !INTEGERS {
            let (offset, scale) = (s.zero_words(), s.splat(1.0));
            return Self {
                offset,
                scale,
                bias,
            };
        }
        let offset = &finish.compensation[at..at + S::LANES];
        Self {
            // SAFETY: the slice is cut to whole vectors by its bounds check.
            offset: unsafe { s.load_words(offset.as_ptr()) },
            scale: s.load(&finish.column_scales[at..]),
            bias,
        }
    }

    /// A vector of sums as values.
    #[inline(always)]
    fn apply<const INTEGERS: bool, const ACTIVATION: u8, const WRITE: u8>(
        &self,
        s: S,
        sum: S::W,
        row_scale: S::F,
    ) -> S::F {
        let value = if INTEGERS {
            let scale = s.mul(row_scale, self.scale);
            let whole = s.integers_to_floats(s.sub_words(sum, self.offset));
            s.mul_add(whole, scale, self.bias)
        } else {
            s.add(s.floats(sum), self.bias)
        };
        match ACTIVATION {
            GELU_TANH if WRITE == ROUND => vector::gelu_tanh_brief_vector(s, value),
            GELU_TANH => vector::gelu_tanh_vector(s, value),
            SILU => vector::silu_vector(s, value),
            _ => value,
        }
    }
}

#[inline(always)]
fn row_scale<S: Simd, const INTEGERS: bool>(s: S, finish: &Finish<'_>, row: usize) -> S::F {
    s.splat(if INTEGERS {
        finish.row_scales[row]
    } else {
        1.0
    })
}

/// The first `VECTORS` vectors of columns, all of them full.
///
/// # Safety
/// As for [`finish`].
#[inline(always)]
unsafe fn finish_columns<
    S: Simd,
    const INTEGERS: bool,
    const ACTIVATION: u8,
    const WRITE: u8,
    const VECTORS: usize,
>(
    s: S,
    finish: &Finish<'_>,
) {
    let mut columns = [Column::load::<INTEGERS>(s, finish, 0, S::LANES); VECTORS];
    for (vector, column) in columns.iter_mut().enumerate() {
        *column = Column::load::<INTEGERS>(s, finish, vector * S::LANES, S::LANES);
    }
    // Places are computed with wrapping arithmetic, as in `tile`.
    for row in 0..finish.rows {
        let row_scale = row_scale::<S, INTEGERS>(s, finish, row);
        let sums = finish
            .sums
            .wrapping_add(row.wrapping_mul(finish.sums_stride));
        let out = finish.out.wrapping_add(row.wrapping_mul(finish.out_stride));
        for (vector, column) in columns.iter().enumerate() {
            let at = vector * S::LANES;
            // SAFETY: the caller vouches for whole vectors of sums and for the columns of output in every row, of
            // which these are full vectors.
            unsafe {
                let sum = s.load_words(sums.wrapping_add(at));
                let value = column.apply::<INTEGERS, ACTIVATION, WRITE>(s, sum, row_scale);
                if WRITE == ROUND {
                    let to = out.cast::<u16>().wrapping_add(at);
                    s.store_bf16(value, std::slice::from_raw_parts_mut(to, S::LANES));
                    continue;
                }
                let to = std::slice::from_raw_parts_mut(out.wrapping_add(at), S::LANES);
                let value = match WRITE {
                    ADD => s.add(value, s.load(to)),
                    MULTIPLY => s.mul(s.load(to), value),
                    _ => value,
                };
                s.store(value, to);
            }
        }
    }
}

/// The columns from `at` on, which fill no vector.
///
/// # Safety
/// As for [`finish`].
#[inline(always)]
unsafe fn finish_rest<S: Simd, const INTEGERS: bool, const ACTIVATION: u8, const WRITE: u8>(
    s: S,
    finish: &Finish<'_>,
    at: usize,
) {
    let len = finish.columns - at;
    let column = Column::load::<INTEGERS>(s, finish, at, len);
    for row in 0..finish.rows {
        let row_scale = row_scale::<S, INTEGERS>(s, finish, row);
        // SAFETY: the caller vouches for whole vectors of sums and for the columns of output in every row.
        unsafe {
            let sum = s.load_words(finish.sums.add(row * finish.sums_stride + at));
            let value = column.apply::<INTEGERS, ACTIVATION, WRITE>(s, sum, row_scale);
            let out = finish.out.add(row * finish.out_stride);
            if WRITE == ROUND {
                let mut last = [0; 16];
                s.store_bf16(value, &mut last);
                let to = std::slice::from_raw_parts_mut(out.cast::<u16>().add(at), len);
                to.copy_from_slice(&last[..len]);
                continue;
            }
            let to = std::slice::from_raw_parts_mut(out.add(at), len);
            let value = match WRITE {
                ADD => s.add(value, s.load_part(to)),
                MULTIPLY => s.mul(s.load_part(to), value),
                _ => value,
            };
            s.store_part(value, to);
        }
    }
}
