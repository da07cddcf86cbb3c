//! The definitions: what every kernel computes, written plainly with sums in `f64`.
//!
//! Single-threaded and slow on purpose. Tests and `colibri doctor` compare every other path with these.

use half::f16;

use crate::attention::{AttentionShape, Mask};
use crate::gemm::int4;
use crate::rows::{Rows, RowsMut};

/// `Σ left[i] · right[i]`.
pub fn dot(left: &[f32], right: &[f32]) -> f64 {
    left.iter()
        .zip(right)
        .map(|(&l, &r)| f64::from(l) * f64::from(r))
        .sum()
}

/// `out = x · Wᵀ`, `weights` being `out_features × in_features`.
pub fn matmul(x: Rows<'_>, weights: Rows<'_>, mut out: RowsMut<'_>) {
    for row in 0..x.num_rows() {
        for feature in 0..weights.num_rows() {
            out.row_mut(row)[feature] = dot(x.row(row), weights.row(feature)) as f32;
        }
    }
}

/// A row in bytes and its scale: whole numbers of at most 127, nearest even, symmetric. A row that is not finite
/// gives zeros and a scale of NaN.
pub fn quantise(row: &[f32]) -> (Vec<i8>, f32) {
    let greatest = row
        .iter()
        .fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    if row.iter().any(|value| !value.is_finite()) {
        return (vec![0; row.len()], f32::NAN);
    }
    // Of smaller rows the inverse of the scale would not be finite.
    let inverse = if greatest >= f32::MIN_POSITIVE * 128.0 {
        127.0 / greatest
    } else {
        0.0
    };
    let bytes = row
        .iter()
        .map(|value| (value * inverse).round_ties_even() as i8)
        .collect();
    (bytes, greatest / 127.0)
}

/// A row in bytes and its scale as weights in four bits stand for them: of every 32 values each is the nearest of
/// the sixteen bytes `(multiplier · code + 64) >> 7`, under the multiplier, of ten that are tried, with the least
/// square error. A row that is not finite gives zeros and a scale of NaN.
pub fn quantise_groups(row: &[f32]) -> (Vec<i8>, f32) {
    let mut codes = vec![0; row.len().next_multiple_of(4)];
    let mut multipliers = vec![0; row.len().div_ceil(int4::GROUP)];
    let scale = int4::quantise_row(row, &mut codes, &mut multipliers);
    let byte = |at: usize| int4::byte(multipliers[at / int4::GROUP], codes[at]);
    ((0..row.len()).map(byte).collect(), scale)
}

/// `0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`.
pub fn gelu_tanh(x: f32) -> f32 {
    let x = f64::from(x);
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    (0.5 * x * (1.0 + inner.tanh())) as f32
}

/// `x / (1 + exp(-x))`.
pub fn silu(x: f32) -> f32 {
    let x = f64::from(x);
    (x / (1.0 + (-x).exp())) as f32
}

/// Whether query row `row` sees key `key`.
pub fn is_visible(mask: Mask<'_>, row: usize, key: usize) -> bool {
    match mask {
        Mask::Full => true,
        Mask::Causal { offset } => key <= offset + row,
        Mask::Window { offset, window } => key <= offset + row && offset + row < key + window,
        Mask::Keys(keys) => keys[key],
    }
}

/// Scaled dot-product attention, see [`crate::attention::attention`].
pub fn attention(
    shape: &AttentionShape,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask<'_>,
    mut out: RowsMut<'_>,
) {
    let dim = shape.head_dim;
    for row in 0..q.num_rows() {
        for head in 0..shape.q_heads {
            let kv = head / (shape.q_heads / shape.kv_heads) * dim;
            let query = &q.row(row)[head * dim..(head + 1) * dim];
            let scores: Vec<(usize, f64)> = (0..k.num_rows())
                .filter(|&key| is_visible(mask, row, key))
                .map(|key| {
                    (
                        key,
                        dot(query, &k.row(key)[kv..kv + dim]) * f64::from(shape.scale),
                    )
                })
                .collect();
            let max = scores
                .iter()
                .fold(f64::NEG_INFINITY, |max, &(_, score)| max.max(score));
            let total: f64 = scores.iter().map(|&(_, score)| (score - max).exp()).sum();
            for column in 0..dim {
                let sum: f64 = scores
                    .iter()
                    .map(|&(key, score)| (score - max).exp() * f64::from(v.row(key)[kv + column]))
                    .sum();
                out.row_mut(row)[head * dim + column] = if scores.is_empty() {
                    0.0
                } else {
                    (sum / total) as f32
                };
            }
        }
    }
}

/// `(x - mean) / √(variance + eps) · weight + bias`, the variance being the mean square deviation.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let count = x.len() as f64;
    let mean = x.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let variance = x
        .iter()
        .map(|&value| (f64::from(value) - mean).powi(2))
        .sum::<f64>()
        / count;
    let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
    for (index, value) in out.iter_mut().enumerate() {
        let normal = (f64::from(x[index]) - mean) * inverse;
        *value = (normal * f64::from(weight[index]) + f64::from(bias[index])) as f32;
    }
}

/// `x / √(mean(x²) + eps) · weight`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let inverse = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
    for (index, value) in out.iter_mut().enumerate() {
        *value = (f64::from(x[index]) * inverse * f64::from(weight[index])) as f32;
    }
}

/// `x / |x|`; a row of zeros stays zero.
pub fn l2_normalize(x: &mut [f32]) {
    let norm = dot(x, x).sqrt();
    if norm > 0.0 {
        for value in x {
            *value = (f64::from(*value) / norm) as f32;
        }
    }
}

/// For every query row the document row with the greatest dot product (the first of equals) and that
/// product; empty when there is no document row.
pub fn maxsim_argmax(query: Rows<'_>, rows: &[f16]) -> Vec<(u32, f32)> {
    if rows.is_empty() {
        return Vec::new();
    }
    (0..query.num_rows())
        .map(|row| {
            let mut best = (0, f32::NEG_INFINITY);
            for (index, document) in rows.chunks_exact(query.num_cols()).enumerate() {
                let document: Vec<f32> = document.iter().map(|value| value.to_f32()).collect();
                let product = dot(query.row(row), &document) as f32;
                if product > best.1 {
                    best = (index as u32, product);
                }
            }
            best
        })
        .collect()
}
