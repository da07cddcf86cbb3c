//! Index jobs: which there are, how far they are, and stopping them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::last_event;
use crate::{App, Result, event_log::respond, jobs::JobInfo};

/// `GET /api/jobs`
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"jobs": app.jobs.list()}))
}

/// `GET /api/jobs/{id}`
pub(crate) async fn one(State(app): State<Arc<App>>, Path(id): Path<u64>) -> Result<Json<JobInfo>> {
    Ok(Json(app.jobs.find(id)?.info()))
}

/// `GET /api/jobs/{id}/events`
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Response> {
    let job = app.jobs.find(id)?;
    let after = last_event(&headers)?;
    Ok(respond(job.log.clone(), after, ()).into_response())
}

/// `DELETE /api/jobs/{id}`: stops it; what it has finished stays.
pub(crate) async fn stop(State(app): State<Arc<App>>, Path(id): Path<u64>) -> Result<StatusCode> {
    let job = app.jobs.find(id)?;
    app.jobs.cancel(&job);
    Ok(StatusCode::NO_CONTENT)
}
