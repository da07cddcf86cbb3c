//! Keys and values of a sequence as attention reads them.
//!
//! Packed once when a token is appended, so that a decode step reads them from end to end at the rate of memory and a
//! prompt that follows others packs nothing: keys in panels, step `d` of a panel with word `d` of each of its keys, values one
//! step after another. Where the machine multiplies bfloat16 and it is asked for, both are kept as bfloat16: half
//! the bytes, and the same arithmetic in a prefill and in a decode step.
//!
//! Where it is asked for, both are kept in bytes, half as many again, each key and each value of a head with a scale of
//! its own ([`crate::scalar::quantise`]; keys after their rotation, as they come). They are multiplied as the whole numbers
//! they are, in the type they would have had; scales of keys go to scores, scales of values to weights, so that
//! queries and sums are rounded no further.

#![expect(unsafe_code, reason = "panels are packed behind raw pointers")]

use crate::attention::Inner;
use crate::attention::block::Packed;
use crate::gemm::Precision;
use crate::isa::Isa;
use crate::memory::{Buffer, with_scratch};
use crate::pack::Panel;
use crate::rows::Rows;
use crate::simd::Kernels;
use crate::widen::BACK;

/// In what form keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvPrecision {
    /// In what attention multiplies: 16 bits where that is bfloat16, 32 elsewhere.
    #[default]
    Auto,
    /// 8 bits, and an `f32` for each key and each value of a head.
    Int8,
}

/// The keys and values of one layer and one sequence.
#[derive(Clone)]
pub struct KvStore {
    pub(super) kernels: &'static Kernels,
    pub(super) precision: Precision,
    kept: KvPrecision,
    head_dim: usize,
    len: usize,
    heads: Vec<Head>,
}

/// One key head.
#[derive(Clone, Default)]
pub(super) struct Head {
    /// Full panels, the last one filled with zeros.
    pub(super) keys: Buffer,
    /// Steps of [`KvStore::value_stride`] words.
    pub(super) values: Buffer,
    /// Of keys and values in bytes: one for each token, zeros up to whole vectors.
    key_scales: Buffer,
    value_scales: Buffer,
}

impl KvStore {
    /// An empty store for `kv_heads` heads of `head_dim` values, with room for `capacity` tokens before it grows.
    pub fn new(
        inner: Inner,
        kept: KvPrecision,
        kv_heads: usize,
        head_dim: usize,
        capacity: usize,
    ) -> Self {
        Self::new_with(Isa::detect(), inner, kept, kv_heads, head_dim, capacity)
    }

    /// [`KvStore::new`] with a choice of instruction set.
    ///
    /// # Panics
    /// If the running machine does not have the instruction set.
    pub fn new_with(
        isa: Isa,
        inner: Inner,
        kept: KvPrecision,
        kv_heads: usize,
        head_dim: usize,
        capacity: usize,
    ) -> Self {
        let kernels = Kernels::of(isa);
        let mut store = Self {
            kernels,
            precision: inner.precision(kernels),
            kept,
            head_dim,
            len: 0,
            heads: vec![Head::default(); kv_heads],
        };
        store.reserve(capacity);
        store
    }

    /// Makes room for `capacity` tokens in all, and not more: doubling would cost as much again as is held.
    pub fn reserve(&mut self, capacity: usize) {
        let (key_words, value_words) = (self.key_words(capacity), self.value_words(capacity));
        let scales = self.scale_words(capacity);
        for head in &mut self.heads {
            head.keys.reserve(key_words);
            head.values.reserve(value_words);
            head.key_scales.reserve(scales);
            head.value_scales.reserve(scales);
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of key heads.
    pub fn kv_heads(&self) -> usize {
        self.heads.len()
    }

    /// Values in a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes held.
    pub fn num_bytes(&self) -> usize {
        let buffers = |head: &Head| {
            [
                head.keys.capacity_bytes(),
                head.values.capacity_bytes(),
                head.key_scales.capacity_bytes(),
                head.value_scales.capacity_bytes(),
            ]
        };
        self.heads.iter().flat_map(buffers).sum()
    }

    /// Forgets all tokens past the first `len`.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        self.len = len;
        let (key_words, value_words) = (self.key_words(len), self.value_words(len));
        let stride = self.value_stride();
        let is_half =
            self.kept == KvPrecision::Auto && self.precision != Precision::F32 && len % 2 == 1;
        let scales = self.scale_words(len);
        for head in &mut self.heads {
            // Keys past the last are never looked at; what shares a step with the last value is multiplied by zero.
            head.keys.resize(key_words);
            head.values.resize(value_words);
            if scales > 0 {
                // Bytes past the last are finite, whatever they are; scales need not be.
                for buffer in [&mut head.key_scales, &mut head.value_scales] {
                    buffer.resize(scales);
                    buffer.words_mut()[len..].fill(0);
                }
            }
            if is_half {
                for word in &mut head.values.words_mut()[value_words - stride..value_words] {
                    *word &= 0xFFFF;
                }
            }
        }
    }

    /// Appends keys and values, `(tokens, kv_heads · head_dim)` each.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn append(&mut self, k: Rows<'_>, v: Rows<'_>) {
        let (first, width) = (self.len, self.heads.len() * self.head_dim);
        assert_eq!(
            (k.num_cols(), v.num_cols(), v.num_rows()),
            (width, width, k.num_rows()),
            "keys and values of other shapes than the store's is a bug"
        );
        let len = first + k.num_rows();
        let (key_words, value_words) = (self.key_words(len), self.value_words(len));
        let scales = self.scale_words(len);
        let mut heads = std::mem::take(&mut self.heads);
        for (index, head) in heads.iter_mut().enumerate() {
            let columns = index * self.head_dim..(index + 1) * self.head_dim;
            head.keys.resize(key_words);
            head.values.resize(value_words);
            head.key_scales.resize(scales);
            head.value_scales.resize(scales);
            let (k, v) = (k.columns(columns.clone()), v.columns(columns));
            self.append_keys(k, head.keys.words_mut(), head.key_scales.words_mut());
            if self.kept == KvPrecision::Int8 {
                let scales = head.value_scales.words_mut();
                self.append_value_bytes(v, head.values.words_mut(), scales);
            } else {
                self.append_values(v, head.values.words_mut());
            }
        }
        self.heads = heads;
        self.len = len;
    }

    fn append_keys(&self, k: Rows<'_>, keys: &mut [u32], scales: &mut [u32]) {
        let (words, width) = (self.dim_words(), self.kernels.panel_width);
        with_scratch(width * words, |narrow| {
            let mut done = 0;
            while done < k.num_rows() {
                let token = self.len + done;
                let (panel, column) = (token / width, token % width);
                let count = (width - column).min(k.num_rows() - done);
                for row in 0..count {
                    let out = &mut narrow[row * words..(row + 1) * words];
                    if self.kept == KvPrecision::Int8 {
                        let scale = (self.kernels.narrow_bytes)(k.row(done + row), 0, out);
                        scales[token + row] = (scale * BACK).to_bits();
                    } else if self.precision == Precision::F32 {
                        out.copy_from_slice(bytemuck::cast_slice(k.row(done + row)));
                    } else {
                        (self.kernels.narrow_bf16)(k.row(done + row), out);
                    }
                }
                let to = &mut keys[panel * width * words..(panel + 1) * width * words];
                if column == 0 {
                    // SAFETY: `narrow` has `count` rows of `words` words, `to` a whole panel.
                    unsafe {
                        (self.kernels.pack_panel)(&Panel {
                            from: narrow.as_ptr(),
                            from_stride: words,
                            rows: count,
                            words,
                            to: to.as_mut_ptr(),
                            width,
                        });
                    }
                } else {
                    for (word, step) in to.chunks_exact_mut(width).enumerate() {
                        for (row, out) in step[column..column + count].iter_mut().enumerate() {
                            *out = narrow[row * words + word];
                        }
                    }
                }
                done += count;
            }
        });
    }

    /// Byte `token % 4` of a word is the value of that token.
    fn append_value_bytes(&self, v: Rows<'_>, values: &mut [u32], scales: &mut [u32]) {
        let (dim, stride) = (self.head_dim, self.value_stride());
        with_scratch(self.dim_words(), |narrow| {
            for row in 0..v.num_rows() {
                let token = self.len + row;
                let scale = (self.kernels.narrow_bytes)(v.row(row), 0, narrow);
                scales[token] = (scale * BACK).to_bits();
                let bytes: &[u8] = bytemuck::cast_slice(narrow);
                let words = &mut values[token / 4 * stride..][..dim];
                for (word, &byte) in words.iter_mut().zip(bytes) {
                    let mut all = word.to_ne_bytes();
                    all[token % 4] = byte;
                    *word = u32::from_ne_bytes(all);
                }
            }
        });
    }

    fn append_values(&self, v: Rows<'_>, values: &mut [u32]) {
        let (dim, stride) = (self.head_dim, self.value_stride());
        if self.precision == Precision::F32 {
            for row in 0..v.num_rows() {
                let start = (self.len + row) * stride;
                values[start..start + dim].copy_from_slice(bytemuck::cast_slice(v.row(row)));
            }
            return;
        }
        let zeros = vec![0.0; dim];
        let mut row = 0;
        while row < v.num_rows() {
            let token = self.len + row;
            let out = &mut values[token / 2 * stride..][..dim];
            if token % 2 == 1 {
                // The lower half was filled by an earlier call.
                let lower: Vec<u32> = out.to_vec();
                (self.kernels.pair_bf16)(&zeros, v.row(row), out);
                for (out, lower) in out.iter_mut().zip(lower) {
                    *out = *out & 0xFFFF_0000 | lower & 0xFFFF;
                }
                row += 1;
                continue;
            }
            let high = if row + 1 < v.num_rows() {
                v.row(row + 1)
            } else {
                &zeros
            };
            (self.kernels.pair_bf16)(v.row(row), high, out);
            row += 2;
        }
    }

    /// A head as a block reads it.
    pub(super) fn head(&self, head: usize) -> Packed<'_> {
        let head = &self.heads[head];
        let (keys, values) = (head.keys.words(), head.values.words());
        let value_stride = self.value_stride();
        match self.kept {
            KvPrecision::Auto => Packed::Stored {
                keys,
                values,
                value_stride,
            },
            KvPrecision::Int8 => Packed::Bytes {
                keys,
                values,
                value_stride,
                key_scales: bytemuck::cast_slice(head.key_scales.words()),
                value_scales: bytemuck::cast_slice(head.value_scales.words()),
            },
        }
    }

    /// Words in a step of values: a head padded to whole vectors.
    pub(super) fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(self.kernels.lanes)
    }

    /// What a word is made of: values of the type, or four bytes.
    fn kept_in(&self) -> Precision {
        match self.kept {
            KvPrecision::Auto => self.precision,
            KvPrecision::Int8 => Precision::Int8,
        }
    }

    fn dim_words(&self) -> usize {
        self.kept_in().words(self.head_dim)
    }

    fn scale_words(&self, tokens: usize) -> usize {
        match self.kept {
            KvPrecision::Auto => 0,
            KvPrecision::Int8 => tokens.next_multiple_of(self.kernels.lanes),
        }
    }

    fn key_words(&self, tokens: usize) -> usize {
        tokens.next_multiple_of(self.kernels.panel_width) * self.dim_words()
    }

    fn value_words(&self, tokens: usize) -> usize {
        self.kept_in().words(tokens) * self.value_stride()
    }
}

impl std::fmt::Debug for KvStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KvStore")
            .field("precision", &self.precision)
            .field("kept", &self.kept)
            .field("kv_heads", &self.heads.len())
            .field("head_dim", &self.head_dim)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
