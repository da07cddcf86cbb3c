//! Asking: one request, one stream of events.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Extension, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use colibri_engine::{generate::GenerateOptions, index::Mode};
use serde::Deserialize;
use serde_json::Value;

use super::{
    last_event,
    search::{Scope, question},
};
use crate::{
    App, Error, Result,
    asks::{Question, Work},
    body::JsonBody,
    event_log::{Next, respond},
    guard::Peer,
};

const MOST_PAGES: usize = 20;
const MOST_NEW_TOKENS: usize = 4096;
/// Turns that are taken; the engine repeats fewer to the generator.
const MOST_TURNS: usize = 32;

/// A turn that was held before.
#[derive(Debug, Deserialize)]
pub(crate) struct Turn {
    question: String,
    answer: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AskBody {
    question: String,
    #[serde(default = "three")]
    pages: usize,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    history: Vec<Turn>,
    instructions: Option<String>,
    #[serde(default)]
    with_text: bool,
    max_new_tokens: Option<usize>,
    temperature: Option<f32>,
    #[serde(flatten)]
    scope: Scope,
}

fn three() -> usize {
    3
}

/// Settings of a generation, refused where they make no sense.
pub(crate) fn generate_options(
    max_new_tokens: Option<usize>,
    temperature: Option<f32>,
) -> Result<GenerateOptions> {
    let default = GenerateOptions::default();
    let options = GenerateOptions {
        max_new_tokens: max_new_tokens.unwrap_or(default.max_new_tokens),
        temperature: temperature.unwrap_or(default.temperature),
        ..default
    };
    if options.max_new_tokens == 0 || options.max_new_tokens > MOST_NEW_TOKENS {
        return Err(Error::bad(format!(
            "the number of new tokens must be from 1 to {MOST_NEW_TOKENS}"
        )));
    }
    if !(0.0..=5.0).contains(&options.temperature) {
        return Err(Error::bad("the temperature must be from 0 to 5"));
    }
    Ok(options)
}

/// Who waits in a line of his own: what he calls himself, or where he comes from.
pub(crate) fn client(headers: &HeaderMap, peer: Option<Peer>) -> String {
    let named = headers
        .get("x-client")
        .and_then(|value| value.to_str().ok())
        .filter(|name| !name.is_empty() && name.len() <= 64);
    match (named, peer) {
        (Some(name), _) => name.to_owned(),
        (None, Some(peer)) => peer.0.ip().to_string(),
        (None, None) => String::new(),
    }
}

/// `POST /api/ask`: server-sent events, or one object where `Accept` says `application/json`.
pub(crate) async fn ask(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<AskBody>,
) -> Result<Response> {
    let text = question(&body.question)?;
    if body.pages == 0 || body.pages > MOST_PAGES {
        return Err(Error::bad(format!(
            "`pages` must be from 1 to {MOST_PAGES}"
        )));
    }
    let skip = body.history.len().saturating_sub(MOST_TURNS);
    let turns = body.history.into_iter().skip(skip);
    let history = turns.map(|turn| (turn.question, turn.answer)).collect();
    let generate = generate_options(body.max_new_tokens, body.temperature)?;
    let scope = body.scope;
    let filter = app.blocking(move |app| scope.filter(app)).await?;
    let work = Work::Corpus(Question {
        text,
        pages: body.pages,
        mode: body.mode,
        filter,
        history,
        instructions: body.instructions,
        with_text: body.with_text,
        generate,
    });
    let client = client(&headers, peer.map(|peer| peer.0));
    let (ask, reader) = app.asks.put(&app, &client, work)?;
    let wants_json = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| accept == "application/json");
    if wants_json {
        let _reader = reader;
        return Ok(Json(whole(&ask).await?).into_response());
    }
    Ok(respond(ask.log.clone(), 0, reader).into_response())
}

/// Waits for the end: the `done` object, with the evidence in it.
async fn whole(ask: &crate::asks::Ask) -> Result<Value> {
    let (mut after, mut evidence) = (0, Value::Null);
    loop {
        match ask.log.next(after).await {
            Next::Missed(number) => after += number,
            Next::End => return Err(Error::Ending),
            Next::Entry(entry) => {
                after = entry.number;
                let mut data: Value = serde_json::from_str(&entry.data).unwrap_or_default();
                match entry.name {
                    "evidence" => evidence = data["pages"].take(),
                    "done" => {
                        data["evidence"] = evidence;
                        return Ok(data);
                    }
                    "failed" => return Err(Error::of_event(&data)),
                    _ => {}
                }
            }
        }
    }
}

/// `GET /api/asks/{id}/events`: the same events again, after the one named by `Last-Event-ID`.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let ask = app.asks.find(&id)?;
    let after = last_event(&headers)?;
    let reader = crate::asks::Reader::new(&app, &ask);
    Ok(respond(ask.log.clone(), after, reader).into_response())
}

/// `DELETE /api/asks/{id}`: stops it.
pub(crate) async fn stop(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let ask = app.asks.find(&id)?;
    app.asks.cancel(&ask);
    Ok(StatusCode::NO_CONTENT)
}
