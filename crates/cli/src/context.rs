//! What every command is handed: settings, the screen, Ctrl-C, and ways to the index and the models.

use std::path::PathBuf;

use colibri_engine::{
    self as engine, KeptFeatures,
    checkpoints::{
        Choice, DEFAULT_GENERATOR, LoadedGenerator, LoadedRetriever, ModelConfig, Models,
    },
    footprint::Role,
    hosted::{self, HostedConfig},
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
        Self {
            global,
            screen,
            interrupt: Interrupt::default(),
        }
    }

    /// The folder of the index.
    ///
    /// # Errors
    /// When none is named and the home folder is unknown.
    pub(crate) fn index_dir(&self) -> Result<PathBuf> {
        self.global
            .index
            .clone()
            .map_or_else(places::default_index, Ok)
    }

    /// The index, for reading.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn index(&self) -> Result<Index> {
        Ok(Index::open(self.index_dir()?)?)
    }

    /// The models, none of them loaded yet.
    ///
    /// # Errors
    /// When a remote model is named as retriever, or the home folder is unknown.
    pub(crate) fn models(&self) -> Result<Models> {
        if self.global.retriever.starts_with(hosted::PREFIX) {
            let name = self.global.retriever.clone();
            return Err(Error::RemoteRetriever { name });
        }
        Ok(Models::new(ModelConfig {
            hub: hub_config()?,
            hosted: HostedConfig::from_env_values(|name| std::env::var(name).ok()),
            builtin_dir: places::cache()?,
            packed_dir: (!self.global.no_packed).then(places::packed).transpose()?,
            retriever: choice(&self.global.retriever),
            generator: choice(&self.global.generator),
            precision: self.global.precision(),
            prompt_version: self.global.prompts(),
            tiles: TileOptions {
                detail: self.global.detail,
                split: self.global.no_split.then_some(false),
            },
            features: KeptFeatures {
                max_bytes: self.global.feature_cache,
                precision: self.global.feature_precision.into(),
            },
            kv: self.global.kv_precision.into(),
            memory: self.global.memory,
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
        let progress = self.model_progress(true);
        let on_event = |event| progress.on_event(event);
        let found = models.retriever(None, &on_event)?;
        self.screen.hide_bar();
        found.ok_or(Error::ModelRefused { role: "retriever" })
    }

    /// The generator, where nothing can be done without one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn need_generator(&self, models: &Models) -> Result<LoadedGenerator> {
        let progress = self.model_progress(true);
        let on_event = |event| progress.on_event(event);
        // Looked for here first, so that the reason is an error and not a note.
        if models.config().generator == Choice::Auto {
            models
                .locate(DEFAULT_GENERATOR, Role::Generator, &on_event)
                .map_err(|error| engine::Error::NoGenerator {
                    reason: engine::chain(&error),
                })?;
        }
        let found = models.generator(&on_event)?;
        self.screen.hide_bar();
        found.ok_or(Error::ModelRefused { role: "generator" })
    }
}

/// What a person calls a model.
fn choice(name: &str) -> Choice {
    let Ok(choice) = name.parse();
    choice
}

/// The hub and its cache, as the environment says.
///
/// # Errors
/// When the home folder is unknown.
pub(crate) fn hub_config() -> Result<HubConfig> {
    let home = places::home()?;
    Ok(HubConfig::from_env_values(
        |name| std::env::var(name).ok(),
        &home,
    ))
}
