//! Bodies of requests: bounded in size and in patience.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use crate::{App, Error, Result};

/// A JSON body. `PICTURES` says whether it may hold pictures and so be large.
#[derive(Debug)]
pub(crate) struct JsonBody<T, const PICTURES: bool = false>(pub(crate) T);

impl<T: DeserializeOwned, const PICTURES: bool> FromRequest<Arc<App>> for JsonBody<T, PICTURES> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        // A page of another site can send a form or plain text without asking, and JSON only after asking.
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
        if !is_json {
            return Err(Error::NotJson);
        }
        let bounds = &app.config().bounds;
        let limit = if PICTURES {
            bounds.pictures_bytes
        } else {
            bounds.json_bytes
        };
        let bytes = whole(request, limit, app).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Error::bad(format!("the body cannot be understood: {error}")))
    }
}

/// All of a body.
async fn whole(request: Request, limit: usize, app: &App) -> Result<Bytes> {
    let mut all = Vec::new();
    let mut pieces = Pieces::new(request, limit as u64, app)?;
    while let Some(piece) = pieces.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

/// A body piece by piece.
pub(crate) struct Pieces {
    stream: axum::body::BodyDataStream,
    left: u64,
    limit: u64,
    patience: std::time::Duration,
}

impl Pieces {
    /// Refuses at once what says that it is too large.
    pub(crate) fn new(request: Request, limit: u64, app: &App) -> Result<Self> {
        let said = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<u64>().ok());
        if said.is_some_and(|said| said > limit) {
            return Err(Error::TooLarge { limit });
        }
        let body: Body = request.into_body();
        Ok(Self {
            stream: body.into_data_stream(),
            left: limit,
            limit,
            patience: app.config().bounds.stall_time,
        })
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = tokio::time::timeout(self.patience, self.stream.next()).await;
        match next.map_err(|_| Error::Stalled)? {
            None => Ok(None),
            Some(Err(_)) => Err(Error::Stalled),
            Some(Ok(piece)) => {
                self.left = self
                    .left
                    .checked_sub(piece.len() as u64)
                    .ok_or(Error::TooLarge { limit: self.limit })?;
                Ok(Some(piece))
            }
        }
    }
}
