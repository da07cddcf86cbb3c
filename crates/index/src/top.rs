//! The best of many scores.

use std::cmp::Ordering;

/// Falling score, then rising position; what is not a number comes last.
fn order(a: &(usize, f32), b: &(usize, f32)) -> Ordering {
    // Adding zero makes the two zeros equal.
    let rank = |score: f32| {
        if score.is_nan() {
            f32::NEG_INFINITY
        } else {
            score + 0.0
        }
    };
    rank(b.1).total_cmp(&rank(a.1)).then(a.0.cmp(&b.0))
}

/// The `k` greatest scores with their positions, best first; equal scores in the order they stand.
pub(crate) fn best(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut found: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    if k == 0 {
        return Vec::new();
    }
    if k < found.len() {
        found.select_nth_unstable_by(k - 1, order);
        found.truncate(k);
    }
    found.sort_unstable_by(order);
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_sorting_everything(scores in proptest::collection::vec(-3i8..3, 0..60), k in 0usize..70) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let mut all: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
            all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap()); // stable: equal scores stay in order
            all.truncate(k);
            prop_assert_eq!(best(&scores, k), all);
        }
    }

    #[test]
    fn what_is_not_a_number_comes_last() {
        assert_eq!(best(&[f32::NAN, -1.0, 2.0], 2), [(2, 2.0), (1, -1.0)]);
    }
}
