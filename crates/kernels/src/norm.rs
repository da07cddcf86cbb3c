//! Normalisation of rows.

use crate::isa::Isa;
use crate::parallel;
use crate::rows::{Rows, RowsMut};
use crate::simd::Kernels;

/// `out = (x - mean) / √(variance + eps) · weight + bias`, the variance being the mean square deviation.
///
/// # Panics
/// If the shapes differ.
pub fn layer_norm(x: Rows<'_>, weight: &[f32], bias: &[f32], eps: f32, out: RowsMut<'_>) {
    layer_norm_with(Isa::detect(), x, weight, bias, eps, out);
}

/// [`layer_norm`] with a choice of instruction set.
///
/// # Panics
/// If the shapes differ or the running machine does not have the instruction set.
pub fn layer_norm_with(
    isa: Isa,
    x: Rows<'_>,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: RowsMut<'_>,
) {
    check(x, weight, &out);
    assert_eq!(
        bias.len(),
        x.num_cols(),
        "a bias of another length than the row is a bug"
    );
    let kernels = Kernels::of(isa);
    parallel::for_each_row(out, nanos(&x), |row, out| {
        (kernels.layer_norm)(x.row(row), weight, bias, eps, out);
    });
}

/// `out = x / √(mean(x²) + eps) · weight`.
///
/// # Panics
/// If the shapes differ.
pub fn rms_norm(x: Rows<'_>, weight: &[f32], eps: f32, out: RowsMut<'_>) {
    rms_norm_with(Isa::detect(), x, weight, eps, out);
}

/// [`rms_norm`] with a choice of instruction set.
///
/// # Panics
/// If the shapes differ or the running machine does not have the instruction set.
pub fn rms_norm_with(isa: Isa, x: Rows<'_>, weight: &[f32], eps: f32, out: RowsMut<'_>) {
    check(x, weight, &out);
    let kernels = Kernels::of(isa);
    parallel::for_each_row(out, nanos(&x), |row, out| {
        (kernels.rms_norm)(x.row(row), weight, eps, out);
    });
}

/// `x / |x|` in place, without an epsilon; a row of zeros stays zero.
pub fn l2_normalize(x: RowsMut<'_>) {
    l2_normalize_with(Isa::detect(), x);
}

/// [`l2_normalize`] with a choice of instruction set.
///
/// # Panics
/// If the running machine does not have the instruction set.
pub fn l2_normalize_with(isa: Isa, x: RowsMut<'_>) {
    let kernels = Kernels::of(isa);
    let nanos = nanos(&x.as_rows());
    parallel::for_each_row(x, nanos, |_, values| (kernels.l2_normalize)(values));
}

/// Nanoseconds on one thread, roughly: three passes over a row in the cache.
fn nanos(x: &Rows<'_>) -> u64 {
    (x.num_rows() * x.num_cols()) as u64 / 6
}

fn check(x: Rows<'_>, weight: &[f32], out: &RowsMut<'_>) {
    assert_eq!(
        (x.num_rows(), x.num_cols()),
        (out.num_rows(), out.num_cols()),
        "an output of another shape than the input is a bug"
    );
    assert_eq!(
        weight.len(),
        x.num_cols(),
        "a weight of another length than the row is a bug"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar;

    #[test]
    fn all_three_match_their_definitions() {
        let x: Vec<f32> = (0..3 * 37)
            .map(|index| (index as f32 * 0.37).sin() * 3.0 + 0.5)
            .collect();
        let weight: Vec<f32> = (0..37).map(|index| 1.0 + index as f32 / 50.0).collect();
        let bias: Vec<f32> = (0..37).map(|index| index as f32 / 30.0 - 0.4).collect();
        let rows = Rows::new(&x, 3, 37);
        let (mut layer, mut rms, mut l2) = (x.clone(), x.clone(), x.clone());
        layer_norm(rows, &weight, &bias, 1e-6, RowsMut::new(&mut layer, 3, 37));
        rms_norm(rows, &weight, 1e-5, RowsMut::new(&mut rms, 3, 37));
        l2_normalize(RowsMut::new(&mut l2, 3, 37));
        for row in 0..3 {
            let range = row * 37..(row + 1) * 37;
            let mut expected = vec![0.0; 37];
            scalar::layer_norm(rows.row(row), &weight, &bias, 1e-6, &mut expected);
            assert_close(&layer[range.clone()], &expected);
            scalar::rms_norm(rows.row(row), &weight, 1e-5, &mut expected);
            assert_close(&rms[range.clone()], &expected);
            expected.copy_from_slice(rows.row(row));
            scalar::l2_normalize(&mut expected);
            assert_close(&l2[range], &expected);
        }
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        let mut x = [0.0; 5];
        l2_normalize(RowsMut::new(&mut x, 1, 5));
        assert_eq!(x, [0.0; 5]);
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 3e-6, "{found} {expected}");
        }
    }
}
