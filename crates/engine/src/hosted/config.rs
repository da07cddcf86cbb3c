//! Which service is asked, as whom, and how patiently.

use std::{fmt, time::Duration};

/// The service that is meant when no address is given.
pub const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// Settings of hosted generators.
#[derive(Clone)]
pub struct HostedConfig {
    /// The address below which `chat/completions` lies; it usually ends in `/v1`.
    pub base_url: String,
    /// The key; local servers mostly need none.
    pub api_key: Option<String>,
    /// How often and how long.
    pub patience: Patience,
    /// What we call ourselves.
    pub user_agent: String,
    /// Whether the system's proxy settings (`HTTPS_PROXY`, …) are followed.
    pub system_proxy: bool,
}

/// How often and how long a service is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts in all.
    pub attempts: u32,
    /// Wait after the first failure; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest wait, also where the service asks for a longer one: then it is given up at once.
    pub longest_delay: Duration,
    /// To connect, with TLS.
    pub connect: Duration,
    /// Without a byte. A small machine may read a prompt of pictures for minutes before its first word.
    pub silence: Duration,
    /// For one answer altogether.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_mins(1),
            connect: Duration::from_secs(10),
            silence: Duration::from_mins(5),
            whole: Duration::from_hours(1),
        }
    }
}

impl Patience {
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

impl Default for HostedConfig {
    fn default() -> Self {
        Self {
            base_url: DEFAULT_BASE_URL.to_owned(),
            api_key: None,
            patience: Patience::default(),
            user_agent: concat!("colibri/", env!("CARGO_PKG_VERSION")).to_owned(),
            system_proxy: true,
        }
    }
}

impl HostedConfig {
    /// Resolves the variables that OpenAI's own client knows, `OPENAI_BASE_URL` and `OPENAI_API_KEY`, and
    /// `OPENAI_TIMEOUT` (seconds without a byte); `get` reads one. Empty counts as not set.
    pub fn from_env_values(get: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| {
            let text = get(name)?;
            let text = text.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let mut config = Self {
            api_key: value("OPENAI_API_KEY"),
            ..Self::default()
        };
        if let Some(url) = value("OPENAI_BASE_URL") {
            config.base_url = url;
        }
        if let Some(seconds) = value("OPENAI_TIMEOUT").and_then(|text| text.parse().ok())
            && seconds > 0
        {
            config.patience.silence = Duration::from_secs(seconds);
        }
        config
    }
}

// By hand, so that the key never reaches a log.
impl fmt::Debug for HostedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostedConfig")
            .field("base_url", &self.base_url)
            .field("api_key", &self.api_key.as_ref().map(|_| "(hidden)"))
            .field("patience", &self.patience)
            .field("user_agent", &self.user_agent)
            .field("system_proxy", &self.system_proxy)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(values: &[(&str, &str)]) -> HostedConfig {
        HostedConfig::from_env_values(|name| {
            let found = values.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_names_address_key_and_patience() {
        let config = resolve(&[]);
        assert_eq!(config.base_url, "https://api.openai.com/v1");
        assert_eq!(config.api_key, None);
        let config = resolve(&[
            ("OPENAI_BASE_URL", " http://localhost:8080/v1\n"),
            ("OPENAI_API_KEY", "sk-secret\n"),
            ("OPENAI_TIMEOUT", "7"),
        ]);
        assert_eq!(config.base_url, "http://localhost:8080/v1");
        assert_eq!(config.api_key.as_deref(), Some("sk-secret"));
        assert_eq!(config.patience.silence, Duration::from_secs(7));
        let config = resolve(&[("OPENAI_API_KEY", "  "), ("OPENAI_TIMEOUT", "soon")]);
        assert_eq!(config.api_key, None);
        assert_eq!(config.patience, Patience::default());
    }

    #[test]
    fn the_key_is_never_printed() {
        let text = format!("{:?}", resolve(&[("OPENAI_API_KEY", "sk-secret")]));
        assert!(!text.contains("sk-secret"), "{text}");
    }

    #[test]
    fn waits_double_and_a_service_may_ask_for_more() {
        let patience = Patience::default();
        let seconds: Vec<u64> = (1..=8).map(|n| patience.delay(n, None).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(patience.delay(1, Some(Duration::from_secs(9))).as_secs(), 9);
        assert_eq!(patience.delay(3, Some(Duration::from_secs(1))).as_secs(), 4);
    }
}
