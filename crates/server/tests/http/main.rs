//! The server as its callers see it: over a socket of the loopback, in this process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "small pieces of text and JSON, where the shortest way reads best; a test that is skipped says so"
)]

mod asking;
mod attacks;
mod bounds;
mod browser;
mod contract;
mod documents;
mod endless;
mod lossy;
mod openai;
mod support;
mod tools;
