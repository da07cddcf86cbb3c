//! Retrievers and generators: processors, networks, generation.
//!
//! A page image and a prompt go in; rows for late interaction ([`retrievers`]) or streamed text
//! ([`generators`]) come out. The parts follow the checkpoints: a [`vision`] tower, a [`connector`], a
//! [`text`] model, joined in [`vlm`]; [`registry`] tells from a folder's files which of them it needs.
//!
//! Nothing here opens documents, indexes or sockets, and nothing names a device.

pub mod connector;
mod error;
pub mod footprint;
pub mod generate;
pub mod generators;
pub mod processor;
pub mod registry;
pub mod retrievers;
mod sharing;
pub mod text;
mod trace;
pub mod vision;
mod visual;
pub mod vlm;

pub use colibri_nn::{
    KvPrecision, Placement, Precision, machine,
    weights::{KeptWeights, TensorPool, decoding_precision, list_packed, remove_packed},
};
pub use error::{Error, Result};
pub use sharing::{Part, SharedPart, shared};
pub use trace::{NoTrace, Trace};
pub use visual::{TokenPrecision, VisualTokens};

/// Bytes of a model's matrices in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightBytes {
    /// Tower and connector.
    pub vision: usize,
    /// Text model, head, adapter.
    pub text: usize,
    /// Matrices that another model holds and this one uses, which are counted there.
    pub shared: usize,
}

impl WeightBytes {
    /// Of a model that was loaded through `weights`, of which `vision` bytes are tower and connector.
    pub(crate) fn of(weights: &colibri_nn::Weights, vision: usize) -> Self {
        Self {
            vision,
            text: weights.loaded_bytes() - vision,
            shared: weights.shared_bytes(),
        }
    }

    /// What is held for this model alone.
    pub fn total(self) -> usize {
        self.vision + self.text
    }
}

impl std::ops::Add for WeightBytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            vision: self.vision + other.vision,
            text: self.text + other.text,
            shared: self.shared + other.shared,
        }
    }
}

/// The instruction sets of this machine that the kernels have paths for, the one in use last.
pub fn instruction_sets() -> Vec<&'static str> {
    colibri_nn::instruction_sets()
}
