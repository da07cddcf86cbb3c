//! `POST /v1/embeddings`: multi-vectors.
//!
//! A late-interaction retriever has not one vector for an input but one for each of its tokens. `embedding`
//! is therefore an array of rows; with `encoding_format: "base64"` it is the same rows one after another as
//! little-endian f32 in base64, and `shape` says how many there are and how wide.

use std::sync::Arc;

use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use colibri_engine::{self as engine, checkpoints::LoadedRetriever};
use serde::Deserialize;
use serde_json::{Value, json};

use super::picture;
use crate::{App, Error, Result, api::search::question, body::JsonBody};

/// Inputs of one request at most.
const MOST_INPUTS: usize = 64;

#[derive(Debug, Deserialize)]
pub(crate) struct EmbeddingsBody {
    input: Inputs,
    #[serde(default)]
    encoding_format: Format,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Float,
    Base64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Inputs {
    Many(Vec<Input>),
    One(Input),
}

/// Words, or the picture of a page.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Input {
    Text(String),
    TextObject { text: String },
    Image { image: String },
}

/// The retriever, or why there is none.
pub(super) fn need_retriever(app: &App) -> Result<LoadedRetriever> {
    let remembered = match app.index_if_any()? {
        Some(index) => index.settings()?.retriever,
        None => None,
    };
    let found = app
        .models
        .retriever(remembered.as_deref(), &|event| app.on_model(&event))?;
    found.ok_or_else(|| {
        engine::Error::NoRetriever {
            reason: "this server finds pages by their text".to_owned(),
        }
        .into()
    })
}

/// Rows and their width.
pub(super) fn rows(
    app: &App,
    retriever: &LoadedRetriever,
    input: &Input,
) -> Result<(Vec<f32>, usize)> {
    let rows = match input {
        Input::Text(text) | Input::TextObject { text } => retriever
            .model
            .embed_query(&question(text)?)
            .map_err(engine::Error::from)?,
        Input::Image { image } => {
            let image = picture(app, image)?;
            retriever
                .model
                .embed_page(&image, &mut |_, _| true)
                .map_err(engine::Error::from)?
                .rows
        }
    };
    Ok((rows.values, rows.dim))
}

/// `POST /v1/embeddings`
pub(crate) async fn embed(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody<EmbeddingsBody, true>,
) -> Result<Json<Value>> {
    let inputs = match body.input {
        Inputs::One(input) => vec![input],
        Inputs::Many(inputs) => inputs,
    };
    if inputs.is_empty() || inputs.len() > MOST_INPUTS {
        return Err(Error::bad(format!(
            "there must be from 1 to {MOST_INPUTS} inputs"
        )));
    }
    let format = body.encoding_format;
    let value = app
        .blocking(move |app| {
            let retriever = need_retriever(app)?;
            let mut data = Vec::new();
            let mut tokens = 0;
            for (at, input) in inputs.iter().enumerate() {
                let (values, dim) = rows(app, &retriever, input)?;
                let number = values.len() / dim.max(1);
                tokens += number;
                let embedding = match format {
                    Format::Float => json!(values.chunks(dim.max(1)).collect::<Vec<_>>()),
                    Format::Base64 => {
                        let bytes: Vec<u8> =
                            values.iter().flat_map(|value| value.to_le_bytes()).collect();
                        json!(STANDARD.encode(bytes))
                    }
                };
                data.push(json!({
                    "object": "embedding", "index": at, "embedding": embedding, "shape": [number, dim],
                }));
            }
            Ok(json!({
                "object": "list", "data": data, "model": retriever.located.name,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }))
        })
        .await?;
    Ok(Json(value))
}
