//! The text of a page: words with boxes, in reading order.

use serde::{Deserialize, Serialize};

/// A box in fractions of the page as displayed: `x` from the left edge, `y` from the top edge,
/// each from 0 to 1, with rotation and crop box applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct BBox {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl BBox {
    /// The smallest box around both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            x0: self.x0.min(other.x0),
            y0: self.y0.min(other.y0),
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
        }
    }

    /// The area both cover, as a fraction of the page.
    pub fn overlap(self, other: Self) -> f32 {
        let width = self.x1.min(other.x1) - self.x0.max(other.x0);
        let height = self.y1.min(other.y1) - self.y0.max(other.y0);
        width.max(0.0) * height.max(0.0)
    }

    /// Width times height, as a fraction of the page.
    pub fn area(self) -> f32 {
        (self.x1 - self.x0).max(0.0) * (self.y1 - self.y0).max(0.0)
    }

    /// The box with every edge brought within the page; what is not a number becomes 0.
    #[must_use]
    pub(crate) fn clamped(self) -> Self {
        let clamp = |v: f32| if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) };
        Self {
            x0: clamp(self.x0),
            y0: clamp(self.y0),
            x1: clamp(self.x1),
            y1: clamp(self.y1),
        }
    }
}

impl From<[f32; 4]> for BBox {
    fn from([x0, y0, x1, y1]: [f32; 4]) -> Self {
        Self { x0, y0, x1, y1 }
    }
}

impl From<BBox> for [f32; 4] {
    fn from(b: BBox) -> Self {
        [b.x0, b.y0, b.x1, b.y1]
    }
}

/// One word: what stands between two gaps on a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The characters as the file gives them: ligatures and hyphens are kept, control characters
    /// are not.
    #[serde(rename = "t")]
    pub text: String,
    /// Where the word stands: from 0.78 em above its baseline to 0.22 em below.
    #[serde(rename = "b")]
    pub bbox: BBox,
    /// The line of the page, from 0 in reading order.
    #[serde(rename = "l")]
    pub line: u32,
    /// The block (paragraph, table, heading) of the page, from 0 in reading order.
    #[serde(rename = "k")]
    pub block: u32,
}

/// What is known of a page's text layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextLayer {
    /// The page has no text: a scan, a picture, an empty page.
    #[default]
    None,
    /// Everything was read.
    Complete,
    /// There is text, but more than a fifth of it cannot be turned into characters; no words are
    /// given.
    Unreadable,
    /// There was more than
    /// [`Limits::max_glyphs_per_page`](crate::Limits::max_glyphs_per_page).
    Truncated,
    /// The PDF library failed on the text; the picture of the page is unaffected.
    Failed,
}

/// The words of a page in reading order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PageText {
    /// The words: columns one after the other, rows of tables from left to right.
    pub words: Vec<Word>,
    /// Where the words come from, and whether some are missing.
    pub layer: TextLayer,
}

impl PageText {
    /// Whether there is a word.
    pub fn has_text(&self) -> bool {
        !self.words.is_empty()
    }

    /// The words as a plain text: a space between words, a line break between lines, an empty
    /// line between blocks.
    pub fn plain(&self) -> String {
        let mut out = String::with_capacity(self.words.iter().map(|w| w.text.len() + 1).sum());
        let mut last: Option<&Word> = None;
        for word in &self.words {
            match last {
                None => {}
                Some(last) if last.block != word.block => out.push_str("\n\n"),
                Some(last) if last.line != word.line => out.push('\n'),
                Some(_) => out.push(' '),
            }
            out.push_str(&word.text);
            last = Some(word);
        }
        out
    }
}

impl PageText {
    /// The words as a full-text index wants them: [`Self::plain`] with typographic ligatures
    /// spelled out, and after a word that is hyphenated at the end of a line the whole word too
    /// ("ques- tions questions"), since only a dictionary could tell "ques-tions" from
    /// "question-answering".
    pub fn searchable(&self) -> String {
        let mut out = String::with_capacity(self.words.iter().map(|w| w.text.len() + 1).sum());
        let mut last: Option<&Word> = None;
        for word in &self.words {
            if let Some(last) = last {
                out.push(if last.line == word.line { ' ' } else { '\n' });
            }
            spell_out(&word.text, &mut out);
            if let Some(start) = last.and_then(|last| hyphenated(last, word)) {
                out.push(' ');
                spell_out(start, &mut out);
                spell_out(&word.text, &mut out);
            }
            last = Some(word);
        }
        out
    }
}

/// The start of a word that goes on as `next` on the next line, without its hyphen.
fn hyphenated<'a>(word: &'a Word, next: &Word) -> Option<&'a str> {
    let start = word.text.strip_suffix(['-', '\u{2010}'])?;
    let goes_on = word.line + 1 == next.line
        && start.ends_with(char::is_alphabetic)
        && next.text.starts_with(char::is_lowercase);
    goes_on.then_some(start)
}

/// Appends text with the Latin ligatures U+FB00 to U+FB06 as letters.
fn spell_out(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\u{fb00}' => out.push_str("ff"),
            '\u{fb01}' => out.push_str("fi"),
            '\u{fb02}' => out.push_str("fl"),
            '\u{fb03}' => out.push_str("ffi"),
            '\u{fb04}' => out.push_str("ffl"),
            '\u{fb05}' | '\u{fb06}' => out.push_str("st"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, line: u32, block: u32) -> Word {
        Word {
            text: text.to_owned(),
            bbox: BBox::default(),
            line,
            block,
        }
    }

    #[test]
    fn plain_text_breaks_lines_and_blocks() {
        let text = PageText {
            words: vec![
                word("a", 0, 0),
                word("b", 0, 0),
                word("c", 1, 0),
                word("d", 2, 1),
            ],
            layer: TextLayer::Complete,
        };
        assert_eq!(text.plain(), "a b\nc\n\nd");
        assert!(text.has_text());
        assert_eq!(PageText::default().plain(), "");
    }

    #[test]
    fn searchable_text_spells_ligatures_out_and_joins_hyphenated_words() {
        let text = PageText {
            words: vec![
                word("e\u{fb03}cient", 0, 0),
                word("ques-", 0, 0),
                word("tions", 1, 0),
                word("A-", 1, 0),
                word("B", 2, 0),
                word("-", 2, 0),
                word("c", 3, 0),
            ],
            layer: TextLayer::Complete,
        };
        assert_eq!(
            text.searchable(),
            "efficient ques-\ntions questions A-\nB -\nc"
        );
        assert_eq!(PageText::default().searchable(), "");
    }

    #[test]
    fn boxes_are_brought_onto_the_page() {
        let b = BBox::from([-0.5, f32::NAN, 0.5, 2.0]).clamped();
        assert_eq!(<[f32; 4]>::from(b), [0.0, 0.0, 0.5, 1.0]);
        assert_eq!(b.overlap(BBox::from([0.25, 0.5, 1.0, 1.0])), 0.125);
        assert_eq!(b.area(), 0.5);
    }
}
