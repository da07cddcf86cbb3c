//! Load from a second process: many clients that search while documents come in, then many that leave early.
//!
//! ```text
//! cargo run --example load -- http://127.0.0.1:8017 64 60 10000 examples/documents
//! ```
//!
//! Address, clients, seconds, requests to abort, a folder of documents to send again and again (each with a line
//! added, so that it is new). Prints what it sees as one JSON object a line; the server's own memory, files, tasks and
//! connections are read from its `/metrics`.

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

/// Each client asks them in turn, with a number in it: no two searches are the same.
const QUESTIONS: [&str; 4] = [
    "total of the invoice",
    "who presented the winter timetable",
    "income by quarter",
    "date of the letter",
];
/// Between two looks at the server while it is searched.
const LOOK: Duration = Duration::from_secs(5);
/// Requests on their way at once while they are broken off.
const LEAVING: usize = 32;
/// Looks at the server while requests are broken off.
const LEAVING_LOOKS: u64 = 4;

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [url, clients, seconds, aborted, folder] = given.as_slice() else {
        panic!("ADDRESS CLIENTS SECONDS ABORTED FOLDER");
    };
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let number = |text: &String| text.parse::<u64>().unwrap();
    let site = Site::new(url);
    let length = Duration::from_secs(number(seconds));
    site.look("at the beginning").await;
    let over = Arc::new(AtomicBool::new(false));
    let indexing = tokio::spawn(index(Site::new(url), folder.into(), over.clone()));
    search(&site, "while indexing", number(clients), length).await;
    over.store(true, Relaxed);
    let documents = indexing.await.unwrap();
    println!("{}", json!({"documents_sent": documents}));
    site.at_rest().await;
    site.look("after indexing").await;
    search(&site, "alone", number(clients), length / 4).await;
    site.at_rest().await;
    site.look("after searches alone").await;
    let quarter = number(aborted) / LEAVING_LOOKS;
    for number in 1..=LEAVING_LOOKS {
        leave(&site, quarter).await;
        site.at_rest().await;
        site.look(&format!("after {} broken off", number * quarter))
            .await;
    }
}

/// The server under load.
#[derive(Clone)]
struct Site {
    client: Client,
    url: String,
}

impl Site {
    /// With connections of its own, which end when it is dropped.
    fn new(url: &str) -> Self {
        let client = Client::builder().tls_certs_only([]).no_proxy();
        Self {
            client: client.build().unwrap(),
            url: url.to_owned(),
        }
    }

    async fn metrics(&self, names: &[&str]) -> Vec<f64> {
        let response = self.client.get(format!("{}/metrics", self.url));
        let text = response.send().await.unwrap().text().await.unwrap();
        let value = |name: &&str| {
            let begins = format!("colibri_{name} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&begins));
            line.map_or(f64::NAN, |value| value.parse().unwrap())
        };
        names.iter().map(value).collect()
    }

    /// Prints how the server is.
    async fn look(&self, when: &str) {
        let names = [
            "open_files",
            "tasks",
            "connections",
            "pages",
            "asks_running",
        ];
        let values = self.metrics(&names).await;
        let resident = self.metrics(&["resident_bytes"]).await[0] / 1e6;
        let mut told = json!({"when": when, "resident_mb": resident});
        for (name, value) in names.iter().zip(values) {
            told[name] = json!(value);
        }
        println!("{told}");
    }

    /// Waits until no question is left and every connection but our own has gone.
    async fn at_rest(&self) {
        loop {
            let names = ["asks_running", "asks_waiting", "connections"];
            if self.metrics(&names).await.iter().sum::<f64>() <= 1.0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Every client searches again as soon as it has its answer.
async fn search(site: &Site, what: &str, clients: u64, length: Duration) {
    let searching = Site::new(&site.url);
    let end = Instant::now() + length;
    let errors = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    let looking = tokio::spawn({
        let site = site.clone();
        async move {
            loop {
                tokio::time::sleep(LOOK).await;
                site.look("searching").await;
            }
        }
    });
    for at in 0..clients {
        let (site, errors) = (searching.clone(), errors.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            let mut turn = at as usize;
            while Instant::now() < end {
                turn += 1;
                let question = format!("{} {at}/{turn}", QUESTIONS[turn % QUESTIONS.len()]);
                let request = site
                    .client
                    .post(format!("{}/api/search", site.url))
                    .json(&json!({"query": question, "k": 5}));
                let began = Instant::now();
                let whole = match request.send().await {
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
    looking.abort();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{}",
        json!({
            "searched": what, "clients": clients, "seconds": length.as_secs_f64(),
            "searches": times.len(), "errors": errors.load(Relaxed),
            "per_second": times.len() as f64 / length.as_secs_f64(),
            "ms": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)},
        })
    );
}

/// Sends documents one after another and waits for each; how many.
async fn index(site: Site, folder: PathBuf, over: Arc<AtomicBool>) -> u64 {
    let files: Vec<PathBuf> = fs_err::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind == "pdf" || kind == "png")
        })
        .collect();
    let mut sent = 0;
    while !over.load(Relaxed) {
        let file = &files[sent as usize % files.len()];
        let mut bytes = fs_err::read(file).unwrap();
        bytes.extend(format!("\n%{sent}\n").into_bytes());
        let path = format!("{}/api/documents?name=load-{sent}.pdf", site.url);
        let answer = site.client.post(path).body(bytes).send().await.unwrap();
        assert_eq!(answer.status(), 202, "a document is refused");
        sent += 1;
        let job: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let path = format!("{}/api/jobs/{}/events", site.url, job["id"]);
        let events = site.client.get(path).send().await;
        drop(events.unwrap().bytes().await);
    }
    sent
}

/// Clients that leave when the first byte of an answer is there, or before.
async fn leave(site: &Site, number: u64) {
    let leaving = Site::new(&site.url);
    let gate = Arc::new(tokio::sync::Semaphore::new(LEAVING));
    let mut tasks = Vec::new();
    for at in 0..number {
        let permit = gate.clone().acquire_owned().await.unwrap();
        let site = leaving.clone();
        tasks.push(tokio::spawn(async move {
            let _permit = permit;
            let question = QUESTIONS[at as usize % QUESTIONS.len()];
            let body = json!({"question": question, "query": question});
            let path = if at % 2 == 0 { "ask" } else { "search" };
            let request = site.client.post(format!("{}/api/{path}", site.url));
            let asked = request.json(&body).send();
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
}
