//! The program from the outside: arguments in; exit code, standard output and standard error out.
//!
//! Every test has a home of its own, no network, and nothing of the environment it was started in. Where a
//! model is needed it is a checkpoint of noise, whose words mean nothing: what is checked are paths, formats
//! and promises. The last test of a whole checkpoint's sense belongs to the models.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;
mod builtin;
mod chat;
mod documents;
mod embed;
mod failures;
mod families;
mod formats;
mod help;
mod hosted;
mod hub;
mod interrupt;
mod models;
mod questions;
mod settings;
mod support;
mod video;
mod web;
