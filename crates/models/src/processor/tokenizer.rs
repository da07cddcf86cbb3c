//! A checkpoint's `tokenizer.json`: text to ids, ids to text.
//!
//! The file is taken as it is written. (transformers 5 rebuilds the pre-tokenizer of the SmolVLM
//! tokenizers from their class and loses `Digits`, so its ids differ where two or more spaces stand
//! before a digit; the models were trained with version 4, which took the file as written too.)
//! Padding and truncation that a file may ask for are switched off, as transformers does.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokenizers::tokenizer::{AddedToken, Encoding, PostProcessor as _};

use super::error::{Error, Result};
use super::escape::{Marked, Marker};
use super::files::{FileBytes, JsonFile, ProcessorFiles};
use super::specials::{Found, Specials, without_marks};
use super::stream::StreamDecoder;

/// The placeholder of one visual token.
pub const IMAGE_TOKEN: &str = "<image>";
/// Stands around each tile.
pub const FAKE_IMAGE_TOKEN: &str = "<fake_token_around_image>";
/// Ends a turn.
pub const END_OF_UTTERANCE: &str = "<end_of_utterance>";
/// Stands before the overview. A single token in some tokenizers, text in others.
pub const OVERVIEW_TAG: &str = "<global-img>";

/// Which tokens a family needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// `<image>`, `<fake_token_around_image>`, `<end_of_utterance>`.
    Idefics,
    /// `<image>`; and nothing is put before a text, whatever the file says (`add_bos_token` is switched off).
    PaliGemma,
}

/// The tokenizer of a checkpoint.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// The same with special tokens not recognised, made when somebody first types one.
    literal: OnceLock<tokenizers::Tokenizer>,
    specials: Specials,
    names: NamedTokens,
    image_id: u32,
    fake_image_id: Option<u32>,
    end_of_utterance_id: Option<u32>,
    post_process: bool,
}

/// The tokens that `tokenizer_config.json` gives a role, as templates see them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedTokens {
    /// Beginning of a text.
    pub bos_token: Option<String>,
    /// End of a text.
    pub eos_token: Option<String>,
    /// Filler of batches.
    pub pad_token: Option<String>,
    /// Stands for what the tokenizer does not know.
    pub unk_token: Option<String>,
}

impl Tokenizer {
    /// Loads the tokenizer of a checkpoint, and the roles of its tokens where
    /// `tokenizer_config.json` gives them.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Read`], [`Error::TooLarge`], [`Error::Tokenizer`],
    /// [`Error::MissingToken`], [`Error::Json`].
    pub fn load(files: &ProcessorFiles) -> Result<Self> {
        Self::load_with(files, Needs::Idefics)
    }

    /// [`Tokenizer::load`] for PaliGemma, which has no tokens but `<image>` of its own.
    ///
    /// # Errors
    /// As there.
    pub fn load_paligemma(files: &ProcessorFiles) -> Result<Self> {
        Self::load_with(files, Needs::PaliGemma)
    }

    fn load_with(files: &ProcessorFiles, needs: Needs) -> Result<Self> {
        let FileBytes { path, bytes } = files.tokenizer()?;
        let names = match files.json("tokenizer_config.json")? {
            Some(JsonFile { value, .. }) => NamedTokens::from_json(&value),
            None => NamedTokens::default(),
        };
        Self::read(&path, &bytes, names, needs)
    }

    /// Reads the contents of a `tokenizer.json` that came from `path`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::MissingToken`].
    pub fn from_bytes(path: &Path, bytes: &[u8], names: NamedTokens) -> Result<Self> {
        Self::read(path, bytes, names, Needs::Idefics)
    }

    fn read(path: &Path, bytes: &[u8], names: NamedTokens, needs: Needs) -> Result<Self> {
        let broken = |source: tokenizers::Error| Error::Tokenizer {
            path: path.to_path_buf(),
            reason: source.to_string(),
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(broken)?;
        inner
            .with_truncation(None)
            .map_err(broken)?
            .with_padding(None);
        let id = |token| {
            inner.token_to_id(token).ok_or_else(|| Error::MissingToken {
                path: path.to_path_buf(),
                token,
            })
        };
        let image_id = id(IMAGE_TOKEN)?;
        let (fake_image_id, end_of_utterance_id) = match needs {
            Needs::Idefics => (Some(id(FAKE_IMAGE_TOKEN)?), Some(id(END_OF_UTTERANCE)?)),
            Needs::PaliGemma => (None, None),
        };
        // What transformers' processor does: these three are special whatever the file says. So are
        // the tags of tiles here, which are no user's to write.
        let special: &[&str] = match needs {
            Needs::Idefics => &[FAKE_IMAGE_TOKEN, IMAGE_TOKEN, END_OF_UTTERANCE],
            Needs::PaliGemma => &[IMAGE_TOKEN],
        };
        let special = special.iter().map(|&token| AddedToken::from(token, true));
        let added = inner.get_added_tokens_decoder().into_values();
        let tags: Vec<AddedToken> = added
            .filter(|token| is_tile_tag(&token.content) && !token.special)
            .map(|token| AddedToken {
                special: true,
                ..token
            })
            .collect();
        inner
            .add_special_tokens(special.chain(tags))
            .map_err(broken)?;
        let specials = Specials::of(&inner);
        Ok(Self {
            path: path.to_path_buf(),
            inner,
            literal: OnceLock::new(),
            specials,
            names,
            image_id,
            fake_image_id,
            end_of_utterance_id,
            post_process: needs != Needs::PaliGemma,
        })
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Id of `<image>`.
    pub fn image_id(&self) -> u32 {
        self.image_id
    }

    /// Id of `<fake_token_around_image>`, where the family has it.
    pub fn fake_image_id(&self) -> Option<u32> {
        self.fake_image_id
    }

    /// Id of `<end_of_utterance>`, where the family has it.
    pub fn end_of_utterance_id(&self) -> Option<u32> {
        self.end_of_utterance_id
    }

    /// The roles of tokens.
    pub fn names(&self) -> &NamedTokens {
        &self.names
    }

    /// The id of a token, by its exact text.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether the id is a special token, which no user text ever becomes.
    pub fn is_special(&self, id: u32) -> bool {
        self.specials.by_id.contains_key(&id)
    }

    /// Whether the id stands for one byte of a character that the vocabulary lacks.
    pub(super) fn is_byte(&self, id: u32) -> bool {
        let token = self.inner.id_to_token(id);
        token.is_some_and(|token| {
            token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
        })
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Ids of a text in which nothing is special: what a user typed, and nothing else.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::SpecialFromText`], [`Error::NoMarker`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        let marker = self.marker([text])?;
        self.encode_marked(&Marked {
            text: marker.text(text),
            mark: marker.mark(),
        })
    }

    /// Ids of a text in which special tokens count as such: template text and nothing else.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encode_trusted(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, true)
            .map_err(|error| self.failed(error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids; special tokens are left out where `skip_special` is set. Ids outside the
    /// vocabulary are left out.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|error| self.failed(error))
    }

    /// Turns ids into text as they are generated, special tokens left out.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }

    /// Whether a word behind a special token lacks the mark of a word's beginning that it has at the start of a text.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub(super) fn joins_words_to_special_tokens(&self) -> Result<bool> {
        let encode = |text: &str| {
            let encoding = self.inner.encode_fast(text, false);
            let encoding = encoding.map_err(|error| self.failed(error))?;
            Ok(encoding.get_ids().to_vec())
        };
        let alone: Vec<u32> = encode("a")?;
        let behind: Vec<u32> = encode(&format!("{FAKE_IMAGE_TOKEN}a"))?;
        Ok(!behind.ends_with(&alone))
    }

    /// A marker for user texts of one prompt; see [`super::escape`].
    pub(super) fn marker<'t>(
        &self,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Result<Marker<'_>> {
        Marker::new(&self.specials.first_chars, texts)
    }

    /// Ids of a rendered prompt. Only special tokens without a mark in them are taken as such.
    ///
    /// Where the user typed none, the whole string goes to the tokenizer at once, so the ids are
    /// those of transformers by construction. Otherwise the string is cut at the template's special
    /// tokens, which is what the tokenizer itself does first.
    pub(super) fn encode_marked(&self, marked: &Marked) -> Result<Vec<u32>> {
        let found = self.specials.find(&marked.text, Some(marked.mark));
        let text = marked.plain();
        let encoding = if self.specials.find(&text, None) == without_marks(marked, &found) {
            let encoding = self.inner.encode_fast(text.as_str(), false);
            let encoding = encoding.map_err(|error| self.failed(error))?;
            // A tokenizer that normalises may find a special token where no such characters stand.
            let count = encoding
                .get_ids()
                .iter()
                .filter(|&&id| self.is_special(id))
                .count();
            if count == found.len() {
                encoding
            } else {
                self.encode_literal(marked, &found)?
            }
        } else {
            self.encode_literal(marked, &found)?
        };
        let begins_with_bos = self.names.bos_token.as_ref().is_some_and(|bos| {
            let first = found.first().filter(|first| first.start == 0);
            first.is_some_and(|first| self.specials.by_id.get(&first.id) == Some(bos))
        });
        // transformers' rule: a template that begins with the bos token brings all there is.
        if begins_with_bos || !self.post_process {
            return Ok(encoding.get_ids().to_vec());
        }
        match self.inner.get_post_processor() {
            Some(processor) if processor.added_tokens(false) > 0 => {
                let encoding = self.inner.post_process(encoding, None, true);
                Ok(encoding
                    .map_err(|error| self.failed(error))?
                    .get_ids()
                    .to_vec())
            }
            Some(_) | None => Ok(encoding.get_ids().to_vec()),
        }
    }

    /// Encodes what stands between the special tokens with none recognised.
    ///
    /// Limit: a tokenizer whose pre-tokenizer treats the beginning of the whole text in a special
    /// way (Metaspace, `prepend_scheme: first`) would do so after each special token. None of the
    /// family does.
    fn encode_literal(&self, marked: &Marked, found: &[Found]) -> Result<Encoding> {
        let literal = self.literal.get_or_init(|| {
            let mut literal = self.inner.clone();
            literal.set_encode_special_tokens(true);
            literal
        });
        let mut parts = Vec::with_capacity(found.len() * 2 + 1);
        let mut at = 0;
        for special in found {
            self.push_literal(literal, marked, at..special.start, &mut parts)?;
            let token = self
                .specials
                .by_id
                .get(&special.id)
                .map_or("", String::as_str);
            let encoding = self.inner.encode_fast(token, false);
            parts.push(encoding.map_err(|error| self.failed(error))?);
            at = special.end;
        }
        self.push_literal(literal, marked, at..marked.text.len(), &mut parts)?;
        Ok(Encoding::merge(parts, false))
    }

    fn push_literal(
        &self,
        literal: &tokenizers::Tokenizer,
        marked: &Marked,
        range: std::ops::Range<usize>,
        parts: &mut Vec<Encoding>,
    ) -> Result<()> {
        let Some(text) = marked.text.get(range).filter(|text| !text.is_empty()) else {
            return Ok(());
        };
        let text = text.replace(marked.mark, "");
        let encoding = literal.encode_fast(text.as_str(), false);
        let encoding = encoding.map_err(|error| self.failed(error))?;
        if let Some(id) = encoding.get_ids().iter().find(|&&id| self.is_special(id)) {
            return Err(Error::SpecialFromText {
                path: self.path.clone(),
                token: self.specials.by_id[id].clone(),
            });
        }
        parts.push(encoding);
        Ok(())
    }

    fn failed(&self, source: tokenizers::Error) -> Error {
        Error::Encode {
            path: self.path.clone(),
            reason: source.to_string(),
        }
    }
}

/// Whether a token stands before a tile or the overview.
fn is_tile_tag(token: &str) -> bool {
    token == OVERVIEW_TAG || (token.starts_with("<row_") && token.contains("_col_"))
}

impl NamedTokens {
    /// Reads the roles from `tokenizer_config.json`: strings, or objects with `content`.
    pub fn from_json(json: &serde_json::Value) -> Self {
        let token = |key: &str| {
            let value = json.get(key)?;
            let content = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some(content.to_owned())
        };
        Self {
            bos_token: token("bos_token"),
            eos_token: token("eos_token"),
            pad_token: token("pad_token"),
            unk_token: token("unk_token"),
        }
    }
}
