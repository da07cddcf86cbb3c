//! Every stage of the networks equals transformers and colpali-engine on small random checkpoints of true
//! structure (`tools/golden`). A failure names the first stage that differs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod generators;
mod layouts;
mod retrievers;
mod support;
