//! Pages and questions for the ColIdefics3 retrievers (colsmolvlm-alpha, colSmol-256M, colSmol-500M).

use image::RgbImage;

use super::config::PreprocessorConfig;
use super::error::Result;
use super::escape::Marked;
use super::expand::expand;
use super::files::ProcessorFiles;
use super::geometry::{TokenGeometry, token_geometry};
use super::prompt_version::PromptVersion;
use super::seq_len::ProcessorConfig;
use super::tiles::{ImageProcessor, TileGrid, TileOptions, Tiles};
use super::tokenizer::{END_OF_UTTERANCE, Tokenizer};

/// Tokens behind a question that leave the model room to think
/// (`query_augmentation_token * 10` in colpali-engine).
pub(super) const QUERY_AUGMENTATION: usize = 10;

/// The prompt of a page, with `<image>` for the picture.
fn document(version: PromptVersion) -> &'static str {
    match version {
        PromptVersion::V0_3_5 => "<|im_start|>User: Describe the image.<image><end_of_utterance>",
        PromptVersion::V0_3_9 => "<|im_start|>user\n<image>Describe the image.<end_of_utterance>",
        PromptVersion::V0_3_1 | PromptVersion::V0_3_4 | PromptVersion::V0_3_11 => {
            "<|im_start|>User:<image>Describe the image.<end_of_utterance>\nAssistant:"
        }
    }
}

/// What stands before and behind a question.
fn around_query(version: PromptVersion) -> (&'static str, String) {
    let augmentation = END_OF_UTTERANCE.repeat(QUERY_AUGMENTATION);
    match version {
        PromptVersion::V0_3_5 | PromptVersion::V0_3_9 => ("Query: ", augmentation + "\n"),
        PromptVersion::V0_3_1 | PromptVersion::V0_3_4 | PromptVersion::V0_3_11 => {
            ("", augmentation)
        }
    }
}

/// The processor of a retriever: tokenizer, picture settings and prompt version.
#[derive(Debug)]
pub struct ColIdefics3Processor {
    images: ImageProcessor,
    tokenizer: Tokenizer,
    image_seq_len: usize,
    version: PromptVersion,
}

/// A page ready for the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentPrompt {
    /// Ids of all tokens, `<image>` once for each visual token. Every one becomes a row.
    pub ids: Vec<u32>,
    /// The page, cut.
    pub tiles: Tiles,
    /// The id at whose places the visual tokens go.
    pub image_token_id: u32,
}

impl ColIdefics3Processor {
    /// Loads a retriever's processor: the adapter's files, the base's where it has none.
    /// `derived_seq_len` as for [`super::Idefics3Processor::load`].
    ///
    /// # Errors
    /// Those of [`PreprocessorConfig::load`], [`ProcessorConfig::image_seq_len`] and
    /// [`Tokenizer::load`].
    pub fn load(
        files: &ProcessorFiles,
        derived_seq_len: Option<usize>,
        version: PromptVersion,
    ) -> Result<Self> {
        version.known_to(PromptVersion::COLIDEFICS3)?;
        Ok(Self {
            images: ImageProcessor::new(PreprocessorConfig::load(files)?),
            tokenizer: Tokenizer::load(files)?,
            image_seq_len: ProcessorConfig::image_seq_len(files, derived_seq_len)?,
            version,
        })
    }

    /// Cuts pages.
    pub fn images(&self) -> &ImageProcessor {
        &self.images
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Visual tokens of a tile.
    pub fn image_seq_len(&self) -> usize {
        self.image_seq_len
    }

    /// The version of the prompts.
    pub fn version(&self) -> PromptVersion {
        self.version
    }

    /// Cuts a page and makes its prompt.
    ///
    /// # Errors
    /// Those of [`ImageProcessor::cut`] and [`ColIdefics3Processor::document_ids`].
    pub fn document(&self, page: &RgbImage, options: &TileOptions) -> Result<DocumentPrompt> {
        let tiles = self.images.cut(page, options)?;
        Ok(DocumentPrompt {
            ids: self.document_ids(tiles.grid())?,
            tiles,
            image_token_id: self.tokenizer.image_id(),
        })
    }

    /// Ids of a page cut as `grid` says.
    ///
    /// # Errors
    /// [`Error::Encode`](super::Error::Encode).
    pub fn document_ids(&self, grid: TileGrid) -> Result<Vec<u32>> {
        let marker = self.tokenizer.marker([])?;
        let prompt = Marked {
            text: document(self.version).to_owned(),
            mark: marker.mark(),
        };
        self.tokenizer
            .encode_marked(&expand(prompt, &[grid], self.image_seq_len))
    }

    /// Ids of a question. Special tokens in it are text.
    ///
    /// # Errors
    /// [`Error::Encode`](super::Error::Encode), [`Error::SpecialFromText`](super::Error::SpecialFromText), [`Error::NoMarker`](super::Error::NoMarker).
    pub fn query_ids(&self, question: &str) -> Result<Vec<u32>> {
        let marker = self.tokenizer.marker([question])?;
        let (prefix, suffix) = around_query(self.version);
        self.tokenizer.encode_marked(&Marked {
            text: format!("{prefix}{}{suffix}", marker.text(question)),
            mark: marker.mark(),
        })
    }

    /// What each token of a page is and where it looks.
    pub fn geometry(&self, ids: &[u32], grid: TileGrid) -> Vec<TokenGeometry> {
        token_geometry(ids, grid, self.image_seq_len, &self.tokenizer)
    }
}
