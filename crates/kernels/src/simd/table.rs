//! The compiled kernels of one instruction set, and the macro that compiles them.

use crate::isa::Isa;
use crate::micro::{Finish, Tile};
use crate::resample::Weights;
use crate::short_tile;

/// A register tile of so many rows and vectors, see [`crate::micro::tile`].
pub(crate) type TileFn = unsafe fn(&Tile);
/// The same for bfloat16 in twelve bits, see [`short_tile::tile`].
pub(crate) type ShortTiles = TilesOf<unsafe fn(&short_tile::Tile<'_>)>;
pub(crate) type Tiles = TilesOf<TileFn>;
/// Tiles by `[rows - 1][vectors - 1]`.
pub(crate) type TilesOf<F> = [[F; super::MAX_PANEL_VECTORS]; super::MAX_TILE_ROWS];

/// Every kernel, compiled for one instruction set. Holding a reference is the proof that the running
/// machine can execute them: [`Kernels::of`] is the only way to get one.
#[expect(
    clippy::type_complexity,
    reason = "a table of functions, each described where it is written"
)]
pub(crate) struct Kernels {
    pub(crate) lanes: usize,
    /// Output features in a full panel.
    pub(crate) panel_width: usize,
    /// Rows of the largest tile.
    pub(crate) tile_rows: usize,
    pub(crate) byte_offset: i32,
    pub(crate) fast_bf16: bool,

    pub(crate) tiles_f32: Tiles,
    pub(crate) tiles_bf16: Tiles,
    pub(crate) tiles_bytes: Tiles,
    pub(crate) tiles_nibbles: Tiles,
    pub(crate) finish_floats: unsafe fn(&Finish<'_>),
    pub(crate) finish_integers: unsafe fn(&Finish<'_>),
    pub(crate) pack_panel: unsafe fn(&crate::pack::Panel),
    pub(crate) unpack_nibbles: unsafe fn(&crate::nibble_tile::Unpack),
    pub(crate) tiles_shorts: ShortTiles,
    pub(crate) lengthen: unsafe fn(&short_tile::Columns<'_>, usize, *mut u32),
    pub(crate) widen_bytes_bf16: unsafe fn(&crate::widen::Steps),
    pub(crate) widen_bytes_f32: unsafe fn(&crate::widen::Steps),

    pub(crate) narrow_bf16: fn(&[f32], &mut [u32]),
    pub(crate) pair_bf16: fn(&[f32], &[f32], &mut [u32]),
    pub(crate) pair_halves: fn(&[u16], &[u16], &mut [u32]),
    pub(crate) narrow_bytes: fn(&[f32], i32, &mut [u32]) -> f32,
    pub(crate) narrow_halves: fn(&[u16], i32, &mut [u32]) -> f32,
    pub(crate) quantise_nibbles: fn(&[f32], &mut [u8], &mut [i8]) -> f32,
    pub(crate) widen_f16: fn(&[u16], &mut [f32]),

    pub(crate) softmax: fn(&mut [f32], f32, Option<&[f32]>) -> f32,
    pub(crate) softmax_bf16: fn(&mut [f32], f32, Option<&[f32]>, &mut [u32]) -> f32,
    pub(crate) scale: fn(&[f32], f32, &mut [f32]),
    pub(crate) multiply: fn(&mut [f32], &[f32]),
    pub(crate) exp: fn(&mut [f32]),
    pub(crate) gelu_tanh: fn(&mut [f32]),
    pub(crate) silu_mul: fn(&mut [f32], &[f32]),
    pub(crate) layer_norm: fn(&[f32], &[f32], &[f32], f32, &mut [f32]),
    pub(crate) rms_norm: fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) l2_normalize: fn(&mut [f32]),
    pub(crate) rotate: fn(&mut [f32], &mut [f32], &[f32], &[f32]),
    pub(crate) raise: fn(&[f32], &mut [f32]),
    pub(crate) weighted_sums: fn(&Weights, &[u8], usize, &mut [u8]),
}

impl Kernels {
    /// The kernels of `isa`.
    ///
    /// # Panics
    /// If the running machine cannot execute them.
    pub(crate) fn of(isa: Isa) -> &'static Self {
        assert!(
            isa.is_available(),
            "running {isa} kernels on a machine without {isa} is a bug"
        );
        match isa {
            Isa::Scalar => &super::portable::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if is_x86_feature_detected!("avxvnni") => &super::avx2::vnni::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &super::avx2::plain::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &super::avx512::KERNELS,
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => &super::portable::KERNELS,
        }
    }

    /// The tile of `rows` rows and `vectors` vectors in `tiles`.
    pub(crate) fn tile<F: Copy>(tiles: &TilesOf<F>, rows: usize, vectors: usize) -> F {
        tiles[rows - 1][vectors - 1]
    }
}

/// Compiles every kernel for the instruction set of `$simd`, whose only value is `$token`, with `$features`
/// enabled, into a constant `KERNELS` of the calling module.
macro_rules! kernel_table {
    ($simd:ident, $token:expr $(, $features:literal)?) => {
        use crate::gemm::int4;
        use crate::micro::{self, Finish, Tile};
        use crate::narrow;
        use crate::nibble_tile::{self, Unpack};
        use crate::pack::{self, Panel};
        use crate::resample;
        use crate::short_tile;
        use crate::simd::table::Kernels;
        use crate::vector;
        use crate::widen;

        $(#[target_feature(enable = $features)])?
        unsafe fn tile_f32<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
            // SAFETY: the caller vouches for the places named in `tile`.
            unsafe { micro::tile::<$simd, micro::Floats, ROWS, VECTORS>($token, tile) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn tile_bf16<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
            // SAFETY: the caller vouches for the places named in `tile`.
            unsafe { micro::tile::<$simd, micro::Brains, ROWS, VECTORS>($token, tile) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn tile_bytes<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
            // SAFETY: the caller vouches for the places named in `tile`.
            unsafe { micro::tile::<$simd, micro::Bytes, ROWS, VECTORS>($token, tile) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn tile_nibbles<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
            // SAFETY: the caller vouches for the places named in `tile`.
            unsafe { nibble_tile::tile::<$simd, ROWS, VECTORS>($token, tile) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn unpack_nibbles(block: &Unpack) {
            // SAFETY: the caller vouches for the places named in `block`.
            unsafe { nibble_tile::unpack($token, block) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn tile_shorts<const ROWS: usize, const VECTORS: usize>(tile: &short_tile::Tile<'_>) {
            // SAFETY: the caller vouches for the places named in `tile`.
            unsafe { short_tile::tile::<$simd, ROWS, VECTORS>($token, tile) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn lengthen(columns: &short_tile::Columns<'_>, quads: usize, to: *mut u32) {
            // SAFETY: the caller vouches for the places named in `columns` and for those at `to`.
            unsafe { short_tile::lengthen($token, columns, quads, to) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn widen_bytes_bf16(steps: &widen::Steps) {
            // SAFETY: the caller vouches for the places named in `steps`.
            unsafe { widen::widen_bytes::<_, 2>($token, steps) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn widen_bytes_f32(steps: &widen::Steps) {
            // SAFETY: the caller vouches for the places named in `steps`.
            unsafe { widen::widen_bytes::<_, 4>($token, steps) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn quantise_nibbles(row: &[f32], codes: &mut [u8], multipliers: &mut [i8]) -> f32 {
            int4::quantise_row(row, codes, multipliers)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn finish_floats(finish: &Finish<'_>) {
            // SAFETY: the caller vouches for the places named in `finish`.
            unsafe { micro::finish::<$simd, false>($token, finish) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn finish_integers(finish: &Finish<'_>) {
            // SAFETY: the caller vouches for the places named in `finish`.
            unsafe { micro::finish::<$simd, true>($token, finish) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn pack_panel(panel: &Panel) {
            // SAFETY: the caller vouches for the places named in `panel`.
            unsafe { pack::pack_panel($token, panel) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn narrow_bf16(row: &[f32], out: &mut [u32]) {
            narrow::narrow_bf16($token, row, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn pair_bf16(low: &[f32], high: &[f32], out: &mut [u32]) {
            narrow::pair_bf16($token, low, high, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn pair_halves(low: &[u16], high: &[u16], out: &mut [u32]) {
            narrow::pair_halves(low, high, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn narrow_bytes(row: &[f32], offset: i32, out: &mut [u32]) -> f32 {
            narrow::narrow_bytes($token, row, offset, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn narrow_halves(row: &[u16], offset: i32, out: &mut [u32]) -> f32 {
            narrow::narrow_bytes($token, row, offset, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn widen_f16(from: &[u16], out: &mut [f32]) {
            vector::widen_f16($token, from, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn softmax(scores: &mut [f32], factor: f32, bias: Option<&[f32]>) -> f32 {
            vector::softmax($token, scores, factor, bias)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn softmax_bf16(scores: &mut [f32], factor: f32, bias: Option<&[f32]>, out: &mut [u32]) -> f32 {
            vector::softmax_bf16($token, scores, factor, bias, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn scale(from: &[f32], factor: f32, out: &mut [f32]) {
            vector::scale($token, from, factor, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn multiply(values: &mut [f32], factors: &[f32]) {
            vector::multiply($token, values, factors)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn exp(values: &mut [f32]) {
            vector::exp($token, values)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn gelu_tanh(values: &mut [f32]) {
            vector::gelu_tanh($token, values)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn silu_mul(gate: &mut [f32], up: &[f32]) {
            vector::silu_mul($token, gate, up)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
            vector::layer_norm($token, x, weight, bias, eps, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
            vector::rms_norm($token, x, weight, eps, out)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn l2_normalize(x: &mut [f32]) {
            vector::l2_normalize($token, x)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn rotate(low: &mut [f32], high: &mut [f32], cos: &[f32], sin: &[f32]) {
            vector::rotate($token, low, high, cos, sin)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn raise(products: &[f32], best: &mut [f32]) {
            vector::raise($token, products, best)
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn weighted_sums(weights: &resample::Weights, source: &[u8], stride: usize, out: &mut [u8]) {
            // SAFETY: `resample::weighted_sums_with` has checked the number of samples.
            unsafe { $token.weighted_sums(weights, source, stride, out) }
        }

        // SAFETY, for every closure below: a reference to the table exists only on machines that have the
        // features, see `Kernels::of`.
        pub(in crate::simd) static KERNELS: Kernels = Kernels {
            lanes: <$simd as Simd>::LANES,
            panel_width: <$simd as Simd>::LANES * <$simd as Simd>::PANEL_VECTORS,
            tile_rows: <$simd as Simd>::TILE_ROWS,
            byte_offset: <$simd as Simd>::BYTE_OFFSET,
            fast_bf16: <$simd as Simd>::FAST_BF16,
            tiles_f32: crate::simd::table::tiles!(tile_f32),
            tiles_bf16: crate::simd::table::tiles!(tile_bf16),
            tiles_bytes: crate::simd::table::tiles!(tile_bytes),
            tiles_nibbles: crate::simd::table::tiles!(tile_nibbles),
            finish_floats,
            finish_integers,
            pack_panel,
            unpack_nibbles,
            tiles_shorts: crate::simd::table::tiles!(tile_shorts),
            lengthen,
            widen_bytes_bf16,
            widen_bytes_f32,
            // SAFETY: see above.
            quantise_nibbles: |row, codes, multipliers| unsafe { quantise_nibbles(row, codes, multipliers) },
            // SAFETY: see above.
            narrow_bf16: |row, out| unsafe { narrow_bf16(row, out) },
            // SAFETY: see above.
            pair_bf16: |low, high, out| unsafe { pair_bf16(low, high, out) },
            // SAFETY: see above.
            pair_halves: |low, high, out| unsafe { pair_halves(low, high, out) },
            // SAFETY: see above.
            narrow_bytes: |row, offset, out| unsafe { narrow_bytes(row, offset, out) },
            // SAFETY: see above.
            narrow_halves: |row, offset, out| unsafe { narrow_halves(row, offset, out) },
            // SAFETY: see above.
            widen_f16: |from, out| unsafe { widen_f16(from, out) },
            // SAFETY: see above.
            softmax: |scores, factor, bias| unsafe { softmax(scores, factor, bias) },
            // SAFETY: see above.
            softmax_bf16: |scores, factor, bias, out| unsafe { softmax_bf16(scores, factor, bias, out) },
            // SAFETY: see above.
            scale: |from, factor, out| unsafe { scale(from, factor, out) },
            // SAFETY: see above.
            multiply: |values, factors| unsafe { multiply(values, factors) },
            // SAFETY: see above.
            exp: |values| unsafe { exp(values) },
            // SAFETY: see above.
            gelu_tanh: |values| unsafe { gelu_tanh(values) },
            // SAFETY: see above.
            silu_mul: |gate, up| unsafe { silu_mul(gate, up) },
            // SAFETY: see above.
            layer_norm: |x, weight, bias, eps, out| unsafe { layer_norm(x, weight, bias, eps, out) },
            // SAFETY: see above.
            rms_norm: |x, weight, eps, out| unsafe { rms_norm(x, weight, eps, out) },
            // SAFETY: see above.
            l2_normalize: |x| unsafe { l2_normalize(x) },
            // SAFETY: see above.
            rotate: |low, high, cos, sin| unsafe { rotate(low, high, cos, sin) },
            // SAFETY: see above.
            raise: |products, best| unsafe { raise(products, best) },
            // SAFETY: see above.
            weighted_sums: |weights, source, stride, out| unsafe { weighted_sums(weights, source, stride, out) },
        };
    };
}
pub(crate) use kernel_table;

/// `$tile` for every size of tile.
macro_rules! tiles {
    ($tile:ident) => {
        crate::simd::table::tiles!($tile: 1 2 3 4 5 6)
    };
    ($tile:ident: $($rows:literal)*) => {
        [$([$tile::<$rows, 1>, $tile::<$rows, 2>, $tile::<$rows, 3>, $tile::<$rows, 4>]),*]
    };
}
pub(crate) use tiles;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #![expect(
        unsafe_code,
        reason = "tiles of a path that detection passes over are called directly"
    )]

    use super::*;
    use crate::simd::{MAX_PANEL_WIDTH, avx2};

    /// A machine with VNNI never chooses the other byte tiles by itself.
    #[test]
    fn byte_tiles_without_vnni_are_exact_too() {
        if !Isa::Avx2.is_available() {
            eprintln!("skipped: byte_tiles_without_vnni_are_exact_too needs AVX2");
            return;
        }
        // All values from -127 to 127, and runs of the extremes.
        let byte = |at: usize, factor: usize| {
            if at / 64 % 3 == 2 {
                127
            } else {
                (at * factor % 255) as i32 - 127
            }
        };
        let (words, rows, columns) = (37, 6, 16);
        let left = |row: usize, k: usize| byte(row * 4 * words + k, 7);
        let right = |k: usize, column: usize| byte((k / 4 * columns + column) * 4 + k % 4, 11);
        let word = |value: &dyn Fn(usize) -> i32| {
            u32::from_ne_bytes(std::array::from_fn(|part| value(part) as u8))
        };
        for kernels in [&avx2::plain::KERNELS, Kernels::of(Isa::Avx2)] {
            let offset = kernels.byte_offset;
            let left_words: Vec<u32> = (0..rows * words)
                .map(|at| word(&|part| left(at / words, at % words * 4 + part) + offset))
                .collect();
            let right_words: Vec<u32> = (0..words * columns)
                .map(|at| word(&|part| right(at / columns * 4 + part, at % columns)))
                .collect();
            let mut sums = vec![0_u32; rows * MAX_PANEL_WIDTH];
            // SAFETY: the machine has AVX2; the operands have the sizes given, the sums `rows` rows.
            unsafe {
                Kernels::tile(&kernels.tiles_bytes, rows, columns / kernels.lanes)(&Tile {
                    words,
                    left: left_words.as_ptr(),
                    left_stride: words,
                    right: right_words.as_ptr(),
                    right_stride: columns,
                    sums: sums.as_mut_ptr(),
                    sums_stride: MAX_PANEL_WIDTH,
                    accumulate: false,
                    ahead: 0,
                });
            }
            for (row, sums) in sums.chunks_exact(MAX_PANEL_WIDTH).enumerate() {
                for (column, &sum) in sums[..columns].iter().enumerate() {
                    let wanted: i32 = (0..4 * words)
                        .map(|k| (left(row, k) + offset) * right(k, column))
                        .sum();
                    assert_eq!(
                        sum as i32, wanted,
                        "row {row}, column {column}, offset {offset}"
                    );
                }
            }
        }
    }
}
