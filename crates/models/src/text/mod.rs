//! Text models: token and visual embeddings → hidden states.

pub mod llama;
