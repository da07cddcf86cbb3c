//! Pages: their pictures, their words, and where a question found something on them.

use std::{path::Path as FilePath, sync::Arc, time::Instant};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use colibri_engine::{
    index::{Mode, PageId},
    picture::{self, Format},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{names::file_name, search::question};
use crate::{App, Error, Result, activity::About, page_cache::Key};

/// The longest edge of a picture, unless asked otherwise.
const LONGEST_EDGE: u32 = 1600;
const THUMBNAIL_EDGE: u32 = 320;
const MOST_EDGE: u32 = 4096;
const LEAST_EDGE: u32 = 32;

#[derive(Debug, Deserialize)]
pub(crate) struct SizeQuery {
    size: Option<u32>,
}

/// `GET /api/pages/{id}` (its text and place), `/api/pages/{id}.png`, `/api/pages/{id}.webp`
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<SizeQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let size = query.size.unwrap_or(LONGEST_EDGE);
    match name.split_once('.') {
        None => text(&app, number(&name)?).await,
        Some((id, "png")) => drawn(&app, number(id)?, size, Format::Png, &headers).await,
        Some((id, "webp")) => drawn(&app, number(id)?, size, Format::WebP, &headers).await,
        Some((_, other)) => Err(Error::no(format!("picture of a page as `{other}`"))),
    }
}

/// `GET /api/pages/{id}/thumbnail.webp`
pub(crate) async fn thumbnail(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    headers: HeaderMap,
) -> Result<Response> {
    drawn(&app, id, THUMBNAIL_EDGE, Format::WebP, &headers).await
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| {
        Error::no(format!(
            "page `{}`",
            text.chars().take(40).collect::<String>()
        ))
    })
}

async fn text(app: &Arc<App>, id: i64) -> Result<Response> {
    let value = app
        .blocking(move |app| {
            let index = app.index()?;
            let page = index.page(PageId(id))?;
            let document = index.document(&page.document)?;
            let mut value = serde_json::to_value(&page).unwrap_or_default();
            value["name"] = json!(file_name(&page.document));
            value["num_pages"] = json!(document.map(|document| document.num_pages));
            let neighbour = |number: Option<u32>| -> Result<Option<i64>> {
                let Some(number) = number else {
                    return Ok(None);
                };
                Ok(index.page_id(&page.document, number)?.map(|page| page.0))
            };
            value["previous"] = json!(neighbour(page.number.checked_sub(1))?);
            value["next"] = json!(neighbour(page.number.checked_add(1))?);
            Ok(value)
        })
        .await?;
    Ok(Json(value).into_response())
}

async fn drawn(
    app: &Arc<App>,
    id: i64,
    size: u32,
    format: Format,
    headers: &HeaderMap,
) -> Result<Response> {
    let key = Key {
        page: id,
        longest_edge: size.clamp(LEAST_EDGE, MOST_EDGE),
        format,
    };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let (tag, picture) = app
        .blocking(move |app| picture_of(app, key, known.as_deref()))
        .await?;
    let (status, picture) = match picture {
        Some(picture) => (StatusCode::OK, picture),
        None => (StatusCode::NOT_MODIFIED, Bytes::new()),
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.media_type()),
        ),
        // Another index on the same port has other pages under the same numbers.
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        ),
        (
            header::ETAG,
            HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\"")),
        ),
    ];
    Ok((status, headers, picture).into_response())
}

/// The tag of a picture, and the picture unless it is `known` already.
fn picture_of(app: &Arc<App>, key: Key, known: Option<&str>) -> Result<(String, Option<Bytes>)> {
    let index = app.index()?;
    let page = index.page(PageId(key.page))?;
    let document = index
        .document(&page.document)?
        .ok_or_else(|| Error::no("document of this page any more"))?;
    let content = &document.record.content_hash;
    let tag = format!(
        "\"{}-{}-{}\"",
        content.get(..16).unwrap_or(content),
        page.number,
        key.longest_edge
    );
    if known == Some(tag.as_str()) {
        return Ok((tag, None));
    }
    if let Some(picture) = app.pictures.get(key) {
        return Ok((tag, Some(picture)));
    }
    let started = Instant::now();
    let path = FilePath::new(&page.document);
    let image = picture::page(path, page.number, key.longest_edge, &app.config().open)?;
    let picture = Bytes::from(picture::encode(&image, key.longest_edge, key.format)?);
    app.pictures.put(key, picture.clone());
    let name = file_name(&page.document);
    let message = format!(
        "{name}: page {} drawn, {} px",
        page.number, key.longest_edge
    );
    app.activity
        .note(About::Draw, &message, Some(started.elapsed()));
    Ok((tag, Some(picture)))
}

/// The picture of a page for other callers of this crate.
pub(crate) fn png(app: &Arc<App>, page: i64, longest_edge: u32) -> Result<Bytes> {
    let key = Key {
        page,
        longest_edge: longest_edge.clamp(LEAST_EDGE, MOST_EDGE),
        format: Format::Png,
    };
    let (_, picture) = picture_of(app, key, None)?;
    Ok(picture.unwrap_or_default())
}

#[derive(Debug, Deserialize)]
pub(crate) struct HeatQuery {
    q: String,
}

/// `GET /api/pages/{id}/heatmap?q=…`: how much each part of the page says to each word.
pub(crate) async fn heat_map(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    Query(query): Query<HeatQuery>,
) -> Result<Json<Value>> {
    let query = question(&query.q)?;
    let value = app
        .blocking(move |app| {
            let index = app.index()?;
            index.page(PageId(id))?;
            let searcher = app.searcher(&index, Mode::Hybrid, &|event| app.on_model(&event))?;
            let map = searcher.heat_map(PageId(id), &query)?;
            Ok(match map {
                Some(map) => serde_json::to_value(&map).unwrap_or_default(),
                None => json!({"boxes": [], "tokens": []}),
            })
        })
        .await?;
    Ok(Json(value))
}
