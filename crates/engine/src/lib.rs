//! The product without a face: checkpoints, ingest, retrieval, answers.

pub mod hub;
