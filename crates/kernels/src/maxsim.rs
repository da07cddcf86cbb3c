//! Late interaction: `Σ_i max_j <q_i, d_j>` (Khattab and Zaharia 2020) of `f32` query rows over `f16`
//! document rows.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::parallel;
use crate::rows::Rows;

/// `Σ_i max_j <q_i, d_j>`, without clamping; an empty page scores `f32::NEG_INFINITY`.
///
/// `rows` holds the document rows one after another, each as long as a query row.
///
/// # Panics
/// If `rows` is not a whole number of rows.
pub fn maxsim_f16(query: Rows<'_>, rows: &[f16]) -> f32 {
    if rows.is_empty() {
        return f32::NEG_INFINITY;
    }
    maxsim_f16_argmax(query, rows)
        .iter()
        .map(|&(_, score)| score)
        .sum()
}

/// For every query row the index of the document row with the greatest dot product (the first of equals)
/// and that product; empty when the page is empty.
///
/// # Panics
/// If `rows` is not a whole number of rows.
pub fn maxsim_f16_argmax(query: Rows<'_>, rows: &[f16]) -> Vec<(u32, f32)> {
    let dim = query.num_cols();
    if rows.is_empty() {
        return Vec::new();
    }
    assert!(
        dim > 0 && rows.len().is_multiple_of(dim),
        "{} values in rows of {dim} is a bug",
        rows.len()
    );
    let mut best = vec![(0, f32::NEG_INFINITY); query.num_rows()];
    let mut document = vec![0.0; dim];
    for (index, row) in rows.chunks_exact(dim).enumerate() {
        row.convert_to_f32_slice(&mut document);
        for (row, best) in best.iter_mut().enumerate() {
            let product = dot(query.row(row), &document);
            if product > best.1 {
                *best = (index as u32, product);
            }
        }
    }
    best
}

/// [`maxsim_f16`] of one query over many pages, in parallel.
///
/// # Panics
/// If a page is not a whole number of rows.
pub fn maxsim_many(query: Rows<'_>, pages: &[&[f16]]) -> Vec<f32> {
    let values: usize = pages.iter().map(|page| page.len()).sum();
    let nanos = (values * query.num_rows().max(1)) as u64 / 8;
    let mut scores = vec![0.0; pages.len()];
    let out = crate::rows::RowsMut::new(&mut scores, pages.len(), 1);
    parallel::for_each_row(out, nanos, |page, score| {
        score[0] = maxsim_f16(query, pages[page])
    });
    scores
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
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
