//! A stand-in for the hub on 127.0.0.1, written by hand so that it can misbehave: it cuts connections,
//! ignores ranges, lies about bytes and lengths, redirects, stalls.
//!
//! It serves one repository. What goes wrong is a list of [`Rule`]s, each for a part of a path and a number
//! of requests; a request that no rule claims is answered properly. Every request is written down.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use colibri_engine::hub::{
    FileSet, Hub, HubConfig, ModelName, Progress, Retry, Snapshot, Timeouts,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) use crate::served::{Served, checkpoint};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const NAME: &str = "owner/model";

/// What goes wrong.
#[derive(Clone)]
pub(crate) enum Act {
    /// Promise everything, send this many bytes of the body, close.
    CutAfter(usize),
    /// The whole file with 200, whatever range was asked for.
    IgnoreRange,
    /// 206, but with other bytes than asked for.
    OtherRange,
    /// A status with headers and no body.
    Status(u16, Vec<(&'static str, String)>),
    /// The right length, one bit wrong.
    Corrupt,
    /// One byte more, and the header says so.
    LongerByHeader,
    /// Without a length: one byte more than listed, then the end.
    LongerByBody,
    /// Without a length: this many bytes, then a plain end.
    ShorterByBody(usize),
    /// The header and then nothing, until the client leaves.
    Stall,
    /// Not even a header, until the client leaves.
    Mute,
    /// This body with 200.
    Body(String),
    /// A few bytes at a time.
    Trickle,
}

struct Rule {
    part: String,
    left: usize,
    act: Act,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

struct State {
    files: Mutex<Vec<Served>>,
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<Asked>>,
    page: Mutex<usize>,
}

/// A running stand-in; it stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(files: Vec<Served>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            files: Mutex::new(files),
            rules: Mutex::default(),
            log: Mutex::default(),
            page: Mutex::new(1000),
        });
        let task = tokio::spawn({
            let state = state.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // A client that leaves in the middle is part of the tests.
                    tokio::spawn({
                        let state = state.clone();
                        async move { serve(stream, &state).await.unwrap_or(()) }
                    });
                }
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// The next `times` requests whose path holds `part` go wrong like this.
    pub(crate) fn rule(&self, part: &str, times: usize, act: Act) -> &Self {
        let rule = Rule {
            part: part.into(),
            left: times,
            act,
        };
        self.state.rules.lock().unwrap().push(rule);
        self
    }

    /// Entries on a page of the file list.
    pub(crate) fn page(&self, entries: usize) {
        *self.state.page.lock().unwrap() = entries;
    }

    pub(crate) fn replace(&self, files: Vec<Served>) {
        *self.state.files.lock().unwrap() = files;
    }

    pub(crate) fn log(&self) -> Vec<Asked> {
        self.state.log.lock().unwrap().clone()
    }

    /// Requests whose path holds `part`.
    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        self.log()
            .into_iter()
            .filter(|asked| asked.path.contains(part))
            .collect()
    }

    pub(crate) fn forget(&self) {
        self.state.log.lock().unwrap().clear();
    }

    /// A hub client over `cache` that asks this server and never waits.
    pub(crate) fn config(&self, cache: &Path) -> HubConfig {
        let mut config = HubConfig::new(cache);
        config.endpoint = format!("http://{}", self.address);
        config.system_proxy = false;
        config.retry = Retry {
            attempts: 4,
            first_delay: Duration::ZERO,
            longest_delay: Duration::ZERO,
            lock_poll: Duration::ZERO,
        };
        config.timeouts = Timeouts {
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(20),
        };
        config
    }

    pub(crate) fn hub(&self, cache: &Path) -> Hub {
        Hub::new(self.config(cache))
    }
}

/// The model's name.
pub(crate) fn name() -> ModelName {
    NAME.parse().unwrap()
}

/// Fetches the whole checkpoint at `main`.
pub(crate) async fn fetch(hub: &Hub) -> Result<Snapshot, colibri_engine::hub::Error> {
    hub.snapshot(&name(), None, &FileSet::checkpoint(), &|_| {})
        .await
}

/// The same, with all its events.
pub(crate) async fn fetch_told(
    hub: &Hub,
) -> (Result<Snapshot, colibri_engine::hub::Error>, Vec<Progress>) {
    let events = Mutex::new(Vec::new());
    let tell = |event| events.lock().unwrap().push(event);
    let result = hub
        .snapshot(&name(), None, &FileSet::checkpoint(), &tell)
        .await;
    (result, events.into_inner().unwrap())
}

/// Bytes of a snapshot's file.
pub(crate) fn read(snapshot: &Snapshot, file: &str) -> Vec<u8> {
    fs_err::read(snapshot.path(file).unwrap()).unwrap()
}

async fn serve(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let asked = Asked {
        path,
        range: header("range"),
        authorization: header("authorization"),
    };
    state.log.lock().unwrap().push(asked.clone());
    let act = {
        let mut rules = state.rules.lock().unwrap();
        rules
            .iter_mut()
            .find(|rule| rule.left > 0 && asked.path.contains(&rule.part))
            .map(|rule| {
                rule.left -= 1;
                rule.act.clone()
            })
    };
    answer(&mut stream, state, &asked, act).await?;
    stream.shutdown().await
}

async fn answer(
    stream: &mut TcpStream,
    state: &State,
    asked: &Asked,
    act: Option<Act>,
) -> std::io::Result<()> {
    match act {
        Some(Act::Status(status, headers)) => {
            return send(stream, status, &headers, b"no").await;
        }
        Some(Act::Mute) => return wait_for_the_end(stream).await,
        Some(Act::Body(text)) => return send(stream, 200, &[], text.as_bytes()).await,
        _ => {}
    }
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let repository = format!("/api/models/{NAME}");
    if let Some(call) = path.strip_prefix(&repository) {
        if act.is_some() {
            return Ok(());
        }
        return if call.starts_with("/revision/") {
            send(
                stream,
                200,
                &[],
                format!(r#"{{"sha": "{COMMIT}", "gated": false}}"#).as_bytes(),
            )
            .await
        } else if call == format!("/tree/{COMMIT}") {
            let (headers, body) = tree(state, query);
            send(stream, 200, &headers, body.as_bytes()).await
        } else {
            send(
                stream,
                404,
                &[("X-Error-Code", "RevisionNotFound".into())],
                b"",
            )
            .await
        };
    }
    let found = path
        .strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/"))
        .and_then(|file| {
            state
                .files
                .lock()
                .unwrap()
                .iter()
                .find(|served| served.path == file)
                .cloned()
        });
    let Some(served) = found else {
        return send(stream, 404, &[("X-Error-Code", "RepoNotFound".into())], b"").await;
    };
    file(stream, &served.bytes, asked, act).await
}

/// A page of the file list, with folders, as the hub gives it.
fn tree(state: &State, query: &str) -> (Vec<(&'static str, String)>, String) {
    let mut entries: Vec<serde_json::Value> = Vec::new();
    entries.push(serde_json::json!({
        "type": "directory", "oid": "0".repeat(40), "size": 0, "path": "onnx"
    }));
    for served in state.files.lock().unwrap().iter() {
        let bytes = served.bytes.len();
        entries.push(if served.lfs {
            serde_json::json!({
                "type": "file", "oid": "1".repeat(40), "size": bytes, "path": served.path,
                "lfs": { "oid": served.blob(), "size": bytes, "pointerSize": 134 },
                "xetHash": "2".repeat(64),
            })
        } else {
            serde_json::json!({
                "type": "file", "oid": served.blob(), "size": bytes, "path": served.path
            })
        });
    }
    let start: usize = query
        .split('&')
        .find_map(|part| part.strip_prefix("cursor="))
        .map_or(0, |cursor| cursor.parse().unwrap());
    let page = *state.page.lock().unwrap();
    let end = (start + page).min(entries.len());
    let mut headers = Vec::new();
    if end < entries.len() {
        // The address of another host: only the question may be taken from it.
        let next = format!("https://hub.example/api/other?recursive=true&cursor={end}");
        headers.push(("Link", format!("<{next}>; rel=\"next\"")));
    }
    (
        headers,
        serde_json::to_string(&entries[start..end]).unwrap(),
    )
}

/// A file's bytes, rightly or wrongly.
async fn file(
    stream: &mut TcpStream,
    bytes: &[u8],
    asked: &Asked,
    act: Option<Act>,
) -> std::io::Result<()> {
    let start: usize = asked.range.as_ref().map_or(0, |range| {
        range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap()
            .parse()
            .unwrap()
    });
    let start = if matches!(act, Some(Act::IgnoreRange)) {
        0
    } else {
        start
    };
    if start > bytes.len() {
        return send(stream, 416, &[], b"").await;
    }
    let mut body = bytes[start..].to_vec();
    let (status, mut headers) = if start == 0 {
        (200, vec![])
    } else {
        let shift = usize::from(matches!(act, Some(Act::OtherRange)));
        let (first, last, total) = (start + shift, bytes.len() - 1, bytes.len());
        (
            206,
            vec![("Content-Range", format!("bytes {first}-{last}/{total}"))],
        )
    };
    let mut sent = body.len();
    let mut length = Some(body.len());
    match act {
        None
        | Some(
            Act::IgnoreRange
            | Act::OtherRange
            | Act::Trickle
            | Act::Stall
            | Act::Mute
            | Act::Status(..)
            | Act::Body(_),
        ) => {}
        Some(Act::CutAfter(count)) => sent = sent.min(count),
        Some(Act::Corrupt) => body[0] ^= 1,
        Some(Act::LongerByHeader) => length = Some(body.len() + 1),
        Some(Act::LongerByBody) => {
            body.push(0);
            sent += 1;
            length = None;
        }
        Some(Act::ShorterByBody(count)) => {
            sent = sent.min(count);
            length = None;
        }
    }
    headers.extend(length.map(|length| ("Content-Length", length.to_string())));
    head(stream, status, &headers).await?;
    match act {
        Some(Act::Stall) => wait_for_the_end(stream).await,
        Some(Act::Trickle) => {
            for piece in body.chunks(97) {
                stream.write_all(piece).await?;
                stream.flush().await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        _ => stream.write_all(&body[..sent]).await,
    }
}

/// Until the client closes.
async fn wait_for_the_end(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte).await? > 0 {}
    Ok(())
}

async fn send(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut all = headers.to_vec();
    all.push(("Content-Length", body.len().to_string()));
    head(stream, status, &all).await?;
    stream.write_all(body).await
}

async fn head(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} -\r\nConnection: close\r\n");
    for (key, value) in headers {
        write!(text, "{key}: {value}\r\n").unwrap();
    }
    text += "\r\n";
    stream.write_all(text.as_bytes()).await
}
