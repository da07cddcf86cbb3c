//! Which models serve, where their files are, and when they are loaded.
//!
//! A model is named by a folder or a hub name. Nothing is loaded before it is needed: a search by text
//! never opens a weight file.

pub(crate) mod builtin;
mod config;
mod fingerprint;
mod loaded;
mod planning;
mod resolve;

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use colibri_models::{
    Placement, TensorPool,
    footprint::Role,
    machine,
    registry::{self, Checkpoint, LoadOptions},
    retrievers::Retriever,
};

use crate::{
    Error, Result,
    budget::{ModelPlan, Swapped},
    hosted::{self, Hosted},
    hub::Hub,
};

pub use builtin::{ABOUT_BUILTIN, BUILTIN};
pub use colibri_models::{KeptWeights, Part, SharedPart, list_packed, remove_packed};
pub use config::{
    Choice, DEFAULT_GENERATOR, DEFAULT_RETRIEVER, Located, ModelConfig, PrecisionChoice,
};
use loaded::Slot;
pub use loaded::{LoadedGenerator, LoadedRetriever, ModelEvent, OnModelEvent};
use planning::Budget;

/// The models of one run, loaded when first needed.
pub struct Models {
    config: ModelConfig,
    hub: Hub,
    pool: Arc<TensorPool>,
    retriever: Mutex<Slot<LoadedRetriever>>,
    reader: Mutex<Slot<LoadedGenerator>>,
    generator: Arc<Mutex<Slot<LoadedGenerator>>>,
    budget: Mutex<Budget>,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Models {
    /// Nothing is opened yet.
    pub fn new(config: ModelConfig) -> Self {
        let hub = Hub::new(config.hub.clone());
        let pool = Arc::new(
            TensorPool::new(Some(config.builtin_dir.join("tensors")))
                .keep_packed(config.packed_dir.clone()),
        );
        Self {
            config,
            hub,
            pool,
            retriever: Mutex::default(),
            reader: Mutex::default(),
            generator: Arc::default(),
            budget: Mutex::default(),
        }
    }

    /// The settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The hub.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    fn options(&self, located: &Located, plan: &ModelPlan) -> LoadOptions {
        LoadOptions {
            prompt_version: self.config.prompt_version,
            tiles: self.config.tiles,
            merge_adapter: false,
            made_up: located.made_up,
            pool: Some(Arc::clone(&self.pool)),
            prefix_bytes: plan.prefix_bytes as usize,
            kv: self.config.kv,
            ..LoadOptions::new(Placement::cpu(plan.held_in))
        }
    }

    fn load_retriever(
        &self,
        located: &Located,
        on_event: OnModelEvent<'_>,
    ) -> Result<Arc<dyn Retriever>> {
        let plan = self.plan(located, Role::Retriever, on_event)?;
        self.budget().retriever = Some(plan.clone());
        on_event(ModelEvent::Loading {
            model: located.name.clone(),
        });
        let mut options = self.options(located, &plan);
        // Not cutting is for conversations: rows of pages that are cut otherwise do not compare.
        options.tiles.split = None;
        let checkpoint = located.checkpoint.clone();
        if self.config.memory.is_none() {
            return Ok(registry::load_retriever(&checkpoint, &options)?.into());
        }
        // It comes back only where the two did not fit beside each other, so the generator has to go.
        let generator = Arc::clone(&self.generator);
        let swapped = Arc::new(Swapped::new(Box::new(move || {
            *generator.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Unknown;
            machine::return_freed_blocks();
            registry::load_retriever(&checkpoint, &options)
        }))?);
        self.budget().swapped = Some(Arc::clone(&swapped));
        Ok(swapped)
    }

    /// The retriever: as chosen, or `remembered` (an index's own) where the choice is left open, or the
    /// default. `Ok(None)` if there is none to be had and none was named.
    ///
    /// # Errors
    /// When the one that was named cannot be fetched or loaded.
    pub fn retriever(
        &self,
        remembered: Option<&str>,
        on_event: OnModelEvent<'_>,
    ) -> Result<Option<LoadedRetriever>> {
        Slot::get_or(&self.retriever, || {
            let Some(located) = self.locate_retriever(remembered, on_event)? else {
                // Another index may name another retriever, so this is not remembered.
                return Ok(Slot::Unknown);
            };
            let model = self.load_retriever(&located, on_event)?;
            Ok(Slot::Loaded(LoadedRetriever {
                located,
                model,
                features: self.config.features,
            }))
        })
    }

    fn locate_retriever(
        &self,
        remembered: Option<&str>,
        on_event: OnModelEvent<'_>,
    ) -> Result<Option<Located>> {
        let name = match &self.config.retriever {
            Choice::None => return Ok(None),
            Choice::Found(located) => return Ok(Some((**located).clone())),
            Choice::Named(name) => {
                return self.locate(name, Role::Retriever, on_event).map(Some);
            }
            Choice::Auto => remembered.unwrap_or(DEFAULT_RETRIEVER),
        };
        match self.locate_default(name, Role::Retriever, on_event) {
            Ok(located) => Ok(Some(located)),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                let reason = first_line(&error);
                // Rows of another retriever do not compare: an index that has them is then
                // searched by its text.
                let serves = match remembered {
                    Some(_) => "no retriever: pages are found by their text alone",
                    None => {
                        "the built-in retriever serves: it is very small and reads plain printed words at best"
                    }
                };
                let message = format!(
                    "{serves} ({reason}). `colibri models pull {name}` fetches a better one."
                );
                on_event(ModelEvent::Fallback { message });
                match remembered {
                    Some(_) => Ok(None),
                    None => builtin::locate(&self.config.builtin_dir, Role::Retriever).map(Some),
                }
            }
        }
    }

    /// The generator: as chosen, or the default. `Ok(None)` if there is none to be had and none was
    /// named.
    ///
    /// # Errors
    /// When the one that was named cannot be fetched or loaded.
    pub fn generator(&self, on_event: OnModelEvent<'_>) -> Result<Option<LoadedGenerator>> {
        Slot::get_or(&self.generator, || {
            if let Choice::Named(name) = &self.config.generator
                && let Some(model) = name.strip_prefix(hosted::PREFIX)
            {
                return Ok(Slot::Loaded(self.hosted(name, model, on_event)?));
            }
            let Some(located) = self.locate_generator(on_event)? else {
                return Ok(Slot::Absent);
            };
            self.load_generator(located, on_event).map(Slot::Loaded)
        })
    }

    /// The built-in generator, where no other is to be had and none was refused: it reads what is on pages that have
    /// no text to quote.
    ///
    /// # Errors
    /// When it cannot be unpacked or loaded.
    pub fn reader(&self, on_event: OnModelEvent<'_>) -> Result<Option<LoadedGenerator>> {
        if self.config.generator != Choice::Auto {
            return Ok(None);
        }
        Slot::get_or(&self.reader, || {
            let located = builtin::locate(&self.config.builtin_dir, Role::Generator)?;
            self.load_generator(located, on_event).map(Slot::Loaded)
        })
    }

    fn load_generator(
        &self,
        located: Located,
        on_event: OnModelEvent<'_>,
    ) -> Result<LoadedGenerator> {
        let mut plan = self.plan(&located, Role::Generator, on_event)?;
        self.make_room(&mut plan);
        on_event(ModelEvent::Loading {
            model: located.name.clone(),
        });
        let options = self.options(&located, &plan);
        let model = registry::load_generator(&located.checkpoint, &options)?;
        Ok(LoadedGenerator {
            located,
            model: model.into(),
        })
    }

    fn locate_generator(&self, on_event: OnModelEvent<'_>) -> Result<Option<Located>> {
        match &self.config.generator {
            Choice::None => return Ok(None),
            Choice::Found(located) => return Ok(Some((**located).clone())),
            Choice::Named(name) => {
                return self.locate(name, Role::Generator, on_event).map(Some);
            }
            Choice::Auto => {}
        }
        match self.locate_default(DEFAULT_GENERATOR, Role::Generator, on_event) {
            Ok(located) => Ok(Some(located)),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                let message = format!(
                    "no generator: answers quote the pages, and what is on one without text is read by a very small built-in \
                     model, which errs often ({}). `colibri models pull {DEFAULT_GENERATOR}` fetches a better one; \
                     `--generator builtin` reads every page.",
                    first_line(&error)
                );
                on_event(ModelEvent::Fallback { message });
                Ok(None)
            }
        }
    }

    /// A generator that runs elsewhere. Nothing is sent yet; where it is not on this machine, that is told.
    fn hosted(
        &self,
        name: &str,
        model: &str,
        on_event: OnModelEvent<'_>,
    ) -> Result<LoadedGenerator> {
        let detail = self.config.tiles.detail.map(NonZeroU32::get);
        let hosted = Hosted::new(model, self.config.hosted.clone(), detail)?;
        if !hosted.is_here() {
            let message = format!(
                "questions and the pages shown with them are sent to {}",
                hosted.host()
            );
            on_event(ModelEvent::Fallback { message });
        }
        Ok(LoadedGenerator {
            located: Located {
                name: name.to_owned(),
                revision: String::new(),
                checkpoint: Checkpoint {
                    folder: PathBuf::new(),
                    base: None,
                },
                made_up: None,
            },
            model: Arc::new(hosted),
        })
    }

    /// Finds the files of a model that is to serve as `role`, fetching what is missing; an adapter's base too.
    ///
    /// # Errors
    /// When there is no such folder or model, or files cannot be fetched.
    pub fn locate(&self, name: &str, role: Role, on_event: OnModelEvent<'_>) -> Result<Located> {
        if name == BUILTIN {
            return builtin::locate(&self.config.builtin_dir, role);
        }
        resolve::locate(&self.hub, name, default_for(role), on_event)
    }

    /// Which tensors of `second` have the values of a tensor of `first`, part by part.
    ///
    /// # Errors
    /// When weights cannot be read.
    pub fn shared(&self, first: &Checkpoint, second: &Checkpoint) -> Result<Vec<SharedPart>> {
        Ok(colibri_models::shared(first, second, &self.pool)?)
    }

    fn locate_default(
        &self,
        name: &str,
        role: Role,
        on_event: OnModelEvent<'_>,
    ) -> Result<Located> {
        if name == BUILTIN {
            return builtin::locate(&self.config.builtin_dir, role);
        }
        resolve::locate_default(&self.hub, name, default_for(role), on_event)
    }

    /// The models that are in memory now, without waiting for one that is being loaded.
    pub fn loaded(&self) -> (Option<LoadedRetriever>, Option<LoadedGenerator>) {
        (Slot::loaded(&self.retriever), Slot::loaded(&self.generator))
    }

    /// Whether it is known that answers are quotes: no generator was chosen, or none could be had.
    pub fn only_quotes(&self) -> bool {
        let slot = self.generator.try_lock();
        self.config.generator == Choice::None
            || slot.is_ok_and(|slot| matches!(*slot, Slot::Absent))
    }

    /// Gives the memory of the loaded models back.
    pub fn unload(&self) {
        *self
            .retriever
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Slot::Unknown;
        for slot in [&*self.generator, &self.reader] {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Unknown;
        }
        machine::return_freed_blocks();
    }
}

/// The model that serves in a role where none was named.
fn default_for(role: Role) -> &'static str {
    match role {
        Role::Retriever => DEFAULT_RETRIEVER,
        Role::Generator => DEFAULT_GENERATOR,
    }
}

fn first_line(error: &Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// The folder a checkpoint's name leads to, if it is one.
fn folder(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(name);
    path.is_dir().then_some(path)
}
