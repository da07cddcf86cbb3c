//! User text stays text.
//!
//! transformers renders the template, expands the images and tokenises the one string that comes
//! out, so a user who types `<end_of_utterance>` ends the turn. Here the characters of user text
//! that could begin a special token are followed by a *mark*, a private-use character that occurs
//! nowhere else in the conversation; so is the beginning of each text, that a token may not start
//! in the template and end in the text. Templates pass marks through like any other character. In
//! the rendered string a special token is one that the template made exactly if no mark is in it;
//! the marks are then taken out again, and the model sees what the user typed, character by
//! character, as ordinary tokens.
//!
//! White space at either end of a text stays outside the marks, so that a template may trim it.

use std::collections::HashSet;

use super::error::{Error, Result};

/// Where marks are taken from: planes 15 and 16, private use to the last character.
const MARKS: std::ops::RangeInclusive<char> = '\u{F0000}'..='\u{10FFFF}';

/// Text with marks in it, or what a template made of such texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) text: String,
    pub(super) mark: char,
}

impl Marked {
    /// The text without marks.
    pub(super) fn plain(&self) -> String {
        self.text.replace(self.mark, "")
    }
}

/// Marks texts of one conversation.
#[derive(Debug)]
pub(super) struct Marker<'a> {
    mark: char,
    first_chars: &'a HashSet<char>,
}

impl<'a> Marker<'a> {
    /// A marker for a conversation in which `texts` occur (those of the template too).
    /// `first_chars` are the characters with which special tokens begin.
    ///
    /// # Errors
    /// [`Error::NoMarker`] where the texts use all 131 072 candidates.
    pub(super) fn new<'t>(
        first_chars: &'a HashSet<char>,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Result<Self> {
        let mut used: HashSet<char> = first_chars.clone();
        for text in texts {
            used.extend(text.chars().filter(|char| MARKS.contains(char)));
        }
        let mark = MARKS.rev().find(|mark| !used.contains(mark));
        let mark = mark.ok_or_else(|| Error::NoMarker(MARKS.count()))?;
        Ok(Self { mark, first_chars })
    }

    /// The mark.
    pub(super) fn mark(&self) -> char {
        self.mark
    }

    /// The text with its marks.
    pub(super) fn text(&self, text: &str) -> String {
        let leading = text.len() - text.trim_start().len();
        let mut out = String::with_capacity(text.len() + 8);
        for (at, char) in text.char_indices() {
            if at == leading {
                out.push(self.mark);
            }
            out.push(char);
            if self.first_chars.contains(&char) {
                out.push(self.mark);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_at_the_start_and_behind_first_characters() {
        let first = HashSet::from(['<', '[']);
        let marker = Marker::new(&first, ["a \u{10FFFF} b"]).unwrap();
        assert_eq!(marker.mark(), '\u{10FFFE}');
        let marked = marker.text("  a<image>[x ");
        assert_eq!(marked, "  \u{10FFFE}a<\u{10FFFE}image>[\u{10FFFE}x ");
        assert_eq!(marker.text(" \n"), " \n");
        assert_eq!(marker.text(""), "");
        let marked = Marked {
            text: marked,
            mark: marker.mark(),
        };
        assert_eq!(marked.plain(), "  a<image>[x ");
    }

    #[test]
    fn a_text_of_all_marks_is_refused() {
        let all: String = MARKS.collect();
        let error = Marker::new(&HashSet::new(), [all.as_str()]).unwrap_err();
        assert!(matches!(error, Error::NoMarker(131_072)), "{error}");
    }
}
