//! What can go wrong with a service elsewhere, with a stable word and the next step for each.

use std::time::Duration;

/// A failure with its cause. No message holds the key or an address with a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `openai:` without a name.
    #[error("`openai:` names no model")]
    Model,
    /// The base address is not one.
    #[error("the address of the service cannot be used: {reason}")]
    BaseUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot be sent.
    #[error("the key in OPENAI_API_KEY holds characters that no key has")]
    Key,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Client {
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The system gives no means to wait for the network.
    #[error("cannot wait for the network")]
    Runtime {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A picture cannot be put into the request.
    #[error("a picture cannot be encoded")]
    Picture {
        /// Why not.
        #[source]
        source: image::ImageError,
    },
    /// No connection.
    #[error("cannot reach `{host}`")]
    Unreachable {
        /// The host.
        host: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The server says nothing.
    #[error("`{host}` has said nothing for {} s", span.as_secs())]
    Silent {
        /// The host.
        host: String,
        /// How long it was waited for.
        span: Duration,
    },
    /// The answer has no end.
    #[error("the answer of `{host}` was not complete after {} s", span.as_secs())]
    TooSlow {
        /// The host.
        host: String,
        /// How long it was waited for.
        span: Duration,
    },
    /// The key is missing or wrong.
    #[error("`{host}` refused {}{}", if *.had_key { "the key in OPENAI_API_KEY" } else { "an answer without a key" }, after_colon(.said))]
    Unauthorized {
        /// The host.
        host: String,
        /// Whether a key was sent.
        had_key: bool,
        /// What the service said.
        said: String,
    },
    /// There is no such model, or no such address.
    #[error("`{host}` has no model `{model}`, or no chat completions at this address{}", after_colon(.said))]
    NotFound {
        /// The host.
        host: String,
        /// The model.
        model: String,
        /// What the service said.
        said: String,
    },
    /// The request itself was refused.
    #[error("`{host}` refused the request ({status}){}", after_colon(.said))]
    Refused {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What the service said.
        said: String,
        /// The parameter it objects to, where it names one.
        parameter: Option<String>,
    },
    /// The service is busy or broken.
    #[error("`{host}` cannot answer now ({status}){}", after_colon(.said))]
    Busy {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What the service said.
        said: String,
        /// When to come back, where it says so.
        retry_after: Option<Duration>,
        /// Whether waiting may help.
        passes: bool,
    },
    /// The address has moved.
    #[error("`{host}` sends us elsewhere ({status}), which is not followed")]
    Redirect {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// The connection ended in the middle.
    #[error("`{host}` ended the connection in the middle of the answer")]
    Cut {
        /// The host.
        host: String,
        /// What the connection said, if it did.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The answer is not what the interface promises.
    #[error("the answer of `{host}` cannot be understood: {reason}")]
    Garbage {
        /// The host.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The service reports a failure in the middle of an answer.
    #[error("`{host}` gave up in the middle of the answer{}", after_colon(.said))]
    GaveUp {
        /// The host.
        host: String,
        /// What the service said.
        said: String,
    },
    /// The service withholds its answer.
    #[error("`{host}` withholds the answer: its filter stopped it")]
    Filtered {
        /// The host.
        host: String,
    },
    /// The caller stopped the work.
    #[error("stopped")]
    Stopped,
}

/// `: what was said`, if anything was.
fn after_colon(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl Error {
    /// Whether the same request may succeed a little later.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } => true,
            Self::Busy { passes, .. } => *passes,
            Self::Model
            | Self::BaseUrl { .. }
            | Self::Key
            | Self::Client { .. }
            | Self::Runtime { .. }
            | Self::Picture { .. }
            | Self::Silent { .. }
            | Self::TooSlow { .. }
            | Self::Unauthorized { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::Redirect { .. }
            | Self::Garbage { .. }
            | Self::GaveUp { .. }
            | Self::Filtered { .. }
            | Self::Stopped => false,
        }
    }

    /// When the service wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Busy { retry_after, .. } = self {
            *retry_after
        } else {
            None
        }
    }

    /// A name that stays the same between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Model => "hosted_model",
            Self::BaseUrl { .. } => "hosted_address",
            Self::Key => "hosted_key",
            Self::Client { .. } | Self::Runtime { .. } => "hosted_client",
            Self::Picture { .. } => "hosted_picture",
            Self::Unreachable { .. } => "hosted_unreachable",
            Self::Silent { .. } | Self::TooSlow { .. } => "hosted_timeout",
            Self::Unauthorized { .. } => "hosted_unauthorized",
            Self::NotFound { .. } => "hosted_not_found",
            Self::Refused { .. } => "hosted_refused",
            Self::Busy { .. } => "hosted_busy",
            Self::Redirect { .. } => "hosted_redirect",
            Self::Cut { .. } => "hosted_cut",
            Self::Garbage { .. } => "hosted_garbage",
            Self::GaveUp { .. } => "hosted_gave_up",
            Self::Filtered { .. } => "hosted_filtered",
            Self::Stopped => "cancelled",
        }
    }

    /// Whether the cause is what was asked for, and not the machine or the service.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Model | Self::BaseUrl { .. } | Self::Key)
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Model => "name one, for example `--generator openai:gpt-4o-mini`",
            Self::BaseUrl { .. } | Self::Redirect { .. } | Self::Garbage { .. } => {
                "set OPENAI_BASE_URL to the address that ends before `/chat/completions`, for example `http://localhost:8080/v1`"
            }
            Self::Key => "set OPENAI_API_KEY to the key alone",
            Self::Unauthorized { had_key, .. } => {
                if *had_key {
                    "check OPENAI_API_KEY, and that OPENAI_BASE_URL is the service it belongs to"
                } else {
                    "set OPENAI_API_KEY"
                }
            }
            Self::NotFound { .. } => {
                "check the name behind `openai:` and OPENAI_BASE_URL, which mostly ends in `/v1`"
            }
            Self::Unreachable { .. } => {
                "check that the service is running and that OPENAI_BASE_URL is its address"
            }
            Self::Silent { .. } => "give it longer with OPENAI_TIMEOUT (seconds)",
            Self::Busy { passes: true, .. } | Self::Cut { .. } | Self::GaveUp { .. } => {
                "try again later"
            }
            Self::Busy { passes: false, .. } => "see to your account at the service",
            Self::Client { .. }
            | Self::Runtime { .. }
            | Self::Picture { .. }
            | Self::TooSlow { .. }
            | Self::Refused { .. }
            | Self::Filtered { .. }
            | Self::Stopped => return None,
        };
        Some(hint.to_owned())
    }
}
