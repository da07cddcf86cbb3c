//! `MaxSim`.

use colibri_kernels::isa::Isa;
use colibri_kernels::maxsim::{maxsim_f16_argmax_with, maxsim_f16_with};
use colibri_kernels::rows::Rows;
use colibri_kernels::scalar;
use half::f16;
use proptest::prelude::*;

use crate::values;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

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
