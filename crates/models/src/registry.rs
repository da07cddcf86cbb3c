//! From a folder of Hugging Face files to a running model: the one place that names architectures.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use colibri_nn::{
    Placement, Precision, Weights,
    weights::{Adapter, AdapterConfig, TensorPool, WeightStore},
};

use crate::{
    Error, Result,
    generators::{Generator, Idefics3Generator},
    processor::{PromptVersion, TileOptions},
    retrievers::{ColIdefics3, ColPali, Retriever},
    vlm::{idefics3, paligemma},
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
enum Architecture {
    Idefics(Box<idefics3::Config>),
    PaliGemma(Box<paligemma::Config>),
}

impl Architecture {
    fn load(folder: &Path) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Named {
            #[serde(default)]
            model_type: Option<String>,
        }
        let path = folder.join("config.json");
        let bytes = fs_err::read(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        let named: Named = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        match named.model_type.as_deref() {
            Some("idefics3" | "smolvlm" | "idefics2") => {
                Ok(Self::Idefics(Box::new(idefics3::Config::load(folder)?)))
            }
            Some("paligemma" | "colpali") => {
                Ok(Self::PaliGemma(Box::new(paligemma::Config::load(folder)?)))
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

/// The configuration of a checkpoint of the Idefics3 family; `None` for other architectures.
pub(crate) fn idefics3_config(folder: &Path) -> Result<Option<idefics3::Config>> {
    Ok(match Architecture::load(folder)? {
        Architecture::Idefics(config) if config.model_type.as_deref() != Some("idefics2") => {
            Some(*config)
        }
        Architecture::Idefics(_) | Architecture::PaliGemma(_) => None,
    })
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

/// Loads a retriever.
///
/// # Errors
/// When the checkpoint is of another kind or its files are damaged.
pub fn load_retriever(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<dyn Retriever>> {
    let base = checkpoint.base_folder();
    let architecture = Architecture::load(base)?;
    let weights = weights(checkpoint, options, true)?;
    let other = |expected| Error::Kind {
        path: base.to_owned(),
        expected,
        found: "a generator".to_owned(),
    };
    Ok(match architecture {
        Architecture::Idefics(config) => {
            if !weights.contains("linear.weight") {
                return Err(other("a retriever (ColIdefics3 has `linear.weight`)"));
            }
            Box::new(ColIdefics3::load(&config, &weights, checkpoint, options)?)
        }
        Architecture::PaliGemma(config) => {
            if !ColPali::is_in(&weights) {
                return Err(other("a retriever (ColPali has `custom_text_proj.weight`)"));
            }
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
    let folder = &checkpoint.folder;
    if AdapterConfig::is_adapter(folder) {
        return Err(Error::Kind {
            path: folder.clone(),
            expected: "a generator",
            found: "an adapter of a retriever".to_owned(),
        });
    }
    let Architecture::Idefics(config) = Architecture::load(folder)? else {
        return Err(Error::Kind {
            path: folder.clone(),
            expected: "a generator",
            found: "ColPali, a retriever".to_owned(),
        });
    };
    let weights = weights(checkpoint, options, false)?;
    if weights.contains("linear.weight") && !weights.contains("lm_head.weight") {
        return Err(Error::Kind {
            path: folder.clone(),
            expected: "a generator",
            found: "a retriever without an output head".to_owned(),
        });
    }
    Ok(Box::new(Idefics3Generator::load(
        &config, &weights, checkpoint, options,
    )?))
}
