//! A generator that never ends by itself: a neighbour that speaks OpenAI's protocol, begins each answer with one
//! word, and then writes no more than it is told to until its caller has left. What is stopped, waits or is left behind can so be
//! looked at for as long as a test likes, and the caller that hangs up shows that the work has ended.

use std::net::SocketAddr;

use colibri_engine::checkpoints::Choice;
use colibri_server::ServerConfig;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::PATIENCE;

/// The word that every answer begins with.
pub(crate) const WORD: &str = "Endlessly";

/// The word that follows when it is told to go on.
pub(crate) const NEXT_WORD: &str = " written";

pub(crate) struct Endless {
    address: SocketAddr,
    left: watch::Receiver<usize>,
    more: watch::Sender<()>,
}

impl Endless {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, left) = watch::channel(0);
        let more = watch::Sender::new(());
        let told = more.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, told) = (count.clone(), told.subscribe());
                tokio::spawn(async move {
                    // A caller that hangs up at any moment has left.
                    let _ = write(stream, told).await;
                    count.send_modify(|left| *left += 1);
                });
            }
        });
        Self {
            address,
            left,
            more,
        }
    }

    /// Makes it the generator of a server.
    pub(crate) fn answer_for(&self, config: &mut ServerConfig) {
        config.models.generator = Choice::Named("openai:endless".to_owned());
        config.models.hosted.base_url = format!("http://{}/v1", self.address);
    }

    /// Writes the next word of the answers that are being written.
    pub(crate) fn go_on(&self) {
        self.more.send_replace(());
    }

    /// Waits until `number` callers have left.
    pub(crate) async fn left(&self, number: usize) {
        let mut left = self.left.clone();
        let reached = left.wait_for(|left| *left >= number);
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap()
            .unwrap();
    }
}

async fn write(mut stream: TcpStream, mut more: watch::Receiver<()>) -> std::io::Result<()> {
    let mut asked = Vec::new();
    let mut bytes = [0; 4096];
    let mut answered = false;
    loop {
        let read = tokio::select! {
            read = stream.read(&mut bytes) => read?,
            _ = more.changed() => {
                stream.write_all(piece(NEXT_WORD).as_bytes()).await?;
                continue;
            }
        };
        if read == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&bytes[..read]);
        if !answered && is_whole(&asked) {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            let begin = head.to_owned() + &piece(WORD);
            stream.write_all(begin.as_bytes()).await?;
            answered = true;
        }
    }
}

/// An event with a piece of an answer.
fn piece(text: &str) -> String {
    let piece =
        json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    format!("data: {piece}\n\n")
}

/// Whether a request is here with its body.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    body.len() >= length.unwrap_or(0)
}
