//! The server's own API.

pub(crate) mod ask;
pub(crate) mod documents;
pub(crate) mod jobs;
pub(crate) mod names;
pub(crate) mod pages;
pub(crate) mod search;
pub(crate) mod system;

use axum::http::HeaderMap;

use crate::{Error, Result};

/// The number of the last event a reader has seen, as browsers send it; 0 from the beginning.
pub(crate) fn last_event(headers: &HeaderMap) -> Result<u64> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(0);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::bad("`last-event-id` is not a number"))
}
