//! Why a document could not be fetched.

use std::{io, net::IpAddr, path::PathBuf};

/// A failure with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no URL that can be fetched.
    #[error("`{url}` cannot be fetched: {reason}")]
    Url {
        /// As given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Its host has an address that only this machine or its neighbours can reach.
    #[error("`{url}` is refused: `{host}` is {address}, which is not a public address")]
    Private {
        /// The URL, or the one it redirects to.
        url: String,
        /// Its host.
        host: String,
        /// The address.
        address: IpAddr,
    },
    /// Its host has no address.
    #[error("cannot find the address of `{host}`")]
    Resolve {
        /// The host.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection failed or broke.
    #[error("cannot fetch `{url}`")]
    Connection {
        /// The URL.
        url: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The other side refused.
    #[error("`{url}` was answered with status {status}")]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
    },
    /// It redirects too often or nowhere.
    #[error("`{url}` redirects {how}")]
    Redirects {
        /// The URL.
        url: String,
        /// `more than 5 times` or `to nowhere`.
        how: String,
    },
    /// It is larger than allowed.
    #[error("`{url}` has more than {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// What is allowed.
        limit: u64,
    },
    /// It takes longer than allowed.
    #[error("`{url}` did not come within {seconds} seconds")]
    TooSlow {
        /// The URL.
        url: String,
        /// What is allowed.
        seconds: u64,
    },
    /// What came is no document.
    #[error("`{url}` is not a document: {found}")]
    NotADocument {
        /// The URL.
        url: String,
        /// What it is.
        found: &'static str,
    },
    /// The file could not be kept.
    #[error("cannot keep a document in `{}`", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The network could not be used at all.
    #[error("cannot use the network")]
    Runtime {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// A name that stays the same between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "url",
            Self::Private { .. } => "url_private",
            Self::Resolve { .. } | Self::Connection { .. } => "url_unreachable",
            Self::Status { .. } => "url_status",
            Self::Redirects { .. } => "url_redirects",
            Self::TooLarge { .. } => "url_too_large",
            Self::TooSlow { .. } => "url_too_slow",
            Self::NotADocument { .. } => "url_no_document",
            Self::Keep { .. } | Self::Runtime { .. } => "io",
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Private { .. } => {
                Some("if you trust this address, allow it with `--allow-private-urls`")
            }
            Self::NotADocument { .. } => {
                Some("give the address of the PDF or picture itself, not of the page about it")
            }
            Self::Url { .. } => Some("give an address such as `https://example.org/paper.pdf`"),
            Self::Resolve { .. }
            | Self::Connection { .. }
            | Self::Status { .. }
            | Self::Redirects { .. }
            | Self::TooLarge { .. }
            | Self::TooSlow { .. }
            | Self::Keep { .. }
            | Self::Runtime { .. } => None,
        }
    }

    /// Whether the other side is away, and not at fault or refused.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connection { .. } | Self::TooSlow { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Url { .. }
            | Self::Private { .. }
            | Self::Redirects { .. }
            | Self::TooLarge { .. }
            | Self::NotADocument { .. }
            | Self::Keep { .. }
            | Self::Runtime { .. } => false,
        }
    }
}
