//! Weighted sums of samples: whole numbers, so every path gives the same bits.

use colibri_kernels::isa::Isa;
use colibri_kernels::resample::{Weights, transpose, weighted_sums_with};
use proptest::prelude::*;

/// The definition.
fn plain(weights: &[i32], source: &[u8], stride: usize, at: usize) -> u8 {
    let products = weights.iter().enumerate();
    let sum: i64 = products
        .map(|(row, &weight)| i64::from(weight) * i64::from(source[row * stride + at]))
        .sum();
    ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn sums_of_samples(
        // Sums of all magnitudes stay within 32 bits, as those of a filter do.
        weights in prop::collection::vec(-0x08_0000_i32..0x10_0000, 0..7),
        large in prop::option::of(prop_oneof![
            Just(0x7F_7F7F), Just(0x7F_7F80), Just(-0x7F_7F7F), -0x40_0000_i32..0x40_0000
        ]),
        samples in prop::collection::vec(any::<u8>(), 1..1500),
        extreme: bool,
        stride in 0_usize..200,
        start in 0_usize..3,
    ) {
        let weights: Vec<i32> = match large {
            Some(large) => std::iter::once(large).collect(),
            None => weights,
        };
        let samples: Vec<u8> = samples.iter().map(|&s| if extreme { s / 128 * 255 } else { s }).collect();
        let source = &samples[start.min(samples.len())..];
        let last = weights.len().max(1) - 1;
        let Some(count) = source.len().checked_sub(last * stride) else { return Ok(()) };
        let wanted: Vec<u8> = (0..count).map(|at| plain(&weights, source, stride, at)).collect();
        let packed = Weights::new(&weights);
        prop_assert_eq!(packed.len(), weights.len());
        for isa in Isa::available() {
            let mut found = vec![7; count];
            weighted_sums_with(isa, &packed, source, stride, &mut found);
            prop_assert_eq!(&found, &wanted, "{}", isa);
        }
    }

    #[test]
    fn rows_and_columns(rows in 0_usize..40, columns in 0_usize..70, gaps in (0_usize..5, 0_usize..5)) {
        let (from_stride, to_stride) = (columns + gaps.0, rows + gaps.1);
        let from: Vec<u8> = (0..rows * from_stride).map(|at| (at * 31 % 251) as u8).collect();
        let mut to = vec![255; columns * to_stride];
        transpose(&from, from_stride, [rows, columns], &mut to, to_stride);
        for (at, &found) in to.iter().enumerate() {
            let (column, row) = (at / to_stride, at % to_stride);
            let wanted = if row < rows { from[row * from_stride + column] } else { 255 };
            prop_assert_eq!(found, wanted);
        }
    }
}

#[test]
#[should_panic(expected = "is a bug")]
fn too_few_samples() {
    let weights = Weights::new(&[1, 2]);
    weighted_sums_with(Isa::detect(), &weights, &[0; 19], 10, &mut [0; 10]);
}
