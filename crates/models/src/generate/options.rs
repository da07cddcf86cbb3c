//! How tokens are chosen.

use std::path::Path;

use crate::{Error, Result};

/// Settings of one generation. The default is greedy, as the checkpoints' own `generation_config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// At most so many new tokens.
    pub max_new_tokens: usize,
    /// 0 chooses the most probable token; above, tokens are drawn from the flattened distribution.
    pub temperature: f32,
    /// Draw only from the most probable tokens that together reach this probability.
    pub top_p: f32,
    /// Draw only from so many most probable tokens; 0 for all.
    pub top_k: usize,
    /// Above 1, logits of tokens that were already seen are made smaller (Keskar et al. 2019).
    pub repetition_penalty: f32,
    /// Seed of the drawing; the same seed draws the same text.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 500,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

/// `eos_token_id` may be one id or several.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Default, serde::Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Ids>,
}

/// The ids that end an answer, from `generation_config.json` (not from `text_config`, whose value is a
/// left-over in these checkpoints); `fallback` where the file or the key is missing.
pub(crate) fn end_ids(folder: &Path, fallback: Option<u32>) -> Result<Vec<u32>> {
    let path = folder.join("generation_config.json");
    if !path.is_file() {
        return Ok(fallback.into_iter().collect());
    }
    let bytes = fs_err::read(&path).map_err(|source| Error::Io {
        path: path.clone(),
        source,
    })?;
    let config: GenerationConfig =
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })?;
    Ok(match config.eos_token_id {
        Some(Ids::One(id)) => vec![id],
        Some(Ids::Many(ids)) => ids,
        None => fallback.into_iter().collect(),
    })
}
