//! The engine over HTTP: a web app, an API of its own, the API that OpenAI's clients speak, and the Model
//! Context Protocol.
//!
//! ```text
//! serve        sockets: bounds on connections, headers and stalled peers; graceful end
//! guard        who may ask: Host, Origin, key; headers that browsers obey
//! routes       which path leads where (docs/server.md, assets/openapi.json)
//! api openai mcp   one file for each group of calls: words in, words out
//! asks jobs    questions and index jobs: queues, threads of their own, logs of events
//! event_log    what SSE is read from: bounded, resumable, shared by all readers
//! ```
//!
//! Nothing that computes runs on the threads that serve. A question is answered by the one thread that owns
//! the generator, an index job by the one that owns the writer; searches and drawings share a bounded number
//! of blocking threads. Events go into an `event_log` and readers take them from there at their own pace:
//! a slow reader holds no memory, and one that lost its connection goes on where it was.

mod activity;
mod api;
mod asks;
mod assets;
mod body;
mod config;
mod error;
mod event_log;
mod fair_queue;
mod guard;
mod jobs;
mod mcp;
mod metrics;
mod openai;
mod page_cache;
mod routes;
mod serve;
mod stall;
mod state;
mod uploads;

pub use config::{Access, ApiKey, Bounds, ServerConfig};
pub use error::{Error, Result};
pub use mcp::serve_stdio;
pub use routes::router;
pub use serve::{Listening, serve};
pub use state::App;
