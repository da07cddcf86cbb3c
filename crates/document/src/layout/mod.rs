//! From placed glyphs to words in reading order.
//!
//! 1. Glyphs are grouped by the direction of their baseline ([`Frame`]), so that a note up the
//!    margin does not fall between the lines of the text.
//! 2. [`words`] joins glyphs to words and words to segments: stretches of a line without a gap
//!    that could be a gutter.
//! 3. [`order`] finds columns among the segments, and lines and blocks within them.
//!
//! Limits: reading order is guessed from geometry alone. A table whose cells wrap is read row by
//! row of print, not cell by cell.

mod order;
mod words;

use crate::text::{BBox, PageText, TextLayer, Word};

/// One in this many glyphs without a meaning, and the layer is not worth reading.
const UNMAPPED_SHARE: usize = 5;

/// A direction of baselines, in whole degrees clockwise from left-to-right, and the coordinates
/// `(u, v)` along and below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    degrees: i16,
}

impl Frame {
    /// The frame of a baseline that runs in direction `(dx, dy)`, y down.
    pub(crate) fn from_direction(dx: f64, dy: f64) -> Self {
        let degrees = dy.atan2(dx).to_degrees().rem_euclid(360.0);
        // Scans are a little askew; their lines belong with the upright ones.
        let quarter = (degrees / 90.0).round() * 90.0;
        let degrees = if (degrees - quarter).abs() < 3.0 {
            quarter
        } else {
            degrees.round()
        };
        Self {
            degrees: (degrees as i16).rem_euclid(360),
        }
    }

    /// The unit vector along the baseline, exact for the four upright directions.
    fn direction(self) -> (f64, f64) {
        match self.degrees {
            0 => (1.0, 0.0),
            90 => (0.0, 1.0),
            180 => (-1.0, 0.0),
            270 => (0.0, -1.0),
            other => {
                let angle = f64::from(other).to_radians();
                (angle.cos(), angle.sin())
            }
        }
    }

    /// Page coordinates to frame coordinates.
    pub(crate) fn coordinates(self, x: f64, y: f64) -> (f64, f64) {
        let (dx, dy) = self.direction();
        (x * dx + y * dy, y * dx - x * dy)
    }

    /// Frame coordinates to page coordinates.
    pub(crate) fn to_page(self, u: f64, v: f64) -> (f64, f64) {
        let (dx, dy) = self.direction();
        (u * dx - v * dy, u * dy + v * dx)
    }

    /// The box around a rectangle of the frame, in fractions of a page of `points`.
    fn bbox(self, [u0, top, u1, bottom]: [f64; 4], points: (f32, f32)) -> BBox {
        let corners = [(u0, top), (u1, top), (u0, bottom), (u1, bottom)];
        let mut page = [f64::MAX, f64::MAX, f64::MIN, f64::MIN];
        for (u, v) in corners {
            let (x, y) = self.to_page(u, v);
            page = [
                page[0].min(x),
                page[1].min(y),
                page[2].max(x),
                page[3].max(y),
            ];
        }
        let (width, height) = (f64::from(points.0), f64::from(points.1));
        BBox {
            x0: (page[0] / width) as f32,
            y0: (page[1] / height) as f32,
            x1: (page[2] / width) as f32,
            y1: (page[3] / height) as f32,
        }
        .clamped()
    }
}

/// A glyph on the page, in the coordinates of its own frame, in points.
#[derive(Clone, Debug)]
pub(crate) struct PlacedGlyph {
    /// What it means; a space is U+0020.
    pub(crate) text: String,
    /// The direction of its baseline.
    pub(crate) frame: Frame,
    /// Start along the baseline.
    pub(crate) u0: f64,
    /// End along the baseline.
    pub(crate) u1: f64,
    /// Upper edge of the line it stands on.
    pub(crate) top: f64,
    /// Lower edge of the line it stands on.
    pub(crate) bottom: f64,
    /// The baseline.
    pub(crate) base: f64,
    /// Size of the font.
    pub(crate) em: f64,
}

/// What the glyphs of a page came to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Glyphs that mean something, in the order of the file.
    pub(crate) glyphs: Vec<PlacedGlyph>,
    /// Glyphs seen on the page.
    pub(crate) total: usize,
    /// Of those, the ones without a meaning.
    pub(crate) unmapped: usize,
    /// Whether glyphs were dropped for their number.
    pub(crate) truncated: bool,
}

/// Turns the glyphs of a page of `points` into words.
pub(crate) fn page_text(found: Found, points: (f32, f32)) -> PageText {
    if found.unmapped * UNMAPPED_SHARE > found.total {
        return PageText {
            words: Vec::new(),
            layer: TextLayer::Unreadable,
        };
    }
    let mut frames: Vec<(Frame, Vec<PlacedGlyph>)> = Vec::new();
    for glyph in found.glyphs {
        match frames.iter_mut().find(|(frame, _)| *frame == glyph.frame) {
            Some((_, glyphs)) => glyphs.push(glyph),
            None => frames.push((glyph.frame, vec![glyph])),
        }
    }
    // The direction most of the page is written in comes first.
    frames.sort_by_key(|(_, glyphs)| std::cmp::Reverse(glyphs.len()));
    let mut words = Vec::new();
    let (mut line, mut block) = (0, 0);
    for (frame, glyphs) in frames {
        for lines in order::blocks(words::segments(glyphs)) {
            for laid in lines {
                for word in laid {
                    words.push(Word {
                        bbox: frame.bbox([word.u0, word.top, word.u1, word.bottom], points),
                        text: word.text,
                        line,
                        block,
                    });
                }
                line += 1;
            }
            block += 1;
        }
    }
    let layer = match (words.is_empty(), found.truncated) {
        (true, _) => TextLayer::None,
        (false, true) => TextLayer::Truncated,
        (false, false) => TextLayer::Complete,
    };
    PageText { words, layer }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn glyphs(text: &str, x: f64, base: f64, em: f64) -> Vec<PlacedGlyph> {
        // A monospaced font of half an em.
        text.chars()
            .enumerate()
            .map(|(i, c)| PlacedGlyph {
                text: c.to_string(),
                frame: Frame::from_direction(1.0, 0.0),
                u0: x + 0.5 * em * i as f64,
                u1: x + 0.5 * em * (i + 1) as f64,
                top: base - 0.78 * em,
                bottom: base + 0.22 * em,
                base,
                em,
            })
            .collect()
    }

    fn text_of(glyphs: Vec<PlacedGlyph>) -> String {
        let total = glyphs.len();
        let found = Found {
            glyphs,
            total,
            ..Found::default()
        };
        page_text(found, (600.0, 800.0)).plain()
    }

    #[test]
    fn frames_turn_there_and_back() {
        for (dx, dy) in [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (1.0, 1.0)] {
            let frame = Frame::from_direction(dx, dy);
            let (u, v) = frame.coordinates(3.0, 7.0);
            let (x, y) = frame.to_page(u, v);
            assert!((x - 3.0).abs() < 1e-9 && (y - 7.0).abs() < 1e-9);
        }
        // A scan that is two degrees askew counts as upright.
        assert_eq!(
            Frame::from_direction(1.0, 0.03),
            Frame::from_direction(1.0, 0.0)
        );
        assert_eq!(
            Frame::from_direction(1.0, -0.01),
            Frame::from_direction(1.0, 0.0)
        );
    }

    #[test]
    fn words_lines_and_blocks_come_out_in_order() {
        let mut all = glyphs("second line", 10.0, 62.0, 10.0);
        all.extend(glyphs("first line", 10.0, 50.0, 10.0));
        all.extend(glyphs("after a gap", 10.0, 110.0, 10.0));
        assert_eq!(text_of(all), "first line\nsecond line\n\nafter a gap");
    }

    #[test]
    fn text_drawn_twice_is_read_once() {
        let mut all = glyphs("bold", 10.0, 50.0, 10.0);
        all.extend(glyphs("bold", 10.3, 50.0, 10.0));
        assert_eq!(text_of(all), "bold");
    }

    #[test]
    fn a_sideways_note_follows_the_text() {
        let mut all: Vec<_> = glyphs("note", 10.0, 50.0, 10.0)
            .into_iter()
            .map(|g| PlacedGlyph {
                frame: Frame::from_direction(0.0, -1.0),
                ..g
            })
            .collect();
        all.extend(glyphs("upright", 10.0, 50.0, 10.0));
        assert_eq!(text_of(all), "upright\n\nnote");
    }

    proptest::proptest! {
        #[test]
        fn every_glyph_is_in_one_word_on_the_page(
            places in proptest::collection::vec(
                (0.0..600.0, 0.0..800.0, 1.0..40.0, 0..8_usize, proptest::bool::ANY),
                0..120,
            )
        ) {
            const TURNS: [(f64, f64); 8] = [
                (1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0),
                (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (0.7, 0.7),
            ];
            let mut all = Vec::new();
            for (i, (x, y, em, turn, space)) in places.into_iter().enumerate() {
                let frame = Frame::from_direction(TURNS[turn].0, TURNS[turn].1);
                let (u, v) = frame.coordinates(x, y);
                // A character for each, so that none can stand for another.
                let c = char::from_u32(0x4e00 + i as u32).unwrap();
                let mut glyph = glyphs(&c.to_string(), u, v, em).remove(0);
                glyph.frame = frame;
                all.push(glyph);
                if space {
                    let mut blank = glyphs(" ", u + em, v, em).remove(0);
                    blank.frame = frame;
                    all.push(blank);
                }
            }
            let mut expected: Vec<char> =
                all.iter().flat_map(|g| g.text.chars()).filter(|c| *c != ' ').collect();
            let total = all.len();
            let found = Found { glyphs: all, total, ..Found::default() };
            let text = page_text(found, (600.0, 800.0));
            let mut got: Vec<char> = text.words.iter().flat_map(|w| w.text.chars()).collect();
            expected.sort_unstable();
            got.sort_unstable();
            proptest::prop_assert_eq!(got, expected);
            for word in &text.words {
                let b = word.bbox;
                proptest::prop_assert!(b.x0 <= b.x1 && b.y0 <= b.y1 && b.x1 <= 1.0 && b.y1 <= 1.0);
            }
            // Lines and blocks are numbered in order, without holes.
            let steps = text.words.windows(2).all(|w| {
                let (line, block) = (w[1].line - w[0].line, w[1].block - w[0].block);
                line <= 1 && block <= line
            });
            proptest::prop_assert!(steps);
        }
    }

    #[test]
    fn a_layer_that_is_mostly_meaningless_is_not_given() {
        let found = |unmapped| Found {
            glyphs: glyphs("text", 10.0, 50.0, 10.0),
            total: 4 + unmapped,
            unmapped,
            truncated: false,
        };
        let text = page_text(found(2), (600.0, 800.0));
        assert_eq!(text.layer, TextLayer::Unreadable);
        assert!(!text.has_text());
        let text = page_text(found(1), (600.0, 800.0));
        assert_eq!(text.layer, TextLayer::Complete);
        assert_eq!(
            page_text(Found::default(), (1.0, 1.0)).layer,
            TextLayer::None
        );
    }
}
