//! Models that are in memory, and what is told while they come there.

use std::sync::{Arc, Mutex, PoisonError};

use colibri_index::Settings;
use colibri_models::{generators::Generator, retrievers::Retriever};

use super::{BUILTIN, Located};
use crate::{KeptFeatures, Result, budget::ModelPlan, hub::Progress};

/// A retriever that is loaded.
#[derive(Clone)]
pub struct LoadedRetriever {
    /// Where it came from.
    pub located: Located,
    /// The model.
    pub model: Arc<dyn Retriever>,
    /// How much of what it sees on pages is kept beside an index.
    pub features: KeptFeatures,
}

impl LoadedRetriever {
    /// Whether its word counts less than that of the text.
    pub fn is_weak(&self) -> bool {
        self.located.name == BUILTIN
    }

    /// What an index remembers of it.
    pub fn index_settings(&self) -> Settings {
        let settings = self.model.settings();
        Settings {
            retriever: Some(self.located.name.clone()),
            revision: Some(self.located.revision.clone()),
            prompt_version: Some(format!(
                "{}/{}",
                settings.prompt_version, settings.longest_edge
            )),
            precision: Some(settings.precision),
            dim: Some(settings.dim),
        }
    }
}

/// A generator that is loaded.
#[derive(Clone)]
pub struct LoadedGenerator {
    /// Where it came from; without files where it runs elsewhere.
    pub located: Located,
    /// The model.
    pub model: Arc<dyn Generator>,
}

impl LoadedGenerator {
    /// Whether it understands one page and a bare question, and nothing else that is said.
    pub fn is_weak(&self) -> bool {
        self.located.name == BUILTIN
    }
}

/// What is told about models while they are fetched and loaded.
#[derive(Clone, Debug)]
pub enum ModelEvent {
    /// Files are being fetched.
    Fetch {
        /// The model.
        model: String,
        /// How far.
        progress: Progress,
    },
    /// How a model is going to be held.
    Planned(ModelPlan),
    /// Weights are being read.
    Loading {
        /// The model.
        model: String,
    },
    /// Something serves instead of what was meant, and why; or what a person should know of what serves.
    Fallback {
        /// One sentence.
        message: String,
    },
}

/// Watches models being fetched and loaded.
pub type OnModelEvent<'a> = &'a (dyn Fn(ModelEvent) + Sync);

/// What is known of a model. That there is none is remembered too: a conversation asks at every turn.
#[derive(Clone, Default)]
pub(super) enum Slot<T> {
    #[default]
    Unknown,
    Absent,
    Loaded(T),
}

impl<T: Clone> Slot<T> {
    /// The model, if it is loaded.
    pub(super) fn loaded(slot: &Mutex<Self>) -> Option<T> {
        match &*slot.try_lock().ok()? {
            Self::Loaded(loaded) => Some(loaded.clone()),
            Self::Unknown | Self::Absent => None,
        }
    }

    /// The model, if there is one; looked for where that is not known.
    pub(super) fn get_or(
        slot: &Mutex<Self>,
        find: impl FnOnce() -> Result<Self>,
    ) -> Result<Option<T>> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Self::Unknown) {
            *slot = find()?;
        }
        Ok(match &*slot {
            Self::Unknown | Self::Absent => None,
            Self::Loaded(loaded) => Some(loaded.clone()),
        })
    }
}
