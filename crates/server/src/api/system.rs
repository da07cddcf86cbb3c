//! How the server is, what it does, and what it counts.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use colibri_engine::{
    checkpoints::{Choice, DEFAULT_GENERATOR, DEFAULT_RETRIEVER},
    instruction_sets, memory, threads,
};
use serde_json::{Value, json};

use super::last_event;
use crate::{App, Result, event_log::respond, guard::authorise};

/// A model as it was chosen.
fn chosen(choice: &Choice, default: &str) -> String {
    match choice {
        Choice::Auto => format!("auto ({default})"),
        Choice::None => "none".to_owned(),
        Choice::Named(name) => name.clone(),
        Choice::Found(located) => located.name.clone(),
    }
}

/// Memory now, and where the greatest of it went.
#[derive(serde::Serialize)]
struct Memory {
    resident_bytes: u64,
    #[serde(flatten)]
    used: memory::Used,
}

/// `GET /api/health`: open to everybody, and tells more to those with the key.
pub(crate) async fn health(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Value>> {
    let version = env!("CARGO_PKG_VERSION");
    let needs_key = app.config().access.api_key.is_some();
    if authorise(&app, &headers).is_err() {
        return Ok(Json(
            json!({"status": "ok", "version": version, "needs_key": needs_key}),
        ));
    }
    let stats = app
        .blocking(|app| {
            let index = app.index_if_any()?;
            Ok(index.map(|index| index.stats()).transpose()?)
        })
        .await?;
    let config = app.config();
    let (retriever, generator) = app.models.loaded();
    Ok(Json(json!({
        "status": "ok",
        "version": version,
        "needs_key": needs_key,
        "index": {
            "path": config.index,
            "documents": stats.as_ref().map_or(0, |stats| stats.documents),
            "pages": stats.as_ref().map_or(0, |stats| stats.pages),
            "pages_with_rows": stats.as_ref().map_or(0, |stats| stats.pages_with_rows),
            "bytes": stats.as_ref().map_or(0, |stats| stats.total_bytes),
            "retriever": stats.and_then(|stats| stats.settings.retriever),
        },
        "retriever": {
            "chosen": chosen(&config.models.retriever, DEFAULT_RETRIEVER),
            "loaded": retriever.as_ref().map(|loaded| &loaded.located.name),
            "bytes": retriever.as_ref().map(|loaded| loaded.model.num_bytes()),
            "precision": retriever.as_ref().map(|loaded| loaded.model.settings().precision),
        },
        "generator": {
            "chosen": chosen(&config.models.generator, DEFAULT_GENERATOR),
            "loaded": generator.as_ref().map(|loaded| &loaded.located.name),
            "bytes": generator.as_ref().map(|loaded| loaded.model.num_bytes()),
            "only_quotes": app.models.only_quotes(),
        },
        "memory": Memory {
            resident_bytes: memory::resident_bytes(),
            used: app.models.used(0, 0),
        },
        "machine": {
            "threads": threads::count(),
            "instruction_sets": instruction_sets(),
        },
        "answering": app.asks.is_answering(),
        "waiting_questions": app.asks.num_waiting(),
        "open_jobs": app.jobs.num_open(),
        "limits": {
            "upload_bytes": config.bounds.upload_bytes,
            "urls": config.fetch.is_some(),
            "paths": config.roots,
        },
    })))
}

/// `GET /api/activity`: what happens, as it happens.
pub(crate) async fn activity(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response> {
    let after = last_event(&headers)?;
    Ok(respond(app.activity.log.clone(), after, ()).into_response())
}

/// Files and sockets of this process, where the system tells.
fn open_files() -> Option<u64> {
    let open = fs_err::read_dir("/proc/self/fd").ok()?;
    // One of them is the folder that is being read.
    Some(open.count().saturating_sub(1) as u64)
}

/// `GET /metrics`
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response> {
    let (documents, pages) = app
        .blocking(|app| {
            let stats = app.index_if_any()?.map(|index| index.stats()).transpose()?;
            Ok(stats.map_or((0, 0), |stats| (stats.documents, stats.pages)))
        })
        .await?;
    let mut gauges = vec![
        ("documents", "Documents in the index.", documents),
        ("pages", "Pages in the index.", pages),
        (
            "asks_running",
            "Questions being answered now.",
            u64::from(app.asks.is_answering()),
        ),
        (
            "asks_waiting",
            "Questions waiting.",
            app.asks.num_waiting() as u64,
        ),
        (
            "jobs_open",
            "Index jobs waiting or running.",
            app.jobs.num_open() as u64,
        ),
        (
            "resident_bytes",
            "Resident memory.",
            memory::resident_bytes(),
        ),
        (
            "peak_resident_bytes",
            "Greatest resident memory.",
            memory::peak_bytes(),
        ),
        (
            "activity_lines",
            "Lines of the activity log so far.",
            app.activity.log.last(),
        ),
        (
            "tasks",
            "Tasks of the server that are alive.",
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks() as u64,
        ),
    ];
    gauges.extend(open_files().map(|number| ("open_files", "Files and sockets open now.", number)));
    let text = app.metrics.text(&gauges);
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, text).into_response())
}
