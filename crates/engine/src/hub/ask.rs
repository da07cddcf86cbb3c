//! The questions to the hub, and what their answers mean: the entries of a file list, the statuses that
//! refuse.
//!
//! The hub tells its refusals apart in the header `X-Error-Code` (`GatedRepo`, `RepoNotFound`,
//! `RevisionNotFound`, `EntryNotFound`); mirrors often do not, so the status alone has a meaning too.
//! Anything said by another host than the hub (the content network behind a redirect) is a plain status.

use std::time::Duration;

use reqwest::{Response, Url};
use serde::Deserialize;

use super::checksum::Checksum;
use super::error::{Error, shortened};
use super::files::RepoFile;
use super::name::{is_hex, path_fault};
use super::remote::host;

/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What is asked for, in the words of an error.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    /// The commit of a revision.
    Commit { name: &'a str, revision: &'a str },
    /// The file list of a commit.
    Files { name: &'a str, commit: &'a str },
    /// A file of a commit.
    File {
        name: &'a str,
        commit: &'a str,
        file: &'a str,
    },
}

impl std::fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Commit { name, revision } => write!(f, "revision `{revision}` of `{name}`"),
            Self::Files { name, .. } => write!(f, "the file list of `{name}`"),
            Self::File { name, file, .. } => write!(f, "`{file}` of `{name}`"),
        }
    }
}

impl<'a> Ask<'a> {
    fn name(&self) -> &'a str {
        match self {
            Self::Commit { name, .. } | Self::Files { name, .. } | Self::File { name, .. } => name,
        }
    }
}

impl Ask<'_> {
    /// The error that a status which is no success stands for; `hub` is the address that was asked first.
    pub(super) fn refused(&self, response: &Response, hub: &Url, had_token: bool) -> Error {
        let from_hub = response.url().origin() == hub.origin();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let code = header("x-error-code").filter(|_| from_hub);
        let host = host(response.url());
        let name = self.name().to_owned();
        match (response.status().as_u16(), code) {
            (_, Some("RepoNotFound")) => Error::ModelNotFound {
                host,
                name,
                had_token,
            },
            (_, Some("RevisionNotFound")) => self.revision_not_found(),
            (_, Some("EntryNotFound")) => self.not_found(host, had_token),
            (status @ (401 | 403), Some("GatedRepo")) | (status @ 403, _) if from_hub => {
                let page = format!("{}/{name}", hub.as_str().trim_end_matches('/'));
                Error::Gated {
                    name,
                    page,
                    had_token,
                    status,
                }
            }
            (401, _) if from_hub => Error::Unauthorized {
                host,
                ask: self.to_string(),
                had_token,
            },
            (404, _) if from_hub => self.not_found(host, had_token),
            (status, _) => {
                let seconds = header("retry-after").and_then(|text| text.trim().parse().ok());
                let retry_after = seconds.map(|s| Duration::from_secs(s).min(LONGEST_WAIT));
                Error::Status {
                    host,
                    ask: self.to_string(),
                    status,
                    retry_after,
                }
            }
        }
    }

    /// What a plain 404 means for this question.
    fn not_found(&self, host: String, had_token: bool) -> Error {
        match *self {
            // Without a code from the server the model itself is the likelier mistake.
            Self::Commit { name, .. } => Error::ModelNotFound {
                host,
                name: name.to_owned(),
                had_token,
            },
            Self::Files { .. } => self.revision_not_found(),
            Self::File { name, commit, file } => Error::FileNotFound {
                name: name.to_owned(),
                commit: commit.to_owned(),
                file: file.to_owned(),
            },
        }
    }

    fn revision_not_found(&self) -> Error {
        let (name, revision) = match *self {
            Self::Commit { name, revision } => (name, revision),
            Self::Files { name, commit } | Self::File { name, commit, .. } => (name, commit),
        };
        Error::RevisionNotFound {
            name: name.to_owned(),
            revision: revision.to_owned(),
        }
    }
}

/// An entry of a file list.
#[derive(Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

/// The real file behind an LFS pointer.
#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Entry {
    /// The file, or nothing for a folder.
    pub(super) fn into_file(self, ask: Ask<'_>) -> Result<Option<RepoFile>, Error> {
        if let Some(reason) = path_fault(&self.path) {
            let file = shortened(&self.path);
            return Err(Error::UnsafeFileName {
                name: ask.name().to_owned(),
                file,
                reason,
            });
        }
        if self.kind != "file" {
            return Ok(None);
        }
        let (checksum, bytes) = match self.lfs {
            Some(lfs) => {
                let oid = lfs
                    .oid
                    .strip_prefix("sha256:")
                    .unwrap_or(&lfs.oid)
                    .to_owned();
                (Checksum::Sha256(oid), lfs.size)
            }
            None => (Checksum::Git(self.oid), self.size),
        };
        let digits = if matches!(checksum, Checksum::Sha256(_)) {
            64
        } else {
            40
        };
        if !is_hex(checksum.hex(), digits) {
            return Err(Error::AnswerField {
                ask: ask.to_string(),
                expected: "a checksum in hexadecimal digits",
                found: shortened(checksum.hex()),
            });
        }
        Ok(Some(RepoFile {
            path: self.path,
            bytes,
            checksum,
        }))
    }
}
