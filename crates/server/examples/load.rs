//! Load from a second process: many clients that search while documents come in, then many that leave early.
//!
//! ```text
//! cargo run --example load -- http://127.0.0.1:8017 64 60 10000 examples/documents
//! ```
//!
//! Address, clients, seconds, requests to abort, a folder of documents to send again and again (each with a
//! byte added, so that it is new). Prints figures as one JSON object.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool of the developers that fails loudly"
)]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::{Value, json};

const QUESTIONS: [&str; 4] = [
    "total of the invoice",
    "who presented the winter timetable",
    "income by quarter",
    "date of the letter",
];

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [url, clients, seconds, aborted, folder] = given.as_slice() else {
        panic!("ADDRESS CLIENTS SECONDS ABORTED FOLDER");
    };
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .build()
        .unwrap();
    let before = resident(&client, url).await;
    let number = |text: &String| text.parse::<u64>().unwrap();
    let searched = search(
        &client,
        url,
        number(clients),
        number(seconds),
        folder.into(),
    )
    .await;
    let between = resident(&client, url).await;
    let left = leave(&client, url, number(aborted)).await;
    let after = resident(&client, url).await;
    let connections = metric(&client, url, "colibri_connections").await;
    println!(
        "{}",
        json!({
            "search": searched, "aborted": left, "connections_left": connections,
            "resident_mb": {"before": before / 1e6, "after_search": between / 1e6, "after_aborted": after / 1e6},
        })
    );
}

async fn metric(client: &Client, url: &str, name: &str) -> f64 {
    let text = client.get(format!("{url}/metrics")).send().await.unwrap();
    let text = text.text().await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap().parse().unwrap()
}

async fn resident(client: &Client, url: &str) -> f64 {
    metric(client, url, "colibri_resident_bytes").await
}

/// Every client searches again as soon as it has its answer, while documents are sent.
async fn search(client: &Client, url: &str, clients: u64, seconds: u64, folder: PathBuf) -> Value {
    let end = Instant::now() + Duration::from_secs(seconds);
    let over = Arc::new(AtomicBool::new(false));
    let indexing = tokio::spawn(index(client.clone(), url.to_owned(), folder, over.clone()));
    let errors = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for at in 0..clients {
        let (client, url, errors) = (client.clone(), url.to_owned(), errors.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            let mut turn = at as usize;
            while Instant::now() < end {
                turn += 1;
                let body = json!({"query": QUESTIONS[turn % QUESTIONS.len()], "k": 5});
                let began = Instant::now();
                let answer = client
                    .post(format!("{url}/api/search"))
                    .json(&body)
                    .send()
                    .await;
                let whole = match answer {
                    Ok(answer) if answer.status() == 200 => answer.bytes().await.is_ok(),
                    _ => false,
                };
                if whole {
                    times.push(began.elapsed().as_secs_f64() * 1000.0);
                } else {
                    errors.fetch_add(1, Relaxed);
                }
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    over.store(true, Relaxed);
    let documents = indexing.await.unwrap();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    json!({
        "clients": clients, "seconds": seconds, "searches": times.len(), "errors": errors.load(Relaxed),
        "per_second": times.len() as f64 / seconds as f64, "documents_sent": documents,
        "pages_indexed": metric(client, url, "colibri_pages_indexed_total").await,
        "ms": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)},
    })
}

async fn index(client: Client, url: String, folder: PathBuf, over: Arc<AtomicBool>) -> u64 {
    let files: Vec<PathBuf> = fs_err::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let mut sent = 0;
    while !over.load(Relaxed) {
        let file = &files[sent as usize % files.len()];
        let mut bytes = fs_err::read(file).unwrap();
        bytes.extend(format!("\n%{sent}\n").into_bytes());
        let path = format!("{url}/api/documents?name=load-{sent}.pdf");
        let answer = client.post(path).body(bytes).send().await.unwrap();
        sent += 1;
        if answer.status() != 202 {
            continue;
        }
        let job: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let events = client
            .get(format!("{url}/api/jobs/{}/events", job["id"]))
            .send()
            .await;
        drop(events.unwrap().bytes().await);
    }
    sent
}

/// Clients that leave when the first byte of an answer is there, or before.
async fn leave(client: &Client, url: &str, number: u64) -> Value {
    let began = Instant::now();
    let gate = Arc::new(tokio::sync::Semaphore::new(32));
    let mut tasks = Vec::new();
    for at in 0..number {
        let permit = gate.clone().acquire_owned().await.unwrap();
        let (client, url) = (client.clone(), url.to_owned());
        tasks.push(tokio::spawn(async move {
            let _permit = permit;
            let body =
                json!({"question": QUESTIONS[at as usize % QUESTIONS.len()], "query": "total"});
            let path = if at % 2 == 0 {
                "/api/ask"
            } else {
                "/api/search"
            };
            let asked = client.post(format!("{url}{path}")).json(&body).send();
            // Half of them do not even wait for the headers.
            if at % 4 < 2 {
                let _ = tokio::time::timeout(Duration::from_millis(1), asked).await;
            } else if let Ok(mut answer) = asked.await {
                let _ = answer.chunk().await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    json!({"requests": number, "seconds": began.elapsed().as_secs_f64()})
}
