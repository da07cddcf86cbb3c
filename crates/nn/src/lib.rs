//! The layers that all models share, over candle tensors.
//!
//! A model here is written once. On the CPU every hot layer hands plain slices to `colibri_kernels`;
//! on CUDA and Metal the same layer runs candle's operations. Which of the two is a value inside the
//! layer ([`Linear`], [`blocks`]), chosen when weights are loaded ([`Placement`]); no model file names
//! a device.
//!
//! The unit on the CPU is the *half-block*: norm → attention → projection → residual, and norm → MLP →
//! residual, each one operation on the residual stream, so that scratch memory, fusion and
//! quantised activations never leave it.

pub mod blocks;
mod cache;
mod cpu;
mod embedding;
mod error;
mod linear;
pub mod machine;
mod mmap;
mod norm;
mod rope;
mod scratch;
pub mod weights;

pub use cache::{KvCache, LayerCache};
pub use colibri_kernels::attention::KvPrecision;
pub use embedding::Embedding;
pub use error::{Error, Result};
pub use linear::Linear;
pub use norm::Norm;
pub use rope::Rope;
pub use scratch::Scratch;
pub use weights::{Placement, Precision, Weights};

/// Weighted sums of 8-bit samples, for resizing pictures.
pub use colibri_kernels::resample as samples;

/// The instruction sets of this machine that the kernels have paths for, the one in use last.
pub fn instruction_sets() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = colibri_kernels::isa::Isa::available()
        .into_iter()
        .map(colibri_kernels::isa::Isa::name)
        .collect();
    let used = colibri_kernels::isa::Isa::detect().name();
    names.retain(|name| *name != used);
    names.push(used);
    names
}
