//! Activations on whole buffers. Inside a product they are fused instead: see [`crate::gemm::Activation`].

use crate::isa::Isa;
use crate::parallel;
use crate::rows::{Rows, RowsMut};
use crate::simd::Kernels;

/// Values handed to a thread at a time.
const BLOCK: usize = 4096;

/// `0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))` in place.
pub fn gelu_tanh(x: &mut [f32]) {
    gelu_tanh_with(Isa::detect(), x);
}

/// [`gelu_tanh`] with a choice of instruction set.
///
/// # Panics
/// If the running machine does not have the instruction set.
pub fn gelu_tanh_with(isa: Isa, x: &mut [f32]) {
    in_blocks(x, Kernels::of(isa).gelu_tanh);
}

/// `e^x` in place, relative error below 2e-7 where the result is a normal number below 2^127; zero below,
/// infinity above.
pub fn exp(x: &mut [f32]) {
    exp_with(Isa::detect(), x);
}

/// [`exp`] with a choice of instruction set.
///
/// # Panics
/// If the running machine does not have the instruction set.
pub fn exp_with(isa: Isa, x: &mut [f32]) {
    in_blocks(x, Kernels::of(isa).exp);
}

/// `gate = silu(gate) · up`, row by row.
///
/// # Panics
/// If the two matrices differ in shape.
pub fn silu_mul(gate: RowsMut<'_>, up: Rows<'_>) {
    silu_mul_with(Isa::detect(), gate, up);
}

/// [`silu_mul`] with a choice of instruction set.
///
/// # Panics
/// If the two matrices differ in shape or the running machine does not have the instruction set.
pub fn silu_mul_with(isa: Isa, gate: RowsMut<'_>, up: Rows<'_>) {
    assert_eq!(
        (gate.num_rows(), gate.num_cols()),
        (up.num_rows(), up.num_cols()),
        "a gate and an up projection of different shapes is a bug"
    );
    let kernels = Kernels::of(isa);
    let nanos = (gate.num_rows() * gate.num_cols()) as u64 / 5;
    parallel::for_each_row(gate, nanos, |row, values| {
        (kernels.silu_mul)(values, up.row(row));
    });
}

/// `gate = gelu_tanh(gate) · up`, row by row.
///
/// # Panics
/// If the two matrices differ in shape.
pub fn gelu_tanh_mul(gate: RowsMut<'_>, up: Rows<'_>) {
    assert_eq!(
        (gate.num_rows(), gate.num_cols()),
        (up.num_rows(), up.num_cols()),
        "a gate and an up projection of different shapes is a bug"
    );
    let kernels = Kernels::of(Isa::detect());
    let nanos = (gate.num_rows() * gate.num_cols()) as u64 / 5;
    parallel::for_each_row(gate, nanos, |row, values| {
        (kernels.gelu_tanh)(values);
        for (value, up) in values.iter_mut().zip(up.row(row)) {
            *value *= up;
        }
    });
}

fn in_blocks(x: &mut [f32], kernel: fn(&mut [f32])) {
    let (len, nanos) = (x.len(), x.len() as u64 / 5);
    let (whole, rest) = x.split_at_mut(len / BLOCK * BLOCK);
    parallel::for_each_row(
        RowsMut::new(whole, len / BLOCK, BLOCK),
        nanos,
        |_, values| kernel(values),
    );
    kernel(rest);
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
        let twos = vec![2.0; x.len()];
        let mut gated = x.clone();
        gelu_tanh_mul(
            RowsMut::new(&mut gated, 1, x.len()),
            Rows::new(&twos, 1, x.len()),
        );
        for (gelu, gated) in gelu.iter().zip(&gated) {
            assert_eq!(2.0 * gelu, *gated);
        }
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
