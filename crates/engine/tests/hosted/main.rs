//! Generators that run elsewhere, against a stand-in that speaks OpenAI's protocol on 127.0.0.1 and can
//! misbehave. No test waits: the clock is the test's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod failures;
mod server;
