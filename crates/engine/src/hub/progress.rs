//! What a fetch tells while it runs. Plain data: the receiver draws.

use std::sync::Arc;

/// Bytes done of bytes in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// Bytes that are on disk.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// One event of a fetch. `all` counts every file of the plan, those already cached included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The file list is known.
    Planned {
        /// The commit that is fetched.
        commit: String,
        /// Files of the plan, those already cached included.
        files: usize,
        /// `done` counts what is already cached.
        all: Bytes,
    },
    /// A file begins, from `bytes.done` on where it was broken off before.
    FileStarted {
        /// The file's name.
        file: Arc<str>,
        /// Of this file.
        bytes: Bytes,
        /// Of the plan.
        all: Bytes,
    },
    /// More of a file is on disk, or less: a server that ignores ranges starts it again.
    FileAdvanced {
        /// The file's name.
        file: Arc<str>,
        /// Of this file.
        bytes: Bytes,
        /// Of the plan.
        all: Bytes,
    },
    /// A file is complete and its checksum is right.
    FileFinished {
        /// The file's name.
        file: Arc<str>,
        /// Of the plan.
        all: Bytes,
    },
    /// Another process is writing this file; we wait for it.
    Waiting {
        /// The file's name.
        file: Arc<str>,
    },
    /// A request failed and is repeated.
    Retrying {
        /// What was asked for.
        ask: String,
        /// The attempt that follows, from 2.
        attempt: u32,
        /// Attempts in all.
        attempts: u32,
        /// Why the one before failed.
        reason: String,
    },
    /// The hub could not be asked; what the cache holds is used.
    FromCache {
        /// The commit that is used.
        commit: String,
        /// Why the hub could not be asked.
        reason: String,
    },
}

/// Hands events on, and adds what all files before the present one have brought.
pub(super) struct Meter<'a> {
    progress: &'a (dyn Fn(Progress) + Sync),
    before: u64,
    total: u64,
}

impl<'a> Meter<'a> {
    /// `before`: bytes of the plan that are on disk without the present file.
    pub(super) fn new(progress: &'a (dyn Fn(Progress) + Sync), before: u64, total: u64) -> Self {
        Self {
            progress,
            before,
            total,
        }
    }

    fn all(&self, done: u64) -> Bytes {
        Bytes {
            done: self.before.saturating_add(done),
            total: self.total,
        }
    }

    pub(super) fn started(&self, file: &Arc<str>, bytes: Bytes) {
        (self.progress)(Progress::FileStarted {
            file: file.clone(),
            bytes,
            all: self.all(bytes.done),
        });
    }

    pub(super) fn advanced(&self, file: &Arc<str>, bytes: Bytes) {
        (self.progress)(Progress::FileAdvanced {
            file: file.clone(),
            bytes,
            all: self.all(bytes.done),
        });
    }

    pub(super) fn finished(&self, file: &Arc<str>, size: u64) {
        (self.progress)(Progress::FileFinished {
            file: file.clone(),
            all: self.all(size),
        });
    }

    pub(super) fn waiting(&self, file: &Arc<str>) {
        (self.progress)(Progress::Waiting { file: file.clone() });
    }

    pub(super) fn events(&self) -> &'a (dyn Fn(Progress) + Sync) {
        self.progress
    }
}
