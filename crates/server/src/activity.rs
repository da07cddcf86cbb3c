//! What the server is doing, as lines a person can follow.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use colibri_engine::{checkpoints::ModelEvent, hub::Progress, memory};
use serde::Serialize;

use crate::event_log::EventLog;

/// Lines kept for somebody who looks later.
const KEPT_LINES: usize = 500;
const KEPT_BYTES: usize = 256 << 10;
/// Longer messages are cut: a question may have many pages.
const MESSAGE_CHARACTERS: usize = 300;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum About {
    /// Documents coming in or leaving.
    Index,
    /// Finding pages.
    Search,
    /// A question.
    Ask,
    /// A page being drawn.
    Draw,
    /// Models being fetched and loaded.
    Model,
    /// A document being fetched by URL.
    Fetch,
    /// Something that went wrong.
    Trouble,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    /// Milliseconds since 1970.
    at: u64,
    about: About,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<f64>,
    resident_bytes: u64,
}

/// The log of lines.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Where they are read from.
    pub(crate) log: std::sync::Arc<EventLog>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            log: EventLog::new(KEPT_LINES, KEPT_BYTES).into(),
        }
    }
}

impl Activity {
    /// Adds a line, with how long it took where that is known.
    pub(crate) fn note(&self, about: About, message: &str, took: Option<Duration>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let short: String = message.chars().take(MESSAGE_CHARACTERS).collect();
        let line = Line {
            event: "activity",
            at: since.map_or(0, |since| since.as_millis() as u64),
            about,
            message: &short,
            milliseconds: took.map(|took| took.as_secs_f64() * 1000.0),
            resident_bytes: memory::resident_bytes(),
        };
        self.log.push("activity", &line);
    }
}

/// A model's news in words; `None` for what comes too often to be told.
pub(crate) fn in_words(event: &ModelEvent) -> Option<String> {
    match event {
        ModelEvent::Planned(_) => None,
        ModelEvent::Loading { model } => Some(format!("loading {model}")),
        ModelEvent::Fallback { message } => Some(message.clone()),
        ModelEvent::Fetch { model, progress } => match progress {
            Progress::Planned { all, .. } => Some(format!(
                "fetching {model}: {} of {} MB are here",
                all.done / 1_000_000,
                all.total / 1_000_000
            )),
            Progress::FileFinished { file, all } => Some(format!(
                "fetched {file} of {model}: {} of {} MB",
                all.done / 1_000_000,
                all.total / 1_000_000
            )),
            Progress::Waiting { file } => Some(format!("another process fetches {file}")),
            Progress::Retrying { reason, .. } => Some(format!("trying again: {reason}")),
            Progress::FromCache { reason, .. } => Some(format!("{model} from the cache: {reason}")),
            Progress::FileStarted { .. } | Progress::FileAdvanced { .. } => None,
        },
    }
}
