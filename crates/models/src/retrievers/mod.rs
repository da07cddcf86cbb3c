//! Retrievers: page images and queries → rows for late interaction.

mod colidefics3;
mod colpali;

pub use colidefics3::ColIdefics3;
pub use colpali::ColPali;

use candle_core::{DType, Device, Tensor};
use colibri_nn::Linear;
use image::RgbImage;

use crate::{
    Error, Result, Trace, VisualTokens, WeightBytes,
    processor::{PromptVersion, TokenGeometry, Tokenizer},
    text::llama::Llama,
};

/// Width of a row in every retriever of the family (`self.dim` upstream).
const DIM: usize = 128;

/// The rows of one page or query.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// `(num_rows, dim)`, row-major, each of length 1.
    pub values: Vec<f32>,
    /// Width of a row.
    pub dim: usize,
}

impl Rows {
    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.values.len() / self.dim
    }
}

/// A page as a retriever sees it.
#[derive(Clone, Debug)]
pub struct PageEmbedding {
    /// One row a token of the page's prompt.
    pub rows: Rows,
    /// What each row stands for.
    pub geometry: Vec<TokenGeometry>,
}

/// What an index has to remember in order to refuse rows made otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrieverSettings {
    /// Width of a row.
    pub dim: usize,
    /// Prompts of pages and queries.
    pub prompt_version: PromptVersion,
    /// Precision of the large matrices.
    pub precision: String,
    /// Longest side of a page in pixels, before it is cut into tiles.
    pub longest_edge: u32,
}

/// A token of a query.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QueryToken {
    /// Its text; a token that is only a part of a character is shown as U+FFFD.
    pub text: String,
    /// Whether it is a marker of the prompt and not what a person typed.
    pub special: bool,
}

/// Turns pages and queries into rows whose MaxSim ranks pages.
pub trait Retriever: Send + Sync {
    /// What the rows depend on.
    fn settings(&self) -> RetrieverSettings;

    /// The rows of a page. `on_tile(done, total)` may stop the work by returning `false`.
    ///
    /// # Errors
    /// When a layer fails, or [`crate::Error::Cancelled`].
    fn embed_page(
        &self,
        page: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<PageEmbedding>;

    /// The rows of a page and, where they can be used again, its visual tokens.
    ///
    /// # Errors
    /// As [`Retriever::embed_page`].
    fn embed_page_seen(
        &self,
        page: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<(PageEmbedding, Option<VisualTokens>)> {
        Ok((self.embed_page(page, on_tile)?, None))
    }

    /// As [`crate::generators::Looking::look_key`]: visual tokens of a retriever serve a generator of the same
    /// key.
    fn look_key(&self) -> Option<&str> {
        None
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// When a layer fails or the query is longer than the model.
    fn embed_query(&self, query: &str) -> Result<Rows>;

    /// The tokens of a query as text, one for each row of [`Retriever::embed_query`], markers included;
    /// none where the retriever cannot tell.
    ///
    /// # Errors
    /// As there.
    fn query_tokens(&self, _query: &str) -> Result<Vec<QueryToken>> {
        Ok(Vec::new())
    }

    /// Bytes the weights occupy.
    fn weight_bytes(&self) -> WeightBytes;

    /// All of them.
    fn num_bytes(&self) -> usize {
        self.weight_bytes().total()
    }
}

/// Text model, projection, L2 norm over the embedded prompt `merged` `(1, tokens, hidden)`.
fn project(
    text: &Llama,
    projection: &Linear,
    merged: Tensor,
    trace: &mut dyn Trace,
) -> Result<Rows> {
    trace.record("merged", &merged)?;
    let hidden = text.norm(&text.forward(merged, None, trace)?)?;
    trace.record("text.norm", &hidden)?;
    let projected = projection.forward(&hidden)?.squeeze(0)?; // (tokens, 128)
    unit_rows(&projected, trace)
}

/// Projected tokens `(tokens, 128)` as rows of length 1. Upstream divides by the length as it is; a row that has none
/// is a sign of damaged weights and would poison every score, so it is an error here.
fn unit_rows(projected: &Tensor, trace: &mut dyn Trace) -> Result<Rows> {
    let mut values = projected
        .to_dtype(DType::F32)?
        .to_device(&Device::Cpu)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    for (row, values) in values.chunks_exact_mut(DIM).enumerate() {
        let length = values
            .iter()
            .map(|v| f64::from(*v) * f64::from(*v))
            .sum::<f64>()
            .sqrt() as f32;
        if !(length.is_finite() && length > 0.0) {
            return Err(Error::DegenerateRow { row, length });
        }
        for value in values {
            *value /= length;
        }
    }
    let rows = Rows { values, dim: DIM };
    trace.record(
        "rows",
        &Tensor::from_slice(&rows.values, (rows.num_rows(), DIM), &Device::Cpu)?,
    )?;
    Ok(rows)
}

/// The tokens of a query as text.
fn query_tokens(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<QueryToken>> {
    let token = |id: &u32| {
        Ok(QueryToken {
            text: tokenizer.decode(&[*id], false)?,
            special: tokenizer.is_special(*id),
        })
    };
    ids.iter().map(token).collect()
}
