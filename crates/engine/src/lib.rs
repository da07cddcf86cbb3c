//! The product without a face: documents in, ranked pages and cited answers out.
//!
//! [`checkpoints`] finds and loads the models, [`ingest`] fills an index, [`retrieve`] finds pages,
//! [`answer`] reads them and replies. Everything reports through plain event values that a terminal, a
//! JSON line or a server can show; nothing here prints.

pub mod answer;
pub mod bench;
pub mod budget;
pub mod chat;
pub mod checkpoints;
mod error;
mod geometry;
mod heat;
pub mod hosted;
pub mod hub;
pub mod ingest;
pub mod memory;
pub mod messages;
pub mod on_the_fly;
pub mod picture;
mod regions;
pub mod retrieve;
mod seen;
pub mod threads;
pub mod video;
pub mod web;
mod words;

pub use colibri_document as document;
pub use colibri_index as index;
pub use colibri_models::{KvPrecision, TokenPrecision};
pub use colibri_models::{footprint, generate, generators, machine, processor, registry, vlm};
pub use error::{Error, Result, chain};
pub use geometry::Region;
pub use heat::{HeatMap, TokenHeat};
pub use seen::{DEFAULT_FEATURE_BYTES, KeptFeatures};

/// The instruction sets of this machine that the kernels have paths for, the one in use last.
pub fn instruction_sets() -> Vec<&'static str> {
    colibri_models::instruction_sets()
}
