//! Which models serve, where their files are, and when they are loaded.
//!
//! A model is named by a folder or a hub name. Nothing is loaded before it is needed: a search by text
//! never opens a weight file.

mod builtin;
mod fingerprint;
mod resolve;

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use colibri_index::Settings;
use colibri_models::{
    Placement, Precision,
    generators::Generator,
    processor::{PromptVersion, TileOptions},
    registry::{self, Checkpoint, LoadOptions},
    retrievers::Retriever,
};

use crate::{
    Error, Result,
    hosted::{self, Hosted, HostedConfig},
    hub::{Hub, HubConfig, Progress},
};

pub use builtin::{ABOUT_BUILTIN, BUILTIN};

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
    /// bf16: half the memory of f32 with cosines above 0.999, and no slower anywhere.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Brain floating point.
    Bf16,
    /// Eight bits with a scale a row.
    Int8,
}

impl PrecisionChoice {
    fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Auto | Self::Bf16 => Precision::Bf16,
            Self::Int8 => Precision::Int8,
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
            other => Err(format!("`{other}` is none of auto, f32, bf16, int8")),
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
    /// Where the built-in checkpoint is unpacked.
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
}

/// A retriever that is loaded.
#[derive(Clone)]
pub struct LoadedRetriever {
    /// Where it came from.
    pub located: Located,
    /// The model.
    pub model: Arc<dyn Retriever>,
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

/// What is known of the generator. That there is none is remembered too: a conversation asks at every turn.
#[derive(Clone, Default)]
enum Slot {
    #[default]
    Unknown,
    Absent,
    Loaded(LoadedGenerator),
}

/// The models of one run, loaded when first needed.
pub struct Models {
    config: ModelConfig,
    hub: Hub,
    retriever: Mutex<Option<LoadedRetriever>>,
    generator: Mutex<Slot>,
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
        Self {
            config,
            hub,
            retriever: Mutex::default(),
            generator: Mutex::default(),
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

    fn load_options(&self) -> LoadOptions {
        LoadOptions {
            placement: Placement::cpu(self.config.precision.precision()),
            prompt_version: self.config.prompt_version,
            tiles: self.config.tiles,
            merge_adapter: false,
        }
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
        let mut slot = self
            .retriever
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*slot {
            return Ok(Some(loaded.clone()));
        }
        let located = match &self.config.retriever {
            Choice::None => return Ok(None),
            Choice::Named(name) => self.locate(name, DEFAULT_RETRIEVER, on_event)?,
            Choice::Auto => {
                let name = remembered.unwrap_or(DEFAULT_RETRIEVER);
                match self.locate_default(name, DEFAULT_RETRIEVER, on_event) {
                    Ok(located) => located,
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
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
                        if remembered.is_some() {
                            return Ok(None);
                        }
                        builtin::locate(&self.config.builtin_dir)?
                    }
                }
            }
        };
        on_event(ModelEvent::Loading {
            model: located.name.clone(),
        });
        let options = LoadOptions {
            // Not cutting is for conversations: rows of pages that are cut otherwise do not compare.
            tiles: TileOptions {
                split: None,
                ..self.config.tiles
            },
            ..self.load_options()
        };
        let model = registry::load_retriever(&located.checkpoint, &options)?;
        let loaded = LoadedRetriever {
            located,
            model: model.into(),
        };
        *slot = Some(loaded.clone());
        Ok(Some(loaded))
    }

    /// The generator: as chosen, or the default. `Ok(None)` if there is none to be had and none was
    /// named.
    ///
    /// # Errors
    /// When the one that was named cannot be fetched or loaded.
    pub fn generator(&self, on_event: OnModelEvent<'_>) -> Result<Option<LoadedGenerator>> {
        let mut slot = self
            .generator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Slot::Unknown => {}
            Slot::Absent => return Ok(None),
            Slot::Loaded(loaded) => return Ok(Some(loaded.clone())),
        }
        if let Choice::Named(name) = &self.config.generator
            && let Some(model) = name.strip_prefix(hosted::PREFIX)
        {
            let loaded = self.hosted(name, model, on_event)?;
            *slot = Slot::Loaded(loaded.clone());
            return Ok(Some(loaded));
        }
        let located = match &self.config.generator {
            Choice::None => return Ok(None),
            Choice::Named(name) => self.locate(name, DEFAULT_GENERATOR, on_event)?,
            Choice::Auto => {
                match self.locate_default(DEFAULT_GENERATOR, DEFAULT_GENERATOR, on_event) {
                    Ok(located) => located,
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => {
                        let message = format!(
                            "no generator: the answer quotes the pages ({}). `colibri models pull {DEFAULT_GENERATOR}` fetches one.",
                            first_line(&error)
                        );
                        on_event(ModelEvent::Fallback { message });
                        *slot = Slot::Absent;
                        return Ok(None);
                    }
                }
            }
        };
        on_event(ModelEvent::Loading {
            model: located.name.clone(),
        });
        let model = registry::load_generator(&located.checkpoint, &self.load_options())?;
        let loaded = LoadedGenerator {
            located,
            model: model.into(),
        };
        *slot = Slot::Loaded(loaded.clone());
        Ok(Some(loaded))
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

    /// Gives the memory of the loaded models back.
    pub fn unload(&self) {
        *self
            .retriever
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
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
