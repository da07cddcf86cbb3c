//! Rotary positions (Su et al. 2021) in the rotate-half layout of Llama and its relatives: the first half
//! of a head is rotated against the second.

use crate::isa::Isa;
use crate::parallel;
use crate::rows::RowsMut;
use crate::simd::Kernels;

/// Cosines and sines of every position, computed once.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// `(position, half)`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    /// The table for positions `0..num_positions`; `inv_freq` has one frequency for each pair, `head_dim / 2`
    /// of them. Both functions are multiplied by `attention_scaling` (1 except for scaled variants).
    ///
    /// The angle is `position as f32 * inv_freq` rounded to `f32`, as torch computes it; the rounding is part
    /// of the trained model at large positions.
    pub fn new(inv_freq: &[f32], num_positions: usize, attention_scaling: f32) -> Self {
        let count = num_positions * inv_freq.len();
        let (mut cos, mut sin) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for position in 0..num_positions {
            for &frequency in inv_freq {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32 * attention_scaling);
                sin.push(angle.sin() as f32 * attention_scaling);
            }
        }
        Self {
            cos,
            sin,
            half: inv_freq.len(),
        }
    }

    /// Number of positions in the table.
    pub fn num_positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }
}

/// Rotates every head of every row in place; row `r` stands at position `first_position + r`.
///
/// `x` has `num_heads * head_dim` columns and any stride.
///
/// # Panics
/// If the columns, the head size or the positions do not fit the table.
pub fn rope(
    x: RowsMut<'_>,
    num_heads: usize,
    head_dim: usize,
    first_position: usize,
    table: &RopeTable,
) {
    rope_with(Isa::detect(), x, num_heads, head_dim, first_position, table);
}

/// [`rope`] with a choice of instruction set.
///
/// # Panics
/// If the columns, the head size or the positions do not fit the table, or the running machine does not have
/// the instruction set.
pub fn rope_with(
    isa: Isa,
    x: RowsMut<'_>,
    num_heads: usize,
    head_dim: usize,
    first_position: usize,
    table: &RopeTable,
) {
    assert_eq!(
        x.num_cols(),
        num_heads * head_dim,
        "columns other than heads × head_dim is a bug"
    );
    assert_eq!(
        head_dim,
        2 * table.half,
        "a table for another head size is a bug"
    );
    assert!(
        first_position + x.num_rows() <= table.num_positions(),
        "positions up to {} of a table of {} is a bug",
        first_position + x.num_rows(),
        table.num_positions()
    );
    let half = table.half;
    let kernels = Kernels::of(isa);
    let nanos = (x.num_rows() * x.num_cols()) as u64 / 6;
    parallel::for_each_row(x, nanos, |row, values| {
        let start = (first_position + row) * half;
        let (cos, sin) = (
            &table.cos[start..start + half],
            &table.sin[start..start + half],
        );
        for head in values.chunks_exact_mut(head_dim.max(1)) {
            let (low, high) = head.split_at_mut(half);
            (kernels.rotate)(low, high, cos, sin);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_turns_by_position_times_frequency() {
        let inv_freq = [1.0, 0.25];
        let table = RopeTable::new(&inv_freq, 10, 1.0);
        assert_eq!(table.num_positions(), 10);
        let original: Vec<f32> = (0..24).map(|index| (index as f32 * 0.7).sin()).collect();
        let mut x = original.clone();
        // Two rows of two heads of four values, ten apart; first position 7.
        rope(RowsMut::strided(&mut x, 2, 8, 12), 2, 4, 7, &table);
        for row in 0..2 {
            for head in 0..2 {
                for (pair, &frequency) in inv_freq.iter().enumerate() {
                    let at = row * 12 + head * 4 + pair;
                    let angle = (7 + row) as f64 * f64::from(frequency);
                    let (a, b) = (f64::from(original[at]), f64::from(original[at + 2]));
                    assert!((f64::from(x[at]) - (a * angle.cos() - b * angle.sin())).abs() < 1e-6);
                    assert!(
                        (f64::from(x[at + 2]) - (b * angle.cos() + a * angle.sin())).abs() < 1e-6
                    );
                }
            }
        }
        assert_eq!(x[8..12], original[8..12]);
    }

    #[test]
    fn the_scaling_multiplies_both_functions() {
        let table = RopeTable::new(&[1.0], 1, 2.0);
        let mut x = [3.0, 5.0];
        rope(RowsMut::new(&mut x, 1, 2), 1, 2, 0, &table);
        assert_eq!(x, [6.0, 10.0]);
    }
}
