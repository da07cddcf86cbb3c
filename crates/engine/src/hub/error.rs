//! What can go wrong between a model's name and its files.
//!
//! One variant per cause. The message says what was tried, on what, and what was wrong; [`Error::hint`]
//! (`hint.rs`) says what to do next; [`Error::code`] is a stable word for machines. Addresses in messages are
//! host names only: the address of a file behind a redirect carries a signature.

use std::path::PathBuf;
use std::time::Duration;

/// A failure of the hub client or of its cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text is not `owner/name` or `owner/name@revision`.
    #[error("`{text}` is not a hub name: {reason}")]
    ModelName {
        /// The text as given.
        text: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A revision is not a branch, tag, reference or commit.
    #[error("`{revision}` is not a revision: {reason}")]
    Revision {
        /// The revision as given.
        revision: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The hub's address cannot be used.
    #[error("`{endpoint}` is not a hub address: {reason}")]
    Endpoint {
        /// The address as given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The access token cannot be sent: it holds characters that no header may carry.
    #[error("the access token from {origin} holds characters that no token has")]
    Token {
        /// Where the token came from.
        origin: String,
    },
    /// Offline, and the model is not in the cache.
    #[error(
        "`{name}` at revision `{revision}` is not in the cache `{}` and HF_HUB_OFFLINE is set",
        cache.display()
    )]
    Offline {
        /// `owner/name`.
        name: String,
        /// The revision asked for.
        revision: String,
        /// The cache folder.
        cache: PathBuf,
        /// Commits of this model that the cache does hold.
        held: Vec<String>,
    },
    /// Offline, and the model is in the cache only in part.
    #[error(
        "`{name}` in `{}` lacks {} and HF_HUB_OFFLINE is set",
        folder.display(),
        quoted(missing)
    )]
    OfflineIncomplete {
        /// `owner/name`.
        name: String,
        /// The snapshot's folder.
        folder: PathBuf,
        /// The files that are not there.
        missing: Vec<String>,
    },
    /// The HTTP client could not be made (mostly: no certificates on this machine).
    #[error("the HTTPS client could not be started")]
    Client {
        /// The client's own report.
        #[source]
        source: reqwest::Error,
    },
    /// No answer from the hub: no network, no such host, refused, or too slow.
    #[error("`{host}` could not be reached while asking for {ask}")]
    Unreachable {
        /// The host that was tried.
        host: String,
        /// What was asked for.
        ask: String,
        /// The client's own report, without the address.
        #[source]
        source: reqwest::Error,
    },
    /// The hub refuses without a valid token (HTTP 401).
    #[error(
        "`{host}` does not give {ask} {} (HTTP 401)",
        if *had_token { "to the token it was sent" } else { "without a token" }
    )]
    Unauthorized {
        /// The host that answered.
        host: String,
        /// What was asked for.
        ask: String,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// The model is gated, or closed to this token (HTTP 403).
    #[error(
        "`{name}` is gated, and {} (HTTP {status})",
        if *had_token { "the token's owner has no access to it" } else { "no token was sent" }
    )]
    Gated {
        /// `owner/name`.
        name: String,
        /// The page on which the licence is accepted.
        page: String,
        /// Whether a token was sent.
        had_token: bool,
        /// The HTTP status.
        status: u16,
    },
    /// The hub knows no such model, or hides it.
    #[error("`{host}` has no model `{name}`{}", if *had_token { "" } else { ", or it is private" })]
    ModelNotFound {
        /// The host that answered.
        host: String,
        /// `owner/name`.
        name: String,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// The model has no such revision.
    #[error("the model `{name}` has no revision `{revision}`")]
    RevisionNotFound {
        /// `owner/name`.
        name: String,
        /// The revision asked for.
        revision: String,
    },
    /// A listed file is not there.
    #[error("the model `{name}` at commit `{commit}` has no file `{file}`")]
    FileNotFound {
        /// `owner/name`.
        name: String,
        /// The commit asked for.
        commit: String,
        /// The file asked for.
        file: String,
    },
    /// Any other HTTP status that is not a success.
    #[error("`{host}` answered HTTP {status} when asked for {ask}")]
    Status {
        /// The host that answered.
        host: String,
        /// What was asked for.
        ask: String,
        /// The HTTP status.
        status: u16,
        /// How long the host asks us to wait, bounded to a minute.
        retry_after: Option<Duration>,
    },
    /// A redirect leads nowhere, in circles, or out of HTTPS.
    #[error("the redirect of {ask} by `{host}` is not followed: {reason}")]
    Redirect {
        /// The host that sent the redirect.
        host: String,
        /// What was asked for.
        ask: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// An answer is not the JSON that the hub's interface promises.
    #[error("the answer of `{host}` for {ask} cannot be read")]
    Answer {
        /// The host that answered.
        host: String,
        /// What was asked for.
        ask: String,
        /// The parser's report.
        #[source]
        source: serde_json::Error,
    },
    /// A field of an answer breaks its own rules (a commit or checksum that is none).
    #[error("the answer for {ask} names `{found}` where {expected} belongs")]
    AnswerField {
        /// What was asked for.
        ask: String,
        /// What belongs there.
        expected: &'static str,
        /// What was found, shortened.
        found: String,
    },
    /// An answer or a settings file is larger than such a thing can be.
    #[error("{ask} is larger than {limit} bytes and was not read")]
    TooLarge {
        /// What was asked for.
        ask: String,
        /// The bound.
        limit: u64,
    },
    /// A file name that would leave the model's folder, or that is no plain file name.
    #[error("the model `{name}` names a file `{file}`: {reason}")]
    UnsafeFileName {
        /// `owner/name`.
        name: String,
        /// The name as given, shortened.
        file: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The index of a sharded checkpoint cannot be read.
    #[error("`{}` is not an index of safetensors shards", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// The parser's report.
        #[source]
        source: serde_json::Error,
    },
    /// The index of a sharded checkpoint names a file that the model does not have.
    #[error("the index of `{name}` names the shard `{shard}`, which the model does not have")]
    MissingShard {
        /// `owner/name`.
        name: String,
        /// The shard that is not listed.
        shard: String,
    },
    /// The weights are there only as pickle files, which are programs and are never fetched.
    #[error(
        "the model `{name}` holds its weights only as {}, which Colibri never opens",
        quoted(files)
    )]
    OnlyPickles {
        /// `owner/name`.
        name: String,
        /// The pickle files of the listing.
        files: Vec<String>,
    },
    /// There are no weights at all.
    #[error("the model `{name}` at commit `{commit}` holds no safetensors file")]
    NoWeights {
        /// `owner/name`.
        name: String,
        /// The commit that was listed.
        commit: String,
    },
    /// The connection was cut more often than retries are allowed.
    #[error(
        "the connection was cut after {received} of {total} bytes of `{file}`{}",
        if *attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() }
    )]
    CutConnection {
        /// The file.
        file: String,
        /// Bytes on disk, kept for the next attempt.
        received: u64,
        /// The file's size in bytes.
        total: u64,
        /// Attempts made without progress.
        attempts: u32,
        /// The client's own report, where the cut was not a plain end.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// A range of a file was asked for, and something else came.
    #[error("`{host}` answered with other bytes of `{file}` than were asked for")]
    Range {
        /// The host that answered.
        host: String,
        /// The file.
        file: String,
    },
    /// The body is not as long as the listing says.
    #[error("`{file}` has {found} bytes on the server, {expected} in the model's file list")]
    WrongLength {
        /// The file.
        file: String,
        /// Bytes by the listing.
        expected: u64,
        /// Bytes by the server, or received when the limit was passed.
        found: u64,
    },
    /// The bytes are not those that the listing describes. They have been deleted.
    #[error(
        "`{file}` arrived with the wrong {algorithm} checksum `{found}`, expected `{expected}`"
    )]
    WrongChecksum {
        /// The file.
        file: String,
        /// `SHA-256` or `git SHA-1`.
        algorithm: &'static str,
        /// By the listing, hexadecimal.
        expected: String,
        /// Of the bytes received, hexadecimal.
        found: String,
    },
    /// No room for a file.
    #[error("no space left on the disk for `{}`", path.display())]
    DiskFull {
        /// The file that was written.
        path: PathBuf,
        /// The system's report.
        #[source]
        source: std::io::Error,
    },
    /// Any other failure of the file system. The system's report names the path.
    #[error("the model cache could not be used")]
    Io {
        /// The system's report with its path.
        #[source]
        source: std::io::Error,
    },
    /// A worker thread ended before its work (the program is being stopped).
    #[error("writing `{}` was interrupted", path.display())]
    Interrupted {
        /// The file that was written.
        path: PathBuf,
    },
}

impl Error {
    /// A file-system failure on `path`; a full disk or quota becomes [`Error::DiskFull`].
    pub(super) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        if matches!(
            source.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        ) {
            return Self::DiskFull {
                path: path.into(),
                source,
            };
        }
        Self::Io { source }
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::CutConnection { .. } | Self::Range { .. } => true,
            // Request timeout, too many requests, and faults of the server itself.
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::ModelName { .. }
            | Self::Revision { .. }
            | Self::Endpoint { .. }
            | Self::Token { .. }
            | Self::Offline { .. }
            | Self::OfflineIncomplete { .. }
            | Self::Client { .. }
            | Self::Unauthorized { .. }
            | Self::Gated { .. }
            | Self::ModelNotFound { .. }
            | Self::RevisionNotFound { .. }
            | Self::FileNotFound { .. }
            | Self::Redirect { .. }
            | Self::Answer { .. }
            | Self::AnswerField { .. }
            | Self::TooLarge { .. }
            | Self::UnsafeFileName { .. }
            | Self::Index { .. }
            | Self::MissingShard { .. }
            | Self::OnlyPickles { .. }
            | Self::NoWeights { .. }
            | Self::WrongLength { .. }
            | Self::WrongChecksum { .. }
            | Self::DiskFull { .. }
            | Self::Io { .. }
            | Self::Interrupted { .. } => false,
        }
    }

    /// How long the server asked us to wait before the next attempt.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self {
            *retry_after
        } else {
            None
        }
    }
}

/// `a`, `b` and 3 more, in backticks.
fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    let text = shown.join(", ");
    if names.len() > SHOWN {
        format!("{text} and {} more", names.len() - SHOWN)
    } else {
        text
    }
}

/// The first 80 characters of a foreign text, control characters replaced: it goes to a terminal.
pub(super) fn shortened(text: &str) -> String {
    text.chars()
        .take(80)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = Error::io(
            "/c/blobs/x",
            std::io::Error::from(std::io::ErrorKind::StorageFull),
        );
        assert_eq!(
            full.to_string(),
            "no space left on the disk for `/c/blobs/x`"
        );
        assert!(full.hint().unwrap().contains("HF_HOME"));
        let denied = Error::io(
            "/c",
            std::io::Error::from(std::io::ErrorKind::PermissionDenied),
        );
        assert!(matches!(denied, Error::Io { .. }));
    }

    #[test]
    fn offline_says_what_to_do() {
        let error = Error::Offline {
            name: "a/b".into(),
            revision: "main".into(),
            cache: "/c".into(),
            held: vec![],
        };
        assert_eq!(
            error.to_string(),
            "`a/b` at revision `main` is not in the cache `/c` and HF_HUB_OFFLINE is set"
        );
        let hint = error.hint().unwrap();
        assert!(
            hint.starts_with("run `colibri models pull a/b` on a machine with a network"),
            "{hint}"
        );
    }

    #[test]
    fn foreign_text_is_bounded_and_harmless() {
        let text = shortened(&("\u{1b}[31m".to_owned() + &"x".repeat(500)));
        assert_eq!(text.chars().count(), 80);
        assert!(!text.contains('\u{1b}'));
    }
}
