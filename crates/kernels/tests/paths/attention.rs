//! Attention over rows.

use colibri_kernels::attention::{AttentionShape, Inner, Mask, attention_with};
use colibri_kernels::isa::Isa;
use colibri_kernels::rows::{Rows, RowsMut};
use colibri_kernels::scalar;
use proptest::prelude::*;

use crate::values;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn attention(
        group in 1_usize..4,
        kv_heads in 1_usize..3,
        head_dim in prop_oneof![1_usize..80, Just(64), Just(96), Just(128), Just(256)],
        batch in 1_usize..3,
        n_q in 1_usize..30,
        n_k in 0_usize..150,
        kind in 0_u8..4,
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
            2 => Mask::Window { offset: seed as usize % 60, window: 1 + seed as usize % 77 },
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
                let mask = if seed % 2 == 0 {
                    Mask::Causal { offset }
                } else {
                    Mask::Window { offset, window: 1 + seed as usize % 41 }
                };
                let mut out = vec![f32::NAN; rows.len() * q_width];
                attention_with(
                    isa,
                    inner,
                    &shape,
                    1,
                    Rows::new(&q, n, q_width).slice(rows.clone()),
                    Rows::new(&k, n, kv_width).slice(0..keys),
                    Rows::new(&v, n, kv_width).slice(0..keys),
                    mask,
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
