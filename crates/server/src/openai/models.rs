//! `GET /v1/models`

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use colibri_engine::checkpoints::{Choice, DEFAULT_GENERATOR, DEFAULT_RETRIEVER};
use serde_json::{Value, json};

use super::CORPUS;
use crate::{App, Error, Result};

fn named(choice: &Choice, default: &str) -> Option<String> {
    match choice {
        Choice::Auto => Some(default.to_owned()),
        Choice::None => None,
        Choice::Named(name) => Some(name.clone()),
        Choice::Found(located) => Some(located.name.clone()),
    }
}

/// The name of the generator: of the one that is loaded, else of the one that would be, unless it is known that
/// there is none.
pub(super) fn generator(app: &App) -> Option<String> {
    if app.models.only_quotes() {
        return None;
    }
    let (_, loaded) = app.models.loaded();
    let loaded = loaded.map(|loaded| loaded.located.name);
    loaded.or_else(|| named(&app.config().models.generator, DEFAULT_GENERATOR))
}

/// The name of the retriever, in the same way.
pub(super) fn retriever(app: &App) -> Option<String> {
    let (loaded, _) = app.models.loaded();
    let loaded = loaded.map(|loaded| loaded.located.name);
    loaded.or_else(|| named(&app.config().models.retriever, DEFAULT_RETRIEVER))
}

/// Whether `asked` means a model: by its whole name, or by the last part of it.
fn is(name: &str, asked: &str) -> bool {
    name == asked || name.rsplit('/').next() == Some(asked)
}

/// Whether a caller means the generator, the one that is loaded or the one that was chosen.
pub(super) fn is_generator(app: &App, asked: &str) -> bool {
    let chosen = named(&app.config().models.generator, DEFAULT_GENERATOR);
    let names = [generator(app), chosen];
    names.iter().flatten().any(|name| is(name, asked))
}

/// Why nobody can chat with `asked`, and with whom instead.
pub(super) fn no_such_model(app: &App, asked: &str) -> Error {
    let short: String = asked.chars().take(80).collect();
    let instead = match generator(app) {
        Some(name) => {
            format!("`{CORPUS}` answers from the documents and `{name}` talks without them")
        }
        None => format!("`{CORPUS}` answers from the documents"),
    };
    let finds_pages = retriever(app).is_some_and(|name| is(&name, asked));
    Error::no(if finds_pages {
        format!(
            "conversation with `{short}`: it finds pages (`/v1/embeddings`, `/v1/rerank`); {instead}"
        )
    } else {
        format!("model `{short}`; {instead}, and `/v1/models` lists what there is")
    })
}

fn all(app: &App) -> Vec<Value> {
    let model =
        |name: String| json!({"id": name, "object": "model", "created": 0, "owned_by": "colibri"});
    // The built-in retriever and generator go by one name.
    let generator = generator(app);
    let retriever = retriever(app).filter(|name| generator.as_ref() != Some(name));
    let names = [Some(CORPUS.to_owned()), generator, retriever];
    names.into_iter().flatten().map(model).collect()
}

/// `GET /v1/models`
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"object": "list", "data": all(&app)}))
}

/// `GET /v1/models/{name}`
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>> {
    let found = all(&app).into_iter().find(|model| model["id"] == name);
    found.map(Json).ok_or_else(|| Error::no("such model"))
}
