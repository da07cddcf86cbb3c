//! Rows of packed weights, taken out again.

use crate::gemm::{PackedMatrix, Precision, int4, widen};
use crate::simd::Kernels;

impl PackedMatrix {
    /// Writes the weights of output feature `row`, widened to `f32`: an embedding looked up in a table that
    /// is also the last layer.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `in_features` long.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.out_features,
            "row {row} of {} is a bug",
            self.out_features
        );
        assert_eq!(
            out.len(),
            self.in_features,
            "a row of another length is a bug"
        );
        if out.is_empty() {
            return;
        }
        self.unpack_packed(row, out);
        if let Some(factors) = &self.factors {
            for (value, factor) in out.iter_mut().zip(factors) {
                *value *= factor;
            }
        }
    }

    /// Row `row` as it was packed.
    fn unpack_packed(&self, row: usize, out: &mut [f32]) {
        let kernels = Kernels::of(self.isa);
        let panel = row / kernels.panel_width;
        let width = self.panel_width(kernels, panel);
        let column = row % kernels.panel_width;
        if self.precision == Precision::Int4 {
            let bytes = int4::bytes_of(self.panel(kernels, panel), column, width, self.words());
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out = f32::from(byte) * self.scales[row];
            }
            return;
        }
        if let Some(escapes) = &self.escapes {
            let panel = (panel, self.panel(kernels, panel));
            let place = (column, width, kernels.lanes);
            write_pairs(out, escapes.column(panel, place, self.words()));
            return;
        }
        let words = self.panel(kernels, panel)[column..].iter().step_by(width);
        match self.precision {
            Precision::F32 => {
                for (out, &word) in out.iter_mut().zip(words) {
                    *out = f32::from_bits(word);
                }
            }
            Precision::Bf16 | Precision::Bf16Short => {
                write_pairs(out, words.copied());
            }
            Precision::Int8 | Precision::Int4 => {
                for (out, &word) in out.chunks_mut(4).zip(words) {
                    for (out, byte) in out.iter_mut().zip(word.to_ne_bytes()) {
                        *out = f32::from(byte as i8) * self.scales[row];
                    }
                }
            }
        }
    }
}

/// Two bfloat16 of every word.
fn write_pairs(out: &mut [f32], words: impl IntoIterator<Item = u32>) {
    for (out, word) in out.chunks_mut(2).zip(words) {
        out.copy_from_slice(&widen(word).map(f32::from_bits)[..out.len()]);
    }
}
