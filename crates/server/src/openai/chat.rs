//! `POST /v1/chat/completions`
//!
//! The model `colibri` answers from the documents, with citations as annotations of the message; the
//! generator's own name is a plain conversation with it. Pictures always go to the generator.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Extension, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use colibri_engine::index::{Filter, Mode};
use serde::Deserialize;

use super::{
    CORPUS,
    messages::{Sent, Talk},
    models::{is_generator, no_such_model},
    stream::{Form, completion, events},
};
use crate::{
    App, Error, Result,
    api::{
        ask::{client, generate_options},
        search::question,
    },
    asks::{Conversation, Question, Work},
    body::JsonBody,
    guard::Peer,
};

/// Pages read for an answer.
const PAGES: usize = 3;

#[derive(Debug, Deserialize)]
pub(crate) struct ChatBody {
    model: String,
    messages: Vec<Sent>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    n: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// `POST /v1/chat/completions`
pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<ChatBody, true>,
) -> Result<Response> {
    if body.n.is_some_and(|n| n != 1) {
        return Err(Error::bad("`n` must be 1"));
    }
    if body.model != CORPUS && !is_generator(&app, &body.model) {
        return Err(no_such_model(&app, &body.model));
    }
    // The greatest temperature of that API is 2; 1 is its default, and greedy is this server's.
    let generate = generate_options(
        body.max_completion_tokens.or(body.max_tokens),
        body.temperature,
    )?;
    let sent = body.messages;
    let talk = app.blocking(move |app| Talk::read(app, sent)).await?;
    let work = if body.model == CORPUS && talk.images.is_empty() {
        let (text, history, instructions) = talk.into_question();
        Work::Corpus(Question {
            text: question(&text)?,
            pages: PAGES,
            mode: Mode::Hybrid,
            filter: Filter::default(),
            history,
            instructions,
            with_text: false,
            generate,
        })
    } else {
        Work::Chat(Conversation {
            messages: talk.messages,
            images: talk.images,
            generate,
        })
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let form = Form {
        model: body.model,
        origin: format!("http://{}", host.unwrap_or("localhost")),
        with_usage: body.stream_options.unwrap_or_default().include_usage,
    };
    let client = client(&headers, peer.map(|peer| peer.0));
    let (ask, reader) = app.asks.put(&app, &client, work)?;
    if body.stream {
        return Ok(events(&ask, reader, form).into_response());
    }
    let _reader = reader;
    Ok(Json(completion(&ask, &form).await?).into_response())
}
