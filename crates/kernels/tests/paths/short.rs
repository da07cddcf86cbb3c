//! bfloat16 in twelve bits: the same bits as in sixteen, whatever the weights are.

use std::sync::Arc;

use colibri_kernels::gemm::{Foreign, PackedMatrix, Parts, Precision};
use colibri_kernels::isa::Isa;
use colibri_kernels::rows::Rows;
use proptest::prelude::*;

use crate::products::multiply;
use crate::values;

/// Weights of three kinds: alike; with zeros, a hundred times greater features and now and then anything at all; and with
/// exponents that lie anywhere.
fn weights(kind: usize, count: usize, seed: u64) -> Vec<f32> {
    let specials = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        1e-40,
        -3e-30,
    ];
    let mut weights = values(count, seed);
    for (at, value) in weights.iter_mut().enumerate() {
        let dice = (at as u64)
            .wrapping_mul(seed | 1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> 40;
        match kind {
            1 if dice.is_multiple_of(300) => *value = specials[(dice / 300 % 8) as usize],
            1 if dice % 100 < 3 => *value *= 100.0,
            1 if dice % 100 < 9 => *value = 0.0,
            2 => *value *= (dice as f32 % 200.0 - 100.0).exp2(),
            _ => {}
        }
    }
    weights
}

fn bits_of(x: Rows<'_>, weights: &PackedMatrix) -> Vec<u32> {
    // One NaN is as good as another.
    let bits = |value: &f32| {
        if value.is_nan() {
            u32::MAX
        } else {
            value.to_bits()
        }
    };
    multiply(x, weights).iter().map(bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_bits_as_in_sixteen(
        kind in 0_usize..3,
        m in prop_oneof![0_usize..14, 20_usize..80],
        n in 1_usize..200,
        // Several spans, and several blocks of the shared dimension.
        k in prop_oneof![0_usize..300, 2000_usize..2600],
        seed: u64,
    ) {
        let (x, w) = (values(m * k, seed), weights(kind, n * k, seed ^ 1));
        for isa in Isa::available() {
            let short = PackedMatrix::from_rows_with(isa, Precision::Bf16Short, n, k, &w);
            let plain = PackedMatrix::from_rows_with(isa, Precision::Bf16, n, k, &w);
            let (found, wanted) = [&short, &plain].map(|of| bits_of(Rows::new(&x, m, k), of)).into();
            prop_assert!(found == wanted, "{isa}");
            let row = seed as usize % n;
            let rows = [&short, &plain].map(|of| {
                let mut out = vec![f32::NAN; k];
                of.unpack_row(row, &mut out);
                out.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
            });
            prop_assert!(rows[0] == rows[1], "{isa}");
        }
    }
}

#[test]
fn a_quarter_is_saved_where_exponents_lie_close_and_nothing_lost_where_not() {
    let (n, k) = (640, 576);
    for (kind, precision, least, most) in [
        (0, Precision::Bf16Short, 0.75, 0.76),
        (2, Precision::Bf16, 1.0, 1.0),
    ] {
        let weights = PackedMatrix::from_rows(Precision::Bf16Short, n, k, &weights(kind, n * k, 3));
        assert_eq!(weights.precision(), precision);
        let share = weights.num_bytes() as f64 / (2 * n * k) as f64;
        assert!((least..=most).contains(&share), "{share}");
    }
}

/// Words on a cache line, as a mapped file has them.
#[repr(align(64))]
struct Aligned(Vec<[u8; 64]>);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let (n, k) = (70, 300);
    let w = weights(1, n * k, 5);
    let matrix = PackedMatrix::from_rows(Precision::Bf16Short, n, k, &w);
    assert_eq!(matrix.precision(), Precision::Bf16Short);
    let parts = matrix.parts();
    let escapes = parts.escapes.unwrap_or_default().to_vec();
    let mut bytes = vec![0; (size_of_val(parts.panels)).next_multiple_of(64)];
    for (to, word) in bytes.chunks_exact_mut(4).zip(parts.panels) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let lines: Vec<[u8; 64]> = bytes
        .chunks_exact(64)
        .map(|line| std::array::from_fn(|at| line[at]))
        .collect();
    let memory: Foreign = Arc::new(Aligned(lines));
    // `Vec` puts small lines anywhere: the first on a cache line is sought.
    let start = (*memory).as_ref().as_ptr().align_offset(64);
    let join = |escapes: Option<&[u32]>| {
        let rest = Parts {
            panels: &[],
            escapes,
            ..parts
        };
        PackedMatrix::from_parts(
            Precision::Bf16Short,
            [n, k],
            (Arc::clone(&memory), start),
            &rest,
        )
    };
    if start == 0 {
        let x = values(3 * k, 6);
        let again = join(Some(&escapes)).map(|again| bits_of(Rows::new(&x, 3, k), &again));
        assert_eq!(again, Some(bits_of(Rows::new(&x, 3, k), &matrix)));
    }
    let changed = |at: usize, word: u32| {
        let mut escapes = escapes.clone();
        escapes[at] = word;
        join(Some(&escapes)).is_none()
    };
    let last = escapes.len() - 1;
    assert!(escapes.len() > 40, "weights without escapes show nothing");
    // Past the last step; past the last escape; a beginning after the next.
    assert!(changed(last, escapes[last] | 63 << 7));
    let first = escapes
        .iter()
        .position(|&word| word == 0)
        .unwrap_or_default();
    assert!(changed(first, 1) && changed(first + 1, u32::MAX));
    assert!(join(Some(&escapes[..last])).is_none() && join(Some(&[])).is_none());
}
