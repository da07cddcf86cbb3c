//! A packed matrix taken apart and put together again, for whoever keeps it.

use std::sync::Arc;

use crate::gemm::{PackedMatrix, Precision, short};
use crate::isa::Isa;
use crate::memory::{Buffer, LINE};
use crate::simd::Kernels;

/// Memory that somebody else holds, such as a mapped file; it must not move.
pub type Foreign = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Changes whenever the same values are packed into other words.
const VERSION: u32 = 1;

/// What a packed matrix consists of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The panels.
    pub panels: &'a [u32],
    /// Integers: the scale of every output feature, padded.
    pub scales: &'a [f32],
    /// Integers: what the offset of the activations adds to every output feature, padded.
    pub compensation: &'a [u32],
    /// Integers: what activations of each input feature are multiplied by, where any are.
    pub factors: Option<&'a [f32]>,
    /// bfloat16 in twelve bits: what stands beside the panels.
    pub escapes: Option<&'a [u32]>,
}

/// The words of all panels.
pub(super) enum Panels {
    Own(Buffer),
    /// Bytes `start .. start + len`, on a cache line.
    Foreign {
        memory: Foreign,
        start: usize,
        len: usize,
    },
}

impl Panels {
    pub(super) fn words(&self) -> &[u32] {
        match self {
            Self::Own(buffer) => buffer.words(),
            Self::Foreign { memory, start, len } => {
                bytemuck::cast_slice(&(**memory).as_ref()[*start..*start + *len])
            }
        }
    }

    /// Own memory, while a matrix is being packed.
    pub(super) fn words_mut(&mut self) -> &mut [u32] {
        match self {
            Self::Own(buffer) => buffer.words_mut(),
            Self::Foreign { .. } => &mut [],
        }
    }
}

/// In what form matrices are packed on this machine; parts of another form are not to be put together.
pub fn packing() -> String {
    let (isa, kernels) = (Isa::detect(), Kernels::of(Isa::detect()));
    let endian = if cfg!(target_endian = "big") {
        "be"
    } else {
        "le"
    };
    format!(
        "{VERSION} {isa} {endian} {} {}",
        kernels.panel_width, kernels.byte_offset
    )
}

impl PackedMatrix {
    /// What it consists of.
    pub fn parts(&self) -> Parts<'_> {
        let sizes = Sizes::of(
            self.isa,
            self.precision,
            self.out_features,
            self.in_features,
        );
        Parts {
            panels: &self.panels.words()[..sizes.panels],
            scales: &self.scales,
            compensation: &self.compensation,
            factors: self.factors(),
            escapes: self.escapes_words(),
        }
    }

    /// Puts together what [`PackedMatrix::parts`] gave on a machine with the same [`packing`]. The panels are the
    /// bytes of `memory` from `start` on, in the order of this machine, and stay there; the other parts of `rest` are
    /// copied. `None` where sizes do not fit or the panels do not begin on a cache line. What was asked for in twelve bits
    /// and packed in sixteen has no escapes and stays so.
    pub fn from_parts(
        precision: Precision,
        [out_features, in_features]: [usize; 2],
        (memory, start): (Foreign, usize),
        rest: &Parts<'_>,
    ) -> Option<Self> {
        let precision = match (precision, rest.escapes) {
            (Precision::Bf16Short, None) => Precision::Bf16,
            _ => precision,
        };
        let kernels = Kernels::of(Isa::detect());
        let escapes = match (precision, rest.escapes) {
            (Precision::Bf16Short, Some(escapes)) => {
                let panels = out_features.div_ceil(kernels.panel_width);
                let inside = [panels, precision.words(in_features), kernels.panel_width];
                Some(short::Escapes::from_words(escapes, inside)?)
            }
            (_, Some(_)) => return None,
            (_, None) => None,
        };
        let sizes = Sizes::of(Isa::detect(), precision, out_features, in_features);
        let len = sizes.panels * size_of::<u32>();
        let bytes = (*memory).as_ref().get(start..)?.get(..len)?;
        let factors_fit = rest
            .factors
            .is_none_or(|factors| precision.is_integer() && factors.len() == in_features);
        if !bytes
            .as_ptr()
            .addr()
            .is_multiple_of(size_of::<u32>() * LINE)
            || rest.scales.len() != sizes.scales
            || rest.compensation.len() != sizes.scales
            || !factors_fit
        {
            return None;
        }
        Some(Self {
            isa: Isa::detect(),
            precision,
            out_features,
            in_features,
            panels: Panels::Foreign { memory, start, len },
            scales: rest.scales.to_vec(),
            compensation: rest.compensation.to_vec(),
            factors: rest.factors.map(Box::from),
            escapes,
        })
    }
}

/// Words of the parts.
struct Sizes {
    panels: usize,
    scales: usize,
}

impl Sizes {
    fn of(isa: Isa, precision: Precision, out_features: usize, in_features: usize) -> Self {
        let padded = out_features.next_multiple_of(Kernels::of(isa).lanes);
        Self {
            panels: padded * precision.steps(in_features),
            scales: if precision.is_integer() { padded } else { 0 },
        }
    }
}
