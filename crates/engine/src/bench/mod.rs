//! Measurements that anyone can repeat: on a real checkpoint, or on made-up weights of a published shape.
//!
//! Every figure is the best of a few runs, and the rate it comes to stands beside the peak that this machine
//! reaches in the same process ([`crate::machine`]): machines are noisy and differ, shares less so.

mod arithmetic;
mod models;
mod pipeline;
mod search;
mod shapes;

pub use models::{embed_page, embed_query, generator, kernels};
pub use pipeline::{PipelineOptions, pipeline};
pub use search::{SearchOptions, search};
pub use shapes::{Pair, SHAPES, Shape};

use image::{Rgb, RgbImage};

/// What is measured on a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// Reading a prompt with one page, after the page was looked at.
    Prefill,
    /// Everything from a page's picture to the first token.
    FirstToken,
    /// Writing, after a page.
    Decode,
}

/// The result of a measurement; what does not apply is left out. One object of `bench --json`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Figures {
    /// What was measured.
    pub work: &'static str,
    /// The model, or `random` and its shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Form of the large matrices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Threads that computed.
    pub threads: usize,
    /// Rows of a page, or tokens of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Tiles that were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles: Option<usize>,
    /// One page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_per_page: Option<f64>,
    /// One question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_per_query: Option<f64>,
    /// Tokens read (prefill) or written (decode) a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// From the question to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_to_first_token: Option<f64>,
    /// The same for the second question, with what is kept of the pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_to_first_token_indexed: Option<f64>,
    /// The same once more, with the page read already as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_to_first_token_again: Option<f64>,
    /// Indexing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_index: Option<f64>,
    /// Reading the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_load: Option<f64>,
    /// Tiles the tower was given while the second question was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles_indexed: Option<u64>,
    /// 10⁹ operations a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gflops: Option<f64>,
    /// 10⁹ bytes of weights or rows read a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gigabytes_per_second: Option<f64>,
    /// Share of what this machine reaches: of its operations or, where bytes count, of its bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_share: Option<f64>,
    /// What it reaches: 10⁹ operations a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_gflops: Option<f64>,
    /// What it reaches: 10⁹ bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_gigabytes_per_second: Option<f64>,
    /// Bytes of the weights of all models in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<usize>,
    /// Single products, for `kernels`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<ProductFigures>,
    /// The greatest resident memory of this process.
    pub peak_memory_bytes: u64,
}

/// One product of `kernels`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ProductFigures {
    /// Where it occurs.
    pub of: &'static str,
    /// Form of the matrix.
    pub precision: &'static str,
    /// Rows of the left operand, values of a row, rows of the matrix.
    pub shape: [usize; 3],
    /// The best of the runs.
    pub seconds: f64,
    /// 10⁹ operations a second.
    pub gflops: f64,
    /// 10⁹ bytes of the matrix a second.
    pub gigabytes_per_second: f64,
    /// Share of the peak: operations of many rows, bandwidth of few.
    pub peak_share: f64,
}

/// A page of US Letter at 200 dpi with no two tiles alike.
pub fn page(number: u32) -> RgbImage {
    RgbImage::from_fn(1700, 2200, |x, y| {
        let ink = (x * 7 + y * 13 + (x / 9) * (y / 17) + number * 5) % 61 < 9;
        Rgb(if ink {
            [20, 20, (x % 40) as u8]
        } else {
            [255, 255, 255]
        })
    })
}
