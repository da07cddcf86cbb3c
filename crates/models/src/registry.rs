//! From a folder of Hugging Face files to a running model: the one place that names architectures.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use colibri_nn::{
    Placement, Weights,
    weights::{Adapter, AdapterConfig, WeightStore},
};

use crate::{
    Error, Result,
    generators::{Generator, Idefics3Generator},
    processor::{PromptVersion, TileOptions},
    retrievers::{ColIdefics3, Retriever},
    vlm::idefics3,
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
}

impl LoadOptions {
    /// Defaults for a placement.
    pub fn new(placement: Placement) -> Self {
        Self {
            placement,
            prompt_version: None,
            tiles: TileOptions::default(),
            merge_adapter: false,
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
    load_config(folder)?;
    let store = WeightStore::open_folder(folder)?;
    Ok(if store.contains("linear.weight") {
        Kind::Retriever
    } else {
        Kind::Generator
    })
}

fn load_config(folder: &Path) -> Result<idefics3::Config> {
    let config = idefics3::Config::load(folder)?;
    match config.model_type.as_deref() {
        Some("idefics3" | "smolvlm") => Ok(config),
        other => Err(Error::Config {
            path: folder.join("config.json"),
            reason: format!(
                "`model_type` {} is not implemented (idefics3 and smolvlm are)",
                other.map_or_else(
                    || "is missing, which".to_owned(),
                    |name| format!("`{name}`")
                )
            ),
        }),
    }
}

fn weights(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Weights> {
    let store = Arc::new(WeightStore::open_folder(checkpoint.base_folder())?);
    let adapter = match &checkpoint.base {
        Some(_) => Some(Arc::new(Adapter::open(
            &checkpoint.folder,
            options.merge_adapter,
        )?)),
        None => None,
    };
    Ok(Weights::new(store, options.placement.clone()).with_adapter(adapter))
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
    let config = load_config(base)?;
    let weights = weights(checkpoint, options)?;
    if !weights.contains("linear.weight") {
        return Err(Error::Kind {
            path: base.to_owned(),
            expected: "a retriever (ColIdefics3 has `linear.weight`)",
            found: "a generator".to_owned(),
        });
    }
    Ok(Box::new(ColIdefics3::load(
        &config, &weights, checkpoint, options,
    )?))
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
    let config = load_config(folder)?;
    let weights = weights(checkpoint, options)?;
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
