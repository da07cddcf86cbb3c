//! What every command is handed: settings, the screen, Ctrl-C, and ways to the index and the models.

use std::path::PathBuf;

use colibri_engine::{
    checkpoints::{Choice, LoadedGenerator, LoadedRetriever, ModelConfig, ModelEvent, Models},
    hub::HubConfig,
    index::Index,
    processor::TileOptions,
    threads,
};

use crate::{
    args::Global,
    error::{Error, Result},
    interrupt::Interrupt,
    places,
    progress::ModelProgress,
    screen::Screen,
};

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Context {
    /// Options of every command.
    pub(crate) global: Global,
    /// Output.
    pub(crate) screen: Screen,
    /// Ctrl-C.
    pub(crate) interrupt: Interrupt,
}

impl Context {
    /// Sets the number of threads too, before anything computes.
    pub(crate) fn new(global: Global, screen: Screen) -> Self {
        if let Some(number) = global.threads {
            threads::set(number.get() as usize);
        }
        Self { global, screen, interrupt: Interrupt::default() }
    }

    /// The folder of the index.
    ///
    /// # Errors
    /// When none is named and the home folder is unknown.
    pub(crate) fn index_dir(&self) -> Result<PathBuf> {
        self.global.index.clone().map_or_else(places::default_index, Ok)
    }

    /// The index, for reading.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn index(&self) -> Result<Index> {
        Ok(Index::open(self.index_dir()?)?)
    }

    /// The hub and its cache, as the environment says.
    ///
    /// # Errors
    /// When the home folder is unknown.
    pub(crate) fn hub_config(&self) -> Result<HubConfig> {
        Ok(HubConfig::from_env_values(|name| std::env::var(name).ok(), &places::home()?))
    }

    /// The models, none of them loaded yet.
    ///
    /// # Errors
    /// When a remote model is named, or the home folder is unknown.
    pub(crate) fn models(&self) -> Result<Models> {
        for name in [&self.global.retriever, &self.global.generator] {
            if name.starts_with("openai:") {
                return Err(Error::RemoteModel { name: name.clone() });
            }
        }
        Ok(Models::new(ModelConfig {
            hub: self.hub_config()?,
            retriever: choice(&self.global.retriever),
            generator: choice(&self.global.generator),
            precision: self.global.precision(),
            prompt_version: self.global.prompts(),
            tiles: TileOptions { detail: self.global.detail, split: None },
        }))
    }

    /// Watches models being fetched and loaded; `events` also writes JSON events.
    pub(crate) fn model_progress(&self, events: bool) -> ModelProgress<'_> {
        ModelProgress::new(&self.screen, &self.interrupt, events)
    }

    /// The retriever, where nothing can be done without one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn need_retriever(&self, models: &Models) -> Result<LoadedRetriever> {
        let reason = Reason::default();
        let progress = self.model_progress(false);
        let found = models.retriever(None, &|event| reason.or(event, &progress))?;
        self.screen.hide_bar();
        found.ok_or_else(|| {
            let reason = reason.told(&models.config().retriever);
            colibri_engine::Error::NoRetriever { reason }.into()
        })
    }

    /// The generator, where nothing can be done without one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn need_generator(&self, models: &Models) -> Result<LoadedGenerator> {
        let reason = Reason::default();
        let progress = self.model_progress(false);
        let found = models.generator(&|event| reason.or(event, &progress))?;
        self.screen.hide_bar();
        found.ok_or_else(|| {
            let reason = reason.told(&models.config().generator);
            colibri_engine::Error::NoGenerator { reason }.into()
        })
    }
}

/// Why a model is not there, kept for an error instead of being noted.
#[derive(Debug, Default)]
struct Reason(std::sync::Mutex<Option<String>>);

impl Reason {
    fn or(&self, event: ModelEvent, progress: &ModelProgress<'_>) {
        match event {
            ModelEvent::Fallback { message } => {
                *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(message);
            }
            event @ (ModelEvent::Fetch { .. } | ModelEvent::Loading { .. }) => progress.on_event(event),
        }
    }

    fn told(self, choice: &Choice) -> String {
        let told = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        match (told, choice) {
            (Some(told), _) => told,
            (None, Choice::None) => "`none` was asked for".to_owned(),
            (None, Choice::Auto | Choice::Named(_)) => "it could not be loaded".to_owned(),
        }
    }
}

/// What a person calls a model.
fn choice(name: &str) -> Choice {
    let Ok(choice) = name.parse();
    choice
}
