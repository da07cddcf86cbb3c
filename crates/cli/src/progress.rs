//! Progress of models and of indexing: bars on a terminal, lines elsewhere.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use colibri_engine::{
    answer::AnswerEvent,
    checkpoints::ModelEvent,
    hub::Progress,
    ingest::{DocumentStatus, IndexEvent},
};

use crate::{interrupt::Interrupt, places, screen::Screen, text};

const FETCH_BAR: &str = "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
const INDEX_BAR: &str = "{bar:30} {percent:>3} % {msg}, {eta} left";

/// Watches models being fetched and loaded.
#[derive(Debug)]
pub(crate) struct ModelProgress<'a> {
    screen: &'a Screen,
    interrupt: &'a Interrupt,
    /// Also writes what is done as JSON events.
    events: bool,
    noted: Mutex<HashSet<String>>,
}

impl<'a> ModelProgress<'a> {
    pub(crate) fn new(screen: &'a Screen, interrupt: &'a Interrupt, events: bool) -> Self {
        Self {
            screen,
            interrupt,
            events: events && screen.json,
            noted: Mutex::default(),
        }
    }

    /// Shows one event.
    pub(crate) fn on_event(&self, event: ModelEvent) {
        // A fetch looks at no flag; what is on disk is kept, so it may end anywhere.
        self.interrupt.end_if_stopped();
        match event {
            ModelEvent::Planned(plan) => self.screen.detail(&text::plan(&plan)),
            ModelEvent::Loading { model } => self.tell("load", &format!("loading {model}")),
            ModelEvent::Fallback { message } => {
                let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
                if noted.insert(message.clone()) {
                    self.screen.note(&message);
                    self.write("note", &message);
                }
            }
            ModelEvent::Fetch { model, progress } => self.on_fetch(&model, progress),
        }
    }

    fn on_fetch(&self, model: &str, progress: Progress) {
        match progress {
            Progress::Planned { files, all, .. } if all.done < all.total => {
                self.screen.show_bar(all.total, FETCH_BAR);
                self.screen.move_bar(all.done, model);
                let size = text::bytes(all.total - all.done);
                let message = format!("fetching {model}: {}, {size}", text::count(files, "file"));
                self.screen.plain_progress(&message);
                self.write("fetch", &message);
            }
            Progress::Planned { .. } => {}
            Progress::FileStarted { all, .. } | Progress::FileAdvanced { all, .. } => {
                self.screen.move_bar(all.done, model);
            }
            Progress::FileFinished { file, all } => {
                self.screen.move_bar(all.done, model);
                self.screen.detail(&format!("fetched {file}"));
                if all.done >= all.total {
                    self.screen.hide_bar();
                    let message = format!("fetched {model}");
                    self.screen.plain_progress(&message);
                    self.write("fetch", &message);
                }
            }
            Progress::Waiting { file } => self.tell(
                "fetch",
                &format!("waiting for another process to fetch {file}"),
            ),
            Progress::Retrying {
                ask,
                attempt,
                attempts,
                reason,
            } => {
                self.screen.note(&format!(
                    "{ask} failed ({reason}); attempt {attempt} of {attempts}"
                ));
            }
            Progress::FromCache { reason, .. } => {
                self.screen.detail(&format!(
                    "using {model} from the cache, for the hub cannot be asked ({reason})"
                ));
            }
        }
    }

    fn tell(&self, stage: &'static str, message: &str) {
        self.screen.status(message);
        self.write(stage, message);
    }

    fn write(&self, stage: &'static str, message: &str) {
        if self.events {
            let event = AnswerEvent::Status {
                stage,
                message: message.to_owned(),
            };
            // A reader that has gone is noticed by the next line of data.
            drop(self.screen.json(&event));
        }
    }
}

/// One line about what became of a document, without its verb's colour; `None` for what only a person who
/// wants detail should see.
pub(crate) fn document_line(event: &IndexEvent) -> Option<(DocumentStatus, String)> {
    let IndexEvent::Document {
        path,
        status,
        pages,
        error,
    } = event
    else {
        return None;
    };
    let shown = text::clean_line(&places::shown(path)).into_owned();
    let verb = match status {
        DocumentStatus::Indexed => "indexed",
        DocumentStatus::Unchanged => "unchanged",
        DocumentStatus::Replaced => "replaced",
        DocumentStatus::Removed => "removed",
        DocumentStatus::Failed => {
            let reason = error.as_deref().unwrap_or("for an unknown reason");
            let reason = text::clean_line(&without_path(reason, path)).into_owned();
            let line = if shown.is_empty() {
                reason
            } else {
                format!("{shown}: {reason}")
            };
            return Some((*status, line));
        }
    };
    Some((
        *status,
        format!("{verb} {shown} ({})", text::count(*pages, "page")),
    ))
}

/// A reason without the path that stands before it already.
fn without_path(reason: &str, path: &str) -> String {
    let whole = places::absolute(path.as_ref());
    for path in [path, &whole.to_string_lossy()] {
        let quoted = format!("`{path}`");
        if let Some(rest) = reason.strip_prefix(&format!("{quoted} ")) {
            return format!("it {rest}");
        }
        let of = format!(" of {quoted}");
        if reason.contains(&of) {
            return reason.replace(&of, "");
        }
    }
    reason.to_owned()
}

/// A bar over documents, and over pages within them.
#[derive(Debug)]
pub(crate) struct IndexBar<'a> {
    screen: &'a Screen,
    started: Instant,
    documents_done: u64,
    pages_done: usize,
}

/// Steps of the bar a document: fine enough to see its pages.
const STEPS: u64 = 1000;

impl<'a> IndexBar<'a> {
    pub(crate) fn new(screen: &'a Screen) -> Self {
        Self {
            screen,
            started: Instant::now(),
            documents_done: 0,
            pages_done: 0,
        }
    }

    /// Follows one event.
    pub(crate) fn on_event(&mut self, event: &IndexEvent) {
        match event {
            IndexEvent::Found { documents, .. } => {
                self.started = Instant::now();
                self.screen.show_bar(*documents as u64 * STEPS, INDEX_BAR);
            }
            IndexEvent::Page { path, page, pages } => {
                self.pages_done += 1;
                let within = STEPS * *page as u64 / (*pages).max(1) as u64;
                self.show(within.min(STEPS), path);
            }
            IndexEvent::Document { path, .. } => {
                self.documents_done += 1;
                self.show(0, path);
            }
            IndexEvent::Done(_) => self.screen.hide_bar(),
        }
    }

    fn show(&self, within: u64, path: &str) {
        let rate = self.pages_done as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let pages = text::count(self.pages_done, "page");
        let message = format!("{pages}, {rate:.1} pages/s, {}", places::name(path));
        self.screen
            .move_bar(self.documents_done * STEPS + within, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_document_is_named_once() {
        let line = |error: &str| {
            let event = IndexEvent::Document {
                path: "/far/a\n.pdf".to_owned(),
                status: DocumentStatus::Failed,
                pages: 0,
                error: Some(error.to_owned()),
            };
            document_line(&event).unwrap().1
        };
        assert_eq!(line("`/far/a\n.pdf` is empty"), "/far/a␊.pdf: it is empty");
        assert_eq!(
            line("cannot read page 1 of `/far/a\n.pdf`: cut off"),
            "/far/a␊.pdf: cannot read page 1: cut off"
        );
        assert_eq!(line("no worker"), "/far/a␊.pdf: no worker");
    }
}
