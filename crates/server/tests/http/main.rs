//! The server as its callers see it: over a socket of the loopback, in this process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod asking;
mod attacks;
mod contract;
mod documents;
mod openai;
mod support;
mod tools;
