//! LoRA adapters as PEFT writes them.
//!
//! `adapter_config.json` says which modules are adapted and how strongly; `adapter_model.safetensors`
//! holds, for each of them, `base_model.model.{module}.lora_A.weight` `(rank, in)` and
//! `….lora_B.weight` `(out, rank)`. The adapted layer computes `W·x + scale · B·(A·x)` with
//! `scale = lora_alpha / r` (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>; PEFT `lora/layer.py`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{hashes, store::WeightStore};
use crate::{Error, Result};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// `target_modules`: one regular expression, or a list of name endings.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
enum Targets {
    Expression(String),
    Names(Vec<String>),
}

/// What `adapter_config.json` says. Fields that change the arithmetic and are not implemented are read
/// so that they can be refused.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct AdapterConfig {
    /// The checkpoint that was adapted: a hub name or a folder.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// Revision of the base, where pinned.
    #[serde(default)]
    pub revision: Option<String>,
    #[serde(default)]
    peft_type: Option<String>,
    r: usize,
    lora_alpha: f64,
    target_modules: Targets,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, serde_json::Value>,
}

impl AdapterConfig {
    /// Whether the folder holds an adapter.
    pub fn is_adapter(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }

    /// Reads `adapter_config.json` in `folder`.
    ///
    /// # Errors
    /// When it cannot be read, or asks for a kind of adapter that is not implemented.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let bytes = fs_err::read(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        let config: Self = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        config
            .check()
            .map_err(|reason| Error::Adapter { path, reason })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(kind) = self.peft_type.as_deref().filter(|&kind| kind != "LORA") {
            return Err(format!(
                "`peft_type` {kind} is not implemented, only LORA is"
            ));
        }
        if self.r == 0 || !self.lora_alpha.is_finite() {
            return Err(format!(
                "rank {} with alpha {} is impossible",
                self.r, self.lora_alpha
            ));
        }
        if self.bias.as_deref().is_some_and(|bias| bias != "none") {
            return Err("adapted biases (`bias`) are not implemented".to_owned());
        }
        let unsupported = [
            ("use_dora", self.use_dora),
            ("fan_in_fan_out", self.fan_in_fan_out),
            (
                "modules_to_save",
                self.modules_to_save
                    .as_ref()
                    .is_some_and(|list| !list.is_empty()),
            ),
            ("rank_pattern", !self.rank_pattern.is_empty()),
            ("alpha_pattern", !self.alpha_pattern.is_empty()),
        ];
        match unsupported.iter().find(|(_, set)| *set) {
            Some((name, _)) => Err(format!("`{name}` is not implemented")),
            None => Ok(()),
        }
    }

    /// The factor in front of `B·A`.
    pub fn scale(&self) -> f32 {
        let rank = self.r as f64;
        (self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }) as f32
    }

    /// The rank `r`.
    pub fn rank(&self) -> usize {
        self.r
    }
}

/// An adapter over a base checkpoint.
#[derive(Debug)]
pub struct Adapter {
    config: AdapterConfig,
    store: WeightStore,
    path: PathBuf,
    /// Adapted modules, [`canonical`] → as the file names them.
    modules: BTreeMap<String, String>,
    expression: Option<fancy_regex::Regex>,
    /// Whether `B·A` is added to the base weights at load (no cost per token, but the base can then not
    /// be shared) or kept beside them.
    merged: bool,
}

/// The two small matrices of one adapted module, `B` scaled.
pub(crate) struct Factors {
    pub(crate) rank: usize,
    /// `(rank, in)`.
    pub(crate) a: Vec<f32>,
    /// `(out, rank)`, times the adapter's scale.
    pub(crate) b: Vec<f32>,
}

impl Adapter {
    /// Opens the adapter in `folder`.
    ///
    /// # Errors
    /// When a file is damaged, a tensor has no partner, or a tensor is for a module that
    /// `target_modules` does not match.
    pub fn open(folder: &Path, merged: bool) -> Result<Self> {
        let config = AdapterConfig::load(folder)?;
        let path = folder.join(TENSORS);
        let store = WeightStore::open_files(std::slice::from_ref(&path))?;
        let expression = match &config.target_modules {
            // PEFT uses `re.fullmatch`.
            Targets::Expression(text) => Some(
                fancy_regex::Regex::new(&format!("^(?:{text})$")).map_err(|error| {
                    Error::Adapter {
                        path: folder.join(CONFIG),
                        reason: format!("`target_modules` is not a regular expression ({error})"),
                    }
                })?,
            ),
            Targets::Names(_) => None,
        };
        let mut adapter = Self {
            config,
            store,
            path,
            modules: BTreeMap::new(),
            expression,
            merged,
        };
        adapter.collect_modules()?;
        Ok(adapter)
    }

    /// An adapter of made-up values of rank `rank` over the modules whose names match `targets`, beside the base.
    /// For measuring.
    ///
    /// # Errors
    /// When `targets` is not a regular expression or the rank is 0.
    pub fn made_up(seed: u64, rank: usize, targets: &str) -> Result<Self> {
        let path = PathBuf::from(CONFIG);
        let config = serde_json::json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets,
        });
        let config: AdapterConfig =
            serde_json::from_value(config).map_err(|source| Error::Json {
                path: path.clone(),
                source,
            })?;
        let unfit = |reason| Error::Adapter {
            path: path.clone(),
            reason,
        };
        config.check().map_err(unfit)?;
        let expression = fancy_regex::Regex::new(&format!("^(?:{targets})$"))
            .map_err(|error| unfit(error.to_string()))?;
        Ok(Self {
            config,
            store: WeightStore::made_up(seed),
            path: path.clone(),
            modules: BTreeMap::new(),
            expression: Some(expression),
            merged: false,
        })
    }

    fn collect_modules(&mut self) -> Result<()> {
        let mut modules = BTreeMap::new();
        for name in self.store.names() {
            let bare = name.strip_prefix(PREFIX).unwrap_or(name);
            let module = [".lora_A.weight", ".lora_B.weight"]
                .iter()
                .find_map(|end| bare.strip_suffix(end))
                .ok_or_else(|| self.unfit(format!("tensor `{name}` is not a LoRA factor")))?;
            if !self.matches(module)? {
                return Err(self.unfit(format!(
                    "tensor `{name}` is for a module that `target_modules` does not match"
                )));
            }
            let same = modules.insert(canonical(module), module.to_owned());
            if same.is_some_and(|other| other != module) {
                return Err(self.unfit(format!("module `{module}` is there under two names")));
            }
        }
        self.modules = modules;
        Ok(())
    }

    fn unfit(&self, reason: String) -> Error {
        Error::Adapter {
            path: self.path.clone(),
            reason,
        }
    }

    fn matches(&self, module: &str) -> Result<bool> {
        match (&self.expression, &self.config.target_modules) {
            (Some(expression), _) => expression.is_match(module).map_err(|error| {
                self.unfit(format!("`target_modules` cannot be evaluated ({error})"))
            }),
            (None, Targets::Names(names)) => Ok(names.iter().any(|name| {
                module == name
                    || module
                        .strip_suffix(name.as_str())
                        .is_some_and(|rest| rest.ends_with('.'))
            })),
            (None, Targets::Expression(_)) => Ok(false),
        }
    }

    /// What `adapter_config.json` says.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// Names of the adapted modules, sorted.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.values().map(String::as_str)
    }

    pub(crate) fn merged(&self) -> bool {
        self.merged
    }

    /// What the file calls `module`, or `None` if it is not adapted.
    fn stored<'a>(&'a self, module: &'a str) -> Result<Option<&'a str>> {
        match self.modules.get(&canonical(module)) {
            Some(stored) => Ok(Some(stored)),
            None if !self.matches(module)? => Ok(None),
            None if self.store.is_made_up() => Ok(Some(module)),
            None => Err(self.unfit(format!(
                "module `{module}` should be adapted, but its factors are missing"
            ))),
        }
    }

    /// The rank of the factors that are kept beside `module`, if there are any; no value is read.
    pub(crate) fn rank_beside(&self, module: &str) -> Result<Option<usize>> {
        let is_beside = !self.merged && self.stored(module)?.is_some();
        Ok(is_beside.then_some(self.config.r))
    }

    /// The factors for `module` with the given sizes, or `None` if it is not adapted.
    pub(crate) fn factors(
        &self,
        module: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Option<Factors>> {
        let Some(stored) = self.stored(module)? else {
            return Ok(None);
        };
        let rank = self.config.r;
        let a = self.read(&format!("{stored}.lora_A.weight"), &[rank, inputs])?;
        let mut b = self.read(&format!("{stored}.lora_B.weight"), &[outputs, rank])?;
        let scale = self.config.scale();
        for value in &mut b {
            *value *= scale;
        }
        Ok(Some(Factors { rank, a, b }))
    }

    fn read(&self, bare: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let prefixed = format!("{PREFIX}{bare}");
        let name = if self.store.contains(&prefixed) {
            prefixed.as_str()
        } else {
            bare
        };
        self.store.read_all(name, shape)
    }
}

/// A module's name without the levels that come and go between versions of one architecture: ColPali's
/// `model.language_model.model.layers.0` became `model.model.language_model.layers.0`, and an adapter saved over
/// the one fits a base saved as the other.
fn canonical(module: &str) -> String {
    let levels = module.split('.');
    let kept: Vec<&str> = levels
        .filter(|level| !matches!(*level, "base_model" | "model" | "vlm"))
        .collect();
    kept.join(".")
}

impl Factors {
    /// A hash of the values that [`Factors::add_to`] adds.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.rank as u64).to_le_bytes());
        hashes::update(&mut hasher, &self.a);
        hashes::update(&mut hasher, &self.b);
        *hasher.finalize().as_bytes()
    }

    /// Adds rows `first ..` of `B·A` to `rows`, which hold whole rows of the base weight.
    pub(crate) fn add_to(&self, first: usize, inputs: usize, rows: &mut [f32]) {
        for (row, b) in rows
            .chunks_exact_mut(inputs)
            .zip(self.b[first * self.rank..].chunks_exact(self.rank))
        {
            for (&factor, a) in b.iter().zip(self.a.chunks_exact(inputs)) {
                for (value, &a) in row.iter_mut().zip(a) {
                    *value += factor * a;
                }
            }
        }
    }
}
