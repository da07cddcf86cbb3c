//! Who may ask, and what browsers are told.
//!
//! A server on the loopback can be reached by every web page that its owner's browser opens. Three things
//! keep those out. The `Host` header must be an address, `localhost` or a name the server was given: a page
//! whose name was re-bound to this machine still sends its own name. An `Origin`, where there is one, must be
//! the server's own. And what a browser says of itself in `Sec-Fetch-Site` is believed where it says that
//! another site asks. There are no cookies, so nothing is sent along that a page does not hold itself; and
//! bodies must be JSON or files, which a page of another site cannot send without asking first.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{App, Error, Result};

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What is served to whoever may call the server at all: the app's own files, which hold no documents.
const OPEN: &[&str] = &["/api/health", "/api/openapi.json"];
/// Beginnings of paths behind the key.
const CLOSED: &[&str] = &["/api/", "/v1/", "/mcp", "/metrics"];

/// Nothing from elsewhere, nothing inline, no frames, and strings never become markup by accident.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
    connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

const HEADERS: [(&str, &str); 8] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), microphone=(), geolocation=(), browsing-topics=()",
    ),
    ("x-robots-tag", "noindex"),
];

/// Stands before everything.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    app.metrics.answered(response.status().as_u16());
    for (name, value) in HEADERS {
        response.headers_mut().insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn check(app: &App, request: &Request) -> Result<()> {
    let access = &app.config().access;
    let headers = request.headers();
    let host = single(headers, &header::HOST)?.ok_or_else(|| Error::bad("there is no `Host`"))?;
    if !is_own(host, &access.host_names) {
        return Err(Error::Forbidden {
            why: format!(
                "this server is not called `{host}`; start it with `--allow-host NAME` if it is"
            ),
        });
    }
    if let Some(origin) = single(headers, &header::ORIGIN)? {
        let rest = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        if !rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host)) {
            return Err(Error::Forbidden {
                why: format!("the page `{origin}` is not this server's own"),
            });
        }
    }
    let path = request.uri().path();
    let closed = CLOSED.iter().any(|start| path.starts_with(start));
    let site = single(headers, &HeaderName::from_static("sec-fetch-site"))?;
    if matches!(site, Some("cross-site" | "same-site")) {
        let mode = single(headers, &HeaderName::from_static("sec-fetch-mode"))?;
        let follows_link = request.method() == Method::GET && mode == Some("navigate");
        if closed || !follows_link {
            return Err(Error::Forbidden {
                why: "another site asks".to_owned(),
            });
        }
    }
    if closed && !OPEN.contains(&path) {
        authorise(app, headers)?;
    }
    Ok(())
}

/// Whether the request shows the key, where there is one.
pub(crate) fn authorise(app: &App, headers: &HeaderMap) -> Result<()> {
    let Some(key) = &app.config().access.api_key else {
        return Ok(());
    };
    let given = single(headers, &header::AUTHORIZATION)?.and_then(|value| {
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    });
    match given {
        None => Err(Error::Unauthorized {
            found: "none was given",
        }),
        Some(given) if key.is(given) => Ok(()),
        Some(_) => Err(Error::Unauthorized {
            found: "the one that was given is not it",
        }),
    }
}

/// A header that may come once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Error::bad(format!("`{name}` is there twice")));
    }
    first
        .map(|value| {
            value
                .to_str()
                .map_err(|_| Error::bad(format!("`{name}` is not text")))
        })
        .transpose()
}

/// Whether a `Host` is an address, `localhost`, or a name of ours.
fn is_own(host: &str, names: &[String]) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (address, port),
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, _)) => (name, &host[name.len()..]),
            None => (host, ""),
        },
    };
    let port_is_one = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok());
    let known = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || names.iter().any(|own| own.eq_ignore_ascii_case(name));
    port_is_one && known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_refused() {
        let names = ["papers.lan".to_owned()];
        for own in [
            "127.0.0.1:8017",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8017",
            "192.168.1.5:80",
            "papers.lan:8017",
        ] {
            assert!(is_own(own, &names), "{own}");
        }
        for other in [
            "evil.example",
            "127.0.0.1.evil.example:8017",
            "localhost.evil.example",
            "localhost:x",
            "[::1",
            "[::1]x",
            "",
            ":80",
            "papers.lan.",
            "127.0.0.1:80:80",
            "user@127.0.0.1",
        ] {
            assert!(!is_own(other, &names), "{other}");
        }
    }
}
