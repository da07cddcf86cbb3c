//! Products with packed weights.

use colibri_kernels::gemm::{
    Activation, PackedMatrix, Precision, Product, Write, matmul, matmul_gated,
};
use colibri_kernels::isa::Isa;
use colibri_kernels::rows::{Rows, RowsMut};
use colibri_kernels::scalar;
use half::bf16;
use proptest::prelude::*;

use crate::values;

/// Error of a sum of products relative to the sum of their magnitudes: a few hundred roundings that mostly
/// cancel.
const SUM_TOLERANCE: f64 = 1e-6;

fn precisions() -> impl Strategy<Value = Precision> {
    prop_oneof![
        Just(Precision::F32),
        Just(Precision::Bf16),
        Just(Precision::Bf16Short),
        Just(Precision::Int8),
        Just(Precision::Int4)
    ]
}

/// The result of a product as its precision defines it, and the sum of the magnitudes of its terms.
fn expected(precision: Precision, x: &[f32], w: &[f32]) -> (f64, f64) {
    let round = |value: &f32| bf16::from_f32(*value).to_f32();
    let (x, w): (Vec<f32>, Vec<f32>) = match precision {
        Precision::F32 => (x.to_vec(), w.to_vec()),
        Precision::Bf16 | Precision::Bf16Short => {
            (x.iter().map(round).collect(), w.iter().map(round).collect())
        }
        Precision::Int8 | Precision::Int4 => {
            let quantise_weights = if precision == Precision::Int4 {
                scalar::quantise_groups
            } else {
                scalar::quantise
            };
            let ((x, x_scale), (w, w_scale)) = (scalar::quantise(x), quantise_weights(w));
            let sum: i32 = x
                .iter()
                .zip(&w)
                .map(|(&x, &w)| i32::from(x) * i32::from(w))
                .sum();
            let result = f64::from(sum) * f64::from(x_scale) * f64::from(w_scale);
            return (result, result.abs());
        }
    };
    let magnitudes = x
        .iter()
        .zip(&w)
        .map(|(x, w)| f64::from((x * w).abs()))
        .sum();
    (scalar::dot(&x, &w), magnitudes)
}

/// `x · Wᵀ` and nothing else.
pub(crate) fn multiply(x: Rows<'_>, weights: &PackedMatrix) -> Vec<f32> {
    let (m, n) = (x.num_rows(), weights.out_features());
    let mut out = vec![f32::NAN; m * n];
    let product = Product {
        weights,
        bias: None,
        activation: Activation::Identity,
        write: Write::Store,
        out: RowsMut::new(&mut out, m, n),
    };
    matmul(x, product);
    out
}

fn same_class(found: f32, expected: f32, tolerance: f32) -> bool {
    if expected.is_nan() {
        found.is_nan()
    } else if expected.is_infinite() {
        found == expected
    } else {
        (found - expected).abs() <= tolerance
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products(
        precision in precisions(),
        m in 0_usize..20,
        n in 1_usize..150,
        k in 0_usize..300,
        gap in 0_usize..5,
        start in 0_usize..4,
        seed: u64,
    ) {
        let x = values(start + m * (k + gap) + 1, seed);
        let w = values(n * k, seed ^ 1);
        let bias = values(n, seed ^ 2);
        let rows = Rows::strided(&x[start..], m, k, k + gap);
        for isa in Isa::available() {
            let weights = PackedMatrix::from_rows_with(isa, precision, n, k, &w);
            let before = values(start + m * (n + gap) + 1, seed ^ 3);
            let mut out = before.clone();
            matmul(rows, Product {
                weights: &weights,
                bias: Some(&bias),
                activation: Activation::Identity,
                write: Write::Add,
                out: RowsMut::strided(&mut out[start..], m, n, n + gap),
            });
            for (at, (&found, &before)) in out.iter().zip(&before).enumerate() {
                let place = at.checked_sub(start).map(|at| (at / (n + gap), at % (n + gap)));
                let Some((row, column)) = place.filter(|&(row, column)| row < m && column < n) else {
                    prop_assert_eq!(found.to_bits(), before.to_bits(), "{} wrote between rows", isa);
                    continue;
                };
                let (sum, size) = expected(precision, rows.row(row), &w[column * k..(column + 1) * k]);
                let error = f64::from(found) - (sum + f64::from(bias[column]) + f64::from(before));
                prop_assert!(error.abs() <= SUM_TOLERANCE * (size + 2.0), "{isa} {row} {column}: {error}");
            }
        }
    }

    #[test]
    fn a_row_of_a_batch_is_bit_identical_to_the_row_alone(
        precision in precisions(),
        m in 2_usize..40,
        n in 1_usize..200,
        // Long enough for several blocks of the shared dimension.
        k in prop_oneof![1_usize..200, 2000_usize..2600, 8200_usize..8400],
        seed: u64,
    ) {
        let (x, w) = (values(m * k, seed), values(n * k, seed ^ 1));
        for isa in Isa::available() {
            let weights = PackedMatrix::from_rows_with(isa, precision, n, k, &w);
            let all = multiply(Rows::new(&x, m, k), &weights);
            for count in [1, 2, m / 2] {
                let row = seed as usize % (m - count + 1);
                let some = multiply(Rows::new(&x[row * k..], count, k), &weights);
                prop_assert!(some == all[row * n..(row + count) * n], "{} {}", isa, count);
            }
        }
    }

    #[test]
    fn gated_products(
        precision in precisions(),
        activation in prop_oneof![Just(Activation::Silu), Just(Activation::GeluTanh)],
        m in 0_usize..40,
        n in 1_usize..150,
        // Several blocks of the shared dimension as well.
        k in prop_oneof![0_usize..300, 2000_usize..2600],
        gap in 0_usize..5,
        has_small: bool,
        seed: u64,
    ) {
        let x = values(m * (k + gap) + 1, seed);
        let (mut g, u) = (values(n * k, seed ^ 1), values(n * k, seed ^ 2));
        if has_small {
            // A feature that integers bring up, in one of the two matrices.
            g.iter_mut().step_by(k.max(1)).for_each(|weight| *weight /= 64.0);
        }
        let (gate_bias, up_bias) = (values(n, seed ^ 3), values(n, seed ^ 4));
        let rows = Rows::strided(&x, m, k, k + gap);
        for isa in Isa::available() {
            let pack = |w| PackedMatrix::from_rows_with(isa, precision, n, k, w);
            let (gate, up) = (pack(&g), pack(&u));
            let product = |weights, bias, activation, out| Product {
                weights,
                bias: Some(bias),
                activation,
                write: Write::Store,
                out,
            };
            let before = values(m * (n + gap) + 1, seed ^ 5);
            let mut found = before.clone();
            let out = RowsMut::strided(&mut found, m, n, n + gap);
            matmul_gated(rows, product(&gate, &gate_bias[..], activation, out), (&up, Some(&up_bias[..])));
            // One after the other, which the test above holds to the definition.
            let (mut gates, mut ups) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
            matmul(rows, product(&gate, &gate_bias[..], Activation::Identity, RowsMut::new(&mut gates, m, n)));
            matmul(rows, product(&up, &up_bias[..], Activation::Identity, RowsMut::new(&mut ups, m, n)));
            for (at, (&found, &before)) in found.iter().zip(&before).enumerate() {
                let (row, column) = (at / (n + gap), at % (n + gap));
                if row >= m || column >= n {
                    prop_assert_eq!(found.to_bits(), before.to_bits(), "{} wrote between rows", isa);
                    continue;
                }
                let (gate, up) = (gates[row * n + column], ups[row * n + column]);
                let activated = if activation == Activation::Silu {
                    scalar::silu(gate)
                } else {
                    scalar::gelu_tanh(gate)
                };
                let tolerance = 4e-6 * (gate.abs() + 1.0) * up.abs() + 1e-12;
                prop_assert!((found - activated * up).abs() <= tolerance, "{isa} {row} {column}: {found} of {gate} and {up}");
            }
        }
    }

    #[test]
    fn unpacked_rows(precision in precisions(), n in 1_usize..140, k in 1_usize..70, seed: u64) {
        let w = values(n * k, seed);
        for isa in Isa::available() {
            let weights = PackedMatrix::from_rows_with(isa, precision, n, k, &w);
            let row = seed as usize % n;
            let mut out = vec![f32::NAN; k];
            weights.unpack_row(row, &mut out);
            let (bytes, scale) = if precision == Precision::Int4 {
                scalar::quantise_groups(&w[row * k..(row + 1) * k])
            } else {
                scalar::quantise(&w[row * k..(row + 1) * k])
            };
            for (at, &found) in out.iter().enumerate() {
                let expected = match precision {
                    Precision::F32 => w[row * k + at],
                    Precision::Bf16 | Precision::Bf16Short => bf16::from_f32(w[row * k + at]).to_f32(),
                    Precision::Int8 | Precision::Int4 => f32::from(bytes[at]) * scale,
                };
                prop_assert_eq!(found, expected);
            }
        }
    }
}

/// Weights larger than the caches are shared out otherwise: by panels, in larger blocks of rows.
#[test]
fn rows_of_a_product_with_large_weights_are_bit_identical_to_the_rows_alone() {
    let (m, n, k) = (400, 1027, 2062);
    let (x, w) = (values(m * k, 7), values(n * k, 8));
    for isa in Isa::available() {
        let weights = PackedMatrix::from_rows_with(isa, Precision::F32, n, k, &w);
        assert!(weights.num_bytes() > 8 << 20);
        let all = multiply(Rows::new(&x, m, k), &weights);
        for (row, count) in [(0, 1), (190, 20), (397, 3)] {
            let some = multiply(Rows::new(&x[row * k..], count, k), &weights);
            assert!(some == all[row * n..(row + count) * n], "{isa} {row}");
        }
    }
}

#[test]
fn special_values_in_products() {
    let specials = [
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        0.0,
        -0.0,
        f32::MAX,
        1e-40,
    ];
    for isa in Isa::available() {
        for (at, &special) in specials.iter().enumerate() {
            let (k, n) = (37, 70);
            let mut x = values(2 * k, 5);
            x[at * 5] = special;
            let w = values(n * k, 6);
            for precision in [
                Precision::F32,
                Precision::Bf16,
                Precision::Bf16Short,
                Precision::Int8,
            ] {
                let weights = PackedMatrix::from_rows_with(isa, precision, n, k, &w);
                let out = multiply(Rows::new(&x, 2, k), &weights);
                for column in 0..n {
                    let (sum, size) =
                        expected(precision, &x[..k], &w[column * k..(column + 1) * k]);
                    let tolerance = if size.is_finite() {
                        (SUM_TOLERANCE * (size + 2.0)) as f32
                    } else {
                        0.0
                    };
                    assert!(
                        same_class(out[column], sum as f32, tolerance),
                        "{isa} {precision:?} {special}: {} {sum}",
                        out[column]
                    );
                    assert!(
                        out[n + column].is_finite(),
                        "{isa} {precision:?} {special} reached another row"
                    );
                }
            }
        }
    }
}
