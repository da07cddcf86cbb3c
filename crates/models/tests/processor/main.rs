//! The processor against transformers, colpali-engine and Pillow: goldens of `tools/golden`.

mod conversations;
mod escaping;
mod golden;
mod hostile;
mod pixels;
mod retrieval;
mod tokens;
