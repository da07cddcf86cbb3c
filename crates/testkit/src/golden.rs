//! Reference cases made by `tools/golden`: a manifest and the tensors of every stage.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors};

/// One case: `<name>.json` and, where it has stages, `<name>.safetensors`.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Case {
    /// The case's name.
    pub case: String,
    /// `generate`, `page`, `query` or `batch`.
    pub kind: String,
    /// Folder of the checkpoint.
    pub checkpoint: String,
    /// Folder of the adapter over it.
    #[serde(default)]
    pub adapter: Option<String>,
    /// Settings that differ from the checkpoint's.
    #[serde(default)]
    pub processor: BTreeMap<String, serde_json::Value>,
    /// Picture files.
    #[serde(default)]
    pub images: Vec<String>,
    /// Picture files that make a clip; `images` are then the frames sampled from it.
    #[serde(default)]
    pub clip: Vec<String>,
    /// Frames of the clip a second.
    #[serde(default)]
    pub rate: f64,
    /// The conversation.
    #[serde(default)]
    pub messages: Vec<CaseMessage>,
    /// The question of a `query` case.
    #[serde(default)]
    pub query: Option<String>,
    /// Version of the retriever's prompts.
    #[serde(default)]
    pub prompt_version: Option<String>,
    /// For each version the ids, run-length encoded.
    #[serde(default)]
    pub prompt_versions: BTreeMap<String, CasePrompt>,
    /// The pictures as they are cut.
    #[serde(default)]
    pub tiles: Vec<CaseTiles>,
    /// Length of the ids.
    #[serde(default)]
    pub num_tokens: usize,
    /// The ids, run-length encoded.
    #[serde(default)]
    pub ids: Vec<Run>,
    /// The stages, in the order of the data.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// What was generated.
    #[serde(default)]
    pub generated: Option<Generated>,
    /// The pages of a `batch` case.
    #[serde(default)]
    pub pages: Vec<String>,
    /// The queries of a `batch` case.
    #[serde(default)]
    pub queries: Vec<String>,
    /// `scores[query][page]` of a `batch` case.
    #[serde(default)]
    pub scores: Vec<Vec<f32>>,
    #[serde(skip)]
    path: PathBuf,
}

/// One turn.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct CaseMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its parts.
    pub content: Vec<CaseContent>,
}

/// A part of a turn.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CaseContent {
    /// A picture.
    Image,
    /// The clip.
    Video,
    /// Text.
    Text {
        /// The text.
        text: String,
    },
}

/// A picture as it is cut.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct CaseTiles {
    /// Of all frames one after another, as bytes.
    pub sha256: String,
    /// Width and height of each frame, where they differ.
    #[serde(default)]
    pub sizes: Vec<[u32; 2]>,
}

/// Ids of one prompt version.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct CasePrompt {
    /// Run-length encoded.
    pub ids: Vec<Run>,
}

/// An id, or a run `[id, count]`.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(untagged)]
pub enum Run {
    /// One id.
    One(u32),
    /// The same id so many times.
    Many(u32, usize),
}

/// One stage of the forward pass.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Rows and width of the whole.
    pub shape: [usize; 2],
    /// Only every so many rows are kept.
    pub row_step: usize,
}

/// A greedy continuation.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Generated {
    /// The ids.
    pub ids: Vec<u32>,
    /// `length` or `eos`.
    pub stopped: String,
    /// The ids decoded, special tokens skipped.
    pub text: String,
}

/// Spells out run-length encoded ids.
pub fn expand(runs: &[Run]) -> Vec<u32> {
    runs.iter()
        .flat_map(|run| match *run {
            Run::One(id) => std::iter::repeat_n(id, 1),
            Run::Many(id, count) => std::iter::repeat_n(id, count),
        })
        .collect()
}

impl Case {
    /// Reads a manifest.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn load(path: &Path) -> Self {
        let text = fs_err::read(path).expect("a golden manifest");
        let mut case: Self = serde_json::from_slice(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path.clone_into(&mut case.path);
        case
    }

    /// All cases below a folder, in the order of their paths.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn all(folder: &Path) -> Vec<Self> {
        let mut paths = Vec::new();
        for checkpoint in fs_err::read_dir(folder).expect("the golden cases") {
            for file in
                fs_err::read_dir(checkpoint.expect("an entry").path()).expect("a folder of cases")
            {
                let path = file.expect("an entry").path();
                if path.extension().is_some_and(|end| end == "json") {
                    paths.push(path);
                }
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::load(path)).collect()
    }

    /// Folder and name, for messages.
    pub fn label(&self) -> String {
        let folder = self.adapter.as_ref().unwrap_or(&self.checkpoint);
        format!("{folder}/{}", self.case)
    }

    /// The case's tensors as f32.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn tensors(&self) -> BTreeMap<String, Vec<f32>> {
        let bytes = fs_err::read(self.path.with_extension("safetensors")).expect("golden tensors");
        let tensors = SafeTensors::deserialize(&bytes).expect("valid safetensors");
        tensors
            .iter()
            .filter(|(_, view)| view.dtype() == Dtype::F32)
            .map(|(name, view)| {
                let values = view
                    .data()
                    .chunks_exact(4)
                    .map(|raw| f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]));
                (name.to_owned(), values.collect())
            })
            .collect()
    }
}

/// `‖a − b‖ / ‖b‖`, in f64; infinite where the lengths differ.
pub fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let norm: f64 = b.iter().map(|&y| f64::from(y).powi(2)).sum();
    let difference: f64 = a
        .iter()
        .zip(b)
        .map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
        .sum();
    (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
}

/// The cosine of the angle between two vectors, in f64.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| {
        x.iter()
            .zip(y)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
