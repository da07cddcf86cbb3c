//! `POST /v1/rerank`, as Jina and Cohere have it: how well each document fits a query, by MaxSim.
//!
//! A document is a picture (`{"image": …}`), a page of the index (`{"page_id": …}`), or words. Retrievers
//! of this kind are trained on pictures of pages: words are embedded in the way of a query, and their
//! ranking is the weaker one.

use std::sync::Arc;

use axum::{Json, extract::State};
use colibri_engine::index::{MultiVector, PageId, QueryRows};
use serde::Deserialize;
use serde_json::{Value, json};

use super::embeddings::{Input, need_retriever, rows};
use crate::{App, Error, Result, api::search::question, body::JsonBody};

/// Documents of one request at most.
const MOST_DOCUMENTS: usize = 256;

#[derive(Debug, Deserialize)]
pub(crate) struct RerankBody {
    query: String,
    documents: Vec<Document>,
    top_n: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Page { page_id: i64 },
    Input(Input),
}

/// `POST /v1/rerank`
pub(crate) async fn rerank(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody<RerankBody, true>,
) -> Result<Json<Value>> {
    let query = question(&body.query)?;
    if body.documents.is_empty() || body.documents.len() > MOST_DOCUMENTS {
        return Err(Error::bad(format!(
            "there must be from 1 to {MOST_DOCUMENTS} documents"
        )));
    }
    let value = app
        .blocking(move |app| ranked(app, &query, &body.documents, body.top_n))
        .await?;
    Ok(Json(value))
}

fn ranked(
    app: &Arc<App>,
    query: &str,
    documents: &[Document],
    top_n: Option<usize>,
) -> Result<Value> {
    let retriever = need_retriever(app)?;
    let (values, dim) = rows(app, &retriever, &Input::Text(query.to_owned()))?;
    let asked = QueryRows::new(dim, values)?;
    let num_query_rows = asked.values.len() / dim;
    let mut scores = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        let best = match document {
            Document::Input(input) => {
                let (values, dim) = rows(app, &retriever, input)?;
                asked.best_of(dim, MultiVector::from_f32(dim, &values)?.as_slice())?
            }
            Document::Page { page_id } => {
                let there = app.index()?.rows(PageId(*page_id))?;
                if there.dim() != dim {
                    return Err(Error::bad(format!(
                        "page {page_id} was indexed by another retriever"
                    )));
                }
                asked.best_of(dim, there.as_slice())?
            }
        };
        // Rows have length 1: the mean over the query's is a cosine, and compares between queries.
        let sum: f32 = best.iter().map(|(_, product)| product).sum();
        scores.push((at, sum / num_query_rows as f32));
    }
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scores.truncate(top_n.unwrap_or(usize::MAX));
    let results: Vec<Value> = scores
        .iter()
        .map(|(at, score)| json!({"index": at, "relevance_score": score}))
        .collect();
    Ok(json!({"model": retriever.located.name, "results": results}))
}
