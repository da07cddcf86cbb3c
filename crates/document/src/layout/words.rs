//! Glyphs to words, words to segments.
//!
//! Glyphs are first joined in the order of the file, which keeps overlapping texts apart, and the
//! pieces then by their place on the line, which brings together what a file draws in several
//! goes. A gap of [`WORD_GAP`] or a drawn space ends a word; a gap of [`SEGMENT_GAP`] ends a
//! segment, which is the unit columns are found among.

use std::collections::HashMap;

use super::PlacedGlyph;

/// Gap between words, in ems. Spaces in justified text shrink to about 0.2 em and kerning hardly
/// exceeds 0.1 em; poppler breaks at 0.1, pdfium nearer 0.25.
const WORD_GAP: f64 = 0.18;

/// Gap that may be the gutter between columns or cells, in ems.
const SEGMENT_GAP: f64 = 0.9;

/// Two glyphs alike within this distance, in ems, are one glyph drawn twice to look bold.
const SAME_PLACE: f64 = 0.12;

/// A word in the coordinates of its frame.
#[derive(Clone, Debug)]
pub(super) struct LaidWord {
    pub(super) text: String,
    pub(super) u0: f64,
    pub(super) u1: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// A stretch of a line without a wide gap.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) words: Vec<LaidWord>,
    pub(super) u0: f64,
    pub(super) u1: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) base: f64,
    pub(super) em: f64,
}

impl Segment {
    /// Number of characters.
    pub(super) fn num_chars(&self) -> usize {
        self.words.iter().map(|w| w.text.chars().count()).sum()
    }
}

/// Glyphs that follow one another in the file and on the line.
struct Piece {
    text: String,
    num_glyphs: usize,
    u0: f64,
    u1: f64,
    last_u0: f64,
    top: f64,
    bottom: f64,
    base: f64,
    em: f64,
    /// Baseline and size of the line it belongs to: another's, for a superscript.
    line: (f64, f64),
    space_before: bool,
    space_after: bool,
}

/// Joins the glyphs of one frame to segments, in no particular order of lines.
pub(super) fn segments(glyphs: Vec<PlacedGlyph>) -> Vec<Segment> {
    lines(pieces(without_doubles(glyphs)))
        .into_iter()
        .flat_map(line_segments)
        .collect()
}

/// Drops glyphs drawn again at the same place.
fn without_doubles(glyphs: Vec<PlacedGlyph>) -> Vec<PlacedGlyph> {
    /// Side of the cells the page is divided into, in points.
    const CELL: f64 = 2.0;
    /// Looking further back in a crowded cell finds no honest double.
    const LOOK_BACK: usize = 16;
    type Places = Vec<(f64, f64)>;
    let mut seen: HashMap<(String, i64, i64), Places> = HashMap::new();
    let mut kept = Vec::with_capacity(glyphs.len());
    for glyph in glyphs {
        if glyph.text == " " {
            kept.push(glyph);
            continue;
        }
        let cell = |v: f64| (v / CELL).floor() as i64;
        let (column, row) = (cell(glyph.u0), cell(glyph.base));
        let reach = SAME_PLACE * glyph.em;
        let mut key = (glyph.text.clone(), 0, 0);
        let mut double = false;
        for (du, dv) in (-1..=1).flat_map(|du| (-1..=1).map(move |dv| (du, dv))) {
            (key.1, key.2) = (column + du, row + dv);
            double |= seen.get(&key).is_some_and(|places| {
                places.iter().rev().take(LOOK_BACK).any(|(u, base)| {
                    (u - glyph.u0).abs() < reach && (base - glyph.base).abs() < reach
                })
            });
        }
        if !double {
            (key.1, key.2) = (column, row);
            seen.entry(key).or_default().push((glyph.u0, glyph.base));
            kept.push(glyph);
        }
    }
    kept
}

/// Joins glyphs in the order of the file.
fn pieces(glyphs: Vec<PlacedGlyph>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut after_space = false;
    for glyph in glyphs {
        let text: String = glyph.text.split_whitespace().collect();
        if text.is_empty() {
            if let Some(piece) = pieces.last_mut() {
                piece.space_after = true;
            }
            after_space = true;
            continue;
        }
        if let Some(piece) = pieces.last_mut()
            && !after_space
            && continues(piece, &glyph)
        {
            piece.text.push_str(&text);
            piece.num_glyphs += 1;
            // A substituted font may be wider than the file's widths say.
            piece.u1 = piece.u1.max(glyph.u1);
            piece.last_u0 = glyph.u0;
            piece.top = piece.top.min(glyph.top);
            piece.bottom = piece.bottom.max(glyph.bottom);
        } else {
            let line = adopt_line(pieces.last_mut(), &glyph);
            pieces.push(Piece {
                line,
                text,
                num_glyphs: 1,
                u0: glyph.u0,
                u1: glyph.u1,
                last_u0: glyph.u0,
                top: glyph.top,
                bottom: glyph.bottom,
                base: glyph.base,
                em: glyph.em,
                space_before: after_space,
                space_after: false,
            });
        }
        after_space = false;
    }
    pieces
}

/// The baseline and size of the line a new piece belongs to, given the piece before it in the file.
/// Superscripts, subscripts and bullets take their neighbour's; one that came first is given it
/// afterwards.
fn adopt_line(before: Option<&mut Piece>, glyph: &PlacedGlyph) -> (f64, f64) {
    let own = (glyph.base, glyph.em);
    let Some(before) = before else {
        return own;
    };
    let is_beside = |large: f64| {
        let gap = (glyph.u0 - before.u1).max(before.u0 - glyph.u1);
        gap > -0.5 * large && gap < 1.5 * large
    };
    let belongs = |base: f64, em: f64, (line_base, line_em): (f64, f64)| {
        let shift = (base - line_base) / line_em;
        (0.4..0.85).contains(&(em / line_em)) && (-0.5..0.3).contains(&shift) && is_beside(line_em)
    };
    if belongs(glyph.base, glyph.em, before.line) {
        return before.line;
    }
    if belongs(before.base, before.em, own) {
        before.line = own;
    }
    own
}

fn continues(piece: &Piece, glyph: &PlacedGlyph) -> bool {
    let em = piece.em;
    let gap = glyph.u0 - piece.u1;
    (glyph.base - piece.base).abs() < 0.1 * em
        && (glyph.em - em).abs() < 0.25 * em
        && gap < WORD_GAP * em
        && gap > -0.6 * em
        && glyph.u0 >= piece.last_u0 - 0.05 * em
}

/// Groups pieces by the baseline of their line, each group sorted along the line.
fn lines(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    /// Lines of other sizes may lie between a piece and the line it belongs to.
    const LOOK_BACK: usize = 4;
    pieces.sort_by(|a, b| a.line.0.total_cmp(&b.line.0));
    let mut lines: Vec<Vec<Piece>> = Vec::new();
    for piece in pieces {
        let (base, em) = piece.line;
        let home = lines.iter_mut().rev().take(LOOK_BACK).find(|line| {
            line.first().is_some_and(|l| {
                let alike = (em / l.line.1 - 1.0).abs() < 0.25;
                alike && base - l.line.0 < 0.25 * em.min(l.line.1)
            })
        });
        match home {
            Some(line) => line.push(piece),
            None => lines.push(vec![piece]),
        }
    }
    for line in &mut lines {
        line.sort_by(|a, b| a.u0.total_cmp(&b.u0));
    }
    lines
}

/// Joins the pieces of one line to words and segments.
fn line_segments(line: Vec<Piece>) -> Vec<Segment> {
    let spaced_out = spaced_out(&line);
    let mut segments: Vec<Segment> = Vec::new();
    let mut before: Option<(bool, f64, f64)> = None;
    for (piece, joins) in line.into_iter().zip(spaced_out) {
        // A note's number is no part of the word it is set on.
        let apart = before.is_none_or(|(space_after, base, em)| {
            let shifted = (piece.base - base).abs() > 0.15 * piece.em.max(em);
            space_after || piece.space_before || shifted
        });
        before = Some((piece.space_after, piece.base, piece.em));
        let last = segments
            .last_mut()
            .filter(|s| piece.u0 - s.u1 < SEGMENT_GAP * piece.em.max(s.em));
        let word = LaidWord {
            text: piece.text,
            u0: piece.u0,
            u1: piece.u1,
            top: piece.top,
            bottom: piece.bottom,
        };
        let Some(segment) = last else {
            segments.push(Segment {
                u0: word.u0,
                u1: word.u1,
                top: word.top,
                bottom: word.bottom,
                words: vec![word],
                base: piece.base,
                em: piece.em,
            });
            continue;
        };
        segment.u1 = segment.u1.max(word.u1);
        segment.top = segment.top.min(word.top);
        segment.bottom = segment.bottom.max(word.bottom);
        if piece.em > segment.em {
            segment.em = piece.em;
            segment.base = piece.base;
        }
        match segment.words.last_mut() {
            Some(last) if joins || (!apart && touches(last, &word, piece.em)) => {
                last.text.push_str(&word.text);
                last.u1 = last.u1.max(word.u1);
                last.top = last.top.min(word.top);
                last.bottom = last.bottom.max(word.bottom);
            }
            _ => segment.words.push(word),
        }
    }
    segments
}

fn touches(last: &LaidWord, word: &LaidWord, em: f64) -> bool {
    let gap = word.u0 - last.u1;
    gap < WORD_GAP * em && gap > -0.6 * em
}

/// For each piece, whether it continues a word that is spaced out ("C H A P T E R"): four or more
/// single glyphs in a row, no drawn space between them, the gaps alike.
fn spaced_out(line: &[Piece]) -> Vec<bool> {
    const FEWEST: usize = 4;
    let mut joins = vec![false; line.len()];
    let mut start = 0;
    while start < line.len() {
        let (mut least, mut most) = (f64::MAX, 0.0_f64);
        let mut end = start + 1;
        while end < line.len() {
            let (last, next) = (&line[end - 1], &line[end]);
            let gap = next.u0 - last.u1;
            let single = last.num_glyphs == 1 && next.num_glyphs == 1;
            let drawn = last.space_after || next.space_before;
            if !single || drawn || gap < WORD_GAP * next.em || gap > SEGMENT_GAP * next.em {
                break;
            }
            (least, most) = (least.min(gap), most.max(gap));
            if most > 1.35 * least {
                break;
            }
            end += 1;
        }
        if end - start >= FEWEST {
            joins[start + 1..end].fill(true);
        }
        start = end;
    }
    joins
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::glyphs;

    fn words_of(glyphs: Vec<PlacedGlyph>) -> Vec<Vec<String>> {
        let texts = |s: Segment| s.words.into_iter().map(|w| w.text).collect();
        segments(glyphs).into_iter().map(texts).collect()
    }

    #[test]
    fn a_gap_or_a_space_ends_a_word_and_a_wide_gap_a_segment() {
        let mut all = glyphs("ab", 0.0, 10.0, 10.0); // ends at 10
        all.extend(glyphs("cd", 11.0, 10.0, 10.0)); // 0.1 em: the same word
        all.extend(glyphs("ef", 23.5, 10.0, 10.0)); // 0.25 em: another word
        all.extend(glyphs("g h", 50.0, 10.0, 10.0)); // 1.65 em: another segment
        assert_eq!(words_of(all), [vec!["abcd", "ef"], vec!["g", "h"]]);
    }

    #[test]
    fn the_order_of_the_file_does_not_matter_on_a_line() {
        let mut all = glyphs("cd", 10.0, 10.0, 10.0);
        all.extend(glyphs("ab", 0.0, 10.0, 10.0));
        assert_eq!(words_of(all), [["abcd"]]);
    }

    #[test]
    fn spaced_out_letters_are_one_word() {
        let spaced = |letters: &str, step: f64| -> Vec<PlacedGlyph> {
            letters
                .chars()
                .enumerate()
                .flat_map(|(i, c)| glyphs(&c.to_string(), step * i as f64, 10.0, 10.0))
                .collect()
        };
        assert_eq!(words_of(spaced("CHAPTER", 9.0)), [["CHAPTER"]]);
        assert_eq!(words_of(spaced("ABC", 9.0)), [["A", "B", "C"]]);
    }

    #[test]
    fn a_superscript_is_a_word_of_its_own_on_the_same_line() {
        let mut all = glyphs("name", 0.0, 10.0, 10.0);
        all.extend(glyphs("2", 20.0, 6.5, 7.0));
        all.extend(glyphs(", and", 24.0, 10.0, 10.0));
        assert_eq!(words_of(all), [["name", "2", ",", "and"]]);
        // The number of a footnote comes before its text.
        let mut all = glyphs("3", 0.0, 6.5, 6.0);
        all.extend(glyphs("note", 4.0, 10.0, 9.0));
        assert_eq!(words_of(all), [["3", "note"]]);
    }
}
