//! Development only: reference tensors, comparisons, and checkpoints of true shape made of noise.
//!
//! Nothing here is part of the program; it may panic, as tests do.

pub mod golden;
pub mod random;
pub mod shared;
