//! The stand-in: each connection plays the next act of a script and keeps what was asked.

use std::{
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use colibri_engine::{
    Error,
    generate::{Completion, GenerateOptions, Step},
    hosted::{Clock, Hosted, HostedConfig, Wait},
};
use colibri_models::{
    generators::{Generator as _, Request},
    processor::Message,
};
use image::RgbImage;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

/// What the server does with one request.
#[derive(Clone)]
pub(crate) enum Act {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// The same, one byte a write.
    Trickle(Vec<u8>),
    /// These bytes, then nothing until the client leaves; the silence is then over for the test's clock.
    Stall(Vec<u8>),
    /// The same, where the silence begins with the first text that the client has seen.
    StallAfterText(Vec<u8>),
}

/// An event of a streamed answer.
pub(crate) fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// A piece of text.
pub(crate) fn piece(text: &str) -> String {
    event(
        &json!({"id": "1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}),
    )
}

/// The end of an answer, with its costs.
pub(crate) fn end(reason: &str) -> String {
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
        + &event(&json!({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}))
        + "data: [DONE]\n\n"
}

/// A response with a status and headers, without a length: it ends with the connection.
pub(crate) fn response(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.extend([*name, ": ", *value, "\r\n"]);
    }
    (text + "\r\n" + body).into_bytes()
}

/// A streamed answer.
pub(crate) fn stream(body: &str) -> Vec<u8> {
    response(
        "200 OK",
        &[("content-type", "text/event-stream; charset=utf-8")],
        body,
    )
}

/// A refusal with a JSON body.
pub(crate) fn refusal(status: &str, headers: &[(&str, &str)], body: &Value) -> Vec<u8> {
    let headers = [&[("content-type", "application/json")], headers].concat();
    response(status, &headers, &body.to_string())
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

/// A running stand-in; it stops when dropped.
pub(crate) struct Server {
    _runtime: Runtime,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    clock: Arc<TestClock>,
    /// Silence begins with the first text.
    falls_silent: bool,
}

/// A clock on which nothing takes time: attempts follow at once and are written down, a look at the caller
/// is due whenever nothing else is, and a silence lasts until the server says that it has begun.
#[derive(Default)]
struct TestClock {
    waits: Mutex<Vec<Duration>>,
    silent: Arc<AtomicBool>,
    whole_is_over: AtomicBool,
}

impl Clock for TestClock {
    fn wait(&self, what: Wait) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match what {
            Wait::Tick => Box::pin(tokio::task::yield_now()),
            Wait::Attempt(span) => {
                self.waits.lock().unwrap().push(span);
                Box::pin(async {})
            }
            Wait::Silence(_) => until(&self.silent),
            Wait::Whole(_) => until(&self.whole_is_over),
        }
    }
}

fn until(flag: &AtomicBool) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
    Box::pin(std::future::poll_fn(|context| {
        if flag.load(Ordering::SeqCst) {
            return std::task::Poll::Ready(());
        }
        // Asked again at the next look at the caller, which is always near.
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    }))
}

/// What came of a request: the result, the text as it was streamed, and what was told beside it.
pub(crate) struct Outcome {
    pub(crate) result: Result<Completion, Error>,
    pub(crate) pieces: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// The error, as a person reads it with its hint.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let error = self.result.as_ref().unwrap_err();
        format!("{}\nhint: {}", error, error.hint().unwrap_or_default())
    }

    #[track_caller]
    pub(crate) fn code(&self) -> &'static str {
        self.result.as_ref().unwrap_err().code()
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        &self.result.as_ref().unwrap().text
    }
}

impl Server {
    pub(crate) fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let clock = Arc::new(TestClock::default());
        let script: Vec<Act> = script.into_iter().collect();
        let falls_silent = matches!(script.first(), Some(Act::StallAfterText(_)));
        runtime.spawn({
            let (asked, silent) = (asked.clone(), clock.silent.clone());
            async move {
                for act in script {
                    let (stream, _) = listener.accept().await.unwrap();
                    // A client that leaves in the middle is part of the tests.
                    drop(play(stream, act, &asked, &silent).await);
                }
            }
        });
        Self {
            _runtime: runtime,
            address,
            asked,
            clock,
            falls_silent,
        }
    }

    pub(crate) fn config(&self) -> HostedConfig {
        HostedConfig {
            base_url: format!("http://{}/v1", self.address),
            api_key: Some("sk-secret".to_owned()),
            system_proxy: false,
            ..HostedConfig::default()
        }
    }

    /// Time is up for whole answers.
    pub(crate) fn end_whole(&self) {
        self.clock.whole_is_over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How long was waited before further attempts.
    pub(crate) fn waits(&self) -> Vec<Duration> {
        self.clock.waits.lock().unwrap().clone()
    }

    /// Asks a question of words.
    pub(crate) fn ask(&self) -> Outcome {
        self.ask_with(&self.config(), &[Message::user(0, "Why?")], &[], &|_| {
            ControlFlow::Continue(())
        })
    }

    pub(crate) fn ask_with(
        &self,
        config: &HostedConfig,
        messages: &[Message],
        images: &[RgbImage],
        go_on: &dyn Fn(Step<'_>) -> ControlFlow<()>,
    ) -> Outcome {
        let hosted =
            Hosted::with_clock("some/model", config.clone(), None, self.clock.clone()).unwrap();
        let request = Request {
            messages,
            images,
            options: &GenerateOptions::default(),
        };
        let (mut pieces, mut notes) = (Vec::new(), Vec::new());
        let result = hosted.generate(&request, &mut |step| {
            match step {
                Step::Text(text) => {
                    pieces.push(text.to_owned());
                    if self.falls_silent {
                        self.clock.silent.store(true, Ordering::SeqCst);
                    }
                }
                Step::Note(note) => notes.push(note.to_owned()),
                Step::Tile { .. } | Step::Prefill { .. } | Step::Status(_) | Step::Waiting => {}
            }
            go_on(step)
        });
        Outcome {
            result: result.map_err(Error::from),
            pieces,
            notes,
        }
    }
}

async fn play(
    mut stream: TcpStream,
    act: Act,
    asked: &Mutex<Vec<Asked>>,
    silent: &AtomicBool,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    asked.lock().unwrap().push(Asked {
        path: head.split(' ').nth(1).unwrap().to_owned(),
        authorization: header("authorization"),
        body: serde_json::from_slice(&body).unwrap(),
    });
    match act {
        Act::Bytes(bytes) => stream.write_all(&bytes).await?,
        Act::Trickle(bytes) => {
            stream.set_nodelay(true)?;
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
            }
        }
        Act::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            silent.store(true, Ordering::SeqCst);
            // Until the client leaves.
            let _left = stream.read_u8().await;
            return Ok(());
        }
        Act::StallAfterText(bytes) => {
            stream.write_all(&bytes).await?;
            // Until the client leaves.
            let _left = stream.read_u8().await;
            return Ok(());
        }
    }
    stream.shutdown().await
}
