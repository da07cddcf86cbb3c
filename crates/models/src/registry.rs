//! From a folder of Hugging Face files to a running model: the one place that names architectures.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use colibri_nn::{
    KvPrecision, Placement, Precision, Weights,
    weights::{Adapter, AdapterConfig, Sizes, TensorPool, WeightStore},
};

use serde::Deserialize as _;

use crate::{
    Error, Result,
    footprint::{Blueprint, Role},
    generators::{Generator, Idefics3Generator},
    processor::{PreprocessorConfig, ProcessorFiles, PromptVersion, TileOptions},
    retrievers::{ColIdefics3, ColPali, Retriever},
    vlm::{config_file, idefics3, paligemma},
};

/// The files of one model: a folder, and for an adapter the folder of the checkpoint it adapts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The folder that was named.
    pub folder: PathBuf,
    /// The base checkpoint, if `folder` holds an adapter.
    pub base: Option<PathBuf>,
}

impl Checkpoint {
    /// Where `config.json` and the base weights are.
    pub fn base_folder(&self) -> &Path {
        self.base.as_deref().unwrap_or(&self.folder)
    }

    /// The processor's files: those of `folder`, and for what it lacks those of the base.
    pub(crate) fn processor_files(&self) -> ProcessorFiles {
        let files = ProcessorFiles::new(&self.folder);
        match &self.base {
            Some(base) => files.with_fallback(base),
            None => files,
        }
    }
}

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model that answers.
    Generator,
    /// A model that embeds, complete.
    Retriever,
    /// An adapter for a retriever; its base is named as in `adapter_config.json`.
    Adapter {
        /// Hub name or folder of the base.
        base: String,
        /// Revision of the base, where pinned.
        revision: Option<String>,
    },
}

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Device and precision.
    pub placement: Placement,
    /// Prompts of a retriever; the newest if not given.
    pub prompt_version: Option<PromptVersion>,
    /// How pictures are cut, where it differs from the checkpoint's own settings.
    pub tiles: TileOptions,
    /// Adds an adapter to the base weights at load, in place of applying it beside them.
    pub merge_adapter: bool,
    /// In place of weight files, values made up from this seed: for measuring. A retriever is then a base of
    /// these values with an adapter over its text layers, as the published ones are.
    pub made_up: Option<u64>,
    /// Where matrices that another model holds already are found.
    pub pool: Option<Arc<TensorPool>>,
    /// Bytes of keys and values that a generator keeps of prompts it has read, for those that begin alike.
    pub prefix_bytes: usize,
    /// In what form a generator keeps keys and values.
    pub kv: KvPrecision,
}

/// Enough for the pages of one question to the largest model here.
const PREFIX_BYTES: usize = 1 << 30;

/// Rank of a made-up adapter, that of the published ones.
const MADE_UP_RANK: usize = 32;
/// The modules it adapts, those of the published ones.
const MADE_UP_TARGETS: &str = r".*(text_model|language_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj)|custom_text_proj";

impl LoadOptions {
    /// Defaults for a placement.
    pub fn new(placement: Placement) -> Self {
        Self {
            placement,
            prompt_version: None,
            tiles: TileOptions::default(),
            merge_adapter: false,
            made_up: None,
            pool: None,
            prefix_bytes: PREFIX_BYTES,
            kv: KvPrecision::Auto,
        }
    }
}

/// Tells what `folder` holds, from its configuration and the names of its tensors.
///
/// # Errors
/// When it is no checkpoint of a known architecture, or its files are damaged.
pub fn inspect(folder: &Path) -> Result<Kind> {
    if AdapterConfig::is_adapter(folder) {
        let config = AdapterConfig::load(folder)?;
        let base = config
            .base_model_name_or_path
            .ok_or_else(|| Error::Config {
                path: folder.join("adapter_config.json"),
                reason: "`base_model_name_or_path` is missing, so the base is unknown".to_owned(),
            })?;
        return Ok(Kind::Adapter {
            base,
            revision: config.revision,
        });
    }
    let weights = Weights::new(
        Arc::new(WeightStore::open_folder(folder)?),
        Placement::cpu(Precision::F32),
    );
    match Architecture::load(folder)? {
        Architecture::Idefics(_) if !weights.contains("linear.weight") => Ok(Kind::Generator),
        Architecture::Idefics(_) => Ok(Kind::Retriever),
        Architecture::PaliGemma(_) if ColPali::is_in(&weights) => Ok(Kind::Retriever),
        Architecture::PaliGemma(_) => Err(Error::Kind {
            path: folder.to_owned(),
            expected: "a retriever (ColPali has `custom_text_proj.weight`)",
            found: "PaliGemma alone".to_owned(),
        }),
    }
}

/// What `config.json` describes.
#[derive(Debug)]
pub enum Architecture {
    /// Idefics3, SmolVLM, Idefics2.
    Idefics(Box<idefics3::Config>),
    /// PaliGemma, ColPali.
    PaliGemma(Box<paligemma::Config>),
}

impl Architecture {
    /// From the `config.json` of a folder.
    ///
    /// # Errors
    /// When it cannot be read, or is of a model that is not implemented.
    pub fn load(folder: &Path) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Named {
            #[serde(default)]
            model_type: Option<String>,
        }
        let (path, value) = config_file::load(folder)?;
        let named = Named::deserialize(&value).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        match named.model_type.as_deref() {
            Some("idefics3" | "smolvlm" | "idefics2") => {
                let config = idefics3::Config::from_json(&path, value)?;
                Ok(Self::Idefics(Box::new(config)))
            }
            Some("paligemma" | "colpali") => {
                let config = paligemma::Config::from_json(&path, value)?;
                Ok(Self::PaliGemma(Box::new(config)))
            }
            other => Err(Error::Config {
                path,
                reason: format!(
                    "`model_type` {} is not implemented (idefics2, idefics3, smolvlm, paligemma and colpali are)",
                    other.map_or_else(
                        || "is missing, which".to_owned(),
                        |name| format!("`{name}`")
                    )
                ),
            }),
        }
    }
}

/// Parameters and bytes of all weight files of a folder, from their headers.
///
/// # Errors
/// When the folder or a header cannot be read.
pub fn weight_size(folder: &Path) -> Result<(u64, u64)> {
    let io = |source| Error::Io {
        path: folder.to_owned(),
        source,
    };
    let (mut parameters, mut bytes) = (0_u64, 0_u64);
    for entry in fs_err::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|end| end == "safetensors") && path.is_file() {
            bytes += fs_err::metadata(&path).map_err(io)?.len();
            parameters += WeightStore::open_files(&[path])?.num_parameters();
        }
    }
    Ok((parameters, bytes))
}

fn weights(checkpoint: &Checkpoint, options: &LoadOptions, adapted: bool) -> Result<Weights> {
    if let Some(seed) = options.made_up {
        let adapter = if adapted {
            let adapter = Adapter::made_up(seed, MADE_UP_RANK, MADE_UP_TARGETS)?;
            Some(Arc::new(adapter))
        } else {
            None
        };
        let store = Arc::new(WeightStore::made_up(seed));
        return Ok(view(store, adapter, options));
    }
    let store = Arc::new(WeightStore::open_folder(checkpoint.base_folder())?);
    let adapter = match &checkpoint.base {
        Some(_) => Some(Arc::new(Adapter::open(
            &checkpoint.folder,
            options.merge_adapter,
        )?)),
        None => None,
    };
    Ok(view(store, adapter, options))
}

fn view(store: Arc<WeightStore>, adapter: Option<Arc<Adapter>>, options: &LoadOptions) -> Weights {
    Weights::new(store, options.placement.clone())
        .with_adapter(adapter)
        .with_pool(options.pool.clone())
}

/// The configuration and the weights of a checkpoint, of which it is certain that they are of a model for `role`.
fn open(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    role: Role,
) -> Result<(Architecture, Weights)> {
    let folder = match role {
        Role::Retriever => checkpoint.base_folder(),
        Role::Generator => &checkpoint.folder,
    };
    let other = |expected, found: &str| Error::Kind {
        path: folder.to_owned(),
        expected,
        found: found.to_owned(),
    };
    if role == Role::Generator && AdapterConfig::is_adapter(folder) {
        return Err(other("a generator", "an adapter of a retriever"));
    }
    let architecture = Architecture::load(folder)?;
    if role == Role::Generator && matches!(architecture, Architecture::PaliGemma(_)) {
        return Err(other("a generator", "ColPali, a retriever"));
    }
    let weights = weights(checkpoint, options, role == Role::Retriever)?;
    let has_projection = weights.contains("linear.weight");
    match (role, &architecture) {
        (Role::Retriever, Architecture::Idefics(_)) if !has_projection => Err(other(
            "a retriever (ColIdefics3 has `linear.weight`)",
            "a generator",
        )),
        (Role::Retriever, Architecture::PaliGemma(_)) if !ColPali::is_in(&weights) => Err(other(
            "a retriever (ColPali has `custom_text_proj.weight`)",
            "a generator",
        )),
        (Role::Generator, _) if has_projection && !weights.contains("lm_head.weight") => {
            Err(other("a generator", "a retriever without an output head"))
        }
        _ => Ok((architecture, weights)),
    }
}

/// Loads a retriever.
///
/// # Errors
/// When the checkpoint is of another kind or its files are damaged.
pub fn load_retriever(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<dyn Retriever>> {
    let (architecture, weights) = open(checkpoint, options, Role::Retriever)?;
    Ok(match architecture {
        Architecture::Idefics(config) => {
            Box::new(ColIdefics3::load(&config, &weights, checkpoint, options)?)
        }
        Architecture::PaliGemma(config) => {
            Box::new(ColPali::load(&config, &weights, checkpoint, options)?)
        }
    })
}

/// Loads a generator.
///
/// # Errors
/// When the checkpoint is of another kind or its files are damaged.
pub fn load_generator(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<dyn Generator>> {
    let (architecture, weights) = open(checkpoint, options, Role::Generator)?;
    match architecture {
        Architecture::Idefics(config) => Ok(Box::new(Idefics3Generator::load(
            &config, &weights, checkpoint, options,
        )?)),
        Architecture::PaliGemma(_) => unreachable!("`open` refuses ColPali as a generator"),
    }
}

/// What a model will be, from its headers and settings: it is loaded as it would be, without a value being read.
///
/// # Errors
/// When the checkpoint is of another kind or its files are damaged.
pub(crate) fn blueprint(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    role: Role,
) -> Result<Blueprint> {
    let (architecture, weights) = open(checkpoint, options, role)?;
    let sizes = Arc::new(Sizes::default());
    let weights = weights.sizes_only(&sizes);
    let files = checkpoint.processor_files();
    Ok(match architecture {
        Architecture::Idefics(config) => {
            match role {
                Role::Retriever => drop(ColIdefics3::network(&config, &weights)?),
                Role::Generator => drop(Idefics3Generator::network(&config, &weights)?),
            }
            let images = if config.is_idefics2() {
                PreprocessorConfig::load_over(&files, &PreprocessorConfig::native())?
            } else {
                PreprocessorConfig::load(&files)?
            };
            Blueprint {
                sizes,
                images,
                tokens_per_frame: config.tokens_per_tile(),
                is_resampled: config.is_idefics2(),
                vision: config.vision_config,
                text: config.text_config,
            }
        }
        Architecture::PaliGemma(config) => {
            drop(ColPali::network(&config, &weights)?);
            Blueprint {
                sizes,
                images: PreprocessorConfig::load_over(&files, &PreprocessorConfig::square())?,
                tokens_per_frame: config.tokens_per_page(),
                is_resampled: false,
                vision: config.vision_config,
                text: config.text_config,
            }
        }
    })
}
