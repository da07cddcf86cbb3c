//! Settings of a server; the program fills them in.

use std::{path::PathBuf, time::Duration};

use colibri_engine::{checkpoints::ModelConfig, document::OpenOptions, web::FetchConfig};

/// Who may use the server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What callers must show, if anything.
    pub api_key: Option<ApiKey>,
    /// Host names by which the server may be called, besides addresses and `localhost`.
    pub host_names: Vec<String>,
}

/// A secret, kept as its hash: it can be compared, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(blake3::Hash);

impl ApiKey {
    /// The key `text`.
    pub fn new(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }

    /// Whether `text` is the key. [`blake3::Hash`] compares in constant time.
    pub fn is(&self, text: &str) -> bool {
        self.0 == blake3::hash(text.as_bytes())
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

/// What one caller may cost.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections open at once.
    pub connections: usize,
    /// Bytes of an uploaded file.
    pub upload_bytes: u64,
    /// Bytes of all uploaded files together.
    pub uploads_bytes: u64,
    /// Bytes of a JSON body without pictures.
    pub json_bytes: usize,
    /// Bytes of a JSON body that may hold pictures.
    pub pictures_bytes: usize,
    /// Questions waiting for the generator.
    pub waiting_asks: usize,
    /// Index jobs waiting.
    pub waiting_jobs: usize,
    /// Searches and drawings waiting for a thread.
    pub waiting_searches: usize,
    /// From the first byte of a request to the last of its headers.
    pub header_time: Duration,
    /// Between two pieces of a body, and between two pieces that a peer takes.
    pub stall_time: Duration,
    /// How long an answer goes on without a reader while nobody else waits.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 512,
            upload_bytes: 256 << 20,
            uploads_bytes: 16 << 30,
            json_bytes: 256 << 10,
            pictures_bytes: 32 << 20,
            waiting_asks: 128,
            waiting_jobs: 1024,
            waiting_searches: 256,
            header_time: Duration::from_secs(10),
            stall_time: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

/// Everything a server is told.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The folder of the index; made when the first document comes.
    pub index: PathBuf,
    /// Where uploaded and fetched files are kept.
    pub uploads: PathBuf,
    /// Folders from which documents may be added by their path on this machine.
    pub roots: Vec<PathBuf>,
    /// The models.
    pub models: ModelConfig,
    /// How documents are opened.
    pub open: OpenOptions,
    /// How documents are fetched by URL; `None` refuses to.
    pub fetch: Option<FetchConfig>,
    /// Who may use it.
    pub access: Access,
    /// What callers may cost.
    pub bounds: Bounds,
}
