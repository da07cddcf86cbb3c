//! A generator that never ends by itself: a neighbour that speaks OpenAI's protocol, begins each answer with one
//! word, and then writes nothing until its caller has left. What is stopped, waits or is left behind can so be
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

pub(crate) struct Endless {
    address: SocketAddr,
    left: watch::Receiver<usize>,
}

impl Endless {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, left) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                tokio::spawn(async move {
                    // A caller that hangs up at any moment has left.
                    let _ = write(stream).await;
                    count.send_modify(|left| *left += 1);
                });
            }
        });
        Self { address, left }
    }

    /// Makes it the generator of a server.
    pub(crate) fn answer_for(&self, config: &mut ServerConfig) {
        config.models.generator = Choice::Named("openai:endless".to_owned());
        config.models.hosted.base_url = format!("http://{}/v1", self.address);
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

async fn write(mut stream: TcpStream) -> std::io::Result<()> {
    let piece =
        json!({"choices": [{"index": 0, "delta": {"content": WORD}, "finish_reason": null}]});
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {piece}\n\n"
    );
    let mut asked = Vec::new();
    let mut bytes = [0; 4096];
    let mut answered = false;
    loop {
        let read = stream.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&bytes[..read]);
        if !answered && is_whole(&asked) {
            stream.write_all(answer.as_bytes()).await?;
            answered = true;
        }
    }
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
