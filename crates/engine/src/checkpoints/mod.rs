//! Which models serve, where their files are, and when they are loaded.
//!
//! A model is named by a folder or a hub name. Nothing is loaded before it is needed: a search by text
//! never opens a weight file.

pub(crate) mod builtin;
mod fingerprint;
mod resolve;

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use colibri_index::Settings;
use colibri_models::{
    Placement, Precision, TensorPool,
    footprint::Role,
    generators::Generator,
    processor::{PromptVersion, TileOptions},
    registry::{self, Checkpoint, LoadOptions},
    retrievers::Retriever,
};

use crate::{
    Error, Result,
    budget::{self, ModelPlan, Swapped, Work},
    hosted::{self, Hosted, HostedConfig},
    hub::{Hub, HubConfig, Progress},
    memory::Used,
};

pub use builtin::{ABOUT_BUILTIN, BUILTIN};
pub use colibri_models::{Part, SharedPart};

/// The retriever that serves when none is named.
pub const DEFAULT_RETRIEVER: &str = "vidore/colSmol-256M";
/// The generator that serves when none is named.
pub const DEFAULT_GENERATOR: &str = "HuggingFaceTB/SmolVLM-256M-Instruct";

/// Which model a person wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The default, if it can be had; otherwise none.
    #[default]
    Auto,
    /// None at all.
    None,
    /// A folder, a hub name, or `openai:MODEL`.
    Named(String),
    /// One whose files are found already.
    Found(Box<Located>),
}

impl std::str::FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            name => Self::Named(name.to_owned()),
        })
    }
}

/// In what form the large matrices are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrecisionChoice {
    /// In what the index holds its rows; otherwise bf16 (half the memory of f32 with cosines above 0.999, and no
    /// slower anywhere), or where memory is limited the first of bf16, int8 and int4 that fits.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Brain floating point.
    Bf16,
    /// Eight bits with a scale a row.
    Int8,
    /// Four bits with a multiplier for every 32 values.
    Int4,
}

impl PrecisionChoice {
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Auto | Self::Bf16 => Precision::Bf16,
            Self::Int8 => Precision::Int8,
            Self::Int4 => Precision::Int4,
        }
    }
}

impl std::str::FromStr for PrecisionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            "int4" => Ok(Self::Int4),
            other => Err(format!("`{other}` is none of auto, f32, bf16, int8, int4")),
        }
    }
}

/// Settings of the models.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The hub and its cache.
    pub hub: HubConfig,
    /// Generators that run elsewhere.
    pub hosted: HostedConfig,
    /// Where the built-in checkpoint is unpacked, and where hashes of weights are kept.
    pub builtin_dir: PathBuf,
    /// The retriever.
    pub retriever: Choice,
    /// The generator.
    pub generator: Choice,
    /// Precision of both.
    pub precision: PrecisionChoice,
    /// Prompts of the retriever.
    pub prompt_version: Option<PromptVersion>,
    /// How pictures are cut, where it differs from the checkpoint. Whether they are cut at all is said to
    /// the generator alone.
    pub tiles: TileOptions,
    /// Bytes of what is seen on pages that are kept beside an index; 0 for none.
    pub feature_bytes: u64,
    /// The greatest resident size of this process that is to be kept to; `None` for no limit.
    pub memory: Option<u64>,
}

/// A model's files, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The name under which an index remembers it: hub name or folder.
    pub name: String,
    /// Commit, or a fingerprint of the folder.
    pub revision: String,
    /// The files.
    pub checkpoint: Checkpoint,
    /// In place of weight files, values made up from this seed: for measuring.
    pub made_up: Option<u64>,
}

/// A retriever that is loaded.
#[derive(Clone)]
pub struct LoadedRetriever {
    /// Where it came from.
    pub located: Located,
    /// The model.
    pub model: Arc<dyn Retriever>,
    /// Bytes of what it sees on pages that are kept beside an index; 0 for none.
    pub feature_bytes: u64,
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
enum Slot<T> {
    #[default]
    Unknown,
    Absent,
    Loaded(T),
}

impl<T: Clone> Slot<T> {
    /// The model, if it is loaded.
    fn loaded(slot: &Mutex<Self>) -> Option<T> {
        match &*slot.try_lock().ok()? {
            Self::Loaded(loaded) => Some(loaded.clone()),
            Self::Unknown | Self::Absent => None,
        }
    }

    /// The model, if there is one; looked for where that is not known.
    fn get_or(slot: &Mutex<Self>, find: impl FnOnce() -> Result<Self>) -> Result<Option<T>> {
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

/// The models of one run, loaded when first needed.
pub struct Models {
    config: ModelConfig,
    hub: Hub,
    pool: Arc<TensorPool>,
    retriever: Mutex<Slot<LoadedRetriever>>,
    generator: Arc<Mutex<Slot<LoadedGenerator>>>,
    budget: Mutex<Budget>,
}

/// What is known of the memory of this run.
#[derive(Default)]
struct Budget {
    work: Work,
    remembered: Option<Precision>,
    retriever: Option<ModelPlan>,
    generator: Option<ModelPlan>,
    /// The retriever, where it is to be given up while the generator works.
    swapped: Option<Arc<Swapped>>,
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
        let pool = Arc::new(TensorPool::new(Some(config.builtin_dir.join("tensors"))));
        Self {
            config,
            hub,
            pool,
            retriever: Mutex::default(),
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

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a generator will be asked, so that memory is kept for it: pages shown at a time, and the longest answer.
    pub fn expect(&self, pages: usize, new_tokens: usize) {
        self.budget().work = Work {
            pages: pages.max(1),
            new_tokens,
        };
    }

    /// In what precision an index holds its rows: where none is chosen, its retriever is held in the same.
    pub fn remember_precision(&self, name: Option<&str>) {
        self.budget().remembered = name.and_then(budget::named);
    }

    /// Pages that may be shown to the generator at a time, within the memory it may use.
    pub fn most_pages(&self) -> usize {
        let budget = self.budget();
        let limited = self.config.memory.and(budget.generator.as_ref());
        limited.map_or(usize::MAX, |plan| plan.pages)
    }

    /// Where memory went, when a generator has read and written `tokens`.
    pub fn used(&self, tokens: usize) -> Used {
        let weights = {
            let retriever = self
                .retriever
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let generator = self
                .generator
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let of_retriever = match &*retriever {
                Slot::Loaded(loaded) => loaded.model.num_bytes(),
                Slot::Unknown | Slot::Absent => 0,
            };
            let of_generator = match &*generator {
                Slot::Loaded(loaded) => loaded.model.num_bytes(),
                Slot::Unknown | Slot::Absent => 0,
            };
            of_retriever + of_generator
        };
        let kv_bytes = self.budget().generator.as_ref().map_or(0, |plan| {
            plan.kv_bytes_per_token.saturating_mul(tokens as u64)
        });
        Used::now(weights as u64, kv_bytes)
    }

    /// How the models that were loaded are held.
    pub fn plans(&self) -> Vec<ModelPlan> {
        let budget = self.budget();
        let both = [&budget.retriever, &budget.generator];
        both.into_iter()
            .flatten()
            .filter(|plan| plan.is_known)
            .cloned()
            .collect()
    }

    /// How the chosen models would be held, without loading any.
    ///
    /// # Errors
    /// [`Error::Memory`] where one does not fit; when one that was named cannot be had.
    pub fn plans_beforehand(&self) -> Result<Vec<ModelPlan>> {
        let quiet = |_| {};
        let mut plans = Vec::new();
        if let Some(located) = self.locate_retriever(None, &quiet)? {
            plans.push(self.plan(&located, Role::Retriever, &quiet)?);
        }
        let is_hosted = matches!(&self.config.generator, Choice::Named(name) if name.starts_with(hosted::PREFIX));
        if !is_hosted && let Some(located) = self.locate_generator(&quiet)? {
            plans.push(self.plan(&located, Role::Generator, &quiet)?);
        }
        plans.retain(|plan| plan.is_known);
        Ok(plans)
    }

    fn plan(&self, located: &Located, role: Role, on_event: OnModelEvent<'_>) -> Result<ModelPlan> {
        let (work, remembered) = {
            let budget = self.budget();
            (budget.work, budget.remembered)
        };
        let plan = budget::plan(&budget::Asked {
            located,
            role,
            choice: self.config.precision,
            remembered: remembered.filter(|_| role == Role::Retriever),
            tiles: self.config.tiles,
            budget: self.config.memory,
            work,
        })?;
        if plan.is_known {
            on_event(ModelEvent::Planned(plan.clone()));
        }
        Ok(plan)
    }

    /// Whether two models may be held at once; they may where memory is not limited.
    fn fits_beside(&self, plan: &ModelPlan, other: Option<&ModelPlan>) -> bool {
        let (Some(budget), Some(other)) = (self.config.memory, other) else {
            return true;
        };
        plan.fits_beside(other, budget)
    }

    fn options(&self, located: &Located, plan: &ModelPlan) -> LoadOptions {
        LoadOptions {
            prompt_version: self.config.prompt_version,
            tiles: self.config.tiles,
            merge_adapter: false,
            made_up: located.made_up,
            pool: Some(Arc::clone(&self.pool)),
            prefix_bytes: plan.prefix_bytes as usize,
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
                feature_bytes: self.config.feature_bytes,
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
                return self.locate(name, DEFAULT_RETRIEVER, on_event).map(Some);
            }
            Choice::Auto => remembered.unwrap_or(DEFAULT_RETRIEVER),
        };
        match self.locate_default(name, DEFAULT_RETRIEVER, on_event) {
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
                    None => builtin::locate(&self.config.builtin_dir).map(Some),
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
            let plan = self.plan(&located, Role::Generator, on_event)?;
            let other = {
                let mut budget = self.budget();
                budget.generator = Some(plan.clone());
                budget
                    .swapped
                    .clone()
                    .filter(|_| !self.fits_beside(&plan, budget.retriever.as_ref()))
            };
            if let Some(retriever) = other {
                retriever.release();
            }
            on_event(ModelEvent::Loading {
                model: located.name.clone(),
            });
            let options = self.options(&located, &plan);
            let model = registry::load_generator(&located.checkpoint, &options)?;
            Ok(Slot::Loaded(LoadedGenerator {
                located,
                model: model.into(),
            }))
        })
    }

    fn locate_generator(&self, on_event: OnModelEvent<'_>) -> Result<Option<Located>> {
        match &self.config.generator {
            Choice::None => return Ok(None),
            Choice::Found(located) => return Ok(Some((**located).clone())),
            Choice::Named(name) => {
                return self.locate(name, DEFAULT_GENERATOR, on_event).map(Some);
            }
            Choice::Auto => {}
        }
        match self.locate_default(DEFAULT_GENERATOR, DEFAULT_GENERATOR, on_event) {
            Ok(located) => Ok(Some(located)),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                let message = format!(
                    "no generator: the answer quotes the pages ({}). `colibri models pull {DEFAULT_GENERATOR}` fetches one.",
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

    /// Finds the files of a model, fetching what is missing; an adapter's base too.
    ///
    /// # Errors
    /// When there is no such folder or model, or files cannot be fetched.
    pub fn locate(
        &self,
        name: &str,
        example: &'static str,
        on_event: OnModelEvent<'_>,
    ) -> Result<Located> {
        if name == BUILTIN {
            return builtin::locate(&self.config.builtin_dir);
        }
        resolve::locate(&self.hub, name, example, on_event)
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
        example: &'static str,
        on_event: OnModelEvent<'_>,
    ) -> Result<Located> {
        if name == BUILTIN {
            return builtin::locate(&self.config.builtin_dir);
        }
        resolve::locate_default(&self.hub, name, example, on_event)
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
        *self
            .generator
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Slot::Unknown;
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
