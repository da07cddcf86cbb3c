//! `POST /v1/rerank`, as Jina and Cohere have it: how well each document fits a query, by MaxSim.
//!
//! A document is a picture (`{"image": …}`), a page of the index (`{"page_id": …}`), or words. Retrievers
//! of this kind are trained on pictures of pages: words are embedded in the way of a query, and their
//! ranking is the weaker one.

use std::sync::Arc;

use axum::{Json, extract::State};
use colibri_engine::index::PageId;
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
    let (asked, dim) = rows(app, &retriever, &Input::Text(query.to_owned()))?;
    let num_query_rows = asked.len() / dim.max(1);
    let mut scores = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        let there = match document {
            Document::Input(input) => rows(app, &retriever, input)?.0,
            Document::Page { page_id } => {
                let rows = app.index()?.rows(PageId(*page_id))?;
                if rows.dim() != dim {
                    return Err(Error::bad(format!(
                        "page {page_id} was indexed by another retriever"
                    )));
                }
                rows.as_slice().iter().map(|value| value.to_f32()).collect()
            }
        };
        // Rows have length 1: the mean over the query's is a cosine, and compares between queries.
        scores.push((
            at,
            max_sim(&asked, &there, dim) / num_query_rows.max(1) as f32,
        ));
    }
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scores.truncate(top_n.unwrap_or(usize::MAX));
    let results: Vec<Value> = scores
        .iter()
        .map(|(at, score)| json!({"index": at, "relevance_score": score}))
        .collect();
    Ok(json!({"model": retriever.located.name, "results": results}))
}

/// The sum over the rows of `query` of the greatest dot product with a row of `page`.
fn max_sim(query: &[f32], page: &[f32], dim: usize) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let best = |row: &[f32]| {
        let scores = page.chunks_exact(dim).map(|there| dot(row, there));
        scores.fold(f32::NEG_INFINITY, f32::max)
    };
    query.chunks_exact(dim).map(best).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_of_each_row_counts() {
        let query = [1.0, 0.0, 0.0, 1.0];
        assert_eq!(max_sim(&query, &[1.0, 0.0, 0.0, 1.0], 2), 2.0);
        assert_eq!(max_sim(&query, &[0.5, 0.75], 2), 1.25);
    }
}
