//! Activations on whole buffers. Inside a product they are fused instead: see [`crate::gemm::Activation`].

use crate::parallel;
use crate::rows::{Rows, RowsMut};

/// Values handed to a thread at a time.
const BLOCK: usize = 4096;

/// `0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))` in place.
pub fn gelu_tanh(x: &mut [f32]) {
    let len = x.len();
    let (whole, rest) = x.split_at_mut(len / BLOCK * BLOCK);
    parallel::for_each_row(
        RowsMut::new(whole, len / BLOCK, BLOCK),
        len as u64,
        |_, values| {
            values
                .iter_mut()
                .for_each(|value| *value = gelu_tanh_one(*value));
        },
    );
    rest.iter_mut()
        .for_each(|value| *value = gelu_tanh_one(*value));
}

/// `gate = silu(gate) · up`, row by row.
///
/// # Panics
/// If the two matrices differ in shape.
pub fn silu_mul(gate: RowsMut<'_>, up: Rows<'_>) {
    assert_eq!(
        (gate.num_rows(), gate.num_cols()),
        (up.num_rows(), up.num_cols()),
        "a gate and an up projection of different shapes is a bug"
    );
    let nanos = (gate.num_rows() * gate.num_cols()) as u64;
    parallel::for_each_row(gate, nanos, |row, values| {
        for (value, &up) in values.iter_mut().zip(up.row(row)) {
            *value = silu_one(*value) * up;
        }
    });
}

pub(crate) fn gelu_tanh_one(x: f32) -> f32 {
    const FACTOR: f32 = 0.797_884_6;
    0.5 * x * (1.0 + (FACTOR * (x + 0.044_715 * x * x * x)).tanh())
}

pub(crate) fn silu_one(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar;

    #[test]
    fn both_match_their_definitions() {
        let x: Vec<f32> = (-2000..=2000).map(|value| value as f32 / 100.0).collect();
        let mut gelu = x.clone();
        gelu_tanh(&mut gelu);
        let mut silu = x.clone();
        let up = vec![1.0; x.len()];
        silu_mul(
            RowsMut::new(&mut silu, 1, x.len()),
            Rows::new(&up, 1, x.len()),
        );
        for (index, &value) in x.iter().enumerate() {
            assert!(
                (gelu[index] - scalar::gelu_tanh(value)).abs() <= 2e-6 * value.abs().max(1.0),
                "{value}"
            );
            assert!(
                (silu[index] - scalar::silu(value)).abs() <= 2e-6 * value.abs().max(1.0),
                "{value}"
            );
        }
    }
}
