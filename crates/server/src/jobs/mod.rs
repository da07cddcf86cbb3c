//! Index jobs: one after another, since there is one writer, each with a log of events.

mod run;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use colibri_engine::index::Metadata;
use serde::Serialize;
use serde_json::json;

pub(crate) use run::run;

use crate::{
    Bounds, Error, Result, api::names::file_name, event_log::EventLog, fair_queue::FairQueue,
};

/// Jobs remembered after they ended.
const KEPT_JOBS: usize = 200;
/// Events of one job that a reader who comes late still gets.
const KEPT_EVENTS: usize = 2000;
const KEPT_BYTES: usize = 1 << 20;

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Add or refresh documents.
    Add {
        paths: Vec<PathBuf>,
        metadata: Metadata,
    },
    /// Fetch a document and add it.
    Fetch { url: String },
    /// Take documents out.
    Remove { documents: Vec<String> },
}

impl Task {
    fn title(&self) -> String {
        let several = |names: &[String]| match names {
            [one] => one.clone(),
            [one, ..] => format!("{one} and {} more", names.len() - 1),
            [] => String::new(),
        };
        match self {
            Self::Add { paths, .. } => {
                let name = |path: &PathBuf| file_name(&path.to_string_lossy());
                several(&paths.iter().map(name).collect::<Vec<_>>())
            }
            Self::Fetch { url } => url.clone(),
            Self::Remove { documents } => {
                let names: Vec<_> = documents.iter().map(|path| file_name(path)).collect();
                several(&names)
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::Fetch { .. } => "fetch",
            Self::Remove { .. } => "remove",
        }
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Others come first.
    #[default]
    Waiting,
    /// It is being done.
    Running,
    /// All of it is done.
    Done,
    /// It could not be done, or not all of it.
    Failed,
    /// Somebody stopped it; what was finished is kept.
    Stopped,
}

/// How far a job is.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Progress {
    pub(crate) state: State,
    /// Documents looked at so far, of all.
    documents_done: usize,
    documents: usize,
    /// The document at hand, and its pages.
    current: Option<String>,
    page: usize,
    pages: usize,
    pages_done: usize,
    seconds: f64,
    error: Option<String>,
    hint: Option<String>,
}

/// One job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: u64,
    title: String,
    task: Task,
    pub(crate) log: Arc<EventLog>,
    stop: AtomicBool,
    progress: Mutex<Progress>,
}

/// A job as it is listed.
#[derive(Debug, Serialize)]
pub(crate) struct JobInfo {
    id: u64,
    kind: &'static str,
    title: String,
    #[serde(flatten)]
    pub(crate) progress: Progress,
}

impl Job {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is listed.
    pub(crate) fn info(&self) -> JobInfo {
        JobInfo {
            id: self.id,
            kind: self.task.kind(),
            title: self.title.clone(),
            progress: self.progress().clone(),
        }
    }

    fn tell(&self) {
        let mut data = serde_json::to_value(self.info()).unwrap_or_default();
        data["event"] = json!("job");
        self.log.push("job", &data);
    }

    fn end(&self, state: State, error: Option<(String, Option<String>)>) {
        {
            let mut progress = self.progress();
            progress.state = state;
            progress.current = None;
            if let Some((error, hint)) = error {
                progress.error = Some(error);
                progress.hint = hint;
            }
        }
        self.tell();
        self.log.close();
    }
}

/// All jobs.
#[derive(Debug)]
pub(crate) struct Jobs {
    queue: FairQueue<Arc<Job>>,
    known: Mutex<VecDeque<Arc<Job>>>,
    next: AtomicU64,
    ending: AtomicBool,
}

impl Jobs {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            queue: FairQueue::new(bounds.waiting_jobs),
            known: Mutex::default(),
            next: AtomicU64::new(1),
            ending: AtomicBool::new(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Arc<Job>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job at the end.
    pub(crate) fn put(&self, task: Task) -> Result<Arc<Job>> {
        let job = Arc::new(Job {
            id: self.next.fetch_add(1, Relaxed),
            title: task.title(),
            task,
            log: EventLog::new(KEPT_EVENTS, KEPT_BYTES).into(),
            stop: AtomicBool::new(false),
            progress: Mutex::default(),
        });
        job.tell();
        self.queue
            .push("", job.clone())
            .map_err(|_| Error::Busy { what: "jobs" })?;
        let mut known = self.known();
        known.push_back(job.clone());
        while known.len() > KEPT_JOBS {
            let oldest_ended = known
                .iter()
                .position(|job| !matches!(job.progress().state, State::Waiting | State::Running));
            match oldest_ended {
                Some(at) => known.remove(at),
                None => break,
            };
        }
        Ok(job)
    }

    /// The jobs, the newest first.
    pub(crate) fn list(&self) -> Vec<JobInfo> {
        self.known().iter().rev().map(|job| job.info()).collect()
    }

    /// Jobs that wait or run.
    pub(crate) fn num_open(&self) -> usize {
        let open =
            |job: &&Arc<Job>| matches!(job.progress().state, State::Waiting | State::Running);
        self.known().iter().filter(open).count()
    }

    /// A job by its number.
    pub(crate) fn find(&self, id: u64) -> Result<Arc<Job>> {
        let found = self.known().iter().find(|job| job.id == id).cloned();
        found.ok_or_else(|| Error::no(format!("job {id}")))
    }

    /// Stops a job; what it has finished is kept.
    pub(crate) fn cancel(&self, job: &Arc<Job>) {
        job.stop.store(true, Relaxed);
        let waits = self.queue.order().iter().any(|one| Arc::ptr_eq(one, job));
        if waits {
            self.queue.remove(|waiting| Arc::ptr_eq(waiting, job));
            job.end(State::Stopped, None);
        }
    }

    /// Ends everything.
    pub(crate) fn stop(&self) {
        self.ending.store(true, Relaxed);
        let known: Vec<_> = self.known().iter().cloned().collect();
        for job in known {
            self.cancel(&job);
        }
        self.queue.close();
    }
}
