//! What all requests share.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use colibri_engine::{
    self as engine,
    checkpoints::{ModelEvent, Models},
    index::{Index, Mode},
    retrieve::Searcher,
    threads,
};
use tokio::sync::Semaphore;

use crate::{
    Error, Result, ServerConfig,
    activity::{About, Activity, in_words},
    asks::{self, Asks},
    jobs::{self, Jobs},
    metrics::Metrics,
    page_cache::PageCache,
};

/// Drawn pages kept in memory.
const PICTURES_BYTES: usize = 64 << 20;

/// A server without its sockets.
pub struct App {
    config: ServerConfig,
    pub(crate) models: Models,
    index: RwLock<Option<Arc<Index>>>,
    /// The index's retriever could not be had: pages are found by their text, and nobody waits for a hub again.
    text_only: AtomicBool,
    pub(crate) asks: Asks,
    pub(crate) jobs: Jobs,
    pub(crate) activity: Activity,
    pub(crate) metrics: Metrics,
    pub(crate) pictures: PageCache,
    threads: Arc<Semaphore>,
    waiting: AtomicUsize,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Starts the two threads that work; nothing is opened or loaded yet.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(config: ServerConfig) -> Result<Arc<Self>> {
        let bounds = config.bounds.clone();
        let app = Arc::new(Self {
            models: Models::new(config.models.clone()),
            index: RwLock::default(),
            text_only: AtomicBool::new(false),
            asks: Asks::new(&bounds),
            jobs: Jobs::new(&bounds),
            activity: Activity::default(),
            metrics: Metrics::default(),
            pictures: PageCache::new(PICTURES_BYTES),
            threads: Arc::new(Semaphore::new(threads::count().max(2))),
            waiting: AtomicUsize::new(0),
            workers: Mutex::default(),
            config,
        });
        let start = |name: &str, run: fn(&Arc<Self>)| {
            let app = app.clone();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || run(&app))
                .map_err(|source| Error::Io {
                    path: "a thread".into(),
                    source,
                })
        };
        let workers = vec![start("asks", asks::run)?, start("jobs", jobs::run)?];
        *app.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers;
        Ok(app)
    }

    /// The settings.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Ends all work and waits for it: what is committed stays, what is not leaves no trace.
    pub fn stop(&self) {
        self.asks.stop();
        self.jobs.stop();
        self.activity.log.close();
        let workers =
            std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            // One that panicked has said so on standard error.
            drop(worker.join());
        }
    }

    /// The index, opened when it is first there.
    ///
    /// # Errors
    /// When there is none yet, or it cannot be read.
    pub(crate) fn index(&self) -> Result<Arc<Index>> {
        let known = self
            .index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(index) = known {
            return Ok(index);
        }
        let index = Arc::new(Index::open(&self.config.index)?);
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Some(index.clone());
        Ok(index)
    }

    /// The index, or `None` where no document was ever added.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    pub(crate) fn index_if_any(&self) -> Result<Option<Arc<Index>>> {
        match self.index() {
            Ok(index) => Ok(Some(index)),
            Err(Error::Engine(engine::Error::Index(engine::index::Error::NoIndex { .. }))) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A searcher in `mode`; blocks while a model is loaded.
    ///
    /// # Errors
    /// As [`Searcher::open`].
    pub(crate) fn searcher<'a>(
        &self,
        index: &'a Index,
        mode: Mode,
        on_model: &(dyn Fn(ModelEvent) + Sync),
    ) -> Result<Searcher<'a>> {
        let known_absent = self.text_only.load(Ordering::Relaxed) && mode == Mode::Hybrid;
        let asked = if known_absent { Mode::Text } else { mode };
        let searcher = Searcher::open(index, &self.models, asked, on_model)?;
        let has_rows = index.settings()?.retriever.is_some();
        if asked == Mode::Hybrid && searcher.mode() == Mode::Text && has_rows {
            self.text_only.store(true, Ordering::Relaxed);
        }
        Ok(searcher)
    }

    /// Tells of models being fetched and loaded.
    pub(crate) fn on_model(&self, event: &ModelEvent) {
        if let Some(message) = in_words(event) {
            self.activity.note(About::Model, &message, None);
        }
    }

    /// Runs `work` on a thread that may block; a bounded number of them compute and a bounded number wait.
    ///
    /// # Errors
    /// [`Error::Busy`], or those of the work.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let most = self.config.bounds.waiting_searches;
        let place = Place::take(&self.waiting, most)?;
        let permit = self.threads.clone().acquire_owned().await;
        drop(place);
        let permit = permit.map_err(|_| Error::Ending)?;
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&app)
        });
        done.await.map_err(|_| Error::Thread {
            doing: "the work for this request",
        })?
    }
}

/// A place among those who wait, given back when it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Result<Self> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= most {
            drop(place);
            return Err(Error::Busy { what: "searches" });
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A name that cannot be guessed: the process's own random keys, hashed with a counter.
pub(crate) fn random_name() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let (one, two) = (RandomState::new(), RandomState::new());
    let now = std::time::SystemTime::now();
    format!("{:016x}{:016x}", one.hash_one(now), two.hash_one(now))
}
