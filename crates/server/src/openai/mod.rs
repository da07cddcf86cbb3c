//! The API that OpenAI's clients speak. Bodies are read leniently: unknown fields are passed over, as other
//! servers of this API do.

pub(crate) mod chat;
pub(crate) mod embeddings;
mod messages;
pub(crate) mod models;
pub(crate) mod rerank;
mod stream;

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colibri_engine::picture::{self, RgbImage};

use crate::{App, Error, Result};

/// The name of the model that answers from the documents.
pub(crate) const CORPUS: &str = "colibri";

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Decodes a picture given as a data URL, or as base64 alone.
fn picture(app: &App, url: &str) -> Result<RgbImage> {
    let data = match url.split_once(',') {
        Some((head, data)) if head.starts_with("data:") => {
            if !head.ends_with(";base64") {
                return Err(Error::bad("a data URL of a picture must be base64"));
            }
            data
        }
        _ if url.contains("://") => {
            return Err(Error::bad(
                "a picture must be sent along as a data URL; this server fetches none",
            ));
        }
        _ => url,
    };
    let bytes = STANDARD
        .decode(data.trim())
        .map_err(|_| Error::bad("a picture is not base64"))?;
    Ok(picture::decode(
        "of the message",
        &bytes,
        &app.config().open.limits,
    )?)
}
