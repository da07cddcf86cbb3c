//! Brings one file's bytes into the cache: resumed, checked, repeated.
//!
//! ```text
//! look ── there? ──▶ link
//!   └▶ lock ─▶ look again ─▶ open `.incomplete`, hash what it holds ─▶ ask for the rest
//!        206 from where we are: append      200: begin again      416, other range: begin again
//!        cut: keep, wait, ask for the rest  too long: delete      all there: compare checksum
//!        right: rename to the blob          wrong: delete; if it was resumed, once more from the start
//! ```

use std::sync::Arc;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::cache::RepoCache;
use super::config::Retry;
use super::error::Error;
use super::files::RepoFile;
use super::lock;
use super::progress::{Bytes, Meter, Progress};
use super::remote::Remote;
use super::sink::Sink;

/// A fetch that advances by this much has a working connection: failures are counted anew.
const REAL_ADVANCE: u64 = 1 << 20;

/// All that a file of one commit needs to arrive.
pub(super) struct Fetcher<'a> {
    pub(super) remote: &'a Remote,
    pub(super) repo: &'a RepoCache,
    pub(super) commit: &'a str,
    pub(super) retry: Retry,
}

impl Fetcher<'_> {
    /// Makes sure that `snapshots/<commit>/<file>` is there, complete and checked.
    ///
    /// # Errors
    /// Those of the connection, the status, the disk, and [`Error::WrongChecksum`],
    /// [`Error::WrongLength`], [`Error::CutConnection`].
    pub(super) async fn bring(&self, file: &RepoFile, meter: &Meter<'_>) -> Result<(), Error> {
        let name: Arc<str> = file.path.as_str().into();
        let hex = file.checksum.hex();
        if !self.repo.holds_file(self.commit, &file.path, file.bytes) {
            if !self.repo.holds_blob(hex, file.bytes) {
                let poll = self.retry.lock_poll;
                let waiting = || meter.waiting(&name);
                let lock = Arc::new(lock::acquire(self.repo.lock(hex), poll, waiting).await?);
                // Whoever held the lock has probably brought it.
                if !self.repo.holds_blob(hex, file.bytes) {
                    self.download(file, &name, meter, lock).await?;
                }
            }
            let (repo, commit) = (self.repo.clone(), self.commit.to_owned());
            let (path, blob) = (file.path.clone(), hex.to_owned());
            // A copy, where links are impossible, takes its time.
            tokio::task::spawn_blocking(move || repo.place(&commit, &path, &blob))
                .await
                .map_err(|_stopped| Error::Interrupted {
                    path: file.path.clone().into(),
                })??;
        }
        meter.finished(&name, file.bytes);
        Ok(())
    }

    /// Downloads under the lock and renames the result to its blob.
    async fn download(
        &self,
        file: &RepoFile,
        name: &Arc<str>,
        meter: &Meter<'_>,
        lock: Arc<lock::BlobLock>,
    ) -> Result<(), Error> {
        let hex = file.checksum.hex();
        let (incomplete, blob) = (self.repo.incomplete(hex), self.repo.blob(hex));
        if let Some(folder) = blob.parent() {
            fs_err::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        loop {
            let sink = Sink::open(
                incomplete.clone(),
                file.bytes,
                file.checksum.clone(),
                lock.clone(),
            )
            .await?;
            let mut state = State {
                resumed: sink.len() > 0,
                failures: 0,
                mark: sink.len(),
            };
            meter.started(
                name,
                Bytes {
                    done: sink.len(),
                    total: file.bytes,
                },
            );
            let sink = self.fill(sink, file, name, meter, &mut state).await?;
            let found = sink.finish().await?;
            if found == hex {
                return fs_err::rename(&incomplete, &blob).map_err(|e| Error::io(&blob, e));
            }
            fs_err::remove_file(&incomplete).map_err(|e| Error::io(&incomplete, e))?;
            // The part from an earlier run may have been another file's; what we fetched whole was not.
            if !state.resumed {
                return Err(Error::WrongChecksum {
                    file: file.path.clone(),
                    algorithm: file.checksum.algorithm(),
                    expected: hex.to_owned(),
                    found,
                });
            }
        }
    }

    /// Asks for what is missing until it is all there.
    async fn fill(
        &self,
        mut sink: Sink,
        file: &RepoFile,
        name: &Arc<str>,
        meter: &Meter<'_>,
        state: &mut State,
    ) -> Result<Sink, Error> {
        while sink.len() < file.bytes {
            let (back, outcome) = self.receive(sink, file, name, meter, state).await?;
            sink = back.flush().await?;
            let error = match outcome {
                Ok(()) => continue,
                Err(error) if error.is_transient() => error,
                Err(error) => {
                    if matches!(error, Error::WrongLength { .. }) {
                        drop(sink.restart().await?);
                    }
                    return Err(error);
                }
            };
            if sink.len() >= state.mark.saturating_add(REAL_ADVANCE) {
                state.failures = 0;
            }
            state.mark = sink.len();
            state.failures += 1;
            let attempts = self.retry.attempts;
            if state.failures >= attempts {
                return Err(with_attempts(error, attempts));
            }
            (meter.events())(Progress::Retrying {
                ask: format!("`{}` of `{}`", file.path, self.repo.name),
                attempt: state.failures + 1,
                attempts,
                reason: error.to_string(),
            });
            tokio::time::sleep(self.retry.delay(state.failures, error.retry_after())).await;
        }
        Ok(sink)
    }

    /// One request. The outer error is the disk's and final; the inner one is the network's.
    async fn receive(
        &self,
        mut sink: Sink,
        file: &RepoFile,
        name: &Arc<str>,
        meter: &Meter<'_>,
        state: &mut State,
    ) -> Result<(Sink, Result<(), Error>), Error> {
        let start = sink.len();
        let mut response = match self.request(file, start).await {
            Ok(response) => response,
            Err(error) => return Ok((sink, Err(error))),
        };
        let host = response.url().host_str().unwrap_or("?").to_owned();
        let range = || Error::Range {
            host: host.clone(),
            file: file.path.clone(),
        };
        let first = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let header = response
                    .headers()
                    .get(CONTENT_RANGE)
                    .and_then(|v| v.to_str().ok());
                if !header.is_some_and(|text| continues(text, start, file.bytes)) {
                    state.begin_again();
                    return Ok((sink.restart().await?, Err(range())));
                }
                start
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                state.begin_again();
                return Ok((sink.restart().await?, Err(range())));
            }
            // The whole file, whatever was asked for.
            _ => {
                if start > 0 {
                    state.begin_again();
                    sink = sink.restart().await?;
                    meter.advanced(
                        name,
                        Bytes {
                            done: 0,
                            total: file.bytes,
                        },
                    );
                }
                0
            }
        };
        let wrong_length = |found| Error::WrongLength {
            file: file.path.clone(),
            expected: file.bytes,
            found,
        };
        if let Some(length) = response.content_length()
            && first.saturating_add(length) != file.bytes
        {
            return Ok((sink, Err(wrong_length(first.saturating_add(length)))));
        }
        loop {
            let cut = |received, source| Error::CutConnection {
                file: file.path.clone(),
                received,
                total: file.bytes,
                attempts: 1,
                source,
            };
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let after = sink.len() + chunk.len() as u64;
                    if after > file.bytes {
                        return Ok((sink, Err(wrong_length(after))));
                    }
                    let written;
                    (sink, written) = sink.push(&chunk).await?;
                    if written || after == file.bytes {
                        meter.advanced(
                            name,
                            Bytes {
                                done: after,
                                total: file.bytes,
                            },
                        );
                    }
                }
                Ok(None) if sink.len() == file.bytes => return Ok((sink, Ok(()))),
                Ok(None) => {
                    let received = sink.len();
                    return Ok((sink, Err(cut(received, None))));
                }
                Err(error) => {
                    let received = sink.len();
                    return Ok((sink, Err(cut(received, Some(error.without_url())))));
                }
            }
        }
    }

    async fn request(&self, file: &RepoFile, start: u64) -> Result<Response, Error> {
        self.remote
            .file(&self.repo.name, self.commit, &file.path, start)
            .await
    }
}

/// What one download remembers between requests.
struct State {
    /// Whether bytes of an earlier run are in the file.
    resumed: bool,
    failures: u32,
    /// Bytes at the last failure.
    mark: u64,
}

impl State {
    fn begin_again(&mut self) {
        self.resumed = false;
        self.mark = 0;
    }
}

/// Whether `Content-Range: bytes <start>-<last>/<size>` goes on where we are, in the file we know.
fn continues(text: &str, start: u64, size: u64) -> bool {
    let Some((range, total)) = text
        .trim()
        .strip_prefix("bytes ")
        .and_then(|t| t.split_once('/'))
    else {
        return false;
    };
    let first = range
        .split_once('-')
        .and_then(|(first, _)| first.trim().parse().ok());
    let total = total.trim();
    first == Some(start) && (total == "*" || total.parse() == Ok(size))
}

/// Writes the number of attempts into the last failure.
fn with_attempts(mut error: Error, made: u32) -> Error {
    if let Error::CutConnection { attempts, .. } = &mut error {
        *attempts = made;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_on_only_where_we_are() {
        assert!(continues("bytes 5-9/10", 5, 10));
        assert!(continues("bytes 5-9/*", 5, 10));
        for other in [
            "bytes 4-9/10",
            "bytes 5-9/11",
            "bytes */10",
            "5-9/10",
            "",
            "bytes 5/10",
        ] {
            assert!(!continues(other, 5, 10), "`{other}`");
        }
    }
}
