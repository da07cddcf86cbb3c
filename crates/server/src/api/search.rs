//! Searching.

use std::{sync::Arc, time::Instant};

use axum::{Json, extract::State};
use colibri_engine::index::{Filter, Mode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::names::with_pages;
use crate::{App, Error, Result, activity::About, body::JsonBody};

/// Pages given at most.
const MOST_PAGES: usize = 100;
/// Characters of a question at most; the models read a few hundred.
pub(crate) const LONGEST_QUESTION: usize = 8000;

/// Where to look.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Scope {
    /// Expressions that must all hold.
    #[serde(default, rename = "where")]
    pub(crate) filter: Vec<String>,
    /// Only these documents, by their identities.
    #[serde(default)]
    pub(crate) documents: Vec<i64>,
}

impl Scope {
    /// As the index has it.
    ///
    /// # Errors
    /// When an expression cannot be understood or a document is not there.
    pub(crate) fn filter(&self, app: &App) -> Result<Filter> {
        let filter = Filter::parse_all(&self.filter)?;
        if self.documents.is_empty() {
            return Ok(filter);
        }
        let index = app.index()?;
        let all = index.list(&Filter::default())?;
        let named = all
            .into_iter()
            .filter(|document| self.documents.contains(&document.id.0))
            .map(|document| document.record.path);
        Ok(filter.and(Filter::paths_are(named)))
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct SearchBody {
    query: String,
    #[serde(default = "ten")]
    k: usize,
    #[serde(default)]
    mode: Mode,
    #[serde(flatten)]
    scope: Scope,
}

fn ten() -> usize {
    10
}

/// Refuses what is no question.
pub(crate) fn question(text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::bad("the question is empty"));
    }
    if text.chars().count() > LONGEST_QUESTION {
        return Err(Error::bad(format!(
            "the question has more than {LONGEST_QUESTION} characters"
        )));
    }
    Ok(text.to_owned())
}

/// `POST /api/search`
pub(crate) async fn search(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<Json<Value>> {
    let query = question(&body.query)?;
    if body.k == 0 || body.k > MOST_PAGES {
        return Err(Error::bad(format!("`k` must be from 1 to {MOST_PAGES}")));
    }
    let found = app
        .blocking(move |app| found(app, &query, body.k, body.mode, &body.scope))
        .await?;
    Ok(Json(found))
}

/// The result of a search as it is sent.
pub(crate) fn found(
    app: &Arc<App>,
    query: &str,
    k: usize,
    mode: Mode,
    scope: &Scope,
) -> Result<Value> {
    let filter = scope.filter(app)?;
    let Some(index) = app.index_if_any()? else {
        return Ok(json!({"query": query, "mode": mode, "hits": []}));
    };
    let searcher = app.searcher(&index, mode, &|event| app.on_model(&event))?;
    let started = Instant::now();
    let result = searcher.search(query, k, &filter)?;
    let took = started.elapsed();
    app.metrics.searched(took);
    app.activity.note(
        About::Search,
        &format!("{} pages for: {query}", result.hits.len()),
        Some(took),
    );
    let mut value = serde_json::to_value(&result).unwrap_or_default();
    with_pages(None, &mut value["hits"]);
    value["milliseconds"] = json!(took.as_secs_f64() * 1000.0);
    Ok(value)
}
