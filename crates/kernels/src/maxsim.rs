//! Late interaction: `Σ_i max_j <q_i, d_j>` (Khattab and Zaharia 2020) of `f32` query rows over `f16`
//! document rows.
//!
//! Document rows are widened and packed a panel at a time and multiplied with all query rows while they are
//! in the first levels of cache, so that a page is read once. Products and sums are `f32`.

#![expect(unsafe_code, reason = "tiles read and write behind raw pointers")]

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::isa::Isa;
use crate::memory::with_scratch;
use crate::micro::Tile;
use crate::pack::Panel;
use crate::parallel;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernels, MAX_PANEL_WIDTH, MAX_TILE_ROWS};

/// `Σ_i max_j <q_i, d_j>`, without clamping; an empty page scores `f32::NEG_INFINITY`. A product that is NaN
/// never is a maximum.
///
/// `rows` holds the document rows one after another, each as long as a query row.
///
/// # Panics
/// If `rows` is not a whole number of rows.
pub fn maxsim_f16(query: Rows<'_>, rows: &[f16]) -> f32 {
    maxsim_f16_with(Isa::detect(), query, rows)
}

/// [`maxsim_f16`] with a choice of instruction set.
///
/// # Panics
/// If `rows` is not a whole number of rows or the running machine does not have the instruction set.
pub fn maxsim_f16_with(isa: Isa, query: Rows<'_>, rows: &[f16]) -> f32 {
    if rows.is_empty() {
        return f32::NEG_INFINITY;
    }
    let kernels = Kernels::of(isa);
    let mut best = vec![f32::NEG_INFINITY; query.num_rows() * kernels.lanes];
    each_product(kernels, query, rows, |row, _, products| {
        (kernels.raise)(
            products,
            &mut best[row * kernels.lanes..(row + 1) * kernels.lanes],
        );
    });
    best.chunks_exact(kernels.lanes)
        .map(|lanes| lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max))
        .sum()
}

/// For every query row the index of the document row with the greatest dot product (the first of equals)
/// and that product; empty when the page is empty.
///
/// # Panics
/// If `rows` is not a whole number of rows.
pub fn maxsim_f16_argmax(query: Rows<'_>, rows: &[f16]) -> Vec<(u32, f32)> {
    maxsim_f16_argmax_with(Isa::detect(), query, rows)
}

/// [`maxsim_f16_argmax`] with a choice of instruction set.
///
/// # Panics
/// If `rows` is not a whole number of rows or the running machine does not have the instruction set.
pub fn maxsim_f16_argmax_with(isa: Isa, query: Rows<'_>, rows: &[f16]) -> Vec<(u32, f32)> {
    if rows.is_empty() {
        return Vec::new();
    }
    let mut best = vec![(0, f32::NEG_INFINITY); query.num_rows()];
    each_product(Kernels::of(isa), query, rows, |row, first, products| {
        for (index, &product) in products.iter().enumerate() {
            if product > best[row].1 {
                best[row] = ((first + index) as u32, product);
            }
        }
    });
    best
}

/// [`maxsim_f16`] of one query over many pages, in parallel.
///
/// # Panics
/// If a page is not a whole number of rows.
pub fn maxsim_many(query: Rows<'_>, pages: &[&[f16]]) -> Vec<f32> {
    maxsim_many_with(Isa::detect(), query, pages)
}

/// [`maxsim_many`] with a choice of instruction set.
///
/// # Panics
/// If a page is not a whole number of rows or the running machine does not have the instruction set.
pub fn maxsim_many_with(isa: Isa, query: Rows<'_>, pages: &[&[f16]]) -> Vec<f32> {
    let values: usize = pages.iter().map(|page| page.len()).sum();
    let nanos = (values * query.num_rows().max(1)) as u64 / 50;
    let mut scores = vec![0.0; pages.len()];
    let out = RowsMut::new(&mut scores, pages.len(), 1);
    parallel::for_each_row(out, nanos, |page, score| {
        score[0] = maxsim_f16_with(isa, query, pages[page]);
    });
    scores
}

/// Hands over the dot products of every query row with a panel of document rows at a time: the query row, the
/// first document row, and the products, in whole vectors; past the last document row they are negative
/// infinity.
fn each_product(
    kernels: &Kernels,
    query: Rows<'_>,
    rows: &[f16],
    mut visit: impl FnMut(usize, usize, &[f32]),
) {
    let dim = query.num_cols();
    assert!(
        dim > 0 && rows.len().is_multiple_of(dim),
        "{} values in rows of {dim} is a bug",
        rows.len()
    );
    let bits: &[u16] = rows.reinterpret_cast();
    let block = kernels.panel_width * dim;
    with_scratch(2 * block + MAX_TILE_ROWS * MAX_PANEL_WIDTH, |scratch| {
        let (wide, scratch) = scratch.split_at_mut(block);
        let (panel, products) = scratch.split_at_mut(block);
        for (index, bits) in bits.chunks(block).enumerate() {
            let count = bits.len() / dim;
            let width = count.next_multiple_of(kernels.lanes);
            (kernels.widen_f16)(bits, bytemuck::cast_slice_mut(&mut wide[..bits.len()]));
            // SAFETY: `wide` has `count` rows of `dim` words; `panel` has room for a full panel.
            unsafe {
                (kernels.pack_panel)(&Panel {
                    from: wide.as_ptr(),
                    from_stride: dim,
                    rows: count,
                    words: dim,
                    to: panel.as_mut_ptr(),
                    width,
                });
            }
            for tile_rows in crate::gemm::split(
                query.num_rows(),
                query.num_rows().div_ceil(kernels.tile_rows),
            ) {
                let tile =
                    Kernels::tile(&kernels.tiles_f32, tile_rows.len(), width / kernels.lanes);
                // SAFETY: the tile's rows are rows of the query, `dim` words each; the panel was just packed
                // with `dim` steps of `width` words; `products` has room for the largest tile.
                unsafe {
                    tile(&Tile {
                        words: dim,
                        left: query.as_ptr().add(tile_rows.start * query.stride()).cast(),
                        left_stride: query.stride(),
                        right: panel.as_ptr(),
                        right_stride: width,
                        sums: products.as_mut_ptr(),
                        sums_stride: MAX_PANEL_WIDTH,
                        accumulate: false,
                        ahead: 0,
                    });
                }
                for (row, products) in tile_rows.zip(products.chunks_exact_mut(MAX_PANEL_WIDTH)) {
                    let products: &mut [f32] = bytemuck::cast_slice_mut(&mut products[..width]);
                    products[count..].fill(f32::NEG_INFINITY);
                    visit(row, index * kernels.panel_width, products);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar;

    #[test]
    fn it_matches_the_definition() {
        let query: Vec<f32> = (0..3 * 24)
            .map(|index| (index as f32 * 0.9).sin())
            .collect();
        let query = Rows::new(&query, 3, 24);
        let page: Vec<f16> = (0..11 * 24)
            .map(|index| f16::from_f32((index as f32 * 0.31).cos()))
            .collect();
        let expected = scalar::maxsim_argmax(query, &page);
        let found = maxsim_f16_argmax(query, &page);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.0, expected.0);
            assert!((found.1 - expected.1).abs() < 1e-5);
        }
        let total: f32 = expected.iter().map(|best| best.1).sum();
        assert!((maxsim_f16(query, &page) - total).abs() < 1e-5);
        let many = maxsim_many(query, &[&page, &[], &page[..24]]);
        assert_eq!(many[0], maxsim_f16(query, &page));
        assert_eq!(many[1], f32::NEG_INFINITY);
        assert_eq!(many[2], maxsim_f16(query, &page[..24]));
    }

    #[test]
    fn negative_maxima_are_not_clamped() {
        let page = [f16::from_f32(-1.0), f16::from_f32(-2.0)];
        assert_eq!(maxsim_f16(Rows::new(&[1.0, 2.0], 2, 1), &page), -3.0);
    }
}
