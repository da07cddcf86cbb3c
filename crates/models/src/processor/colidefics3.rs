//! Pages and questions for the ColIdefics3 retrievers (colsmolvlm-alpha, colSmol-256M, colSmol-500M).
//!
//! colpali-engine changed the prompts twice, and vectors made with different ones do not compare
//! well, so the version is a value that an index records.

use std::fmt;
use std::str::FromStr;

use image::RgbImage;

use super::config::{PreprocessorConfig, ProcessorConfig};
use super::error::{Error, Result};
use super::escape::Marked;
use super::expand::expand;
use super::files::ProcessorFiles;
use super::geometry::{TokenGeometry, token_geometry};
use super::tiles::{ImageProcessor, TileGrid, TileOptions, Tiles};
use super::tokenizer::{END_OF_UTTERANCE, Tokenizer};

/// Tokens behind a question that leave the model room to think
/// (`query_augmentation_token * 10` in colpali-engine).
const QUERY_AUGMENTATION: usize = 10;

/// The prompts of one range of colpali-engine versions, named by its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PromptVersion {
    /// 0.3.5 to 0.3.8, with which the checkpoints were trained: chat template with the text before
    /// the image; `Query: ` before a question, a line break behind it.
    V0_3_5,
    /// 0.3.9 and 0.3.10: a document prompt with a lower-case role on a line of its own.
    V0_3_9,
    /// 0.3.11 to 0.3.18: image first, and a generation prompt; questions bare.
    #[default]
    V0_3_11,
}

impl PromptVersion {
    /// All versions, the oldest first.
    pub const ALL: [Self; 3] = [Self::V0_3_5, Self::V0_3_9, Self::V0_3_11];

    /// The name that an index records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_5 => "0.3.5",
            Self::V0_3_9 => "0.3.9",
            Self::V0_3_11 => "0.3.11",
        }
    }

    /// The prompt of a page, with `<image>` for the picture.
    pub fn document(self) -> &'static str {
        match self {
            Self::V0_3_5 => "<|im_start|>User: Describe the image.<image><end_of_utterance>",
            Self::V0_3_9 => "<|im_start|>user\n<image>Describe the image.<end_of_utterance>",
            Self::V0_3_11 => {
                "<|im_start|>User:<image>Describe the image.<end_of_utterance>\nAssistant:"
            }
        }
    }

    /// What stands before and behind a question.
    fn around_query(self) -> (&'static str, String) {
        let augmentation = END_OF_UTTERANCE.repeat(QUERY_AUGMENTATION);
        match self {
            Self::V0_3_5 | Self::V0_3_9 => ("Query: ", augmentation + "\n"),
            Self::V0_3_11 => ("", augmentation),
        }
    }
}

impl fmt::Display for PromptVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PromptVersion {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let version = Self::ALL
            .into_iter()
            .find(|version| version.as_str() == name);
        version.ok_or_else(|| Error::PromptVersion {
            found: name.to_owned(),
        })
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
    /// [`Error::Encode`].
    pub fn document_ids(&self, grid: TileGrid) -> Result<Vec<u32>> {
        let marker = self.tokenizer.marker([])?;
        let prompt = Marked {
            text: self.version.document().to_owned(),
            mark: marker.mark(),
        };
        self.tokenizer
            .encode_marked(&expand(prompt, &[grid], self.image_seq_len))
    }

    /// Ids of a question. Special tokens in it are text.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::SpecialFromText`], [`Error::NoMarker`].
    pub fn query_ids(&self, question: &str) -> Result<Vec<u32>> {
        let marker = self.tokenizer.marker([question])?;
        let (prefix, suffix) = self.version.around_query();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_by_name() {
        for version in PromptVersion::ALL {
            assert_eq!(
                version.to_string().parse::<PromptVersion>().unwrap(),
                version
            );
        }
        assert_eq!(PromptVersion::default(), PromptVersion::V0_3_11);
        let message = "0.3.12".parse::<PromptVersion>().unwrap_err().to_string();
        assert!(
            message.contains("`0.3.12`") && message.contains("`0.3.9`"),
            "{message}"
        );
    }
}
