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
pub mod text;
mod trace;
pub mod vision;
pub mod vlm;

pub use colibri_nn::{Placement, Precision};
pub use error::{Error, Result};
pub use trace::{NoTrace, Trace};

/// The instruction sets of this machine that the kernels have paths for, the one in use last.
pub fn instruction_sets() -> Vec<&'static str> {
    colibri_nn::instruction_sets()
}
