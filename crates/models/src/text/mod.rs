//! Text models: token and visual embeddings → hidden states.

mod family;
pub mod llama;

pub use family::Family;
pub(crate) use family::fill;
