//! What callers are told when something cannot be done.

use std::{io, path::PathBuf};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use colibri_engine as engine;
use serde_json::json;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request or the server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The work itself failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A request does not say what is needed.
    #[error("{what}")]
    BadRequest {
        /// In words.
        what: String,
    },
    /// The request has no key, or a wrong one.
    #[error("this server asks for a key, and {found}")]
    Unauthorized {
        /// `none was given` or `the one that was given is not it`.
        found: &'static str,
    },
    /// The request comes from another web page, or calls the server by a name that is not its own.
    #[error("refused: {why}")]
    Forbidden {
        /// In words.
        why: String,
    },
    /// There is nothing by this name.
    #[error("there is no {what}")]
    NotFound {
        /// In words.
        what: String,
    },
    /// The path exists, the method does not.
    #[error("`{method}` is not what this path is for")]
    Method {
        /// As it was sent.
        method: String,
    },
    /// A body has more bytes than it may.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// What it may have.
        limit: u64,
    },
    /// The folder of uploads is full.
    #[error("the uploaded files have {limit} bytes together, which is what they may have")]
    UploadsFull {
        /// What they may have.
        limit: u64,
    },
    /// A body stopped coming.
    #[error("the body stopped coming")]
    Stalled,
    /// An uploaded file is none that can be indexed.
    #[error(
        "`{name}` is none of PDF, PNG, JPEG, WebP, TIFF, GIF, BMP: its first bytes are not theirs"
    )]
    MediaType {
        /// The name of the file.
        name: String,
    },
    /// A body is not JSON, though it must be.
    #[error("the body must be JSON, with `content-type: application/json`")]
    NotJson,
    /// Too many wait already.
    #[error("too many {what} are waiting already")]
    Busy {
        /// `questions`, `jobs` or `searches`.
        what: &'static str,
    },
    /// An answer failed on the way.
    #[error("{error}")]
    Answer {
        /// In words.
        error: String,
        /// The name of what went wrong.
        code: String,
        /// What to do next.
        hint: Option<String>,
        /// The status that it has where it is the whole answer.
        status: u16,
    },
    /// The server is about to end.
    #[error("the server is ending")]
    Ending,
    /// A thread of ours ended without a result.
    #[error("{doing} ended unexpectedly")]
    Thread {
        /// What it was doing.
        doing: &'static str,
    },
    /// A file of the server's own could not be used.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server could not listen, or a signal could not be watched for.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The Model Context Protocol could not begin over standard input and output.
    #[error("cannot speak the Model Context Protocol over standard input and output: {reason}")]
    Mcp {
        /// Why not.
        reason: String,
    },
}

impl From<engine::index::Error> for Error {
    fn from(error: engine::index::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl Error {
    /// A request that does not say what is needed.
    pub(crate) fn bad(what: impl Into<String>) -> Self {
        Self::BadRequest { what: what.into() }
    }

    /// There is no such thing.
    pub(crate) fn no(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    /// A name that stays the same between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.code(),
            Self::BadRequest { .. } => "bad_request",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound { .. } => "not_found",
            Self::Method { .. } => "method",
            Self::TooLarge { .. } => "too_large",
            Self::UploadsFull { .. } => "uploads_full",
            Self::Stalled => "stalled",
            Self::MediaType { .. } => "media_type",
            Self::NotJson => "not_json",
            Self::Busy { .. } => "busy",
            Self::Answer { .. } => "answer",
            Self::Ending => "ending",
            Self::Thread { .. } => "thread",
            Self::Io { .. } => "io",
            Self::Listen { .. } => "listen",
            Self::Mcp { .. } => "mcp",
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Engine(engine::Error::Index(engine::index::Error::NoIndex { .. })) => {
                "add a document first"
            }
            Self::Engine(error) => return error.hint(),
            Self::Answer { hint, .. } => return hint.clone(),
            Self::Unauthorized { .. } => "send `Authorization: Bearer KEY`",
            Self::TooLarge { .. } => "start the server with a greater `--max-upload`",
            Self::UploadsFull { .. } => "remove documents",
            Self::NotJson => "add the header, and send the body as UTF-8",
            Self::Busy { .. } => "try again in a moment",
            Self::Listen { .. } => "another program may listen there; choose another with `--port`",
            Self::BadRequest { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Method { .. }
            | Self::Stalled
            | Self::MediaType { .. }
            | Self::Ending
            | Self::Thread { .. }
            | Self::Io { .. }
            | Self::Mcp { .. } => return None,
        };
        Some(hint.to_owned())
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Engine(engine::Error::Index(engine::index::Error::Filter { .. })) => {
                StatusCode::BAD_REQUEST
            }
            Self::Engine(
                engine::Error::NoRetriever { .. }
                | engine::Error::NoGenerator { .. }
                | engine::Error::Index(engine::index::Error::Locked { .. }),
            ) => StatusCode::CONFLICT,
            Self::Engine(engine::Error::Cancelled) => StatusCode::GONE,
            Self::BadRequest { .. } | Self::NotJson => StatusCode::BAD_REQUEST,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::NotFound { .. }
            | Self::Engine(engine::Error::Index(
                engine::index::Error::NoIndex { .. } | engine::index::Error::UnknownPage { .. },
            )) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UploadsFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::MediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy { .. } | Self::Ending => StatusCode::SERVICE_UNAVAILABLE,
            Self::Engine(error) if error.is_input() => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Answer { status, .. } => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Engine(_)
            | Self::Thread { .. }
            | Self::Io { .. }
            | Self::Listen { .. }
            | Self::Mcp { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// As it is sent: the shape that OpenAI's clients know.
    pub(crate) fn body(&self) -> serde_json::Value {
        let message = engine::chain(self);
        let code = if let Self::Answer { code, .. } = self {
            code
        } else {
            self.code()
        };
        json!({"error": {
            "message": message, "type": code, "code": code, "hint": self.hint(),
        }})
    }

    /// The event that ends an answer which failed with this.
    pub(crate) fn event(&self) -> serde_json::Value {
        json!({
            "event": "failed", "error": engine::chain(self), "code": self.code(),
            "hint": self.hint(), "status": self.status().as_u16(),
        })
    }

    /// The error that such an event tells of.
    pub(crate) fn of_event(event: &serde_json::Value) -> Self {
        let text = |key: &str| event[key].as_str().map(str::to_owned);
        match text("code").as_deref() {
            Some("cancelled") => engine::Error::Cancelled.into(),
            code => Self::Answer {
                error: text("error").unwrap_or_default(),
                code: code.unwrap_or("answer").to_owned(),
                hint: text("hint"),
                status: event["status"].as_u64().unwrap_or(500) as u16,
            },
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        if matches!(self, Self::Unauthorized { .. }) {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"colibri\""),
            );
        }
        if matches!(self, Self::Busy { .. }) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
