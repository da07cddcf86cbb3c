//! Text out of ids that come one by one.
//!
//! A token of a byte-level vocabulary may end in the middle of a character, so text is held back
//! until the character is whole. A token that is a single byte (`<0x0A>` in SentencePiece vocabularies) is
//! held back until another kind of token follows: one bad byte makes all bytes of its run unreadable. What has been handed out is never taken back: the pieces joined
//! are the decoding of all ids.

use super::error::Result;
use super::tokenizer::Tokenizer;

/// Stands for bytes that are no character (yet).
const REPLACEMENT: char = '\u{FFFD}';

/// Decodes generated ids into pieces of valid UTF-8. Special tokens are left out.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The last id whose text is out (decoders look at the neighbour for spaces), and those behind.
    window: Vec<u32>,
    /// What of the window's text has been handed out.
    emitted: String,
}

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            window: Vec::new(),
            emitted: String::new(),
        }
    }

    /// Takes the next id and gives the text that is certain now, if any.
    ///
    /// # Errors
    /// [`super::Error::Encode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        if self.tokenizer.is_special(id) {
            return Ok(None);
        }
        self.window.push(id);
        if self.tokenizer.is_byte(id) {
            return Ok(None);
        }
        let text = self.tokenizer.decode(&self.window, true)?;
        let certain = text.trim_end_matches(REPLACEMENT);
        // Shorter than what is out, or other: bytes that the next id may yet make sense of.
        let Some(piece) = certain.strip_prefix(self.emitted.as_str()) else {
            return Ok(None);
        };
        let piece = piece.to_owned();
        if certain.len() == text.len() {
            self.window.drain(..self.window.len() - 1);
            self.emitted = self.tokenizer.decode(&self.window, true)?;
        } else {
            self.emitted.push_str(&piece);
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    /// Gives what is still held back; bytes that never became a character show as U+FFFD.
    ///
    /// # Errors
    /// [`super::Error::Encode`].
    pub fn finish(self) -> Result<Option<String>> {
        let text = self.tokenizer.decode(&self.window, true)?;
        let rest = text.strip_prefix(self.emitted.as_str()).unwrap_or_default();
        Ok(Some(rest.to_owned()).filter(|rest| !rest.is_empty()))
    }
}
