//! How long an event is on its way: from the moment the engine is given a piece of an answer until a client over the
//! loopback has read it.
//!
//! ```text
//! cargo run --example latency -- examples/documents/invoice.pdf 200 [CLIENTS]
//! ```
//!
//! A document, the pieces to measure, and how many other clients search meanwhile (none). The generator is a neighbour
//! in this process that speaks OpenAI's protocol and writes the time as the text of each piece, one every 20 ms. What
//! is measured therefore holds more than is asked for: also the way from that neighbour to the engine.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool of the developers that fails loudly"
)]

use std::{net::SocketAddr, path::Path, sync::LazyLock, time::Duration, time::Instant};

use colibri_engine::{
    KeptFeatures,
    checkpoints::{Choice, ModelConfig},
    document::OpenOptions,
    hosted::HostedConfig,
    hub::HubConfig,
};
use colibri_server::{Access, App, Bounds, Listening, ServerConfig, serve};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Between two pieces.
const PACE: Duration = Duration::from_millis(20);

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_micros() -> u128 {
    BEGIN.elapsed().as_micros()
}

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let (document, pieces) = (&given[0], given[1].parse::<usize>().unwrap());
    let others = given.get(2).map_or(0, |text| text.parse().unwrap());
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let neighbour = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(write_times(stream, pieces));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(folder.path(), neighbour)).unwrap();
    let listening = Listening::at("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listening.address);
    tokio::spawn(serve(app, listening, std::future::pending()));
    let client = Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .build()
        .unwrap();
    add(&client, &url, document).await;
    for _ in 0..others {
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            let body = json!({"query": "total of the invoice"});
            loop {
                let request = client.post(format!("{url}/api/search")).json(&body);
                drop(request.send().await.unwrap().bytes().await);
            }
        });
    }
    let mut times = ask(&client, &url).await;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{}",
        json!({
            "pieces": times.len(), "clients_searching": others,
            "ms": {"p50": at(0.5), "p99": at(0.99), "max": at(1.0)},
        })
    );
}

fn settings(folder: &Path, neighbour: SocketAddr) -> ServerConfig {
    let mut hub = HubConfig::new(folder.join("no-such-cache"));
    hub.offline = true;
    ServerConfig {
        index: folder.join("index"),
        uploads: folder.join("uploads"),
        roots: Vec::new(),
        models: ModelConfig {
            hosted: HostedConfig {
                base_url: format!("http://{neighbour}/v1"),
                ..HostedConfig::default()
            },
            retriever: Choice::Named("builtin".to_owned()),
            generator: Choice::Named("openai:clock".to_owned()),
            features: KeptFeatures::none(),
            ..ModelConfig::new(hub, folder.join("builtin"))
        },
        open: OpenOptions::default(),
        fetch: None,
        access: Access::default(),
        bounds: Bounds::default(),
    }
}

/// The neighbour: an answer whose pieces are the microseconds at which they are written.
async fn write_times(mut stream: TcpStream, pieces: usize) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = vec![0; 1 << 20];
    // The whole request need not be here: it is read beside the answer, and says nothing of interest.
    let _asked = stream.read(&mut bytes).await.unwrap();
    let (mut asks, mut answers) = stream.into_split();
    tokio::spawn(async move { while asks.read(&mut bytes).await.is_ok_and(|read| read > 0) {} });
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    answers.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..pieces {
        tokio::time::sleep(PACE).await;
        let text = format!("{} ", now_micros());
        let piece = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
        let event = format!("data: {piece}\n\n");
        answers.write_all(event.as_bytes()).await.unwrap();
    }
    answers.write_all(b"data: [DONE]\n\n").await.unwrap();
}

async fn add(client: &Client, url: &str, document: &str) {
    let bytes = fs_err::read(document).unwrap();
    let request = client.post(format!("{url}/api/documents?name=document.pdf"));
    let sent = request.body(bytes).send().await.unwrap();
    let job: Value = serde_json::from_str(&sent.text().await.unwrap()).unwrap();
    let events = client.get(format!("{url}/api/jobs/{}/events", job["id"]));
    drop(events.send().await.unwrap().bytes().await);
}

/// Milliseconds that each piece took.
async fn ask(client: &Client, url: &str) -> Vec<f64> {
    let body = json!({"question": "What is the total of the invoice?", "max_new_tokens": 4096});
    let request = client.post(format!("{url}/api/ask")).json(&body);
    let mut response = request.send().await.unwrap();
    let (mut rest, mut times) = (String::new(), Vec::new());
    while let Some(bytes) = response.chunk().await.unwrap() {
        let here = now_micros();
        rest.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((block, after)) = rest.split_once("\n\n") {
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            let event: Value = serde_json::from_str(data.unwrap_or("null")).unwrap();
            if event["event"] == "token" {
                let text = event["text"].as_str().unwrap();
                for written in text.split_whitespace() {
                    let written: u128 = written.parse().unwrap();
                    times.push((here - written) as f64 / 1000.0);
                }
            }
            assert_ne!(event["event"], "failed", "{event}");
            rest = after.to_owned();
        }
    }
    times
}
