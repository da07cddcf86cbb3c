//! What is done to one row after another: exponentials, activations, norms, rotary positions.

use colibri_kernels::activation::{exp_with, gelu_tanh_with, silu_mul_with};
use colibri_kernels::isa::Isa;
use colibri_kernels::norm::{l2_normalize_with, layer_norm_with, rms_norm_with};
use colibri_kernels::rope::{RopeTable, rope_with};
use colibri_kernels::rows::{Rows, RowsMut};
use colibri_kernels::scalar;
use proptest::prelude::*;

use crate::values;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

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
