//! The thread that works off the jobs: it fetches, indexes and removes, and tells how far it is.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use colibri_engine::{
    self as engine,
    index::{Index, Metadata},
    ingest::{DocumentStatus, IndexEvent, IngestOptions, ingest},
    web,
};
use serde_json::json;

use super::{Job, State, Task};
use crate::{
    App, Error, Result,
    activity::{About, in_words},
    api::names::file_name,
    uploads,
};

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
