//! The index: which pages there are, what is written on them, and the rows they are found by.
//!
//! An index is a folder ([`FORMAT_VERSION`]):
//!
//! ```text
//! FORMAT              what this folder is, and in which version
//! catalog.sqlite      documents, pages, text, full-text search, settings (SQLite, write-ahead log)
//! segments/*.vec      the rows of pages: append-only, checksummed, memory-mapped
//! features/*.feat     what a model saw on pages: a cache, checksummed, bounded
//! lock                held by the one process that writes
//! ```
//!
//! [`Index`] reads and searches, from any number of threads and processes; [`Writer`] changes, one process
//! at a time. Readers never wait for the writer and see each document whole or not at all: its rows are on
//! the disk, synced, before the one transaction that makes it visible. After a crash at any instant the
//! index holds the state before or after that transaction, and the next writer clears away what was left.
//!
//! Removing a document makes its rows dead; [`Writer::compact`] gives the space back. [`Index::verify`]
//! reads everything and compares every checksum.
//!
//! This crate knows no models and no tensors: rows come in as numbers.

mod catalog;
mod error;
mod features;
mod filter;
mod format;
mod fusion;
mod index;
mod lock;
mod mmap;
mod multivector;
mod pending;
mod record;
mod search;
mod search_text;
mod segment;
mod settings;
mod snippet;
mod stats;
mod storage;
pub mod stores;
mod top;
mod verify;
mod words;
mod writer;

pub use error::{Error, Result};
pub use features::{FeatureKey, FeatureStats, Features};
pub use filter::{Filter, FilterError};
pub use format::FORMAT_VERSION;
pub use fusion::{RRF_K, Reach, SPARSE_TEXT_WORDS, reciprocal_rank};
pub use index::Index;
pub use lock::Holder;
pub use mmap::PageRows;
pub use multivector::MultiVector;
pub use pending::{Added, PendingDocument};
pub use record::{
    Change, DocumentId, DocumentInfo, DocumentRecord, Metadata, PageId, PageInfo, PageRecord,
    WordBox,
};
pub use search::{Hit, Mode, PageScore, Query};
pub use settings::Settings;
pub use stats::Stats;
pub use storage::{FileSystem, Storage, StorageFile};
pub use stores::{QueryRows, StoreKind};
pub use verify::{Problem, ProblemKind};
pub use writer::{Compaction, Removed, Writer, WriterOptions};
