//! Weights by name: safetensors files, adapters over them, and where they are placed.
//!
//! Weight files are read by positioned reads, never mapped: mapped pages count as memory, and a file that
//! shrinks under a mapping kills the process. What was packed from them can be kept in files of our own,
//! which are mapped ([`TensorPool::keep_packed`]).

mod adapter;
mod disk;
mod file;
mod hashes;
mod header;
mod made_up;
mod packed;
mod pool;
mod scope;
mod sizes;
mod store;

pub use adapter::{Adapter, AdapterConfig};
pub use packed::{KeptWeights, list_packed, remove_packed};
pub use pool::TensorPool;
pub use scope::{Placement, Precision, Weights};
pub use sizes::Sizes;
pub use store::WeightStore;

use colibri_kernels::gemm::PackedMatrix;

/// Bytes that a matrix `(outputs, inputs)` takes where `kernels` calculates.
pub fn matrix_bytes(precision: Precision, outputs: usize, inputs: usize) -> usize {
    PackedMatrix::bytes_for(precision, outputs, inputs)
}

/// In what form an adapter is kept beside matrices in `precision`. It sits on the path of every token, so it loses
/// nothing where they do not, and beside integers no more than can be told from them.
pub fn adapter_precision(precision: Precision) -> Precision {
    match precision {
        Precision::F32 | Precision::Bf16 | Precision::Bf16Short => Precision::F32,
        Precision::Int8 | Precision::Int4 => Precision::Bf16,
    }
}

/// In what form matrices are held that are read from memory for every token, where large matrices are held in `precision`: the
/// same values, in fewer bits where that loses nothing.
pub fn decoding_precision(precision: Precision) -> Precision {
    match precision {
        Precision::Bf16 => Precision::Bf16Short,
        Precision::F32 | Precision::Bf16Short | Precision::Int8 | Precision::Int4 => precision,
    }
}

/// In what form embedding tables are held where large matrices are held in `precision`. A table is looked up and
/// not multiplied: its bytes are never waited for, while its errors stand under every layer.
pub fn table_precision(precision: Precision) -> Precision {
    match precision {
        Precision::Int4 => Precision::Int8,
        Precision::F32 | Precision::Bf16 | Precision::Bf16Short | Precision::Int8 => precision,
    }
}
