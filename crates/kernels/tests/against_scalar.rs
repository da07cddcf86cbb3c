//! Products and attention against their definitions, over odd shapes.

use colibri_kernels::attention::{AttentionShape, Mask, attention, attention_batch};
use colibri_kernels::gemm::{
    Activation, PackedMatrix, Precision, Product, Write, matmul, matmul_group,
};
use colibri_kernels::rows::{Rows, RowsMut};
use colibri_kernels::scalar;

/// Reproducible values in (-1, 1), different for each seed.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let error: f64 = found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f64::from(*f) - f64::from(*e)).powi(2))
        .sum();
    let size: f64 = expected.iter().map(|e| f64::from(*e).powi(2)).sum();
    (error / size.max(f64::MIN_POSITIVE)).sqrt()
}

fn product<'a>(weights: &'a PackedMatrix, out: &'a mut [f32], rows: usize) -> Product<'a> {
    let features = weights.out_features();
    Product {
        weights,
        bias: None,
        activation: Activation::Identity,
        write: Write::Store,
        out: RowsMut::new(out, rows, features),
    }
}

#[test]
fn products_match_the_definition() {
    for (m, n, k) in [
        (1, 1, 1),
        (0, 5, 3),
        (7, 65, 33),
        (13, 130, 257),
        (3, 48, 576),
    ] {
        let (x, w) = (values(m * k, 1), values(n * k, 2));
        let mut expected = vec![0.0; m * n];
        scalar::matmul(
            Rows::new(&x, m, k),
            Rows::new(&w, n, k),
            RowsMut::new(&mut expected, m, n),
        );
        for (precision, bound) in [
            (Precision::F32, 1e-6),
            (Precision::Bf16, 6e-3),
            (Precision::Int8, 2e-2),
            (Precision::Int4, 0.12),
        ] {
            let weights = PackedMatrix::from_rows(precision, n, k, &w);
            let mut found = vec![f32::NAN; m * n];
            matmul(Rows::new(&x, m, k), product(&weights, &mut found, m));
            let error = relative_error(&found, &expected);
            assert!(error <= bound, "{precision:?} {m}x{n}x{k}: {error}");
        }
    }
}

#[test]
fn a_row_of_a_batch_equals_the_row_alone() {
    let (m, n, k) = (19, 70, 99);
    let (x, w) = (values(m * k, 3), values(n * k, 4));
    for precision in [
        Precision::F32,
        Precision::Bf16,
        Precision::Int8,
        Precision::Int4,
    ] {
        let weights = PackedMatrix::from_rows(precision, n, k, &w);
        let mut all = vec![0.0; m * n];
        matmul(Rows::new(&x, m, k), product(&weights, &mut all, m));
        for row in 0..m {
            let mut one = vec![0.0; n];
            matmul(
                Rows::new(&x[row * k..], 1, k),
                product(&weights, &mut one, 1),
            );
            assert_eq!(one, all[row * n..(row + 1) * n], "{precision:?}");
        }
    }
}

#[test]
fn bias_activation_and_addition_are_fused_in_this_order() {
    let (m, n, k) = (4, 20, 12);
    let (x, w, bias) = (values(m * k, 5), values(n * k, 6), values(n, 7));
    let weights = PackedMatrix::from_rows(Precision::F32, n, k, &w);
    let mut plain = vec![0.0; m * n];
    matmul(Rows::new(&x, m, k), product(&weights, &mut plain, m));
    let (mut gelu, mut silu) = (vec![1.0; m * n], vec![2.0; m * n]);
    let mut products = [
        product(&weights, &mut gelu, m),
        product(&weights, &mut silu, m),
    ];
    products[0].activation = Activation::GeluTanh;
    products[0].bias = Some(&bias);
    products[1].activation = Activation::Silu;
    products[1].write = Write::Add;
    matmul_group(Rows::new(&x, m, k), &mut products);
    for at in 0..m * n {
        assert!((gelu[at] - scalar::gelu_tanh(plain[at] + bias[at % n])).abs() < 1e-5);
        assert!((silu[at] - 2.0 - scalar::silu(plain[at])).abs() < 1e-5);
    }
}

#[test]
fn unpacked_rows_are_the_weights() {
    let (n, k) = (9, 37);
    let w = values(n * k, 8);
    for (precision, bound) in [
        (Precision::F32, 0.0),
        (Precision::Bf16, 4e-3),
        (Precision::Int8, 4e-3),
        // Half of the widest gap between two codes.
        (Precision::Int4, 0.13),
    ] {
        let weights = PackedMatrix::from_rows(precision, n, k, &w);
        for row in 0..n {
            let mut out = vec![0.0; k];
            weights.unpack_row(row, &mut out);
            for (found, expected) in out.iter().zip(&w[row * k..]) {
                assert!(
                    (found - expected).abs() <= bound,
                    "{precision:?} {found} {expected}"
                );
            }
        }
    }
}

#[test]
fn attention_matches_the_definition() {
    let marks: Vec<bool> = (0..41).map(|key| key % 3 != 1).collect();
    let window = |offset, window| Mask::Window { offset, window };
    for (q_heads, kv_heads, head_dim) in [(2, 2, 64), (6, 2, 72), (3, 1, 5)] {
        let shape = AttentionShape {
            q_heads,
            kv_heads,
            head_dim,
            scale: (head_dim as f32).sqrt().recip(),
        };
        for (n_q, n_k, mask) in [
            (17, 41, Mask::Full),
            (17, 41, Mask::Causal { offset: 24 }),
            (1, 41, Mask::Causal { offset: 40 }),
            (17, 41, window(24, 7)),
            (41, 41, window(0, 18)),
            (1, 41, window(40, 3)),
            (5, 41, Mask::Keys(&marks)),
            (3, 0, Mask::Full),
        ] {
            let (q_width, kv_width) = (q_heads * head_dim, kv_heads * head_dim);
            let q = values(n_q * q_width, 9);
            let kv = values(n_k * (2 * kv_width + 3) + 1, 10);
            let q = Rows::new(&q, n_q, q_width);
            let k = Rows::strided(&kv, n_k, kv_width, 2 * kv_width + 3);
            let v = Rows::strided(
                &kv[if n_k > 0 { kv_width } else { 0 }..],
                n_k,
                kv_width,
                2 * kv_width + 3,
            );
            let (mut found, mut expected) =
                (vec![f32::NAN; n_q * q_width], vec![0.0; n_q * q_width]);
            attention(
                &shape,
                q,
                k,
                v,
                mask,
                RowsMut::new(&mut found, n_q, q_width),
            );
            scalar::attention(
                &shape,
                q,
                k,
                v,
                mask,
                RowsMut::new(&mut expected, n_q, q_width),
            );
            let error = relative_error(&found, &expected);
            assert!(error < 1e-6, "{shape:?} {n_q} {n_k} {mask:?}: {error}");
        }
    }
}

#[test]
fn a_row_that_sees_nothing_gives_zeros() {
    let shape = AttentionShape {
        q_heads: 1,
        kv_heads: 1,
        head_dim: 8,
        scale: 1.0,
    };
    let x = values(4 * 8, 11);
    let rows = Rows::new(&x, 4, 8);
    let mut out = vec![f32::NAN; 32];
    attention(
        &shape,
        rows,
        rows,
        rows,
        Mask::Keys(&[false; 4]),
        RowsMut::new(&mut out, 4, 8),
    );
    assert_eq!(out, [0.0; 32]);
}

#[test]
fn sequences_and_rows_of_a_batch_equal_the_same_alone() {
    let shape = AttentionShape {
        q_heads: 4,
        kv_heads: 2,
        head_dim: 16,
        scale: 0.25,
    };
    let (batch, n) = (3, 37);
    let (q, k, v) = (
        values(batch * n * 64, 12),
        values(batch * n * 32, 13),
        values(batch * n * 32, 14),
    );
    let mask = Mask::Causal { offset: 0 };
    let mut all = vec![0.0; batch * n * 64];
    attention_batch(
        &shape,
        batch,
        Rows::new(&q, batch * n, 64),
        Rows::new(&k, batch * n, 32),
        Rows::new(&v, batch * n, 32),
        mask,
        RowsMut::new(&mut all, batch * n, 64),
    );
    for sequence in 0..batch {
        for row in 0..n {
            // The row alone, over the keys it sees, as a decode step computes it.
            let (at, keys) = (sequence * n + row, row + 1);
            let mut one = vec![0.0; 64];
            attention(
                &shape,
                Rows::new(&q[at * 64..], 1, 64),
                Rows::new(&k[sequence * n * 32..], keys, 32),
                Rows::new(&v[sequence * n * 32..], keys, 32),
                Mask::Causal { offset: row },
                RowsMut::new(&mut one, 1, 64),
            );
            assert_eq!(one, all[at * 64..(at + 1) * 64]);
        }
    }
}
