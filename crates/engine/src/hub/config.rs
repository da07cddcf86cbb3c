//! Where the cache lies, which hub is asked and as whom: one value that comes in from above.
//!
//! [`HubConfig::from_env_values`] resolves the environment as `huggingface_hub` does
//! (`src/huggingface_hub/constants.py`), through a function that the caller gives: this library
//! reads no environment itself. One difference: a variable that is set but empty counts as not set.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Error;

/// The public hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Settings of the hub client.
#[derive(Clone)]
pub struct HubConfig {
    /// The cache folder, in the layout of `huggingface_hub` (`…/huggingface/hub`).
    pub cache_dir: PathBuf,
    /// The hub's address, with or without a path; `https` or `http`.
    pub endpoint: String,
    /// The access token; it goes before the token file.
    pub token: Option<String>,
    /// A file that holds the token; read when the network is first used, and may be absent.
    pub token_path: Option<PathBuf>,
    /// Never use the network.
    pub offline: bool,
    /// What we call ourselves to the hub.
    pub user_agent: String,
    /// How often and how patiently a failed request is repeated.
    pub retry: Retry,
    /// When a silent server is given up.
    pub timeouts: Timeouts,
    /// Whether the system's proxy settings (`HTTPS_PROXY`, …) are followed.
    pub system_proxy: bool,
}

/// How often and how patiently a failed request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all; a file that advances by a mebibyte starts counting anew.
    pub attempts: u32,
    /// Wait after the first failure; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest wait.
    pub longest_delay: Duration,
    /// How often a file that another process is writing is looked at.
    pub lock_poll: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(20),
            lock_poll: Duration::from_millis(250),
        }
    }
}

impl Retry {
    /// The wait after the `failures`-th failure in a row (from 1).
    pub(super) fn delay(&self, failures: u32, asked_for: Option<Duration>) -> Duration {
        let doubled = self
            .first_delay
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled
            .min(self.longest_delay)
            .max(asked_for.unwrap_or_default())
    }
}

/// When a silent server is given up. A slow server that keeps sending is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, with TLS.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
        }
    }
}

impl HubConfig {
    /// The public hub, no token, over the cache in `cache_dir`.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            token: None,
            token_path: None,
            offline: false,
            user_agent: concat!("colibri/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: Retry::default(),
            timeouts: Timeouts::default(),
            system_proxy: true,
        }
    }

    /// Resolves the variables of `huggingface_hub`; `get` reads one, `home` is the user's folder.
    ///
    /// `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `XDG_CACHE_HOME`, `HF_ENDPOINT`,
    /// `HF_TOKEN` (or `HUGGING_FACE_HUB_TOKEN`), `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`,
    /// `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`), `HF_HUB_DOWNLOAD_TIMEOUT` (seconds). No file is
    /// read here.
    pub fn from_env_values(get: impl Fn(&str) -> Option<String>, home: &Path) -> Self {
        let value = |name: &str| get(name).filter(|text| !text.trim().is_empty());
        let path = |name: &str| value(name).map(|text| expand(&text, &get, home));
        let is_true = |name: &str| {
            value(name)
                .is_some_and(|t| ["1", "ON", "YES", "TRUE"].contains(&t.to_uppercase().as_str()))
        };

        let hf_home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME")
                .unwrap_or_else(|| home.join(".cache"))
                .join("huggingface")
        });
        let cache_dir = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| hf_home.join("hub"));

        let mut config = Self::new(cache_dir);
        if let Some(endpoint) = value("HF_ENDPOINT") {
            endpoint
                .trim()
                .trim_end_matches('/')
                .clone_into(&mut config.endpoint);
        }
        if !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            config.token = value("HF_TOKEN").or_else(|| value("HUGGING_FACE_HUB_TOKEN"));
            config.token_path =
                Some(path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token")));
        }
        config.offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE");
        if let Some(seconds) =
            value("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.trim().parse().ok())
            && seconds > 0
        {
            config.timeouts.idle = Duration::from_secs(seconds);
        }
        config
    }

    /// The token and where it came from: the value, or else the token file.
    ///
    /// # Errors
    /// [`Error::Io`] when the token file is there and cannot be read.
    pub(super) fn find_token(&self) -> Result<Option<(String, String)>, Error> {
        if let Some(token) = self.token.as_deref().and_then(clean_token) {
            return Ok(Some((token, "HF_TOKEN".to_owned())));
        }
        let Some(path) = &self.token_path else {
            return Ok(None);
        };
        match fs_err::read_to_string(path) {
            Ok(text) => Ok(clean_token(&text).map(|t| (t, format!("`{}`", path.display())))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, error)),
        }
    }
}

// By hand, so that the token never reaches a log.
impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("token_path", &self.token_path)
            .field("offline", &self.offline)
            .field("user_agent", &self.user_agent)
            .field("retry", &self.retry)
            .field("timeouts", &self.timeouts)
            .field("system_proxy", &self.system_proxy)
            .finish()
    }
}

/// A token without the line ends that copying leaves; `None` when nothing is left.
fn clean_token(text: &str) -> Option<String> {
    let token: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// `~` at the front and `$NAME` or `${NAME}` anywhere, as Python's `expanduser` and `expandvars`;
/// an unknown variable stays as it is written.
fn expand(text: &str, get: &impl Fn(&str) -> Option<String>, home: &Path) -> PathBuf {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        let (name, length) = if let Some(braced) = after.strip_prefix('{') {
            braced
                .find('}')
                .map_or(("", 0), |end| (&braced[..end], end + 2))
        } else {
            let end = after
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(after.len());
            (&after[..end], end)
        };
        if let Some(value) = (!name.is_empty()).then(|| get(name)).flatten() {
            out.push_str(&value);
        } else {
            out.push_str(&rest[dollar..=dollar + length]);
        }
        rest = &after[length..];
    }
    out.push_str(rest);
    match out.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(tail) if tail.starts_with('/') => home.join(tail.trim_start_matches('/')),
        Some(_) | None => PathBuf::from(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(values: &[(&str, &str)]) -> HubConfig {
        let get = |name: &str| {
            values
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        HubConfig::from_env_values(get, Path::new("/home/u"))
    }

    #[test]
    fn the_cache_folder_follows_huggingface_hub() {
        let cases: [(&[(&str, &str)], &str); 9] = [
            (&[], "/home/u/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (
                &[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")],
                "/old",
            ),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")],
                "/new",
            ),
            (&[("HF_HOME", "~/hf")], "/home/u/hf/hub"),
            (&[("HF_HOME", "$DATA/hf"), ("DATA", "/d")], "/d/hf/hub"),
            (
                &[("HF_HUB_CACHE", "${DATA}/$NONE/${"), ("DATA", "/d")],
                "/d/$NONE/${",
            ),
            (&[("HF_HOME", "")], "/home/u/.cache/huggingface/hub"),
        ];
        for (values, expected) in cases {
            assert_eq!(resolve(values).cache_dir, Path::new(expected), "{values:?}");
        }
    }

    #[test]
    fn endpoint_offline_and_timeout() {
        assert_eq!(resolve(&[]).endpoint, "https://huggingface.co");
        assert_eq!(
            resolve(&[("HF_ENDPOINT", "http://h:1/x//")]).endpoint,
            "http://h:1/x"
        );
        for yes in ["1", "on", "Yes", "TRUE"] {
            assert!(resolve(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
        }
        assert!(resolve(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        for no in ["0", "off", "", "2"] {
            assert!(!resolve(&[("HF_HUB_OFFLINE", no)]).offline, "{no}");
        }
        let idle = |text| resolve(&[("HF_HUB_DOWNLOAD_TIMEOUT", text)]).timeouts.idle;
        assert_eq!(idle("7"), Duration::from_secs(7));
        assert_eq!(idle("0"), Timeouts::default().idle);
        assert_eq!(idle("soon"), Timeouts::default().idle);
    }

    #[test]
    fn the_token_comes_from_the_value_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let home = folder.path().to_str().unwrap();
        assert_eq!(resolve(&[("HF_HOME", home)]).find_token().unwrap(), None);
        fs_err::write(&file, "hf_file\r\n").unwrap();
        let from_file = resolve(&[("HF_HOME", home)]).find_token().unwrap().unwrap();
        assert_eq!(from_file.0, "hf_file");
        let path = file.to_str().unwrap();
        let named = resolve(&[("HF_TOKEN_PATH", path)])
            .find_token()
            .unwrap()
            .unwrap();
        assert_eq!(named.0, "hf_file");
        let value = resolve(&[("HF_HOME", home), ("HF_TOKEN", " hf_value\n")]);
        assert_eq!(value.find_token().unwrap().unwrap().0, "hf_value");
        let none = resolve(&[("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]);
        assert_eq!(none.find_token().unwrap(), None);
    }

    #[test]
    fn the_token_is_never_printed() {
        let text = format!("{:?}", resolve(&[("HF_TOKEN", "hf_secret")]));
        assert!(!text.contains("hf_secret"), "{text}");
    }

    #[test]
    fn delays_double_up_to_a_bound() {
        let retry = Retry::default();
        let seconds: Vec<u64> = (1..=7).map(|n| retry.delay(n, None).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 20, 20]);
        assert_eq!(retry.delay(1, Some(Duration::from_secs(9))).as_secs(), 9);
        assert_eq!(retry.delay(u32::MAX, None).as_secs(), 20);
    }
}
