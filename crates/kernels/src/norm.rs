//! Normalisation of rows.

use crate::parallel;
use crate::rows::{Rows, RowsMut};

/// `out = (x - mean) / √(variance + eps) · weight + bias`, the variance being the mean square deviation.
///
/// # Panics
/// If the shapes differ.
pub fn layer_norm(x: Rows<'_>, weight: &[f32], bias: &[f32], eps: f32, out: RowsMut<'_>) {
    check(x, weight, &out);
    assert_eq!(
        bias.len(),
        x.num_cols(),
        "a bias of another length than the row is a bug"
    );
    parallel::for_each_row(out, (x.num_rows() * x.num_cols()) as u64, |row, out| {
        let x = x.row(row);
        let count = x.len() as f32;
        let mean = x.iter().sum::<f32>() / count;
        let variance = x
            .iter()
            .map(|value| (value - mean) * (value - mean))
            .sum::<f32>()
            / count;
        let inverse = 1.0 / (variance + eps).sqrt();
        for (index, value) in out.iter_mut().enumerate() {
            *value = (x[index] - mean) * inverse * weight[index] + bias[index];
        }
    });
}

/// `out = x / √(mean(x²) + eps) · weight`.
///
/// # Panics
/// If the shapes differ.
pub fn rms_norm(x: Rows<'_>, weight: &[f32], eps: f32, out: RowsMut<'_>) {
    check(x, weight, &out);
    parallel::for_each_row(out, (x.num_rows() * x.num_cols()) as u64, |row, out| {
        let x = x.row(row);
        let square = x.iter().map(|value| value * value).sum::<f32>() / x.len() as f32;
        let inverse = 1.0 / (square + eps).sqrt();
        for (index, value) in out.iter_mut().enumerate() {
            *value = x[index] * inverse * weight[index];
        }
    });
}

/// `x / |x|` in place, without an epsilon; a row of zeros stays zero.
pub fn l2_normalize(x: RowsMut<'_>) {
    let nanos = (x.num_rows() * x.num_cols()) as u64;
    parallel::for_each_row(x, nanos, |_, values| {
        let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        if norm > 0.0 {
            values.iter_mut().for_each(|value| *value /= norm);
        }
    });
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
