//! Rows into panels: the layout in which the right operand of a tile is read.
//!
//! A panel holds up to [`Simd::PANEL_VECTORS`] vectors of rows (output features, keys, document rows),
//! interleaved word by word: step `k` has word `k` of every row of the panel, so that a tile reads it from
//! start to end.

#![expect(unsafe_code, reason = "blocks are moved behind raw pointers")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use crate::simd::Simd;

/// One panel to be packed. All distances are in words.
pub(crate) struct Panel {
    /// Row `r` starts at `from + r · from_stride` and has `words` words.
    pub(crate) from: *const u32,
    pub(crate) from_stride: usize,
    pub(crate) rows: usize,
    pub(crate) words: usize,
    /// Receives `words` steps of `width` words.
    pub(crate) to: *mut u32,
    /// Whole vectors, at least `rows`; what lies past the rows becomes zero.
    pub(crate) width: usize,
}

/// Packs one panel.
///
/// # Safety
/// The rows must be readable and `words · width` words writable at `to`.
#[inline(always)]
pub(crate) unsafe fn pack_panel<S: Simd>(s: S, panel: &Panel) {
    for first_row in (0..panel.width).step_by(S::LANES) {
        let rows = panel.rows.saturating_sub(first_row).min(S::LANES);
        for first_word in (0..panel.words).step_by(S::LANES) {
            let words = (panel.words - first_word).min(S::LANES);
            // SAFETY: both blocks lie inside the panel: `first_row < width`, `first_word < words`, and a
            // whole block is moved only where the panel has one.
            unsafe {
                let to = panel.to.add(first_word * panel.width + first_row);
                if rows == S::LANES && words == S::LANES {
                    let from = panel.from.add(first_row * panel.from_stride + first_word);
                    s.transpose(from, panel.from_stride, to, panel.width);
                    continue;
                }
                for word in 0..words {
                    for row in 0..S::LANES {
                        *to.add(word * panel.width + row) = if row < rows {
                            *panel
                                .from
                                .add((first_row + row) * panel.from_stride + first_word + word)
                        } else {
                            0
                        };
                    }
                }
            }
        }
    }
}
