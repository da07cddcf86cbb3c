//! The hub client against a stand-in for the hub: what arrives, what is resumed, what is refused, and
//! what each error says. No test uses a network beyond 127.0.0.1.
#![expect(
    clippy::unwrap_used,
    reason = "a step that fails in a helper is a failed test"
)]

mod broken;
mod cached;
mod fresh;
mod refused;
mod served;
mod server;
