//! Pages and questions for ColPali (v1.2, v1.3).
//!
//! A page is squeezed into one square whatever its shape. Its prompt is the visual tokens, `<bos>` and "Describe the
//! image."; since transformers 4.47 the engine's own `<bos>` stands beside the one that transformers inserts, and the
//! page has a row more (1031 for 1030). Sources: `processing_colpali.py` in colpali-engine 0.3.18,
//! `PaliGemmaProcessor` and `ColPaliProcessor` in transformers 5.23.

use image::RgbImage;

use super::colidefics3::{DocumentPrompt, QUERY_AUGMENTATION};
use super::config::PreprocessorConfig;
use super::error::{Error, Result};
use super::escape::Marked;
use super::files::ProcessorFiles;
use super::geometry::{TokenGeometry, token_geometry};
use super::prompt_version::PromptVersion;
use super::tiles::{ImageProcessor, TileOptions, Tiles};
use super::tokenizer::{IMAGE_TOKEN, Tokenizer};

/// The processor of a ColPali checkpoint.
#[derive(Debug)]
pub struct ColPaliProcessor {
    images: ImageProcessor,
    tokenizer: Tokenizer,
    image_seq_len: usize,
    version: PromptVersion,
    bos: String,
    pad: String,
}

impl ColPaliProcessor {
    /// Loads a processor: the adapter's files, the base's where it has none. `image_seq_len` is the number of visual
    /// tokens that the network makes of a page.
    ///
    /// # Errors
    /// Those of [`PreprocessorConfig::load_over`] and [`Tokenizer::load_paligemma`]; [`Error::PromptVersion`] for
    /// one that ColPali does not have.
    pub fn load(
        files: &ProcessorFiles,
        image_seq_len: usize,
        version: PromptVersion,
    ) -> Result<Self> {
        version.known_to(PromptVersion::COLPALI)?;
        let tokenizer = Tokenizer::load_paligemma(files)?;
        let named = |name: &Option<String>, usual: &'static str| {
            let token = name.clone().unwrap_or_else(|| usual.to_owned());
            match tokenizer.id_of(&token) {
                Some(_) => Ok(token),
                None => Err(Error::MissingToken {
                    path: tokenizer.path().to_owned(),
                    token: usual,
                }),
            }
        };
        let (bos, pad) = (
            named(&tokenizer.names().bos_token, "<bos>")?,
            named(&tokenizer.names().pad_token, "<pad>")?,
        );
        Ok(Self {
            images: ImageProcessor::new(PreprocessorConfig::load_over(
                files,
                &PreprocessorConfig::square(),
            )?),
            image_seq_len,
            version,
            bos,
            pad,
            tokenizer,
        })
    }

    /// Resizes pages.
    pub fn images(&self) -> &ImageProcessor {
        &self.images
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The version of the prompts.
    pub fn version(&self) -> PromptVersion {
        self.version
    }

    /// Resizes a page and makes its prompt.
    ///
    /// # Errors
    /// Those of [`ImageProcessor::cut`] and [`ColPaliProcessor::document_ids`].
    pub fn document(&self, page: &RgbImage) -> Result<DocumentPrompt> {
        Ok(DocumentPrompt {
            ids: self.document_ids()?,
            tiles: self.images.cut(page, &TileOptions::default())?,
            image_token_id: self.tokenizer.image_id(),
        })
    }

    /// Ids of a page; they are those of every page.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn document_ids(&self) -> Result<Vec<u32>> {
        let marker = self.tokenizer.marker([])?;
        let images = IMAGE_TOKEN.repeat(self.image_seq_len);
        let bos = if self.version == PromptVersion::V0_3_1 {
            self.bos.clone()
        } else {
            self.bos.repeat(2)
        };
        self.tokenizer.encode_marked(&Marked {
            text: format!("{images}{bos}Describe the image.\n"),
            mark: marker.mark(),
        })
    }

    /// Ids of a question. Special tokens in it are text.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::SpecialFromText`], [`Error::NoMarker`].
    pub fn query_ids(&self, question: &str) -> Result<Vec<u32>> {
        let marker = self.tokenizer.marker([question])?;
        let (prefix, end) = match self.version {
            PromptVersion::V0_3_1 => ("Question: ", "\n"),
            PromptVersion::V0_3_11 => ("", ""),
            PromptVersion::V0_3_4 | PromptVersion::V0_3_5 | PromptVersion::V0_3_9 => {
                ("Query: ", "\n")
            }
        };
        let pads = self.pad.repeat(QUERY_AUGMENTATION);
        self.tokenizer.encode_marked(&Marked {
            text: format!("{}{prefix}{}{pads}{end}", self.bos, marker.text(question)),
            mark: marker.mark(),
        })
    }

    /// What each token of a page is and where it looks: a cell of one grid over the whole page.
    pub fn geometry(&self, ids: &[u32], tiles: &Tiles) -> Vec<TokenGeometry> {
        token_geometry(ids, tiles.grid(), self.image_seq_len, &self.tokenizer)
    }
}
