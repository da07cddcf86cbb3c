//! The web app's own files, which are part of the program.

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{Error, Result};

/// A file by its name, with its media type.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal: $kind:expr),* $(,)?) => {
        &[$(Asset {
            name: $name,
            kind: $kind,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/", $name)),
        }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JSON: &str = "application/json";

static ASSETS: &[Asset] = assets! {
    "index.html": HTML,
    "style.css": CSS,
    "app.js": SCRIPT,
    "activity.js": SCRIPT,
    "api.js": SCRIPT,
    "conversation.js": SCRIPT,
    "documents.js": SCRIPT,
    "dom.js": SCRIPT,
    "markdown.js": SCRIPT,
    "store.js": SCRIPT,
    "viewer.js": SCRIPT,
    "icon.svg": SVG,
    "openapi.json": JSON,
};

/// `GET /`
pub(crate) async fn index(headers: HeaderMap) -> Result<Response> {
    serve("index.html", &headers)
}

/// `GET /favicon.ico`
pub(crate) async fn icon(headers: HeaderMap) -> Result<Response> {
    serve("icon.svg", &headers)
}

/// `GET /api/openapi.json`
pub(crate) async fn openapi(headers: HeaderMap) -> Result<Response> {
    serve("openapi.json", &headers)
}

/// `GET /assets/{name}`
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response> {
    serve(&name, &headers)
}

/// A file, or that it has not changed; the names are compared with a list, so no name leads elsewhere.
fn serve(name: &str, headers: &HeaderMap) -> Result<Response> {
    let asset = ASSETS
        .iter()
        .find(|asset| asset.name == name)
        .ok_or_else(|| Error::no("such file"))?;
    let tag = format!("\"{}\"", &blake3::hash(asset.bytes).to_hex()[..16]);
    let known = headers.get(header::IF_NONE_MATCH);
    let (status, bytes) = if known.is_some_and(|known| known == tag.as_str()) {
        (StatusCode::NOT_MODIFIED, &[][..])
    } else {
        (StatusCode::OK, asset.bytes)
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        // Asked for again each time, so that a new version of the program is never mixed with an old one.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::ETAG,
            HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\"")),
        ),
    ];
    Ok((status, headers, bytes).into_response())
}
