//! Results that are written rounded to bfloat16, and what reads them.

use colibri_kernels::attention::{
    AttentionShape, Inner, Mask, attention_rounded, attention_with, takes_rounded,
};
use colibri_kernels::gemm::{Activation, Input, PackedMatrix, Precision, Product, Write, matmul};
use colibri_kernels::isa::Isa;
use colibri_kernels::rows::{Rows, RowsMut};
use half::bf16;
use proptest::prelude::*;

use crate::values;

/// Rows as they are written rounded: two bfloat16 to a value, the first in the lower half.
fn rounded(values: &[f32]) -> Vec<f32> {
    let bits = |value: f32| u32::from(bf16::from_f32(value).to_bits());
    values
        .chunks_exact(2)
        .map(|pair| f32::from_bits(bits(pair[0]) | bits(pair[1]) << 16))
        .collect()
}

/// The values of such rows.
fn widened(words: &[f32]) -> Vec<f32> {
    let widen = |half: u32| bf16::from_bits(half as u16).to_f32();
    words
        .iter()
        .map(|word| word.to_bits())
        .flat_map(|word| [widen(word), widen(word >> 16)])
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_result_is_written_as_it_would_be_rounded(
        rows in 1_usize..20,
        inputs in 1_usize..90,
        half_outputs in 1_usize..90,
        precision in prop_oneof![Just(Precision::F32), Just(Precision::Bf16), Just(Precision::Int8), Just(Precision::Int4)],
        activation in prop_oneof![Just(Activation::Identity), Just(Activation::GeluTanh), Just(Activation::Silu)],
        gap in 0_usize..3,
        seed: u64,
    ) {
        let outputs = 2 * half_outputs;
        let (x, w) = (values(rows * inputs, seed), values(outputs * inputs, seed ^ 1));
        let bias: Vec<f32> = values(outputs, seed ^ 2).iter().map(|value| 8.0 * value).collect();
        for isa in Isa::available() {
            let weights = PackedMatrix::from_rows_with(isa, precision, outputs, inputs, &w);
            let run = |write, width: usize| {
                let mut out = vec![7.0; rows * (width + gap)];
                let product = Product {
                    weights: &weights,
                    bias: Some(&bias),
                    activation,
                    write,
                    out: RowsMut::strided(&mut out, rows, width, width + gap),
                };
                matmul(Rows::new(&x, rows, inputs), product);
                out
            };
            let (stored, words) = (run(Write::Store, outputs), run(Write::Round, half_outputs));
            for row in 0..rows {
                let stored = &stored[row * (outputs + gap)..][..outputs];
                let (words, between) = words[row * (half_outputs + gap)..][..half_outputs + gap].split_at(half_outputs);
                prop_assert!(between.iter().all(|&value| value == 7.0));
                if activation == Activation::GeluTanh {
                    // Its exponential is as precise as the rounding asks for.
                    for (found, wanted) in widened(words).iter().zip(stored) {
                        prop_assert!((found - wanted).abs() <= wanted.abs() / 200.0 + 1e-30, "{isa}: {found} {wanted}");
                    }
                } else {
                    prop_assert_eq!(bits(words), bits(&rounded(stored)), "{}", isa);
                }
            }
        }
    }

    #[test]
    fn rounded_rows_multiply_as_the_same_values_do(
        rows in 1_usize..20,
        half_inputs in 1_usize..90,
        outputs in 1_usize..90,
        precision in prop_oneof![Just(Precision::Bf16), Just(Precision::Int8), Just(Precision::Int4)],
        is_uneven in any::<bool>(),
        gap in 0_usize..3,
        seed: u64,
    ) {
        let inputs = 2 * half_inputs;
        let mut w = values(outputs * inputs, seed);
        if is_uneven {
            // Input features so different that bytes of them are balanced.
            w.iter_mut().skip(1).step_by(inputs).for_each(|value| *value *= 1e-3);
        }
        let stride = half_inputs + gap;
        let words = rounded(&values(2 * rows * stride, seed ^ 1));
        let words = Rows::strided(&words, rows, half_inputs, stride);
        let floats: Vec<f32> = (0..rows).flat_map(|row| widened(words.row(row))).collect();
        for isa in Isa::available().into_iter().filter(|&isa| takes_rounded(isa)) {
            let weights = PackedMatrix::from_rows_with(isa, precision, outputs, inputs, &w);
            let run = |x: Input<'_>| {
                let mut out = vec![f32::NAN; rows * outputs];
                let product = Product {
                    weights: &weights,
                    bias: None,
                    activation: Activation::Identity,
                    write: Write::Store,
                    out: RowsMut::new(&mut out, rows, outputs),
                };
                matmul(x, product);
                bits(&out)
            };
            let wanted = run(Rows::new(&floats, rows, inputs).into());
            prop_assert_eq!(run(Input::Rounded(words)), wanted);
        }
    }

    #[test]
    fn attention_over_rounded_rows_is_that_over_the_same_values(
        group in 1_usize..4,
        kv_heads in 1_usize..10,
        half_dim in prop_oneof![1_usize..20, Just(32), Just(36)],
        batch in 1_usize..3,
        n_q in 1_usize..30,
        n_k in 0_usize..150,
        kind in 0_u8..3,
        seed: u64,
    ) {
        let head_dim = 2 * half_dim;
        let shape = AttentionShape { q_heads: group * kv_heads, kv_heads, head_dim, scale: 0.3 };
        let marks: Vec<bool> = values(n_k, seed).iter().map(|&value| value > 0.3).collect();
        let mask = match kind {
            0 => Mask::Full,
            1 => Mask::Causal { offset: seed as usize % 60 },
            _ => Mask::Keys(&marks),
        };
        let (q_width, kv_width) = (shape.q_heads * head_dim, kv_heads * head_dim);
        let words = |rows: usize, width: usize, seed| rounded(&values(rows * width, seed));
        let q = words(batch * n_q, q_width, seed ^ 1);
        let [k, v] = [2, 3].map(|at| words(batch * n_k, kv_width, seed ^ at));
        for isa in Isa::available().into_iter().filter(|&isa| takes_rounded(isa)) {
            let mut found = vec![f32::NAN; batch * n_q * q_width];
            let operands = [
                Rows::new(&q, batch * n_q, q_width / 2),
                Rows::new(&k, batch * n_k, kv_width / 2),
                Rows::new(&v, batch * n_k, kv_width / 2),
            ];
            let out = RowsMut::new(&mut found, batch * n_q, q_width);
            attention_rounded(isa, &shape, batch, operands, mask, out);
            let (q, k, v) = (widened(&q), widened(&k), widened(&v));
            let mut wanted = vec![f32::NAN; batch * n_q * q_width];
            attention_with(
                isa,
                Inner::Bf16,
                &shape,
                batch,
                Rows::new(&q, batch * n_q, q_width),
                Rows::new(&k, batch * n_k, kv_width),
                Rows::new(&v, batch * n_k, kv_width),
                mask,
                RowsMut::new(&mut wanted, batch * n_q, q_width),
            );
            prop_assert_eq!(bits(&found), bits(&wanted));
        }
    }
}

#[test]
fn the_brief_gelu_takes_every_value() {
    let x: Vec<f32> = [0.0, -0.0, 1.0, -1.0, 9.0, -9.0, 1e30, -1e30, 3e38, f32::MIN]
        .into_iter()
        .chain([
            f32::INFINITY,
            f32::NEG_INFINITY,
            200.0,
            -200.0,
            -12.5,
            1e-30,
        ])
        .collect();
    for isa in Isa::available() {
        // One row of weights and many of ones, so that the values come through products as they are.
        let weights = PackedMatrix::from_rows_with(isa, Precision::F32, 2, 1, &[1.0, 1.0]);
        let mut out = vec![0.0; x.len()];
        let product = Product {
            weights: &weights,
            bias: None,
            activation: Activation::GeluTanh,
            write: Write::Round,
            out: RowsMut::new(&mut out, x.len(), 1),
        };
        matmul(Rows::new(&x, x.len(), 1), product);
        for (found, &x) in widened(&out).chunks_exact(2).zip(&x) {
            let wanted = if x <= -12.0 {
                0.0
            } else {
                colibri_kernels::scalar::gelu_tanh(x)
            };
            for found in found {
                let is_near = (found - wanted).abs() <= wanted.abs() / 200.0 + 1e-25;
                assert!(is_near || *found == wanted, "{isa} {x}: {found} {wanted}");
            }
        }
    }
}
