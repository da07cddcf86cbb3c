//! Every path the running machine has, forced one after another, against the plain definitions: odd sizes,
//! strides, slices that start anywhere, zeros, infinities and NaN.

use colibri_kernels::activation::{exp_with, gelu_tanh_with, silu_mul_with};
use colibri_kernels::attention::{AttentionShape, Inner, Mask, attention_with};
use colibri_kernels::gemm::{Activation, PackedMatrix, Precision, Product, Write, matmul};
use colibri_kernels::isa::Isa;
use colibri_kernels::maxsim::{maxsim_f16_argmax_with, maxsim_f16_with};
use colibri_kernels::norm::{l2_normalize_with, layer_norm_with, rms_norm_with};
use colibri_kernels::rope::{RopeTable, rope_with};
use colibri_kernels::rows::{Rows, RowsMut};
use colibri_kernels::scalar;
use half::{bf16, f16};
use proptest::prelude::*;

/// Error of a sum of products relative to the sum of their magnitudes: a few hundred roundings that mostly
/// cancel.
const SUM_TOLERANCE: f64 = 1e-6;

/// Reproducible values in (-1, 1), different for each seed.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn precisions() -> impl Strategy<Value = Precision> {
    prop_oneof![
        Just(Precision::F32),
        Just(Precision::Bf16),
        Just(Precision::Int8),
        Just(Precision::Int4)
    ]
}

/// The result of a product as its precision defines it, and the sum of the magnitudes of its terms.
fn expected(precision: Precision, x: &[f32], w: &[f32]) -> (f64, f64) {
    let round = |value: &f32| bf16::from_f32(*value).to_f32();
    let (x, w): (Vec<f32>, Vec<f32>) = match precision {
        Precision::F32 => (x.to_vec(), w.to_vec()),
        Precision::Bf16 => (x.iter().map(round).collect(), w.iter().map(round).collect()),
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

fn multiply(x: Rows<'_>, weights: &PackedMatrix) -> Vec<f32> {
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
                    Precision::Bf16 => bf16::from_f32(w[row * k + at]).to_f32(),
                    Precision::Int8 | Precision::Int4 => f32::from(bytes[at]) * scale,
                };
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn attention(
        group in 1_usize..4,
        kv_heads in 1_usize..3,
        head_dim in prop_oneof![1_usize..80, Just(64), Just(96), Just(128), Just(256)],
        batch in 1_usize..3,
        n_q in 1_usize..30,
        n_k in 0_usize..150,
        kind in 0_u8..3,
        bf16 in any::<bool>(),
        gap in 0_usize..3,
        seed: u64,
    ) {
        let shape = AttentionShape {
            q_heads: group * kv_heads,
            kv_heads,
            head_dim,
            scale: 1.5 / (head_dim as f32).sqrt(),
        };
        let marks: Vec<bool> = values(n_k, seed).iter().map(|&value| value > 0.3).collect();
        let mask = match kind {
            0 => Mask::Full,
            1 => Mask::Causal { offset: seed as usize % 60 },
            _ => Mask::Keys(&marks),
        };
        let (q_width, kv_width) = (shape.q_heads * head_dim, kv_heads * head_dim);
        let q = values(batch * n_q * (q_width + gap) + 1, seed ^ 1);
        let k = values(batch * n_k * (kv_width + gap) + 1, seed ^ 2);
        let v = values(batch * n_k * (kv_width + gap) + 1, seed ^ 3);
        let q = Rows::strided(&q[1..], batch * n_q, q_width, q_width + gap);
        let k = Rows::strided(&k[1..], batch * n_k, kv_width, kv_width + gap);
        let v = Rows::strided(&v[1..], batch * n_k, kv_width, kv_width + gap);
        let mut wanted = vec![0.0; batch * n_q * q_width];
        for sequence in 0..batch {
            let (rows, keys) = (sequence * n_q..(sequence + 1) * n_q, sequence * n_k..(sequence + 1) * n_k);
            let out = RowsMut::new(&mut wanted[rows.start * q_width..], n_q, q_width);
            scalar::attention(&shape, q.slice(rows), k.slice(keys.clone()), v.slice(keys), mask, out);
        }
        // Weights add up to one and values are below one, so an absolute error is a relative one.
        let (inner, tolerance) = if bf16 { (Inner::Bf16, 2e-2) } else { (Inner::F32, 3e-6) };
        for isa in Isa::available() {
            let mut found = vec![f32::NAN; batch * n_q * q_width];
            let out = RowsMut::new(&mut found, batch * n_q, q_width);
            attention_with(isa, inner, &shape, batch, q, k, v, mask, out);
            for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                prop_assert!((found - wanted).abs() <= tolerance, "{isa} {at}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn a_row_of_attention_is_bit_identical_to_the_row_alone(
        group in 1_usize..4,
        head_dim in prop_oneof![Just(64), Just(72), 1_usize..40],
        // So many that a single row is cut by keys and columns.
        n in prop_oneof![2_usize..150, 260_usize..400],
        bf16 in any::<bool>(),
        seed: u64,
    ) {
        let shape = AttentionShape { q_heads: 2 * group, kv_heads: 2, head_dim, scale: 0.3 };
        let (q_width, kv_width) = (shape.q_heads * head_dim, 2 * head_dim);
        let q = values(n * q_width, seed);
        let (k, v) = (values(n * kv_width, seed ^ 1), values(n * kv_width, seed ^ 2));
        let inner = if bf16 { Inner::Bf16 } else { Inner::F32 };
        for isa in Isa::available() {
            let run = |rows: std::ops::Range<usize>, keys: usize, offset: usize| {
                let mut out = vec![f32::NAN; rows.len() * q_width];
                attention_with(
                    isa,
                    inner,
                    &shape,
                    1,
                    Rows::new(&q, n, q_width).slice(rows.clone()),
                    Rows::new(&k, n, kv_width).slice(0..keys),
                    Rows::new(&v, n, kv_width).slice(0..keys),
                    Mask::Causal { offset },
                    RowsMut::new(&mut out, rows.len(), q_width),
                );
                out
            };
            let all = run(0..n, n, 0);
            let row = seed as usize % n;
            // As a decode step sees it: only the keys so far are there.
            prop_assert!(run(row..row + 1, row + 1, row) == all[row * q_width..(row + 1) * q_width]);
            prop_assert!(run(row..n, n, row) == all[row * q_width..]);
        }
    }

    #[test]
    fn exponentials(x in prop::collection::vec(-87.3_f32..88.0, 1..70)) {
        for isa in Isa::available() {
            let mut found = x.clone();
            exp_with(isa, &mut found);
            for (x, found) in x.iter().zip(found) {
                let exact = f64::from(*x).exp();
                prop_assert!((f64::from(found) / exact - 1.0).abs() < 2e-7, "{isa} {x}: {found}");
            }
        }
    }

    #[test]
    fn activations(x in prop::collection::vec(-30.0_f32..30.0, 1..70)) {
        for isa in Isa::available() {
            let (mut gelu, mut silu) = (x.clone(), x.clone());
            gelu_tanh_with(isa, &mut gelu);
            let up = vec![1.0; x.len()];
            silu_mul_with(isa, RowsMut::new(&mut silu, 1, x.len()), Rows::new(&up, 1, x.len()));
            for (at, &x) in x.iter().enumerate() {
                // The exponent grows with x³, and its rounding with it; far out the result is tiny or x itself.
                let (wanted, size) = (scalar::gelu_tanh(x), x.abs().max(1.0));
                prop_assert!((gelu[at] - wanted).abs() <= 4e-7 * size, "{isa} {x}: {} {wanted}", gelu[at]);
                let wanted = scalar::silu(x);
                prop_assert!((silu[at] - wanted).abs() <= 4e-7 * size, "{isa} {x}: {} {wanted}", silu[at]);
            }
        }
    }

    #[test]
    fn norms(rows in 1_usize..4, n in 1_usize..200, shift in -4.0_f32..4.0, gap in 0_usize..3, seed: u64) {
        let x: Vec<f32> = values(rows * (n + gap) + 1, seed).iter().map(|value| value + shift).collect();
        let (weight, bias) = (values(n, seed ^ 1), values(n, seed ^ 2));
        let rows_of_x = Rows::strided(&x[1..], rows, n, n + gap);
        for isa in Isa::available() {
            let (mut layer, mut rms) = (vec![f32::NAN; rows * n], vec![f32::NAN; rows * n]);
            layer_norm_with(isa, rows_of_x, &weight, &bias, 1e-3, RowsMut::new(&mut layer, rows, n));
            rms_norm_with(isa, rows_of_x, &weight, 1e-5, RowsMut::new(&mut rms, rows, n));
            let mut l2 = x.clone();
            l2_normalize_with(isa, RowsMut::strided(&mut l2[1..], rows, n, n + gap));
            for row in 0..rows {
                let x = rows_of_x.row(row);
                let mut wanted = vec![0.0; n];
                let close = |found: &[f32], wanted: &[f32], tolerance: f32| {
                    found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= tolerance)
                };
                scalar::layer_norm(x, &weight, &bias, 1e-3, &mut wanted);
                prop_assert!(close(&layer[row * n..], &wanted, 3e-5), "{}", isa);
                scalar::rms_norm(x, &weight, 1e-5, &mut wanted);
                prop_assert!(close(&rms[row * n..], &wanted, 3e-6), "{}", isa);
                wanted.copy_from_slice(x);
                scalar::l2_normalize(&mut wanted);
                prop_assert!(close(&l2[1 + row * (n + gap)..], &wanted, 1e-6), "{}", isa);
            }
        }
    }

    #[test]
    fn rotary_positions(half in 1_usize..50, heads in 1_usize..4, rows in 1_usize..4, first in 0_usize..9, seed: u64) {
        let inv_freq = values(half, seed);
        let table = RopeTable::new(&inv_freq, 16, 1.25);
        let width = heads * 2 * half;
        let x = values(rows * width, seed ^ 1);
        for isa in Isa::available() {
            let mut found = x.clone();
            rope_with(isa, RowsMut::new(&mut found, rows, width), heads, 2 * half, first, &table);
            for (at, found) in found.iter().enumerate() {
                let (row, column) = (at / width, at % width);
                let (head, place) = (column / (2 * half), column % (2 * half));
                let angle = f64::from((first + row) as f32 * inv_freq[place % half]);
                let start = row * width + head * 2 * half + place % half;
                let (low, high) = (f64::from(x[start]), f64::from(x[start + half]));
                let wanted = if place < half {
                    low * angle.cos() - high * angle.sin()
                } else {
                    high * angle.cos() + low * angle.sin()
                };
                prop_assert!((f64::from(*found) - 1.25 * wanted).abs() < 1e-6, "{} {}", isa, at);
            }
        }
    }

    #[test]
    fn late_interaction(n_q in 1_usize..25, dim in 1_usize..140, n in 0_usize..150, seed: u64) {
        let query = values(n_q * dim, seed);
        let query = Rows::new(&query, n_q, dim);
        let page: Vec<f16> = values(n * dim, seed ^ 1).into_iter().map(f16::from_f32).collect();
        let wanted = scalar::maxsim_argmax(query, &page);
        for isa in Isa::available() {
            let found = maxsim_f16_argmax_with(isa, query, &page);
            prop_assert_eq!(found.len(), wanted.len());
            for ((row, score), (_, wanted)) in found.iter().zip(&wanted) {
                prop_assert!((score - wanted).abs() <= 1e-5, "{} {} {}", isa, score, wanted);
                // Rounding may choose between near equals, but the row must have the score.
                let at = *row as usize * dim;
                let document: Vec<f32> = page[at..at + dim].iter().map(|value| value.to_f32()).collect();
                let best = scalar::dot(query.row(0), &document);
                prop_assert!(n_q > 1 || (best - f64::from(*score)).abs() <= 1e-5);
            }
            let total: f32 = found.iter().map(|best| best.1).sum();
            let score = maxsim_f16_with(isa, query, &page);
            let total = if n == 0 { f32::NEG_INFINITY } else { total };
            prop_assert_eq!(score, total);
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
            for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
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

#[test]
fn special_values_in_exponentials_and_activations() {
    let x = [
        f32::NEG_INFINITY,
        -1e30,
        -200.0,
        -0.0,
        0.0,
        200.0,
        1e30,
        f32::INFINITY,
        f32::NAN,
    ];
    for isa in Isa::available() {
        // At every place of a vector and of its remainder.
        for shift in 0..17 {
            let mut padded = vec![0.0; shift];
            padded.extend(x);
            let mut found = padded.clone();
            exp_with(isa, &mut found);
            let found = &found[shift..];
            assert_eq!(found[..5], [0.0, 0.0, 0.0, 1.0, 1.0], "{isa}");
            assert!(
                found[5..8].iter().all(|&value| value == f32::INFINITY),
                "{isa}"
            );
            assert!(found[8].is_nan(), "{isa}");

            let mut gelu = padded.clone();
            gelu_tanh_with(isa, &mut gelu);
            let ones = vec![1.0; padded.len()];
            let mut silu = padded.clone();
            let len = padded.len();
            silu_mul_with(
                isa,
                RowsMut::new(&mut silu, 1, len),
                Rows::new(&ones, 1, len),
            );
            for found in [&gelu[shift..], &silu[shift..]] {
                // By the formulas negative infinity is infinity times zero; this gives the limit.
                assert!(
                    found[..3].iter().all(|value| value.abs() < 1e-30),
                    "{isa}: {found:?}"
                );
                assert_eq!(found[3..5], [0.0, 0.0], "{isa}");
                assert_eq!(found[5..8], [200.0, 1e30, f32::INFINITY], "{isa}");
                assert!(found[8].is_nan(), "{isa}");
            }
        }
    }
}

#[test]
fn special_values_in_attention() {
    let shape = AttentionShape {
        q_heads: 1,
        kv_heads: 1,
        head_dim: 16,
        scale: 1.0,
    };
    let n = 20;
    for isa in Isa::available() {
        for inner in [Inner::F32, Inner::Bf16] {
            let run = |q: &[f32], k: &[f32]| {
                let v = values(n * 16, 3);
                let mut out = vec![0.0; 2 * 16];
                let (q, k, v) = (
                    Rows::new(q, 2, 16),
                    Rows::new(k, n, 16),
                    Rows::new(&v, n, 16),
                );
                attention_with(
                    isa,
                    inner,
                    &shape,
                    1,
                    q,
                    k,
                    v,
                    Mask::Full,
                    RowsMut::new(&mut out, 2, 16),
                );
                (out, v.row(7).to_vec())
            };
            // One key far ahead of the others takes all the weight; the scores would overflow an exponential
            // without the maximum taken off.
            let mut q = vec![0.0; 32];
            q[0] = 300.0;
            let mut k = values(n * 16, 2);
            k[7 * 16] = 300.0;
            let (out, value) = run(&q, &k);
            let tolerance = if inner == Inner::F32 { 1e-6 } else { 4e-3 };
            for (found, wanted) in out.iter().zip(&value) {
                assert!(
                    (found - wanted).abs() <= tolerance,
                    "{isa} {inner:?}: {found} {wanted}"
                );
            }
            // A NaN in a query stays in its row.
            q[3] = f32::NAN;
            let (out, _) = run(&q, &k);
            assert!(
                out[..16].iter().all(|value| value.is_nan()),
                "{isa} {inner:?}"
            );
            assert!(
                out[16..].iter().all(|value| value.is_finite()),
                "{isa} {inner:?}"
            );
        }
    }
}
