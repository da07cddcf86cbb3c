//! One fetch: addresses, redirects, bytes.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

use futures_util::StreamExt as _;
use reqwest::{
    Client, Response, Url,
    header::{
        ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
    },
    redirect::Policy,
};

use colibri_document::{SNIFF_BYTES, sniff};

use super::{
    Error, FetchConfig, Fetched, Progress,
    address::is_public,
    cache::{self, Known, Whole},
    name::file_name,
    partial::Partial,
};

const MOST_REDIRECTS: usize = 5;
/// Characters of a URL in a message.
const SHOWN: usize = 200;

/// A URL as it is shown: without what may be a secret in its query, and not too long.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.as_str().chars().take(SHOWN).collect()
}

/// Understands a URL and refuses what is not fetched at all.
pub(super) fn parse(text: &str) -> Result<Url, Error> {
    let refuse = |reason: &str| Error::Url {
        url: text.chars().take(SHOWN).collect(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(text.trim()).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("only `http` and `https` are"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it holds a user name or a password"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("it has no host"));
    }
    Ok(url)
}

/// The addresses of a URL's host, all of them public unless others are allowed.
async fn addresses(config: &FetchConfig, url: &Url) -> Result<Vec<SocketAddr>, Error> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|source| Error::Resolve {
                host: host.clone(),
                source,
            })?
            .collect(),
    };
    // One address that is not public spoils them all: which of them is used is not ours to say.
    let private = found
        .iter()
        .find(|found| !is_public(found.ip()) && !config.trusted.contains(found));
    match private {
        Some(private) if !config.allow_private => Err(Error::Private {
            url: shown(url),
            host,
            address: private.ip(),
        }),
        _ => Ok(found),
    }
}

fn client(config: &FetchConfig, url: &Url, addresses: &[SocketAddr]) -> Result<Client, Error> {
    // The provider is the process's. An error says that one is there already, which serves as well.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let host = url.host_str().unwrap_or_default();
    let builder = || {
        Client::builder()
            .user_agent(concat!("colibri/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .resolve_to_addrs(host, addresses)
            .connect_timeout(config.idle_time)
            .read_timeout(config.idle_time)
            .pool_max_idle_per_host(0)
    };
    builder()
        .build()
        .or_else(|error| {
            // A machine without CA certificates can still ask over plain http.
            if url.scheme() == "http" {
                builder().tls_certs_only([]).build()
            } else {
                Err(error)
            }
        })
        .map_err(|source| connection(url, source))
}

fn connection(url: &Url, source: reqwest::Error) -> Error {
    Error::Connection {
        url: shown(url),
        source: source.without_url(),
    }
}

/// Fetches `url`, or finds that what is `known` of it still holds.
pub(super) async fn get(
    config: &FetchConfig,
    url: &Url,
    known: Option<&Known>,
    on_progress: &(dyn Fn(Progress) + Sync),
) -> Result<Fetched, Error> {
    let mut at = url.clone();
    for _ in 0..=MOST_REDIRECTS {
        let found = addresses(config, &at).await?;
        let mut request = client(config, &at, &found)?.get(at.clone());
        if let Some(known) = known {
            for (name, value) in [
                (IF_NONE_MATCH, &known.etag),
                (IF_MODIFIED_SINCE, &known.last_modified),
            ] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
        }
        let response = request
            .send()
            .await
            .map_err(|source| connection(&at, source))?;
        let status = response.status().as_u16();
        match (status, known) {
            (200, _) => return receive(config, url, &at, response, on_progress).await,
            (304, Some(known)) => return cache::unchanged(config, url, known),
            (301 | 302 | 303 | 307 | 308, _) => at = target(&at, &response)?,
            _ => {
                return Err(Error::Status {
                    url: shown(&at),
                    status,
                });
            }
        }
    }
    Err(Error::Redirects {
        url: shown(url),
        how: format!("more than {MOST_REDIRECTS} times"),
    })
}

/// Where a redirect leads; never from `https` to `http`.
fn target(from: &Url, response: &Response) -> Result<Url, Error> {
    let refuse = |how: &str| Error::Redirects {
        url: shown(from),
        how: how.to_owned(),
    };
    let location = response.headers().get(LOCATION);
    let text = location
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| refuse("to nowhere"))?;
    let joined = from.join(text).map_err(|_| refuse("to nowhere"))?;
    if from.scheme() == "https" && joined.scheme() != "https" {
        return Err(refuse("from `https` to another scheme"));
    }
    parse(joined.as_str())
}

/// Reads the body into a file; `named` is what was asked for, `url` where it was found.
async fn receive(
    config: &FetchConfig,
    named: &Url,
    url: &Url,
    response: Response,
    on_progress: &(dyn Fn(Progress) + Sync),
) -> Result<Fetched, Error> {
    let too_large = || Error::TooLarge {
        url: shown(url),
        limit: config.max_bytes,
    };
    let total_bytes = response.content_length();
    if total_bytes.is_some_and(|total| total > config.max_bytes) {
        return Err(too_large());
    }
    let (etag, last_modified) = (
        text(response.headers(), &ETAG),
        text(response.headers(), &LAST_MODIFIED),
    );
    let keep = |source| Error::Keep {
        path: config.folder.clone(),
        source,
    };
    fs_err::create_dir_all(&config.folder).map_err(keep)?;
    let partial = Partial::new(&config.folder).map_err(keep)?;
    let mut file = fs_err::File::create(partial.path()).map_err(keep)?;
    let mut hasher = blake3::Hasher::new();
    let (mut head, mut done_bytes) = (Vec::new(), 0_u64);
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|source| connection(url, source))?;
        done_bytes += piece.len() as u64;
        if done_bytes > config.max_bytes {
            return Err(too_large());
        }
        if head.len() < SNIFF_BYTES {
            let wanted = (SNIFF_BYTES - head.len()).min(piece.len());
            head.extend_from_slice(&piece[..wanted]);
            if head.len() == SNIFF_BYTES {
                kind(url, &head)?;
            }
        }
        hasher.update(&piece);
        file.write_all(&piece).map_err(keep)?;
        on_progress(Progress {
            done_bytes,
            total_bytes,
        });
    }
    let extension = kind(url, &head)?;
    file.sync_all().map_err(keep)?;
    drop(file);
    let whole = Whole {
        hash: &hasher.finalize().to_hex(),
        name: &file_name(url, extension),
        bytes: done_bytes,
        etag,
        last_modified,
    };
    cache::keep(config, named, partial, whole)
}

/// The ending of a document's name by its first bytes.
fn kind(url: &Url, head: &[u8]) -> Result<&'static str, Error> {
    use colibri_document::Kind;
    let found = match sniff(head) {
        Some(Kind::Pdf) => return Ok("pdf"),
        Some(Kind::Png) => return Ok("png"),
        Some(Kind::Jpeg) => return Ok("jpg"),
        Some(Kind::WebP) => return Ok("webp"),
        Some(Kind::Tiff) => return Ok("tiff"),
        Some(Kind::Gif) => return Ok("gif"),
        Some(Kind::Bmp) => return Ok("bmp"),
        // Read by a program of the system: what a stranger's server sends does not get that far.
        Some(Kind::Video) => {
            return Err(Error::NotADocument {
                url: shown(url),
                found: "it is a video, and videos are read from files only",
            });
        }
        None => head,
    };
    let start = String::from_utf8_lossy(found).trim_start().to_lowercase();
    let is_page = start.starts_with("<!doctype html") || start.starts_with("<html");
    Err(Error::NotADocument {
        url: shown(url),
        found: if is_page {
            "it is a web page"
        } else if found.is_empty() {
            "it is empty"
        } else {
            "it is none of PDF, PNG, JPEG, WebP, TIFF, GIF, BMP"
        },
    })
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= 512).then(|| value.to_owned())
}
