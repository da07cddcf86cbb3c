//! Where a service is asked, and when it wants to be asked again.

use std::time::{Duration, SystemTime};

use reqwest::{
    Url,
    header::{DATE, HeaderMap, RETRY_AFTER},
};

use super::Error;

/// Where chat completions lie below the base address.
pub(super) fn address(base: &str) -> Result<Url, Error> {
    let fault = |reason: &str| Error::BaseUrl {
        reason: reason.to_owned(),
    };
    let mut url = Url::parse(base.trim()).map_err(|error| fault(&error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(fault(
            "it does not begin with `https://` or `http://` and a host",
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fault(
            "it holds a user name or password; the key belongs in OPENAI_API_KEY",
        ));
    }
    url.set_fragment(None);
    let is_whole = url
        .path()
        .trim_end_matches('/')
        .ends_with("/chat/completions");
    if !is_whole {
        url.path_segments_mut()
            .expect("an http address has a path; anything else is a bug")
            .pop_if_empty()
            .extend(["chat", "completions"]);
    }
    Ok(url)
}

/// When a service wants to be asked again: `retry-after-ms`, or `Retry-After` in seconds or as a date, which
/// is taken by the service's own clock where it tells it.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(milliseconds));
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let now = text(DATE.as_str())
        .and_then(date)
        .unwrap_or_else(SystemTime::now);
    Some(date(value)?.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn the_address_is_found_below_the_base() {
        for (base, expected) in [
            (
                "https://api.openai.com/v1",
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                "http://localhost:8080/v1/",
                "http://localhost:8080/v1/chat/completions",
            ),
            (
                "http://h/v1/chat/completions",
                "http://h/v1/chat/completions",
            ),
            (
                "https://h/x?api-version=1",
                "https://h/x/chat/completions?api-version=1",
            ),
        ] {
            assert_eq!(address(base).unwrap().as_str(), expected);
        }
        for base in [
            "",
            "localhost:8080",
            "ftp://h/v1",
            "file:///etc",
            "http://u:secret@h/v1",
        ] {
            let error = address(base).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_time_to_come_back_is_read_in_every_form() {
        let wait = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            retry_after(&headers).map(|span| span.as_millis())
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "7")]), Some(7000));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(500));
        assert_eq!(
            wait(&[("retry-after", "9"), ("retry-after-ms", "20")]),
            Some(20)
        );
        let date = ("date", "Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(
            wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), date]),
            Some(7000)
        );
        assert_eq!(
            wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT"), date]),
            Some(0)
        );
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "-1")]), None);
    }
}
