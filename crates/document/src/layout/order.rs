//! Reading order: columns, then lines, then blocks.
//!
//! A region is searched for a gutter: a left edge many segments share, with nothing across it for
//! some lines. What stands above the gutter's stretch is read first, then the left side, the
//! right side, and what stands below; each part is searched again. A table has gutters too, but
//! reading it column by column scrambles it: its rows share baselines and its cells are short, so
//! such a stretch is read across ([`are_columns`]).

use super::words::{LaidWord, Segment};

/// Words of a line, in order.
pub(super) type Line = Vec<LaidWord>;

/// Regions are divided at most this often; a page has a handful of columns and bands.
const DEEPEST: usize = 16;

/// A region of more segments than this is no page a person reads in columns.
const MOST_SEGMENTS: usize = 10_000;

/// How many left edges are tried as gutters, the most shared first.
const MOST_GUTTERS: usize = 24;

/// The blocks of a page, each a list of lines.
pub(super) fn blocks(segments: Vec<Segment>) -> Vec<Vec<Line>> {
    let mut out = Vec::new();
    arrange(segments, 0, &mut out);
    out
}

fn arrange(mut segments: Vec<Segment>, depth: usize, out: &mut Vec<Vec<Line>>) {
    segments.sort_by(|a, b| a.base.total_cmp(&b.base).then(a.u0.total_cmp(&b.u0)));
    let columns = if depth < DEEPEST && segments.len() <= MOST_SEGMENTS {
        find_columns(&segments)
    } else {
        None
    };
    let Some(Columns { first, last, edge }) = columns else {
        read_across(segments, out);
        return;
    };
    let below = segments.split_off(last);
    let band = segments.split_off(first);
    let (left, right): (Vec<_>, Vec<_>) = band.into_iter().partition(|s| s.u0 < edge);
    for part in [segments, left, right, below] {
        if !part.is_empty() {
            arrange(part, depth + 1, out);
        }
    }
}

/// Segments `first..last` stand in two columns, the right one from `edge` on.
struct Columns {
    first: usize,
    last: usize,
    edge: f64,
}

/// The stretch of columns with the most lines on its shorter side, in segments sorted by baseline.
fn find_columns(segments: &[Segment]) -> Option<Columns> {
    if segments.len() < 4 {
        return None;
    }
    let em = median(segments.iter().map(|s| s.em));
    let mut candidates: Vec<(usize, Columns)> = Vec::new();
    for edge in left_edges(segments, em) {
        let edge = edge - 0.2 * em;
        let crosses = |s: &Segment| s.u0 < edge && s.u1 > edge + 0.1 * em;
        let crossings: Vec<f64> = segments
            .iter()
            .filter(|s| crosses(s))
            .map(|s| s.base)
            .collect();
        let mut first = 0;
        for at in 0..=segments.len() {
            // What stands on the line of a crossing segment is in no column either.
            let across = segments
                .get(at)
                .is_none_or(|s| is_near(&crossings, s.base, 0.5 * em));
            if !across {
                continue;
            }
            let band = &segments[first..at];
            let num_left = band.iter().filter(|s| s.u0 < edge).count();
            let score = num_left.min(band.len() - num_left);
            if score >= 2 {
                let columns = Columns {
                    first,
                    last: at,
                    edge,
                };
                candidates.push((score, columns));
            }
            first = at + 1;
        }
    }
    candidates.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    candidates
        .into_iter()
        .map(|(_, columns)| columns)
        .find(|c| are_columns(&segments[c.first..c.last], c.edge, em))
}

/// Left edges shared by two segments or more, the most shared first.
fn left_edges(segments: &[Segment], em: f64) -> Vec<f64> {
    let mut edges: Vec<f64> = segments.iter().map(|s| s.u0).collect();
    edges.sort_by(f64::total_cmp);
    let mut groups: Vec<(usize, f64)> = Vec::new();
    let mut start = f64::MIN;
    for edge in edges {
        match groups.last_mut() {
            Some((count, _)) if edge - start < 0.5 * em => *count += 1,
            _ => {
                start = edge;
                groups.push((1, edge));
            }
        }
    }
    groups.retain(|(count, _)| *count >= 2);
    groups.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    groups.truncate(MOST_GUTTERS);
    groups.into_iter().map(|(_, edge)| edge).collect()
}

/// Whether what stands left and right of `edge` are two texts, and not the cells of a table.
fn are_columns(band: &[Segment], edge: f64, em: f64) -> bool {
    let side = |right: bool| -> Vec<&Segment> {
        let chosen = band.iter().filter(|s| (s.u0 >= edge) == right);
        chosen.collect()
    };
    let (left, right) = (Side::new(&side(false), em), Side::new(&side(true), em));
    // Beside one another for at least two lines.
    let beside = left.bottom.min(right.bottom) - left.top.max(right.top);
    if beside < 1.5 * em {
        return false;
    }
    let prose = (left.is_prose(), right.is_prose());
    if prose == (true, true) {
        return true;
    }
    let (few, many) = if left.bases.len() <= right.bases.len() {
        (&left, &right)
    } else {
        (&right, &left)
    };
    let shared = few
        .bases
        .iter()
        .filter(|base| is_near(&many.bases, **base, 0.3 * em))
        .count();
    // Text beside something else may share a baseline now and then; rows of a table share nearly
    // all of them.
    let most = if prose == (false, false) { 0.5 } else { 0.75 };
    few.bases.len() >= 3 && (shared as f64) < most * few.bases.len() as f64
}

/// Whether one of the ascending `values` is closer to `value` than `reach`.
fn is_near(values: &[f64], value: f64, reach: f64) -> bool {
    let next = values.partition_point(|v| *v < value);
    [next.checked_sub(1), Some(next)]
        .into_iter()
        .flatten()
        .filter_map(|i| values.get(i))
        .any(|v| (v - value).abs() < reach)
}

/// One side of a gutter, measured.
struct Side {
    /// Baselines of its lines, ascending.
    bases: Vec<f64>,
    top: f64,
    bottom: f64,
    num_segments: usize,
    num_chars: usize,
    /// Median over lines of the share of the side's width that is printed on.
    fill: f64,
}

impl Side {
    /// Measures segments sorted by baseline.
    fn new(segments: &[&Segment], em: f64) -> Self {
        let mut bases: Vec<f64> = Vec::new();
        let mut printed: Vec<f64> = Vec::new();
        for segment in segments {
            let width = segment.u1 - segment.u0;
            match (bases.last(), printed.last_mut()) {
                (Some(base), Some(sum)) if segment.base - base < 0.3 * em => *sum += width,
                _ => {
                    bases.push(segment.base);
                    printed.push(width);
                }
            }
        }
        let u0 = segments.iter().map(|s| s.u0).fold(f64::MAX, f64::min);
        let u1 = segments.iter().map(|s| s.u1).fold(f64::MIN, f64::max);
        Self {
            bases,
            top: segments.iter().map(|s| s.top).fold(f64::MAX, f64::min),
            bottom: segments.iter().map(|s| s.bottom).fold(f64::MIN, f64::max),
            num_segments: segments.len(),
            num_chars: segments.iter().map(|s| s.num_chars()).sum(),
            fill: median(printed) / (u1 - u0).max(1e-6),
        }
    }

    /// Running text: lines of twenty characters and more that fill most of the width without wide
    /// gaps.
    fn is_prose(&self) -> bool {
        let lines = self.bases.len();
        lines >= 3
            && self.num_chars >= 20 * lines
            && self.num_segments * 2 <= lines * 3
            && self.fill >= 0.55
    }
}

/// Reads a region line by line and divides it into blocks where the lines stand apart or the size
/// changes.
fn read_across(segments: Vec<Segment>, out: &mut Vec<Vec<Line>>) {
    let lines = lines(segments);
    let pitch = median(lines.windows(2).map(|w| w[1].base - w[0].base));
    let mut block: Vec<Line> = Vec::new();
    let mut last: Option<(f64, f64)> = None;
    for line in lines {
        if let Some((base, em)) = last {
            let step = line.base - base;
            let larger = em.max(line.em);
            // Double spacing is 2.4 em; no line of a paragraph is three away from the next.
            let apart = step > 3.0 * larger || (step > 1.4 * larger && step > 1.35 * pitch);
            let other_size = larger > 1.25 * em.min(line.em);
            if apart || other_size {
                out.push(std::mem::take(&mut block));
            }
        }
        last = Some((line.base, line.em));
        block.push(words_in_order(line.segments));
    }
    if !block.is_empty() {
        out.push(block);
    }
}

/// Segments side by side.
struct Row {
    segments: Vec<Segment>,
    base: f64,
    em: f64,
}

/// Gathers segments sorted by baseline into lines.
fn lines(segments: Vec<Segment>) -> Vec<Row> {
    /// Small print may lie between a segment and the line it belongs to.
    const LOOK_BACK: usize = 4;
    let mut rows: Vec<Row> = Vec::new();
    for segment in segments {
        let home = rows.iter_mut().rev().take(LOOK_BACK).find(|row| {
            let (small, large) = (segment.em.min(row.em), segment.em.max(row.em));
            // Superscripts and subscripts stand further off than unevenly set words.
            let reach = if small < 0.85 * large && large < 2.0 * small {
                0.42 * large
            } else {
                0.3 * small
            };
            (segment.base - row.base).abs() < reach
                && row.segments.iter().all(|s| !overprints(s, &segment))
        });
        match home {
            Some(row) => {
                if segment.em > row.em {
                    (row.base, row.em) = (segment.base, segment.em);
                }
                row.segments.push(segment);
            }
            None => rows.push(Row {
                base: segment.base,
                em: segment.em,
                segments: vec![segment],
            }),
        }
    }
    rows.sort_by(|a, b| a.base.total_cmp(&b.base));
    rows
}

fn overprints(a: &Segment, b: &Segment) -> bool {
    let shared = a.u1.min(b.u1) - a.u0.max(b.u0);
    shared > 0.5 * (a.u1 - a.u0).min(b.u1 - b.u0).max(1e-6)
}

/// The words of a line from its segments, right-to-left words in the order they are read.
fn words_in_order(mut segments: Vec<Segment>) -> Line {
    segments.sort_by(|a, b| a.u0.total_cmp(&b.u0));
    let mut words: Line = segments.into_iter().flat_map(|s| s.words).collect();
    let leftward: Vec<bool> = words.iter().map(|w| reads_leftward(&w.text)).collect();
    let num_leftward = leftward.iter().filter(|l| **l).count();
    if num_leftward == 0 {
        return words;
    }
    for (word, leftward) in words.iter_mut().zip(&leftward) {
        if *leftward {
            word.text = word.text.chars().rev().collect();
        }
    }
    // The line's own direction is that of most of its words; runs of the other are turned back.
    let line_is_leftward = num_leftward * 2 > words.len();
    let mut start = 0;
    while start < words.len() {
        let mut end = start + 1;
        while end < words.len() && leftward[end] == leftward[start] {
            end += 1;
        }
        if leftward[start] != line_is_leftward {
            words[start..end].reverse();
        }
        start = end;
    }
    if line_is_leftward {
        words.reverse();
    }
    words
}

/// Whether most letters are Hebrew or Arabic.
fn reads_leftward(text: &str) -> bool {
    let is_leftward = |c: &char| {
        matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}')
            && !c.is_numeric()
    };
    let (mut leftward, mut letters) = (0_usize, 0_usize);
    for c in text.chars() {
        leftward += usize::from(is_leftward(&c));
        letters += usize::from(c.is_alphanumeric());
    }
    leftward > 0 && leftward * 2 >= letters
}

/// The middle value, the lower of two, 0 of none.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::glyphs;
    use crate::layout::words::segments;

    fn read(lines: &[(&str, f64, f64)]) -> String {
        let glyphs = lines
            .iter()
            .flat_map(|(text, x, base)| glyphs(text, *x, *base, 10.0))
            .collect();
        let line = |l: Line| l.into_iter().map(|w| w.text).collect::<Vec<_>>().join(" ");
        blocks(segments(glyphs))
            .into_iter()
            .map(|block| block.into_iter().map(line).collect::<Vec<_>>().join("\n"))
            .collect::<Vec<_>>()
            .join("\n\n")
    }

    #[test]
    fn two_columns_are_read_one_after_the_other_under_their_title() {
        let left = [
            "the quick brown fox jumped",
            "over the lazy dogs and sat",
            "down to have some breakfast",
        ];
        let right = [
            "while on the other side the",
            "cat was reading about mice",
            "in a book without pictures",
        ];
        let mut page = vec![(
            "A title across the whole of the page, both columns",
            20.0,
            30.0,
        )];
        for i in 0..3 {
            // The same baselines on both sides, as on a typesetter's grid.
            page.push((left[i], 10.0, 60.0 + 12.0 * i as f64));
            page.push((right[i], 165.0, 60.0 + 12.0 * i as f64));
        }
        let text = read(&page);
        let at = |needle: &str| {
            text.find(needle)
                .unwrap_or_else(|| panic!("{needle}: {text}"))
        };
        assert!(at("title") < at("quick"));
        assert!(at("breakfast") < at("while"));
        assert!(text.ends_with("pictures"));
    }

    #[test]
    fn a_table_is_read_row_by_row() {
        let mut page = Vec::new();
        let rows = [
            ["State", "Sales", "Share"],
            ["Alabama", "1,234", "12 %"],
            ["Alaska", "56", "1 %"],
            ["Arizona", "7,890", "34 %"],
        ];
        for (i, row) in rows.iter().enumerate() {
            for (cell, x) in row.iter().zip([10.0, 120.0, 200.0]) {
                page.push((*cell, x, 50.0 + 12.0 * i as f64));
            }
        }
        assert_eq!(
            read(&page),
            "State Sales Share\nAlabama 1,234 12 %\nAlaska 56 1 %\nArizona 7,890 34 %"
        );
    }

    #[test]
    fn boxes_that_share_no_baseline_are_read_apart() {
        let page = [
            ("one", 10.0, 50.0),
            ("two", 10.0, 63.0),
            ("three", 10.0, 76.0),
            ("four", 200.0, 56.0),
            ("five", 200.0, 69.0),
            ("six", 200.0, 82.0),
        ];
        assert_eq!(read(&page), "one\ntwo\nthree\n\nfour\nfive\nsix");
    }

    #[test]
    fn right_to_left_words_come_out_in_reading_order() {
        // Drawn from left to right: the second word first, each word's letters mirrored.
        assert_eq!(read(&[("דג בא", 10.0, 50.0)]), "אב גד");
        assert_eq!(read(&[("see דג בא here", 10.0, 50.0)]), "see אב גד here");
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(blocks(Vec::new()).is_empty());
    }
}
