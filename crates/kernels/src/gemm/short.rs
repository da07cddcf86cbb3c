//! bfloat16 in twelve bits, without loss: the format, and how rows are brought into it.
//!
//! The lower byte of a weight, the last bit of its exponent and the mantissa, is as good as random and is kept as it is. The
//! upper byte, its sign and seven bits of the exponent, is not: exponents of trained weights lie close together, and the eight
//! most frequent of a panel, with either sign, are sixteen codes of four bits. The few weights that are smaller or
//! greater (one in some thousands) are *escapes*: listed beside the panel and put in their places when it is spelt out. So a
//! matrix in this form is a bfloat16 matrix in a shorter spelling, bit for bit. A step of decoding takes as long as memory
//! brings the weights, and there is a quarter less to bring. (`DFloat11`, Zhang et al. 2025, has Huffman codes for the same
//! bits; they save a tenth more and have to be read one after another.)
//!
//! Layout of a panel: for every four steps ([`QUAD`]) and every vector of columns three vectors: the lower bytes of the first two
//! steps, those of the other two, and the codes, of the first two steps in the low halves of the bytes and of the others
//! in the high halves. Where a byte stands in its vector ([`place`]) is as interleaving two vectors of bytes wants it.

#![expect(unsafe_code, reason = "threads write different panels of one buffer")]
#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use std::ops::Range;

use crate::parallel::{self, SharedMut};
use crate::simd::Kernels;

/// Steps that are spelt together.
pub(crate) const QUAD: usize = 4;
/// Words of a column for so many steps.
pub(crate) const QUAD_WORDS: usize = 3;
/// Steps whose escapes are listed together.
pub(crate) const SPAN: usize = 64;
/// Different upper bytes of a panel that have codes, signs left out.
const CODED: usize = 8;
/// A matrix with more escapes than one value in so many is not worth the shorter spelling.
const RARE: usize = 128;

/// The upper bytes that the codes of a panel stand for: those without and then those with a sign.
pub(crate) type Codes = [u8; 16];

/// Steps of a panel whose shared dimension has `words` steps of pairs.
pub(super) fn steps(words: usize) -> usize {
    words.div_ceil(QUAD) * QUAD_WORDS
}

/// Of the two weights of column `lane` of a vector in step `step` of its quad: in which of the first two vectors their
/// lower bytes are, and at which byte of it they begin; their codes are at the same byte of the third.
pub(crate) const fn place(step: usize, lane: usize) -> (usize, usize) {
    (step / 2, lane / 4 * 16 + step % 2 * 8 + lane % 4 * 2)
}

/// A weight without a code: its value above step (six bits, in its span), column (six) and half (one).
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Escape(u32);

impl Escape {
    fn new(step: usize, column: usize, half: usize, value: u32) -> Self {
        Self(((step % SPAN) << 7 | column << 1 | half) as u32 | value << 16)
    }

    /// The step of its span.
    #[inline(always)]
    pub(crate) fn step(self) -> usize {
        (self.0 >> 7 & 63) as usize
    }

    #[inline(always)]
    fn column(self) -> usize {
        (self.0 >> 1 & 63) as usize
    }

    /// Puts the value in its place in `block`, of whose steps, `width` columns from `skipped` on, it belongs to number `step`.
    #[inline(always)]
    pub(crate) fn restore(self, step: usize, [skipped, width]: [usize; 2], block: &mut [u32]) {
        let column = self.column().wrapping_sub(skipped);
        if column < width {
            let word = &mut block[step * width + column];
            *word = self.put(*word);
        }
    }

    /// `word` with the value in its half.
    fn put(self, word: u32) -> u32 {
        let shift = 16 * (self.0 & 1);
        word & (0xFFFF_0000 >> shift) | (self.0 >> 16) << shift
    }
}

/// What the panels of a matrix hold beside codes and lower bytes.
#[derive(Clone, Debug)]
pub(super) struct Escapes {
    /// [`Codes`] of every panel; then for every span of every panel where its escapes begin, and where the last ones end; then
    /// the escapes, sorted by quad.
    words: Vec<u32>,
    spans: usize,
    panels: usize,
}

/// The escapes of one panel as they are found.
#[derive(Default)]
struct Found {
    codes: Codes,
    /// With the quads they belong to.
    escapes: Vec<(u32, Escape)>,
}

impl Escapes {
    /// Words of codes and beginnings.
    fn head(panels: usize, spans: usize) -> usize {
        4 * panels + panels * spans + 1
    }

    /// Of a matrix that has no escapes: what there is at least.
    pub(super) fn least_words(panels: usize, words: usize) -> usize {
        Self::head(panels, words.div_ceil(SPAN))
    }

    /// Takes apart what [`Escapes::words`] gave; `None` unless every place lies inside panels of `words` steps and `width` columns.
    pub(super) fn from_words(parts: &[u32], [panels, words, width]: [usize; 3]) -> Option<Self> {
        let spans = words.div_ceil(SPAN);
        let escapes = parts.get(Self::head(panels, spans)..)?;
        let beginnings = &parts[4 * panels..Self::head(panels, spans)];
        let is_whole = beginnings.first() == Some(&0)
            && beginnings.is_sorted()
            && beginnings.last().map(|&end| end as usize) == Some(escapes.len());
        let all = Self {
            words: parts.to_vec(),
            spans,
            panels,
        };
        let are_inside = || {
            (0..panels * spans).all(|index| {
                let span = index % spans.max(1);
                let escapes = all.of(index / spans.max(1), span);
                let inside = |of: &Escape| span * SPAN + of.step() < words && of.column() < width;
                escapes.iter().all(inside) && escapes.is_sorted_by_key(|of| of.step() / QUAD)
            })
        };
        (is_whole && are_inside()).then_some(all)
    }

    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    /// What the codes of a panel stand for.
    pub(super) fn codes(&self, panel: usize) -> &Codes {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words[4 * panel..4 * panel + 4]);
        bytemuck::from_bytes(bytes)
    }

    /// The escapes of a span of a panel.
    pub(super) fn of(&self, panel: usize, span: usize) -> &[Escape] {
        let at = 4 * self.panels + panel * self.spans + span;
        let escapes = &self.words[Self::head(self.panels, self.spans)..];
        &bytemuck::cast_slice(escapes)[self.words[at] as usize..self.words[at + 1] as usize]
    }

    /// Puts the escapes of the steps from `first` on (the beginning of a span) in their places: `block` holds whole steps
    /// of the `width` columns from `skipped` on.
    pub(super) fn restore(
        &self,
        panel: usize,
        first: usize,
        [skipped, width]: [usize; 2],
        block: &mut [u32],
    ) {
        for (index, steps) in block.chunks_mut(SPAN * width).enumerate() {
            for escape in self.of(panel, first / SPAN + index) {
                escape.restore(escape.step(), [skipped, width], steps);
            }
        }
    }

    /// The words of one column of a panel, `words` of them.
    pub(super) fn column(
        &self,
        (panel, steps): (usize, &[u32]),
        (column, width, lanes): (usize, usize, usize),
        words: usize,
    ) -> Vec<u32> {
        let bytes: &[u8] = bytemuck::cast_slice(steps);
        let codes = self.codes(panel);
        let places: [Bytes; QUAD] =
            std::array::from_fn(|step| Bytes::of(step, column, width, lanes));
        let mut all = Vec::with_capacity(words.next_multiple_of(QUAD));
        for quad in bytes.chunks_exact(4 * QUAD_WORDS * width) {
            all.extend(places.iter().map(|at| {
                let weight = |half: usize| {
                    let code = quad[at.code + half] >> at.shift & 15;
                    u32::from(quad[at.low + half]) | u32::from(codes[usize::from(code)]) << 8
                };
                weight(0) | weight(1) << 16
            }));
        }
        all.truncate(words);
        for span in 0..self.spans {
            for escape in self
                .of(panel, span)
                .iter()
                .filter(|of| of.column() == column)
            {
                let word = &mut all[span * SPAN + escape.step()];
                *word = escape.put(*word);
            }
        }
        all
    }
}

/// Where in a panel the first of the two weights of a step is; the other is a byte further.
struct Bytes {
    low: usize,
    code: usize,
    /// Of the code in its byte.
    shift: usize,
}

impl Bytes {
    fn of(step: usize, column: usize, width: usize, lanes: usize) -> Self {
        let (vector, byte) = place(step % QUAD, column % lanes);
        let quad = 4 * QUAD_WORDS * (step / QUAD * width + column / lanes * lanes);
        Self {
            low: quad + 4 * vector * lanes + byte,
            code: quad + 8 * lanes + byte,
            shift: 4 * vector,
        }
    }
}

/// Rows on their way into panels.
pub(super) struct Packing {
    in_features: usize,
    /// Output features padded to whole vectors.
    padded: usize,
    found: Vec<Found>,
    values: usize,
}

impl Packing {
    pub(super) fn new(in_features: usize, padded: usize) -> Self {
        Self {
            in_features,
            padded,
            found: Vec::new(),
            values: 0,
        }
    }

    /// Packs the panels that the output features `range` fill, whose rows `rows` are, spread over the threads. Whether
    /// escapes are rare so far.
    pub(super) fn panels(
        &mut self,
        kernels: &'static Kernels,
        range: Range<usize>,
        rows: &[f32],
        panels: &mut [u32],
    ) -> bool {
        let (width, in_features) = (kernels.panel_width, self.in_features);
        let words = in_features.div_ceil(2);
        assert!(
            range.end <= self.padded && panels.len() >= self.padded * steps(words),
            "rows past the end of a matrix is a bug"
        );
        let jobs = range.len().div_ceil(width);
        let begin = self.found.len();
        self.found.resize_with(begin + jobs, Found::default);
        let found = SharedMut::new(self.found[begin..].as_mut_ptr());
        let to = SharedMut::new(panels.as_mut_ptr());
        let padded = self.padded;
        // Two or three nanoseconds a value.
        parallel::for_each(jobs, 2 * rows.len() as u64, |index| {
            let first = range.start + index * width;
            let count = (range.end - first).min(width);
            let columns = (padded - first).min(width);
            // SAFETY: the assert above bounds the panel, `resize_with` the places of what is found; both belong to one job.
            let (panel, found) = unsafe {
                let panel = to.get().add(first * steps(words));
                (
                    std::slice::from_raw_parts_mut(panel, columns * steps(words)),
                    &mut *found.get().add(index),
                )
            };
            let rows = &rows[index * width * in_features..][..count * in_features];
            let mut brains = vec![0; count * words];
            for (row, out) in rows
                .chunks_exact(in_features.max(1))
                .zip(brains.chunks_exact_mut(words.max(1)))
            {
                (kernels.narrow_bf16)(row, out);
            }
            *found = pack_panel(&brains, words, (columns, kernels.lanes), panel);
        });
        self.values += rows.len();
        let escapes: usize = self.found.iter().map(|panel| panel.escapes.len()).sum();
        escapes <= self.values / RARE + SPAN
    }

    /// What was found, in the order of panels and spans.
    pub(super) fn finish(self) -> Escapes {
        let spans = self.in_features.div_ceil(2).div_ceil(SPAN);
        let panels = self.found.len();
        let mut words = Vec::new();
        for panel in &self.found {
            words.extend(bytemuck::cast::<Codes, [u32; 4]>(panel.codes));
        }
        let mut escapes = Vec::new();
        words.push(0);
        for mut panel in self.found {
            panel.escapes.sort_by_key(|of| of.0);
            for span in 0..spans {
                let end = panel
                    .escapes
                    .partition_point(|of| (of.0 as usize) < (span + 1) * (SPAN / QUAD));
                words.push((escapes.len() + end) as u32);
            }
            escapes.extend(panel.escapes.iter().map(|of| of.1.0));
        }
        words.extend(escapes);
        words.shrink_to_fit();
        Escapes {
            words,
            spans,
            panels,
        }
    }
}

/// The eight upper bytes, signs left out, that are most frequent among `brains`.
fn most_frequent(brains: &[u32]) -> [u8; CODED] {
    let mut counts = [0_u32; 128];
    for word in brains {
        for upper in [word >> 8, word >> 24] {
            counts[(upper & 127) as usize] += 1;
        }
    }
    let mut order: [u8; 128] = std::array::from_fn(|at| at as u8);
    order.sort_by_key(|&upper| std::cmp::Reverse(counts[usize::from(upper)]));
    std::array::from_fn(|at| order[at])
}

/// Spells the rows `brains` (`words` words each) as a panel of `columns` columns.
fn pack_panel(
    brains: &[u32],
    words: usize,
    (columns, lanes): (usize, usize),
    panel: &mut [u32],
) -> Found {
    let frequent = most_frequent(brains);
    let mut found = Found::default();
    let mut code_of = [None; 256];
    for (code, &upper) in frequent.iter().enumerate() {
        for sign in [0, 1] {
            let (upper, code) = (upper | sign << 7, code as u8 | sign << 3);
            found.codes[usize::from(code)] = upper;
            code_of[usize::from(upper)] = Some(code);
        }
    }
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(panel);
    for (column, row) in brains.chunks_exact(words.max(1)).enumerate() {
        for (step, word) in row.iter().enumerate() {
            let at = Bytes::of(step, column, columns, lanes);
            for half in 0..2 {
                let value = word >> (16 * half) & 0xFFFF;
                let code = code_of[(value >> 8) as usize].unwrap_or_else(|| {
                    let escape = Escape::new(step, column, half, value);
                    found.escapes.push(((step / QUAD) as u32, escape));
                    0
                });
                bytes[at.low + half] = value as u8;
                bytes[at.code + half] |= code << at.shift;
            }
        }
    }
    found
}
