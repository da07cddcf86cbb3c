//! CPU arithmetic on plain slices: packed matrix products, attention, norms, activations, rotary
//! positions and `MaxSim`.
//!
//! Everything here works on row-major `f32` rows ([`rows::Rows`], any stride) and knows no tensors, no
//! models and no files. Every kernel picks the instruction set of the running machine once
//! ([`isa::Isa::detect`]) and has a `*_with(isa, …)` form, so that a test or `colibri doctor` can run every
//! path the machine has against the plain definitions in [`scalar`].
//!
//! # Guarantees
//!
//! * A row of a batch gives bit-identical results to the same row computed alone, on the same instruction
//!   set, for products and for attention: the order of summation of one output element depends on the
//!   shared dimension only, never on the number of rows, the tile it falls in or the thread that computes
//!   it.
//! * Nothing depends on the number of threads.
//! * Shapes that do not fit together are bugs of the caller and panic with `… is a bug`; values never
//!   panic.

pub mod activation;
pub mod attention;
pub mod gemm;
pub mod isa;
pub mod maxsim;
mod memory;
mod micro;
mod narrow;
mod nibble_tile;
pub mod norm;
mod pack;
pub mod parallel;
pub mod peak;
mod pool;
pub mod resample;
pub mod rope;
pub mod rows;
pub mod scalar;
pub mod selfcheck;
mod short_tile;
mod simd;
mod vector;
mod widen;

pub use memory::{return_freed_blocks, return_large_blocks};
