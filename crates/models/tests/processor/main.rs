//! The processor against transformers, colpali-engine and Pillow: goldens of `tools/golden`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy sees tests in the functions marked as such, not in those they call"
)]

mod conversations;
mod escaping;
mod golden;
mod hostile;
mod pixels;
mod retrieval;
mod tokens;
mod videos;
