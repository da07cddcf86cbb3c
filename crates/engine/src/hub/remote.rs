//! The hub's side: three calls and their redirects.
//!
//! `GET /api/models/{name}/revision/{revision}` gives the commit, `GET /api/models/{name}/tree/{commit}`
//! the files with sizes and checksums (in pages, `Link: rel="next"`), `GET /{name}/resolve/{commit}/{file}`
//! the bytes, mostly by a redirect to a content network. Redirects are followed here and not by the
//! client, so that the rules are in one place: the token goes to the hub's own origin and nowhere else,
//! `https` never becomes `http`, and there are at most ten.

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LINK, LOCATION, RANGE,
};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ask::{Ask, Entry};
use super::config::{HubConfig, Retry};
use super::error::{Error, shortened};
use super::files::RepoFile;
use super::name::is_commit;
use super::progress::Progress;

const MOST_REDIRECTS: usize = 10;
/// One JSON answer. A page of 1000 entries has about 400 kB; the model card in the revision's answer
/// is a few hundred kB at worst.
const LARGEST_ANSWER: u64 = 32 << 20;
/// Pages of a file list (1000 entries each, or 100 by some mirrors).
const MOST_PAGES: usize = 200;

/// A connection to one hub.
#[derive(Debug)]
pub(super) struct Remote {
    client: Client,
    endpoint: Url,
    authorization: Option<HeaderValue>,
    retry: Retry,
}

impl Remote {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Endpoint`], [`Error::Token`], [`Error::Client`], [`Error::Io`] (token file).
    pub(super) fn new(config: &HubConfig) -> Result<Self, Error> {
        let fault = |reason: String| Error::Endpoint {
            endpoint: shortened(&config.endpoint),
            reason,
        };
        let endpoint = Url::parse(&config.endpoint).map_err(|e| fault(e.to_string()))?;
        if !matches!(endpoint.scheme(), "https" | "http") || endpoint.host_str().is_none() {
            return Err(fault(
                "it does not begin with `https://` or `http://`".to_owned(),
            ));
        }
        let authorization = match config.find_token()? {
            None => None,
            Some((token, origin)) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| Error::Token { origin })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = client(config, endpoint.scheme() == "http")?;
        Ok(Self {
            client,
            endpoint,
            authorization,
            retry: config.retry,
        })
    }

    /// The commit that a revision stands at.
    ///
    /// # Errors
    /// Those of the connection and of the status, and [`Error::AnswerField`].
    pub(super) async fn commit(
        &self,
        name: &str,
        revision: &str,
        attempts: u32,
        events: &(dyn Fn(Progress) + Sync),
    ) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
        }
        let ask = Ask::Commit { name, revision };
        let url = self.url(["api", "models"], name, &["revision", revision]);
        let (answer, _): (Answer, _) = self.json(url, ask, attempts, events).await?;
        if is_commit(&answer.sha) {
            return Ok(answer.sha);
        }
        let (expected, found) = ("a commit of 40 hexadecimal digits", shortened(&answer.sha));
        Err(Error::AnswerField {
            ask: ask.to_string(),
            expected,
            found,
        })
    }

    /// All files of a commit.
    ///
    /// # Errors
    /// Those of the connection and of the status, [`Error::AnswerField`], [`Error::UnsafeFileName`],
    /// [`Error::TooLarge`] when the list has no end.
    pub(super) async fn files(
        &self,
        name: &str,
        commit: &str,
        events: &(dyn Fn(Progress) + Sync),
    ) -> Result<Vec<RepoFile>, Error> {
        let ask = Ask::Files { name, commit };
        let mut url = self.url(["api", "models"], name, &["tree", commit]);
        url.set_query(Some("recursive=true"));
        let mut files = Vec::new();
        for _page in 0..MOST_PAGES {
            let (entries, next): (Vec<Entry>, _) = self
                .json(url.clone(), ask, self.retry.attempts, events)
                .await?;
            for entry in entries {
                files.extend(entry.into_file(ask)?);
            }
            let Some(next) = next else { return Ok(files) };
            // Only the question is taken from the link, never the address: a mirror may name the hub it
            // mirrors, and the token has no business there.
            url.set_query(next.query());
        }
        Err(Error::TooLarge {
            ask: ask.to_string(),
            limit: LARGEST_ANSWER * MOST_PAGES as u64,
        })
    }

    /// The bytes of a file from `start` on. The answer is a success or `416 Range Not Satisfiable`.
    ///
    /// # Errors
    /// Those of the connection and of the status.
    pub(super) async fn file(
        &self,
        name: &str,
        commit: &str,
        file: &str,
        start: u64,
    ) -> Result<Response, Error> {
        let tail: Vec<&str> = ["resolve", commit]
            .into_iter()
            .chain(file.split('/'))
            .collect();
        self.get(
            self.url([], name, &tail),
            Ask::File { name, commit, file },
            start,
        )
        .await
    }

    /// `endpoint/head…/owner/name/tail…`, each part escaped.
    fn url<const N: usize>(&self, head: [&str; N], name: &str, tail: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .expect("an http address has a path; anything else is a bug")
            .pop_if_empty()
            .extend(head)
            .extend(name.split('/'))
            .extend(tail);
        url
    }

    /// A JSON answer and the address of its next page, repeated after transient failures.
    async fn json<T: DeserializeOwned>(
        &self,
        url: Url,
        ask: Ask<'_>,
        attempts: u32,
        events: &(dyn Fn(Progress) + Sync),
    ) -> Result<(T, Option<Url>), Error> {
        let mut failures = 0;
        loop {
            let error = match self.json_once(url.clone(), ask).await {
                Err(error) if error.is_transient() => error,
                result => return result,
            };
            failures += 1;
            if failures >= attempts {
                return Err(error);
            }
            events(Progress::Retrying {
                ask: ask.to_string(),
                attempt: failures + 1,
                attempts,
                reason: error.to_string(),
            });
            tokio::time::sleep(self.retry.delay(failures, error.retry_after())).await;
        }
    }

    async fn json_once<T: DeserializeOwned>(
        &self,
        url: Url,
        ask: Ask<'_>,
    ) -> Result<(T, Option<Url>), Error> {
        let mut response = self.get(url, ask, 0).await?;
        let host = host(response.url());
        let next = next_page(response.headers(), response.url());
        let mut body = Vec::new();
        loop {
            let chunk = response
                .chunk()
                .await
                .map_err(|source| Error::Unreachable {
                    host: host.clone(),
                    ask: ask.to_string(),
                    source: source.without_url(),
                })?;
            let Some(chunk) = chunk else { break };
            if (body.len() + chunk.len()) as u64 > LARGEST_ANSWER {
                return Err(Error::TooLarge {
                    ask: ask.to_string(),
                    limit: LARGEST_ANSWER,
                });
            }
            body.extend_from_slice(&chunk);
        }
        let answer = serde_json::from_slice(&body).map_err(|source| Error::Answer {
            host,
            ask: ask.to_string(),
            source,
        })?;
        Ok((answer, next))
    }

    /// One request with its redirects.
    async fn get(&self, mut url: Url, ask: Ask<'_>, start: u64) -> Result<Response, Error> {
        let mut authorization = self.authorization.as_ref();
        for _hop in 0..=MOST_REDIRECTS {
            // Sizes and checksums are those of the plain bytes.
            let mut request = self
                .client
                .get(url.clone())
                .header(ACCEPT_ENCODING, "identity");
            if let Some(value) = authorization {
                request = request.header(AUTHORIZATION, value);
            }
            if start > 0 {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            let response = request.send().await.map_err(|source| Error::Unreachable {
                host: host(&url),
                ask: ask.to_string(),
                source: source.without_url(),
            })?;
            let Some(next) = redirect(&response, ask)? else {
                let is_fine = response.status().is_success()
                    || (start > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE);
                let had_token = self.authorization.is_some();
                return if is_fine {
                    Ok(response)
                } else {
                    Err(ask.refused(&response, &self.endpoint, had_token))
                };
            };
            if next.origin() != url.origin() {
                // For good: a redirect back to the hub does not bring the token back.
                authorization = None;
            }
            url = next;
        }
        Err(Error::Redirect {
            host: host(&url),
            ask: ask.to_string(),
            reason: "there are too many",
        })
    }
}

/// The client: ring as the TLS provider, no redirects of its own, no compression.
fn client(config: &HubConfig, plain: bool) -> Result<Client, Error> {
    // The provider is the process's. An error says that one is there already, which serves as well.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let builder = Client::builder()
            .user_agent(&config.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timeouts.connect)
            .read_timeout(config.timeouts.idle);
        if config.system_proxy {
            builder
        } else {
            builder.no_proxy()
        }
    };
    builder()
        .build()
        .or_else(|error| {
            // A machine without CA certificates can still ask a plain-http mirror.
            if plain {
                builder().tls_certs_only([]).build()
            } else {
                Err(error)
            }
        })
        .map_err(|source| Error::Client {
            source: source.without_url(),
        })
}

/// Where a response sends us, if it does.
fn redirect(response: &Response, ask: Ask<'_>) -> Result<Option<Url>, Error> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let here = response.url();
    let refuse = |reason| {
        Err(Error::Redirect {
            host: host(here),
            ask: ask.to_string(),
            reason,
        })
    };
    let target = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok());
    let Some(next) = target.and_then(|target| here.join(target).ok()) else {
        return refuse("it names no address");
    };
    match (here.scheme(), next.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(Some(next)),
        ("https", "http") => refuse("it leads from https to http"),
        _ => refuse("it does not lead to a web address"),
    }
}

/// Host and port, for messages.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The address in `Link: <…>; rel="next"` (RFC 8288).
fn next_page(headers: &HeaderMap, base: &Url) -> Option<Url> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(|mut text| {
            while let Some((_, rest)) = text.split_once('<') {
                let (target, after) = rest.split_once('>')?;
                let parameters = after.split('<').next().unwrap_or(after);
                let is_next = parameters.split([';', ',']).any(|parameter| {
                    parameter
                        .trim()
                        .strip_prefix("rel=")
                        .is_some_and(|rel| rel.trim_matches('"') == "next")
                });
                if is_next {
                    return base.join(target).ok();
                }
                text = after;
            }
            None
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_address_are_escaped() {
        let mut config = HubConfig::new("/c");
        for (endpoint, expected) in [
            (
                "https://huggingface.co",
                "https://huggingface.co/api/models/a/b/revision/refs%2Fpr%2F1",
            ),
            (
                "http://h:1/hub/",
                "http://h:1/hub/api/models/a/b/revision/refs%2Fpr%2F1",
            ),
        ] {
            config.endpoint = endpoint.to_owned();
            let remote = Remote::new(&config).unwrap();
            let url = remote.url(["api", "models"], "a/b", &["revision", "refs/pr/1"]);
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn a_bad_endpoint_or_token_is_told_before_anything_is_sent() {
        for endpoint in ["", "huggingface.co", "ftp://h", "file:///etc"] {
            let mut config = HubConfig::new("/c");
            config.endpoint = endpoint.to_owned();
            assert!(
                matches!(Remote::new(&config), Err(Error::Endpoint { .. })),
                "`{endpoint}`"
            );
        }
        let mut config = HubConfig::new("/c");
        config.token = Some("a\u{1}b".to_owned());
        assert!(matches!(Remote::new(&config), Err(Error::Token { .. })));
    }

    #[test]
    fn the_next_page_is_found_among_other_links() {
        let base = Url::parse("http://h/api/x?recursive=true").unwrap();
        let next = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_static(text));
            next_page(&headers, &base).map(|url| url.to_string())
        };
        let expected = Some("http://h/api/x?cursor=a,b".to_owned());
        assert_eq!(next("<http://h/api/x?cursor=a,b>; rel=\"next\""), expected);
        assert_eq!(next("</api/x?cursor=a,b>; rel=next"), expected);
        assert_eq!(
            next("<http://h/0>; rel=\"prev\", <?cursor=a,b>; title=x; rel=\"next\""),
            expected
        );
        assert_eq!(next("<http://h/0>; rel=\"prev\""), None);
        assert_eq!(next("nonsense; rel=\"next\""), None);
        assert_eq!(next("<http://h/0"), None);
    }
}
