//! Weights by name: safetensors files, adapters over them, and where they are placed.
//!
//! Files are read by positioned reads, never mapped: mapped pages count as memory, and a file that
//! shrinks under a mapping kills the process.

mod adapter;
mod file;
mod hashes;
mod header;
mod made_up;
mod pool;
mod scope;
mod store;

pub use adapter::{Adapter, AdapterConfig};
pub use pool::TensorPool;
pub use scope::{Placement, Precision, Weights};
pub use store::WeightStore;
