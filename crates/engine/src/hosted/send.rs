//! Sending a request and reading its answer, as often as is sensible.

use std::{ops::ControlFlow, pin::pin, sync::Arc, time::Duration};

use colibri_models::generate::{Completion, Step, StopReason};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};

use super::{
    Error,
    address::{address, retry_after},
    clock::{Clock, Wait, Waiting},
    config::{HostedConfig, Patience},
    sse::{Events, Fault},
    wire::{Body, Finish, Refusal, Reply, Unusable, shortened},
};

/// What a refusal may say.
const MOST_REFUSAL_BYTES: usize = 64 << 10;
/// An answer in one piece, and the text of a streamed one: far beyond any model's context.
const MOST_ANSWER_BYTES: usize = 8 << 20;
/// The word that ends a stream.
const END: &str = "[DONE]";
/// Parameters that a service may refuse one after another.
const MOST_ADJUSTMENTS: usize = 4;

type OnStep<'a> = &'a mut dyn FnMut(Step<'_>) -> ControlFlow<()>;

/// Knows one service.
pub(super) struct Sender {
    url: Url,
    host: String,
    model: String,
    key: Option<String>,
    authorization: Option<HeaderValue>,
    patience: Patience,
    user_agent: String,
    system_proxy: bool,
    clock: Arc<dyn Clock>,
}

impl Sender {
    pub(super) fn new(
        model: &str,
        config: &HostedConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let url = address(&config.base_url)?;
        let authorization = match &config.api_key {
            None => None,
            Some(key) => {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| Error::Key)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        Ok(Self {
            url,
            host,
            model: model.to_owned(),
            key: config.api_key.clone(),
            authorization,
            patience: config.patience,
            user_agent: config.user_agent.clone(),
            system_proxy: config.system_proxy,
            clock,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn is_here(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Asks until there is an answer, or no sense in asking again. A caller who stops gets what was written
    /// until then.
    pub(super) async fn complete(
        &self,
        mut body: Body,
        on_step: OnStep<'_>,
    ) -> Result<Completion, Error> {
        let client = self.client()?;
        let mut whole = self.clock.wait(Wait::Whole(self.patience.whole));
        let (mut failures, mut adjustments) = (0, 0);
        loop {
            let mut reply = Reply::default();
            let attempt = self
                .attempt(&client, &body, &mut reply, &mut whole, on_step)
                .await;
            let error = match attempt {
                Ok(stop) => return Ok(completion(reply, stop)),
                Err(Error::Stopped) => return Ok(completion(reply, StopReason::Cancelled)),
                Err(error) => error,
            };
            if let Error::Refused {
                parameter: Some(parameter),
                ..
            } = &error
                && adjustments < MOST_ADJUSTMENTS
                && body.give_way(parameter)
            {
                adjustments += 1;
                continue;
            }
            failures += 1;
            let delay = self.patience.delay(failures, error.retry_after());
            // What was written has been seen: asked again, the service would begin anew.
            let is_final = !error.passes()
                || !reply.text.is_empty()
                || failures >= self.patience.attempts
                || delay > self.patience.longest_delay;
            if is_final {
                return Err(error);
            }
            let note = format!("{error}; trying again in {} s", delay.as_secs_f32().ceil());
            if on_step(Step::Note(&note)).is_break() {
                return Ok(completion(reply, StopReason::Cancelled));
            }
            let wait = self.clock.wait(Wait::Attempt(delay));
            match self.watch(wait, None, &mut whole, on_step).await {
                Ok(()) => {}
                Err(Error::Stopped) => return Ok(completion(reply, StopReason::Cancelled)),
                Err(error) => return Err(error),
            }
        }
    }

    /// One request and its answer.
    async fn attempt(
        &self,
        client: &Client,
        body: &Body,
        reply: &mut Reply,
        whole: &mut Waiting<'_>,
        on_step: OnStep<'_>,
    ) -> Result<StopReason, Error> {
        let mut request = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_bytes());
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let status = format!("waiting for {} at {}", self.model, self.host);
        if on_step(Step::Status(&status)).is_break() {
            return Err(Error::Stopped);
        }
        let silence = Some(self.patience.silence);
        let sent = self.watch(request.send(), silence, whole, on_step).await?;
        let response = sent.map_err(|source| Error::Unreachable {
            host: self.host.clone(),
            source: source.without_url(),
        })?;
        if !response.status().is_success() {
            return Err(self.refused(response, whole, on_step).await?);
        }
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        match kind.as_str() {
            "application/json" => self.read_whole(response, reply, whole, on_step).await?,
            "" | "text/event-stream" | "text/plain" | "application/x-ndjson" => {
                self.read_stream(response, reply, whole, on_step).await?;
            }
            other => {
                let kind = shortened(other, 80);
                return Err(self.garbage(format!("it is of type `{kind}`")));
            }
        }
        match reply.finish {
            Some(Finish::Stop(stop)) => Ok(stop),
            Some(Finish::Filtered) => Err(Error::Filtered {
                host: self.host.clone(),
            }),
            None => Err(Error::Cut {
                host: self.host.clone(),
                source: None,
            }),
        }
    }

    /// Reads events until the stream says that it has ended.
    async fn read_stream(
        &self,
        mut response: Response,
        reply: &mut Reply,
        whole: &mut Waiting<'_>,
        on_step: OnStep<'_>,
    ) -> Result<(), Error> {
        let mut events = Events::default();
        let (mut bytes_read, mut events_read) = (0, 0);
        loop {
            let chunk = match self.chunk(&mut response, whole, on_step).await {
                // The answer is complete; only its costs were still to come.
                Err(Error::Cut { .. } | Error::Silent { .. }) if reply.finish.is_some() => {
                    return Ok(());
                }
                chunk => chunk?,
            };
            let (ready, ended) = match &chunk {
                Some(bytes) => (events.push(bytes), false),
                None => (events.finish().map(|last| last.into_iter().collect()), true),
            };
            let ready = ready.map_err(|fault| match fault {
                Fault::TooLong => self.garbage("an event has no end".to_owned()),
                Fault::NotText => self.garbage("it is not UTF-8".to_owned()),
            })?;
            bytes_read += chunk.as_ref().map_or(0, Vec::len);
            events_read += ready.len();
            for event in ready {
                if event == END {
                    // A service that only says so has told all it had.
                    reply
                        .finish
                        .get_or_insert(Finish::Stop(StopReason::EndOfTurn));
                    return Ok(());
                }
                self.take(&event, reply, on_step)?;
            }
            if ended {
                if bytes_read > 0 && events_read == 0 {
                    return Err(self.garbage("it holds no event".to_owned()));
                }
                return Ok(());
            }
        }
    }

    /// Reads an answer in one piece: not every service streams.
    async fn read_whole(
        &self,
        response: Response,
        reply: &mut Reply,
        whole: &mut Waiting<'_>,
        on_step: OnStep<'_>,
    ) -> Result<(), Error> {
        let (body, is_whole) = self
            .body(response, MOST_ANSWER_BYTES, whole, on_step)
            .await?;
        if !is_whole {
            return Err(self.garbage(format!("it has more than {MOST_ANSWER_BYTES} bytes")));
        }
        let text =
            String::from_utf8(body).map_err(|_| self.garbage("it is not UTF-8".to_owned()))?;
        self.take(&text, reply, on_step)
    }

    fn take(&self, event: &str, reply: &mut Reply, on_step: OnStep<'_>) -> Result<(), Error> {
        let text = reply.take(event).map_err(|unusable| match unusable {
            Unusable::Garbage(reason) => self.garbage(self.without_key(&reason)),
            Unusable::Failed(said) => Error::GaveUp {
                host: self.host.clone(),
                said: self.without_key(&said),
            },
        })?;
        if reply.text.len() > MOST_ANSWER_BYTES {
            return Err(self.garbage(format!("it has more than {MOST_ANSWER_BYTES} bytes")));
        }
        match text {
            Some(text) if on_step(Step::Text(&text)).is_break() => Err(Error::Stopped),
            Some(_) | None => Ok(()),
        }
    }

    /// The next piece of an answer; `None` at its end.
    async fn chunk(
        &self,
        response: &mut Response,
        whole: &mut Waiting<'_>,
        on_step: OnStep<'_>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let silence = Some(self.patience.silence);
        let chunk = self
            .watch(response.chunk(), silence, whole, on_step)
            .await?;
        match chunk {
            Ok(chunk) => Ok(chunk.map(Vec::from)),
            Err(source) => Err(Error::Cut {
                host: self.host.clone(),
                source: Some(source.without_url()),
            }),
        }
    }

    /// At most `limit` bytes, and whether they are all.
    async fn body(
        &self,
        mut response: Response,
        limit: usize,
        whole: &mut Waiting<'_>,
        on_step: OnStep<'_>,
    ) -> Result<(Vec<u8>, bool), Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, whole, on_step).await? {
            let room = limit - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                return Ok((body, false));
            }
        }
        Ok((body, true))
    }

    /// What a refusal means.
    async fn refused(
        &self,
        response: Response,
        whole: &mut Waiting<'_>,
        on_step: OnStep<'_>,
    ) -> Result<Error, Error> {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let host = self.host.clone();
        if status.is_redirection() {
            let status = status.as_u16();
            return Ok(Error::Redirect { host, status });
        }
        let read = self.body(response, MOST_REFUSAL_BYTES, whole, on_step);
        let refusal = match read.await {
            Ok((body, _)) => Refusal::parse(&body),
            Err(Error::Stopped) => return Err(Error::Stopped),
            // The status says enough.
            Err(_) => Refusal::default(),
        };
        let said = self.without_key(&refusal.said);
        Ok(match status.as_u16() {
            401 => Error::Unauthorized {
                host,
                had_key: self.key.is_some(),
                said,
            },
            404 => Error::NotFound {
                host,
                model: self.model.clone(),
                said,
            },
            status @ (402 | 408 | 425 | 429 | 500..=599) => Error::Busy {
                host,
                status,
                said,
                retry_after,
                passes: status != 402
                    && StatusCode::NOT_IMPLEMENTED.as_u16() != status
                    && refusal.code != "insufficient_quota",
            },
            status => Error::Refused {
                host,
                status,
                said,
                parameter: refusal.parameter,
            },
        })
    }

    /// Waits for `work`; meanwhile the caller is asked whether to go on, and nothing takes for ever.
    async fn watch<T>(
        &self,
        work: impl Future<Output = T>,
        silence: Option<Duration>,
        whole: &mut Waiting<'_>,
        on_step: OnStep<'_>,
    ) -> Result<T, Error> {
        let mut work = pin!(work);
        let span = silence.unwrap_or(self.patience.whole);
        let mut silent = self.clock.wait(Wait::Silence(span));
        loop {
            let tick = self.clock.wait(Wait::Tick);
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = &mut silent => return Err(Error::Silent { host: self.host.clone(), span }),
                () = &mut *whole => return Err(Error::TooSlow {
                    host: self.host.clone(),
                    span: self.patience.whole,
                }),
                () = tick => if on_step(Step::Waiting).is_break() {
                    return Err(Error::Stopped);
                },
            }
        }
    }

    fn garbage(&self, reason: String) -> Error {
        Error::Garbage {
            host: self.host.clone(),
            reason,
        }
    }

    /// A service may repeat the key it refuses.
    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "(hidden)"),
            None => text.to_owned(),
        }
    }

    /// ring as the TLS provider; no redirects, which could carry pages to where nobody meant them to go.
    fn client(&self) -> Result<Client, Error> {
        // The provider is the process's. An error says that one is there already, which serves as well.
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let builder = Client::builder()
                .user_agent(&self.user_agent)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(self.patience.connect);
            if self.system_proxy && !self.is_here() {
                builder
            } else {
                builder.no_proxy()
            }
        };
        builder()
            .build()
            .or_else(|error| {
                // A machine without CA certificates can still ask a neighbour in plain HTTP.
                if self.url.scheme() == "http" {
                    builder().tls_certs_only([]).build()
                } else {
                    Err(error)
                }
            })
            .map_err(|source| Error::Client {
                source: source.without_url(),
            })
    }
}

fn completion(reply: Reply, stop: StopReason) -> Completion {
    Completion {
        text: reply.text,
        ids: Vec::new(),
        prompt_tokens: reply.prompt_tokens,
        new_tokens: reply.new_tokens,
        stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let is_here = |base: &str| {
            let config = HostedConfig {
                base_url: base.to_owned(),
                ..HostedConfig::default()
            };
            Sender::new("m", &config, Arc::new(super::super::SystemClock))
                .unwrap()
                .is_here()
        };
        for base in [
            "http://localhost:1/v1",
            "http://127.0.0.1/v1",
            "http://[::1]:9/v1",
        ] {
            assert!(is_here(base), "{base}");
        }
        assert!(!is_here("https://api.openai.com/v1") && !is_here("http://10.0.0.2/v1"));
    }
}
