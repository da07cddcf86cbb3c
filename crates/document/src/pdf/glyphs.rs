//! The glyphs of a page, as hayro shows them: every glyph run, invisible ones (the text layer
//! under a scan) included, with `/ActualText` honoured where it stands for a few glyphs.
//!
//! Limits: the height of a glyph's box is a fixed share of its size, not the font's own metrics;
//! glyphs of a Type 3 font with an unusual matrix get their size from their width.

use hayro::hayro_interpret::font::{Glyph, GlyphRun};
use hayro::hayro_interpret::hayro_cmap::{BfString, WritingMode};
use hayro::hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps,
    InterpreterCache, InterpreterSettings, SoftMask, TransformExt, interpret_page,
};
use hayro::kurbo::{Affine, BezPath, Rect};
use hayro_syntax::object::{self, Dict};
use hayro_syntax::page::Page;

use super::strings;
use crate::layout::{Found, Frame, PlacedGlyph};

/// Share of the em above and below the baseline that a glyph's box covers: the mean ascent and
/// descent of Latin text fonts.
const ASCENT: f64 = 0.78;
const DESCENT: f64 = 0.22;

/// An `/ActualText` longer than this stands for a passage, whose words would lose their boxes.
const LONGEST_ACTUAL_TEXT: usize = 16;

/// Longest replacement text kept for a single glyph.
const LONGEST_GLYPH_TEXT: usize = 64;

/// Collects the glyphs of a page of `points`, at most `limit`.
pub(super) fn collect<'a>(
    page: &'a Page<'a>,
    cache: &InterpreterCache<'a>,
    points: (f32, f32),
    limit: usize,
) -> Found {
    let size = (f64::from(points.0), f64::from(points.1));
    let mut sink = Sink {
        found: Found::default(),
        limit,
        size,
        depth: 0,
        actual: None,
    };
    let mut context = Context::new(
        page.initial_transform(true).to_kurbo(),
        Rect::new(0.0, 0.0, size.0, size.1),
        cache,
        page.xref(),
        InterpreterSettings::default(),
    );
    interpret_page(page, &mut context, &mut sink);
    sink.found
}

/// A replacement text in force.
struct ActualText {
    /// Nesting depth of the marked content that carries it.
    depth: u32,
    text: String,
    /// Whether a glyph has taken it.
    used: bool,
}

struct Sink {
    found: Found,
    limit: usize,
    size: (f64, f64),
    depth: u32,
    actual: Option<ActualText>,
}

impl Sink {
    fn glyph(&mut self, glyph: &Glyph<'_>, transform: Affine, mode: WritingMode) {
        if self.found.glyphs.len() >= self.limit {
            self.found.truncated = true;
            return;
        }
        let advance = match glyph {
            Glyph::Outline(outline) => outline.advance_width(),
            Glyph::Type3(type3) => type3.advance_width(),
        };
        let advance = f64::from(advance.unwrap_or(0.0));
        let Some(mut placed) = place(transform, advance, mode) else {
            return;
        };
        let (x, y) = placed.frame.to_page(
            f64::midpoint(placed.u0, placed.u1),
            f64::midpoint(placed.top, placed.bottom),
        );
        if !(0.0..=self.size.0).contains(&x) || !(0.0..=self.size.1).contains(&y) {
            return;
        }
        if let Some(actual) = &mut self.actual {
            if actual.used {
                // The text was given with an earlier glyph, whose box grows over this one.
                if let Some(last) = self.found.glyphs.last_mut()
                    && last.frame == placed.frame
                {
                    last.u1 = last.u1.max(placed.u1);
                }
                return;
            }
            actual.used = true;
            placed.text.clone_from(&actual.text);
            self.found.total += 1;
            self.found.glyphs.push(placed);
            return;
        }
        self.found.total += 1;
        match clean(glyph.as_unicode()) {
            Some(text) if text.is_empty() => {}
            Some(text) => {
                placed.text = text;
                self.found.glyphs.push(placed);
            }
            None => self.found.unmapped += 1,
        }
    }
}

impl<'a> Device<'a> for Sink {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, 'a>, props: DrawProps<'a>, _: &DrawMode) {
        for glyph in run.glyphs() {
            let transform = props.transform * glyph.transform();
            self.glyph(glyph, transform, run.writing_mode());
        }
    }

    fn begin_marked_content(&mut self, _: &[u8], properties: Option<&Dict<'_>>) {
        self.depth = self.depth.saturating_add(1);
        if self.actual.is_none()
            && let Some(text) = properties.and_then(|p| p.get::<object::String<'_>>("ActualText"))
            && text.as_bytes().len() <= 4 * LONGEST_ACTUAL_TEXT
            && let Some(text) = clean(Some(BfString::String(strings::decode(text.as_bytes()))))
            && !text.is_empty()
            && text.chars().count() <= LONGEST_ACTUAL_TEXT
        {
            self.actual = Some(ActualText {
                depth: self.depth,
                text,
                used: false,
            });
        }
    }

    fn end_marked_content(&mut self) {
        if self.actual.as_ref().is_some_and(|a| a.depth >= self.depth) {
            self.actual = None;
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'a>, _: &DrawMode) {}
    fn push_clip_path(&mut self, _: &ClipPath) {}
    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'a>>, _: BlendMode) {}
    fn draw_image(&mut self, _: Image<'a, '_>, _: ImageDrawProps<'a>) {}
    fn pop_clip(&mut self) {}
    fn pop_transparency_group(&mut self) {}
}

/// Where a glyph stands, given the transform from glyph space (1000 units per em) to points.
/// `None` for a degenerate or unbounded one.
fn place(transform: Affine, advance: f64, mode: WritingMode) -> Option<PlacedGlyph> {
    let [a, b, c, d, x, y] = transform.as_coeffs();
    let along = a.hypot(b);
    let determinant = a * d - b * c;
    // The em measured across the baseline, so that slanted text keeps its height.
    let em = determinant.abs() / along * 1000.0;
    if !em.is_finite() || !x.is_finite() || !y.is_finite() || !(0.01..1e5).contains(&em) {
        return None;
    }
    let vertical = mode == WritingMode::Vertical;
    let frame = if vertical {
        Frame::from_direction(-b, a)
    } else {
        Frame::from_direction(a, b)
    };
    let (u, v) = frame.coordinates(x, y);
    let advance = advance * along;
    if !advance.is_finite() || advance.abs() > 1e5 {
        return None;
    }
    let (u0, u1, top, bottom, base) = if vertical {
        // The line runs down the page: the glyph's width lies across it.
        (
            u - ASCENT * em,
            u + DESCENT * em,
            v - advance,
            v,
            v - advance / 2.0,
        )
    } else {
        // A positive determinant, in a space with y down, is mirrored text.
        let (up, down) = if determinant < 0.0 {
            (ASCENT, DESCENT)
        } else {
            (DESCENT, ASCENT)
        };
        (
            u + advance.min(0.0),
            u + advance.max(0.0),
            v - up * em,
            v + down * em,
            v,
        )
    };
    Some(PlacedGlyph {
        text: String::new(),
        frame,
        u0,
        u1,
        top,
        bottom,
        base,
        em,
    })
}

/// The characters of a glyph without control and format characters, every kind of space as U+0020;
/// `None` where the file does not say what the glyph means.
fn clean(unicode: Option<BfString>) -> Option<String> {
    let mut unknown = false;
    let mut push = |text: &mut String, c: char| match c {
        '\u{ad}' => text.push('-'),
        c if c.is_whitespace() => text.push(' '),
        // Private use and non-characters: a font's own codes, not text.
        '\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'.. => unknown = true,
        // Joiners, direction marks, byte order mark.
        '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}' => {}
        c if c.is_control() => unknown |= c == '\0',
        c => text.push(c),
    };
    let mut text = String::new();
    match unicode? {
        BfString::Char(c) => push(&mut text, c),
        BfString::String(s) => s
            .chars()
            .take(LONGEST_GLYPH_TEXT)
            .for_each(|c| push(&mut text, c)),
    }
    (!text.is_empty() || !unknown).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_go_and_private_ones_count_as_unknown() {
        let clean = |s: &str| clean(Some(BfString::String(s.to_owned())));
        assert_eq!(clean("f\u{0}i\u{7}"), Some("fi".to_owned()));
        assert_eq!(clean("\u{a0}"), Some(" ".to_owned()));
        assert_eq!(clean("\u{200b}"), Some(String::new()));
        assert_eq!(clean("\u{f0b7}"), None);
        assert_eq!(clean("\u{0}"), None);
        assert_eq!(super::clean(None), None);
        assert_eq!(clean("\u{fb01}"), Some("\u{fb01}".to_owned()));
    }

    #[test]
    fn a_glyph_is_placed_along_its_own_baseline() {
        // 10 pt, upright, in a space with y down.
        let upright = Affine::new([0.01, 0.0, 0.0, -0.01, 50.0, 100.0]);
        let glyph = place(upright, 500.0, WritingMode::Horizontal).unwrap();
        assert_eq!(glyph.frame, Frame::from_direction(1.0, 0.0));
        assert!((glyph.u0 - 50.0).abs() < 1e-9 && (glyph.u1 - 55.0).abs() < 1e-9);
        assert!((glyph.top - 92.2).abs() < 1e-9 && (glyph.bottom - 102.2).abs() < 1e-9);
        // Reading upwards: the box lies to the left of the baseline.
        let upwards = Affine::new([0.0, -0.01, -0.01, 0.0, 50.0, 100.0]);
        let glyph = place(upwards, 500.0, WritingMode::Horizontal).unwrap();
        let (x, y) = glyph.frame.to_page(glyph.u1, glyph.top);
        assert!((x - 42.2).abs() < 1e-9 && (y - 95.0).abs() < 1e-9);
    }

    #[test]
    fn degenerate_transforms_place_nothing() {
        for coefficients in [
            [0.0; 6],
            [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [f64::NAN, 0.0, 0.0, 1.0, 0.0, 0.0],
            [0.01, 0.0, 0.0, -0.01, f64::INFINITY, 0.0],
        ] {
            let placed = place(Affine::new(coefficients), 500.0, WritingMode::Horizontal);
            assert!(placed.is_none(), "{coefficients:?}");
        }
    }
}
