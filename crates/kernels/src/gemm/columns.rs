//! Input features whose weights are much smaller than the others'.
//!
//! Trained networks have a few features with values tens of times larger than the rest, and correspondingly small
//! weights that read them. Activations share one scale a row, so that such a feature leaves the others a handful of
//! levels. But what counts is the product: dividing the weights of a feature by a power of two and multiplying its
//! activations by the same changes no result in exact arithmetic, and brings both to the size of the others. (SmoothQuant,
//! Xiao et al. 2022, <https://arxiv.org/abs/2211.10438>, balances the two sides by activations seen on samples; here
//! the weights alone decide, which takes no samples and cannot depend on them.)
//!
//! Only features with *small* weights are touched: their activations shrink, so that the scale of a row can only
//! become finer.

/// Rows of weights looked at, and fewest for which their sizes say something about a feature.
const SAMPLED_ROWS: usize = 64;
/// Rows read at a time while sampling.
const ROWS_AT_ONCE: usize = 16;
/// A feature is brought up to the others when its weights are smaller than this part of theirs.
const SMALL: f64 = 0.25;
/// The least factor.
const LEAST_EXPONENT: f64 = -12.0;

/// What the activations of each input feature are to be multiplied by, and its weights divided by; `None` when no
/// feature stands out. `read` gives rows of the matrix from a row on.
pub(super) fn factors<E>(
    out_features: usize,
    in_features: usize,
    mut read: impl FnMut(std::ops::Range<usize>, &mut [f32]) -> Result<(), E>,
) -> Result<Option<Box<[f32]>>, E> {
    if out_features < SAMPLED_ROWS || in_features == 0 {
        return Ok(None);
    }
    let mut squares = vec![0.0_f64; in_features];
    let mut rows = vec![0.0; ROWS_AT_ONCE * in_features];
    let parts = SAMPLED_ROWS / ROWS_AT_ONCE;
    for part in 0..parts {
        let first = part * (out_features - ROWS_AT_ONCE) / (parts - 1);
        read(first..first + ROWS_AT_ONCE, &mut rows)?;
        for row in rows.chunks_exact(in_features) {
            // Every row has a scale of its own, so that only sizes within a row count.
            let square = |value: f32| f64::from(value) * f64::from(value);
            let sum: f64 = row.iter().map(|&value| square(value)).sum();
            if sum > 0.0 {
                for (all, &value) in squares.iter_mut().zip(row) {
                    *all += square(value) / sum;
                }
            }
        }
    }
    let mut sorted = squares.clone();
    let (_, &mut typical, _) = sorted.select_nth_unstable_by(in_features / 2, f64::total_cmp);
    let small = |square: f64| square > 0.0 && square < typical * SMALL * SMALL;
    if !squares.iter().any(|&square| small(square)) {
        return Ok(None);
    }
    let factor = |square: f64| {
        if small(square) {
            let exponent = (square / typical).sqrt().log2().round();
            exponent.max(LEAST_EXPONENT).exp2() as f32
        } else {
            1.0
        }
    };
    Ok(Some(squares.into_iter().map(factor).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(out_features: usize, weight: impl Fn(usize, usize) -> f32) -> Option<Box<[f32]>> {
        let (in_features, mut asked) = (5, 0);
        let found = factors(out_features, in_features, |range, rows| {
            assert!(range.end <= out_features);
            asked += range.len();
            for (row, values) in range.zip(rows.chunks_exact_mut(in_features)) {
                for (column, value) in values.iter_mut().enumerate() {
                    *value = weight(row, column);
                }
            }
            Ok::<(), ()>(())
        });
        assert!(asked == 0 || asked == SAMPLED_ROWS);
        found.unwrap_or_default()
    }

    #[test]
    fn small_features_alone_are_brought_up() {
        let sizes = [1.0, 1.0 / 64.0, 0.9, 80.0, 0.0];
        let sign = |row: usize| if row.is_multiple_of(3) { -1.0 } else { 1.0 };
        let found = of(200, |row, column| {
            // Some rows are much larger than the others and put their own values in every feature.
            let size = if row.is_multiple_of(7) {
                900.0 + (row * (column + 3) % 11) as f32
            } else {
                1.0
            };
            sizes[column] * sign(row) * size
        });
        assert_eq!(
            found.as_deref(),
            Some(&[1.0, 1.0 / 64.0, 1.0, 1.0, 1.0][..])
        );
    }

    #[test]
    fn equal_features_and_few_rows_are_left_alone() {
        assert_eq!(of(64, |_, column| 1.0 + column as f32 / 5.0), None);
        assert_eq!(of(63, |_, column| column as f32), None);
        assert_eq!(of(64, |_, _| 0.0), None);
        assert_eq!(of(64, |_, _| f32::NAN), None);
    }
}
