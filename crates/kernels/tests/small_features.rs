//! Features with large activations and correspondingly small weights cost an integer product no accuracy.

use colibri_kernels::gemm::{
    Activation, PackedMatrix, Precision, Product, Write, matmul, matmul_group,
};
use colibri_kernels::isa::Isa;
use colibri_kernels::rows::{Rows, RowsMut};
use proptest::prelude::*;

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

fn product<'a>(weights: &'a PackedMatrix, out: &'a mut [f32], rows: usize) -> Product<'a> {
    let columns = weights.out_features();
    Product {
        weights,
        bias: None,
        activation: Activation::Identity,
        write: Write::Store,
        out: RowsMut::new(out, rows, columns),
    }
}

fn multiply(x: Rows<'_>, weights: &PackedMatrix) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.num_rows() * weights.out_features()];
    matmul(x, product(weights, &mut out, x.num_rows()));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn results_are_the_same_bits_as_without(
        precision in prop_oneof![Just(Precision::Int8), Just(Precision::Int4)],
        m in 1_usize..30,
        n in 64_usize..150,
        k in 20_usize..300,
        every in 10_usize..60,
        seed: u64,
    ) {
        let (x, w) = (values(m * k, seed), values(n * k, seed ^ 1));
        let scaled = |values: &[f32], factor: f32| -> Vec<f32> {
            let value = |(at, &value): (usize, &f32)| if at % k % every == 3 { value * factor } else { value };
            values.iter().enumerate().map(value).collect()
        };
        let (large_x, small_w) = (scaled(&x, 64.0), scaled(&w, 1.0 / 64.0));
        for isa in Isa::available() {
            let plain = PackedMatrix::from_rows_with(isa, precision, n, k, &w);
            let small = PackedMatrix::from_rows_with(isa, precision, n, k, &small_w);
            let wanted = multiply(Rows::new(&x, m, k), &plain);
            let found = multiply(Rows::new(&large_x, m, k), &small);
            // Sixty-four is a power of two, and the sizes of 64 rows tell it from 32 and 128.
            prop_assert!(found == wanted, "{}", isa);

            // Beside one without, in one group.
            let (mut first, mut second) = (vec![0.0; m * n], vec![0.0; m * n]);
            let x = Rows::new(&large_x, m, k);
            matmul_group(x, &mut [product(&plain, &mut first, m), product(&small, &mut second, m)]);
            prop_assert!(second == wanted, "{}", isa);
            prop_assert!(first == multiply(x, &plain), "{}", isa);

            let (mut row, mut wanted) = (vec![0.0; k], vec![0.0; k]);
            small.unpack_row(n - 1, &mut row);
            plain.unpack_row(n - 1, &mut wanted);
            prop_assert!(row == scaled(&wanted, 1.0 / 64.0), "{}", isa);
        }
    }
}
