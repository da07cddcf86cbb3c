//! A server in this process and a client that speaks to it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use colibri_engine::{
    KeptFeatures,
    checkpoints::{Choice, ModelConfig, PrecisionChoice},
    document::OpenOptions,
    hub::HubConfig,
};
use colibri_server::{Access, App, Bounds, Listening, ServerConfig, serve};
use colibri_testkit::random::{Role, TINY, write_checkpoint};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

/// How long anything may take before a test has failed: far longer than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/documents")
}

pub(crate) fn example(name: &str) -> Vec<u8> {
    fs_err::read(examples().join(name)).unwrap()
}

/// A server, ended when it is dropped.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) app: Arc<App>,
    client: reqwest::Client,
    shutdown: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// Settings of a server that has no network and finds pages by their text.
pub(crate) fn settings(folder: &Path) -> ServerConfig {
    let mut hub = HubConfig::new(folder.join("no-such-cache"));
    hub.offline = true;
    ServerConfig {
        index: folder.join("index"),
        uploads: folder.join("uploads"),
        roots: Vec::new(),
        models: ModelConfig {
            packed_dir: Some(folder.join("packed")),
            retriever: Choice::None,
            generator: Choice::None,
            precision: PrecisionChoice::F32,
            features: KeptFeatures::none(),
            ..ModelConfig::new(hub, folder.join("builtin"))
        },
        open: OpenOptions::default(),
        fetch: None,
        access: Access::default(),
        bounds: Bounds::default(),
    }
}

/// A checkpoint of noise; a generator of it writes until it is stopped or has no more room, since no token ends
/// its answers.
pub(crate) fn tiny(folder: &Path, role: Role) -> Choice {
    let target = folder.join(format!("{role:?}"));
    write_checkpoint(&target, &TINY, role);
    if role == Role::Generator {
        fs_err::write(
            target.join("generation_config.json"),
            r#"{"eos_token_id": []}"#,
        )
        .unwrap();
    }
    Choice::Named(target.to_str().unwrap().to_owned())
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings of its own.
    pub(crate) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        // Nothing here is encrypted, but a client is not built without a provider.
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let mut config = settings(folder.path());
        change(&mut config);
        let app = App::start(config).unwrap();
        let listening = Listening::at("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listening.address;
        let (shutdown, asked) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(app.clone(), listening, async {
            drop(asked.await);
        }));
        Self {
            address,
            folder,
            app,
            client: reqwest::Client::builder()
                .tls_certs_only([])
                .no_proxy()
                .build()
                .unwrap(),
            shutdown: Some(shutdown),
            serving: Some(serving),
        }
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn end(mut self) -> tempfile::TempDir {
        drop(self.shutdown.take());
        let serving = self.serving.take().unwrap();
        tokio::time::timeout(PATIENCE, serving)
            .await
            .unwrap()
            .unwrap();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.folder, empty)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(self.url(path)).timeout(PATIENCE)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client
            .post(self.url(path))
            .timeout(PATIENCE)
            .json(body)
    }

    pub(crate) fn delete(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.delete(self.url(path)).timeout(PATIENCE)
    }

    /// Sends a file; the job it begins.
    pub(crate) async fn upload(&self, name: &str, bytes: Vec<u8>) -> (u16, Value) {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let url = self.url(&format!("/api/documents?name={encoded}"));
        let request = self.client.post(url).body(bytes);
        answer(request).await
    }

    /// Waits for the end of a job; its last state.
    pub(crate) async fn job(&self, begun: &Value) -> Value {
        let path = format!("/api/jobs/{}/events", begun["id"]);
        let events = self.events(self.get(&path)).await;
        events
            .into_iter()
            .rfind(|(name, _)| name == "job")
            .unwrap()
            .1
    }

    /// Sends a file and waits until it is indexed.
    pub(crate) async fn add(&self, name: &str, bytes: Vec<u8>) -> Value {
        let (status, job) = self.upload(name, bytes).await;
        assert_eq!(status, 202, "{job}");
        let ended = self.job(&job).await;
        assert_eq!(ended["state"], "done", "{ended}");
        ended
    }

    /// All events of a stream that ends.
    pub(crate) async fn events(&self, request: reqwest::RequestBuilder) -> Vec<(String, Value)> {
        let response = request.timeout(PATIENCE).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        parse_events(&response.text().await.unwrap())
    }

    /// The first page of a document.
    pub(crate) async fn first_page(&self, name: &str) -> i64 {
        let (_, listed) = answer(self.get("/api/documents")).await;
        let documents = listed["documents"].as_array().unwrap();
        let found = documents.iter().find(|one| one["name"] == name).unwrap();
        found["first_page"].as_i64().unwrap()
    }

    /// Sends bytes as they are; what comes back until the other side closes or says nothing more.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut said = Vec::new();
        let read = stream.read_to_end(&mut said);
        let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The status of a request with these headers.
    pub(crate) async fn raw_status(&self, line: &str, headers: &[&str]) -> String {
        let headers = headers.join("\r\n");
        let request = format!("{line} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        // The first line only: a stream of events has no end.
        let mut said = [0; 12];
        let read = stream.read_exact(&mut said);
        let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
        String::from_utf8_lossy(&said[9..]).into_owned()
    }
}

/// The value of a line of `/metrics`.
pub(crate) async fn metric(site: &Site, name: &str) -> u64 {
    let (_, text) = answer(site.get("/metrics")).await;
    let text = text.as_str().unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("colibri_{name} ")));
    line.unwrap().parse().unwrap()
}

/// Waits until no question is being answered or waits.
pub(crate) async fn at_rest(site: &Site) {
    let rest = async {
        while metric(site, "asks_running").await + metric(site, "asks_waiting").await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, rest).await.unwrap();
}

/// Status and JSON of an answer.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.timeout(PATIENCE).send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

pub(crate) fn parse_events(text: &str) -> Vec<(String, Value)> {
    let block = |block: &str| {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let data = serde_json::from_str(&field("data:")?).ok()?;
        Some((field("event:").unwrap_or_default(), data))
    };
    text.split("\n\n").filter_map(block).collect()
}

/// A PDF of one page with these lines, and this title.
pub(crate) fn pdf(title: &str, lines: &[&str]) -> Vec<u8> {
    let escape = |text: &str| {
        text.replace('\\', "\\\\")
            .replace('(', "\\(")
            .replace(')', "\\)")
    };
    let mut content = String::from("BT /F1 14 Tf 50 740 Td 18 TL");
    for line in lines {
        content.push_str(&format!(" ({}) Tj T*", escape(line)));
    }
    content.push_str(" ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
        format!("<< /Title ({}) >>", escape(title)),
    ];
    let mut out = String::from("%PDF-1.4\n");
    let mut offsets = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        offsets.push(out.len());
        out.push_str(&format!("{} 0 obj\n{object}\nendobj\n", number + 1));
    }
    let start = out.len();
    out.push_str(&format!(
        "xref\n0 {}\n0000000000 65535 f \n",
        objects.len() + 1
    ));
    for offset in offsets {
        out.push_str(&format!("{offset:010} 00000 n \n"));
    }
    out.push_str(&format!(
        "trailer\n<< /Size {} /Root 1 0 R /Info 6 0 R >>\nstartxref\n{start}\n%%EOF\n",
        objects.len() + 1
    ));
    out.into_bytes()
}
