//! Index jobs: one after another, since there is one writer, each with a log of events.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use colibri_engine::{
    self as engine,
    index::{Index, Metadata},
    ingest::{DocumentStatus, IndexEvent, IngestOptions, ingest},
    web,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    App, Bounds, Error, Result,
    activity::{About, in_words},
    api::names::file_name,
    event_log::EventLog,
    fair_queue::FairQueue,
    uploads,
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

/// The thread that writes the index.
pub(crate) fn run(app: &Arc<App>) {
    while let Some(job) = app.jobs.queue.pop() {
        let started = Instant::now();
        job.progress().state = State::Running;
        job.tell();
        let done = catch_unwind(AssertUnwindSafe(|| perform(app, &job, started)))
            .unwrap_or(Err(Error::Thread { doing: "the job" }));
        job.progress().seconds = started.elapsed().as_secs_f64();
        let took = Some(started.elapsed());
        match done {
            Ok(()) => {
                app.metrics.jobs.fetch_add(1, Relaxed);
                let message = format!("{}: done", job.title);
                app.activity.note(About::Index, &message, took);
                let failed = job.progress().error.is_some();
                job.end(if failed { State::Failed } else { State::Done }, None);
            }
            Err(Error::Engine(engine::Error::Cancelled)) => {
                app.metrics.jobs_failed.fetch_add(1, Relaxed);
                let message = format!("{}: stopped", job.title);
                app.activity.note(About::Index, &message, took);
                job.end(State::Stopped, None);
            }
            Err(error) => {
                app.metrics.jobs_failed.fetch_add(1, Relaxed);
                let told = engine::chain(&error);
                let message = format!("{}: {told}", job.title);
                app.activity.note(About::Trouble, &message, took);
                job.end(State::Failed, Some((told, error.hint())));
            }
        }
    }
}

fn perform(app: &Arc<App>, job: &Arc<Job>, started: Instant) -> Result<()> {
    if job.stop.load(Relaxed) {
        return Err(engine::Error::Cancelled.into());
    }
    match &job.task {
        Task::Add { paths, metadata } => add(app, job, paths, metadata, started),
        Task::Remove { documents } => remove(app, documents),
        Task::Fetch { url } => {
            let path = fetch(app, job, url)?;
            let metadata = Metadata::from_iter([("url".to_owned(), json!(url))]);
            add(app, job, &[path], &metadata, started)
        }
    }
}

fn fetch(app: &Arc<App>, job: &Arc<Job>, url: &str) -> Result<PathBuf> {
    let Some(config) = &app.config().fetch else {
        return Err(Error::bad("this server fetches nothing"));
    };
    let began = Instant::now();
    app.activity.note(About::Fetch, url, None);
    let fetched = web::fetch(config, url, &job.stop, &|progress| {
        let mut data = serde_json::to_value(progress).unwrap_or_default();
        data["event"] = json!("fetch");
        job.log.push("fetch", &data);
    })?;
    let message = format!("{url}: {} bytes", fetched.bytes);
    app.activity
        .note(About::Fetch, &message, Some(began.elapsed()));
    Ok(fetched.path)
}

fn add(
    app: &Arc<App>,
    job: &Arc<Job>,
    paths: &[PathBuf],
    metadata: &Metadata,
    started: Instant,
) -> Result<()> {
    let dir = &app.config().index;
    let remembered = match app.index_if_any()? {
        Some(index) => index.settings()?.retriever,
        None => None,
    };
    let on_model = |event| {
        app.on_model(&event);
        if let Some(message) = in_words(&event) {
            let data = json!({"event": "status", "stage": "model", "message": message});
            job.log.push("status", &data);
        }
    };
    let retriever = app.models.retriever(remembered.as_deref(), &on_model)?;
    let options = IngestOptions {
        open: app.config().open.clone(),
        metadata: metadata.clone(),
        command: Some("colibri serve".to_owned()),
        ..IngestOptions::default()
    };
    let mut page_began = Instant::now();
    ingest(
        dir,
        paths,
        retriever.as_ref(),
        &options,
        &job.stop,
        &mut |event| {
            note(app, job, &event, started, &mut page_began);
            let name = match &event {
                IndexEvent::Found { .. } => "found",
                IndexEvent::Page { .. } => "page",
                IndexEvent::Document { .. } => "document",
                IndexEvent::Done(_) => "done",
            };
            job.log.push(name, &event);
            job.tell();
        },
    )?;
    Ok(())
}

/// Keeps the state of a job in step with its events, and tells the activity log.
fn note(app: &App, job: &Job, event: &IndexEvent, started: Instant, page_began: &mut Instant) {
    let mut progress = job.progress();
    progress.seconds = started.elapsed().as_secs_f64();
    match event {
        IndexEvent::Found { documents, .. } => progress.documents = *documents,
        IndexEvent::Page { path, page, pages } => {
            app.metrics.pages.fetch_add(1, Relaxed);
            let name = file_name(path);
            let message = format!("{name}: page {page} of {pages} drawn and encoded");
            app.activity
                .note(About::Index, &message, Some(page_began.elapsed()));
            *page_began = Instant::now();
            progress.current = Some(name);
            progress.page = *page;
            progress.pages = *pages;
            progress.pages_done += 1;
        }
        IndexEvent::Document {
            path,
            status,
            error,
            ..
        } => {
            progress.documents_done += 1;
            if let Some(error) = error {
                let message = format!("{}: {error}", file_name(path));
                app.activity.note(About::Trouble, &message, None);
                progress.error = Some(message);
            } else if *status == DocumentStatus::Unchanged {
                let message = format!("{}: already here", file_name(path));
                app.activity.note(About::Index, &message, None);
            }
        }
        IndexEvent::Done(summary) => progress.seconds = summary.seconds,
    }
}

/// Takes documents out, and with them the files that were uploaded.
fn remove(app: &Arc<App>, documents: &[String]) -> Result<()> {
    let mut writer = Index::open_writer_as_it_is(&app.config().index)?;
    writer.remove(documents)?;
    drop(writer);
    for document in documents {
        uploads::forget(&app.config().uploads, document);
    }
    Ok(())
}
