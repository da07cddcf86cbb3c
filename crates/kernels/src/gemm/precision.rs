//! In what form weights are kept and multiplied.

use crate::gemm::{int4, short};
use crate::simd::Kernels;
use crate::simd::table::Tiles;

/// The type in which weights are kept and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// `f32` weights and activations.
    F32,
    /// bfloat16 weights and activations, both rounded to nearest even; `f32` sums. Values too small for a
    /// normal number may count as zero.
    Bf16,
    /// The same values bit for bit, and multiplied as those are, kept in twelve bits each: for weights that are read from memory
    /// for a few rows at a time. Spelling them out costs a few per cent where rows are many. A matrix whose exponents
    /// lie too far apart for it is packed as [`Precision::Bf16`].
    Bf16Short,
    /// 8-bit integers: weights symmetric per output feature, activations symmetric per row; exact `i32`
    /// sums, scaled in `f32`. Input features whose weights are much smaller than the others' are brought to their size
    /// by powers of two, on both sides. A row of activations that holds an infinity or NaN gives NaN.
    Int8,
    /// 4-bit codes with a multiplier for every 32 values and a scale for every output feature, 4.25 bits a value,
    /// that stand for 8-bit integers; multiplied as those are.
    Int4,
}

impl Precision {
    /// Steps of a shared dimension of `values` values.
    pub(crate) fn words(self, values: usize) -> usize {
        match self {
            Self::F32 => values,
            Self::Bf16 | Self::Bf16Short => values.div_ceil(2),
            Self::Int8 | Self::Int4 => values.div_ceil(4),
        }
    }

    /// Steps of a packed panel.
    pub(crate) fn steps(self, values: usize) -> usize {
        match self {
            Self::Int4 => int4::steps(self.words(values)),
            Self::Bf16Short => short::steps(self.words(values)),
            Self::F32 | Self::Bf16 | Self::Int8 => self.words(values),
        }
    }

    /// What activations are narrowed to.
    pub(crate) fn of_operand(self) -> Self {
        match self {
            Self::Int4 => Self::Int8,
            Self::Bf16Short => Self::Bf16,
            Self::F32 | Self::Bf16 | Self::Int8 => self,
        }
    }

    /// Whether sums are integers.
    pub(crate) fn is_integer(self) -> bool {
        self.of_operand() == Self::Int8
    }

    pub(crate) fn tiles(self, kernels: &Kernels) -> &Tiles {
        match self {
            Self::F32 => &kernels.tiles_f32,
            Self::Bf16 | Self::Bf16Short => &kernels.tiles_bf16,
            Self::Int8 | Self::Int4 => &kernels.tiles_bytes,
        }
    }
}
