//! Weights in the layout the tiles read.
//!
//! Output features are cut into panels of the instruction set's width (64 for AVX-512), the last one padded
//! to whole vectors. Inside a panel the weights are interleaved by step of the shared dimension, see
//! [`crate::pack`]. bfloat16 goes two and int8 four to a step, padded with zeros.

#![expect(unsafe_code, reason = "panels are packed behind raw pointers")]

use std::ops::Range;

use crate::gemm::{Precision, columns, int4, parts::Panels, short};
use crate::isa::Isa;
use crate::memory::Buffer;
use crate::pack::Panel;
use crate::parallel;
use crate::simd::Kernels;

/// Values that `fill` is asked for at a time, about: 256 KiB.
const BLOCK_VALUES: usize = 65_536;

/// Weights of a linear layer, `(out_features, in_features)`, packed for one instruction set.
pub struct PackedMatrix {
    pub(super) isa: Isa,
    pub(super) precision: Precision,
    pub(super) out_features: usize,
    pub(super) in_features: usize,
    pub(super) panels: Panels,
    /// Integers: the scale of every output feature, padded to whole vectors.
    pub(super) scales: Vec<f32>,
    /// Integers: what the offset of the activations adds to every output feature, padded to whole vectors.
    pub(super) compensation: Vec<u32>,
    /// Integers: what activations of each input feature are multiplied by; see [`columns`].
    pub(super) factors: Option<Box<[f32]>>,
    /// bfloat16 in twelve bits only.
    pub(super) escapes: Option<short::Escapes>,
}

impl PackedMatrix {
    /// Packs weights that arrive in pieces: `fill` is asked for consecutive ranges of output rows, from the
    /// first to the last, each range once (for integers after a few dozen rows to see their sizes, and all over again where
    /// twelve bits turn out not to be enough), and writes them row-major (`range.len() × in_features`). The
    /// buffer is a few hundred kilobytes (never less than one panel of rows), so that loading never holds two
    /// copies.
    ///
    /// # Errors
    /// The first error of `fill`.
    pub fn pack<E>(
        precision: Precision,
        out_features: usize,
        in_features: usize,
        fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::pack_with(Isa::detect(), precision, out_features, in_features, fill)
    }

    /// [`PackedMatrix::pack`] for a given instruction set.
    ///
    /// # Errors
    /// The first error of `fill`.
    ///
    /// # Panics
    /// If the running machine does not have the instruction set.
    pub fn pack_with<E>(
        isa: Isa,
        precision: Precision,
        out_features: usize,
        in_features: usize,
        mut fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let kernels = Kernels::of(isa);
        let words = precision.words(in_features);
        let padded = out_features.next_multiple_of(kernels.lanes);
        let mut packed = Self {
            isa,
            precision,
            out_features,
            in_features,
            panels: Panels::Own(Buffer::zeroed(padded * precision.steps(in_features))),
            scales: Vec::new(),
            compensation: Vec::new(),
            factors: None,
            escapes: None,
        };
        if precision.is_integer() {
            packed.factors = columns::factors(out_features, in_features, &mut fill)?;
            packed.scales = vec![0.0; padded];
            packed.compensation = vec![0; padded];
        }
        let width = kernels.panel_width;
        let mut panels_at_once = (BLOCK_VALUES / (width * in_features).max(1)).max(1);
        if matches!(precision, Precision::Int4 | Precision::Bf16Short) {
            // Looking for the best codes takes longer than reading: at least a panel for every thread.
            panels_at_once = panels_at_once.next_multiple_of(parallel::num_threads());
        }
        let rows_at_once = (panels_at_once * width).min(out_features);
        let mut rows = vec![0.0; rows_at_once * in_features];
        let mut narrow = vec![
            0;
            if matches!(
                precision,
                Precision::F32 | Precision::Int4 | Precision::Bf16Short
            ) {
                0
            } else {
                width * words
            }
        ];
        let mut shortening = short::Packing::new(in_features, padded);
        for first in (0..out_features).step_by(rows_at_once.max(1)) {
            let range = first..(first + rows_at_once).min(out_features);
            let rows = &mut rows[..range.len() * in_features];
            fill(range.clone(), rows)?;
            if let Some(factors) = &packed.factors {
                for row in rows.chunks_exact_mut(in_features) {
                    for (value, factor) in row.iter_mut().zip(factors) {
                        *value /= factor;
                    }
                }
            }
            if precision == Precision::Int4 {
                let block = int4::Block {
                    first,
                    rows,
                    in_features,
                    padded,
                };
                int4::pack_panels(
                    kernels,
                    &block,
                    &mut packed.panels.words_mut()[..padded * precision.steps(in_features)],
                    &mut packed.scales,
                    &mut packed.compensation,
                );
                continue;
            }
            if precision == Precision::Bf16Short {
                let panels = packed.panels.words_mut();
                if !shortening.panels(kernels, range, rows, panels) {
                    return Self::pack_with(isa, Precision::Bf16, out_features, in_features, fill);
                }
                continue;
            }
            for panel in range.clone().step_by(width) {
                let count = (range.end - panel).min(width);
                let rows = &rows[(panel - first) * in_features..][..count * in_features];
                packed.pack_panel(kernels, panel / width, count, rows, &mut narrow);
            }
        }
        if precision == Precision::Bf16Short {
            packed.escapes = Some(shortening.finish());
        }
        Ok(packed)
    }

    /// Packs `rows`, row-major `out_features × in_features`.
    ///
    /// # Panics
    /// If `rows` has another length.
    pub fn from_rows(
        precision: Precision,
        out_features: usize,
        in_features: usize,
        rows: &[f32],
    ) -> Self {
        Self::from_rows_with(Isa::detect(), precision, out_features, in_features, rows)
    }

    /// [`PackedMatrix::from_rows`] for a given instruction set.
    ///
    /// # Panics
    /// If `rows` has another length or the running machine does not have the instruction set.
    pub fn from_rows_with(
        isa: Isa,
        precision: Precision,
        out_features: usize,
        in_features: usize,
        rows: &[f32],
    ) -> Self {
        assert_eq!(
            rows.len(),
            out_features * in_features,
            "weights of another size than stated is a bug"
        );
        let packed = Self::pack_with(
            isa,
            precision,
            out_features,
            in_features,
            |range, buffer| {
                buffer.copy_from_slice(&rows[range.start * in_features..range.end * in_features]);
                Ok::<(), std::convert::Infallible>(())
            },
        );
        match packed {
            Ok(packed) => packed,
            Err(never) => match never {},
        }
    }

    /// Packs `count` rows as panel `panel`.
    fn pack_panel(
        &mut self,
        kernels: &Kernels,
        panel: usize,
        count: usize,
        rows: &[f32],
        narrow: &mut [u32],
    ) {
        let words = self.words();
        let first = panel * kernels.panel_width;
        let from: &[u32] = if self.precision == Precision::F32 {
            bytemuck::cast_slice(rows)
        } else {
            for row in 0..count {
                let values = &rows[row * self.in_features..(row + 1) * self.in_features];
                let out = &mut narrow[row * words..(row + 1) * words];
                if self.precision == Precision::Bf16 {
                    (kernels.narrow_bf16)(values, out);
                } else {
                    self.scales[first + row] = (kernels.narrow_bytes)(values, 0, out);
                    let bytes: &[i8] = bytemuck::cast_slice(out);
                    let sum: i32 = bytes.iter().map(|&byte| i32::from(byte)).sum();
                    self.compensation[first + row] = sum.wrapping_mul(kernels.byte_offset) as u32;
                }
            }
            narrow
        };
        assert!(
            from.len() >= count * words,
            "a panel of fewer rows than stated is a bug"
        );
        let width = self.panel_width(kernels, panel);
        let to = &mut self.panels.words_mut()[first * words..][..width * words];
        // SAFETY: both lengths were just checked against the shapes given.
        unsafe {
            (kernels.pack_panel)(&Panel {
                from: from.as_ptr(),
                from_stride: words,
                rows: count,
                words,
                to: to.as_mut_ptr(),
                width,
            });
        }
    }

    /// Number of values a product gives for each row.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Number of values a product takes from each row.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// The type of the weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set the weights are packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Memory that weights of this size take once they are packed for the running machine; in twelve bits without escapes.
    pub fn bytes_for(precision: Precision, out_features: usize, in_features: usize) -> usize {
        let kernels = Kernels::of(Isa::detect());
        let padded = out_features.next_multiple_of(kernels.lanes);
        let beside = match precision {
            Precision::Int8 | Precision::Int4 => 2 * padded,
            Precision::Bf16Short => {
                let panels = out_features.div_ceil(kernels.panel_width);
                short::Escapes::least_words(panels, precision.words(in_features))
            }
            Precision::F32 | Precision::Bf16 => 0,
        };
        let words = padded.saturating_mul(precision.steps(in_features));
        words.saturating_add(beside).saturating_mul(4)
    }

    /// Memory held by the weights and their scales.
    pub fn num_bytes(&self) -> usize {
        size_of_val(self.panels.words())
            + size_of_val(self.scales.as_slice())
            + size_of_val(self.compensation.as_slice())
            + self.factors.as_deref().map_or(0, size_of_val)
            + self.escapes_words().map_or(0, size_of_val)
    }

    /// Steps of the shared dimension.
    pub(super) fn words(&self) -> usize {
        self.precision.words(self.in_features)
    }

    /// Width of a panel in words, whole vectors.
    pub(super) fn panel_width(&self, kernels: &Kernels, panel: usize) -> usize {
        let rest = self.out_features - panel * kernels.panel_width;
        rest.min(kernels.panel_width)
            .next_multiple_of(kernels.lanes)
    }

    /// The words of a panel: in four bits half as many as steps of bytes, and their multipliers.
    pub(super) fn panel(&self, kernels: &Kernels, panel: usize) -> &[u32] {
        let steps = self.precision.steps(self.in_features);
        let start = panel * kernels.panel_width * steps;
        &self.panels.words()[start..][..self.panel_width(kernels, panel) * steps]
    }

    /// What activations of each input feature are multiplied by, where any are.
    pub(super) fn factors(&self) -> Option<&[f32]> {
        self.factors.as_deref()
    }

    /// In twelve bits: what stands beside the panels.
    pub(super) fn escapes(&self) -> Option<&short::Escapes> {
        self.escapes.as_ref()
    }

    /// The same as words.
    pub(super) fn escapes_words(&self) -> Option<&[u32]> {
        self.escapes().map(short::Escapes::words)
    }

    /// Scales and compensation from output feature `first` on; empty unless integers.
    pub(super) fn scales_from(&self, first: usize) -> (&[f32], &[u32]) {
        match self.precision {
            Precision::Int8 | Precision::Int4 => {
                (&self.scales[first..], &self.compensation[first..])
            }
            Precision::F32 | Precision::Bf16 | Precision::Bf16Short => (&[], &[]),
        }
    }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PackedMatrix")
            .field("isa", &self.isa)
            .field("precision", &self.precision)
            .field("out_features", &self.out_features)
            .field("in_features", &self.in_features)
            .finish_non_exhaustive()
    }
}
