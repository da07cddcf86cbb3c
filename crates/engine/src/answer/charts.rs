//! Charts that are drawn as text and shapes: which value belongs to which label is said by their places alone.
//!
//! A chart is a row of labels of one kind (years, quarters, months, days) with a number above or below every one of
//! them. Read as lines its numbers are loose; here each is put to its label, so that a question for a label, or for
//! the highest or lowest, can be answered with both.

use std::collections::HashSet;

use colibri_index::WordBox;

use crate::words::{content_words, words};

/// Labels a chart has at least.
const FEWEST: usize = 3;
/// A value stands within this share of the distance of two labels from its label's middle.
const ASIDE: f32 = 0.34;
/// Words that ask for the greatest value.
const HIGHEST: [&str; 8] = [
    "highest", "most", "largest", "biggest", "greatest", "maximum", "peak", "best",
];
/// Words that ask for the smallest value.
const LOWEST: [&str; 7] = [
    "lowest", "least", "smallest", "fewest", "minimum", "weakest", "worst",
];
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What the labels of a chart are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Year,
    Quarter,
    Month,
    Day,
}

impl Kind {
    fn of(label: &str) -> Option<Self> {
        let lower = label.to_lowercase();
        let begins = |names: &[&str]| {
            lower.chars().all(char::is_alphabetic)
                && names.iter().any(|name| lower.starts_with(name))
        };
        if lower.len() == 4 && lower.starts_with(['1', '2']) && lower.parse::<u32>().is_ok() {
            Some(Self::Year)
        } else if ["q1", "q2", "q3", "q4"].contains(&lower.as_str()) {
            Some(Self::Quarter)
        } else if begins(&MONTHS) {
            Some(Self::Month)
        } else if begins(&DAYS) {
            Some(Self::Day)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Quarter => "quarter",
            Self::Month => "month",
            Self::Day => "day",
        }
    }
}

/// One chart of a page.
#[derive(Debug)]
struct Chart<'a> {
    title: String,
    kind: Kind,
    /// Labels with their values, from left to right.
    points: Vec<(&'a str, &'a str)>,
}

/// What the charts on a page (its words with their places) say about `question`: the title, a label and its value.
pub(super) fn read(question: &str, page: &[WordBox]) -> Option<String> {
    let asked = content_words(question);
    let plain: Vec<String> = question
        .split(|c: char| !c.is_alphanumeric())
        .map(str::to_lowercase)
        .collect();
    let says = |names: &[&str]| plain.iter().any(|word| names.contains(&word.as_str()));
    let found = charts(page).into_iter().filter_map(|chart| {
        let title: HashSet<String> = words(&chart.title).collect();
        let shared = title.intersection(&asked).count();
        if shared == 0 {
            return None;
        }
        let named = chart
            .points
            .iter()
            .find(|(label, _)| plain.contains(&label.to_lowercase()));
        let for_kind = plain.iter().any(|word| word == chart.kind.name());
        let (label, value) = if let Some(point) = named {
            point
        } else if for_kind && says(&HIGHEST) {
            extreme(&chart.points, 1.0)?
        } else if for_kind && says(&LOWEST) {
            extreme(&chart.points, -1.0)?
        } else {
            return None;
        };
        Some((shared, format!("{}: {label} {value}", chart.title)))
    });
    // The first of those whose title shares most with the question.
    let best = found.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, text)| text)
}

/// The point with the greatest value times `sign`; none where two share it.
fn extreme<'a, 'b>(points: &'a [(&'b str, &'b str)], sign: f64) -> Option<&'a (&'b str, &'b str)> {
    let of = |point: &(&str, &str)| number(point.1).map_or(f64::MIN, |value| value * sign);
    let best = points.iter().max_by(|a, b| of(a).total_cmp(&of(b)))?;
    let same = points.iter().filter(|point| of(point) >= of(best)).count();
    (same == 1).then_some(best)
}

/// A number as charts are labelled: signs of currency, per cent and thousands are passed over.
fn number(text: &str) -> Option<f64> {
    let digits: String = text
        .chars()
        .filter(|c| !matches!(c, '$' | '€' | '£' | '%' | ','))
        .collect();
    digits.parse().ok().filter(|value: &f64| value.is_finite())
}

fn middle(word: &WordBox) -> (f32, f32) {
    let [left, top, right, bottom] = word.bounds;
    (f32::midpoint(left, right), f32::midpoint(top, bottom))
}

fn height(word: &WordBox) -> f32 {
    word.bounds[3] - word.bounds[1]
}

/// Every chart of a page, from the top.
fn charts(page: &[WordBox]) -> Vec<Chart<'_>> {
    let kinds: Vec<Option<Kind>> = page.iter().map(|word| Kind::of(&word.text)).collect();
    let mut taken = vec![false; page.len()];
    let mut out = Vec::new();
    for first in 0..page.len() {
        let Some(kind) = kinds[first].filter(|_| !taken[first]) else {
            continue;
        };
        let (_, level) = middle(&page[first]);
        let is_label = |at: usize| {
            kinds[at] == Some(kind)
                && !taken[at]
                && (middle(&page[at]).1 - level).abs() < height(&page[first]) / 2.0
        };
        let mut labels: Vec<usize> = (0..page.len()).filter(|&at| is_label(at)).collect();
        labels.sort_by(|&a, &b| middle(&page[a]).0.total_cmp(&middle(&page[b]).0));
        for &label in &labels {
            taken[label] = true;
        }
        if labels.len() >= FEWEST
            && let Some(chart) = chart(page, &kinds, kind, &labels)
        {
            out.push(chart);
        }
    }
    out
}

fn chart<'a>(
    page: &'a [WordBox],
    kinds: &[Option<Kind>],
    kind: Kind,
    labels: &[usize],
) -> Option<Chart<'a>> {
    let gaps = labels
        .windows(2)
        .map(|pair| middle(&page[pair[1]]).0 - middle(&page[pair[0]]).0);
    let gap = gaps.fold(f32::INFINITY, f32::min);
    let level = middle(&page[labels[0]]).1;
    // The nearest number over a label; labels of other charts are none of its values.
    let mut points = Vec::new();
    let mut top = level;
    for &label in labels {
        let (x, _) = middle(&page[label]);
        let above = page.iter().zip(kinds).filter(|(word, its)| {
            let (there, y) = middle(word);
            y < level - height(&page[label]) / 2.0
                && (there - x).abs() <= gap * ASIDE
                && number(&word.text).is_some()
                && **its != Some(kind)
        });
        let above = above.map(|(word, _)| word);
        let value = above.max_by(|a, b| middle(a).1.total_cmp(&middle(b).1))?;
        top = top.min(value.bounds[1]);
        points.push((page[label].text.as_str(), value.text.as_str()));
    }
    // The title is the nearest line of words over the highest value.
    let titles = page
        .iter()
        .filter(|word| middle(word).1 < top && word.text.chars().any(char::is_alphabetic));
    let nearest = titles.max_by(|a, b| middle(a).1.total_cmp(&middle(b).1))?;
    let title: Vec<&str> = page
        .iter()
        .filter(|word| word.line == nearest.line)
        .map(|word| word.text.as_str())
        .collect();
    Some(Chart {
        title: title.join(" "),
        kind,
        points,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words 20 wide and 10 high.
    fn page(words: &[(&str, f32, f32, u32)]) -> Vec<WordBox> {
        let word = |&(text, x, y, line): &(&str, f32, f32, u32)| WordBox {
            text: text.to_owned(),
            bounds: [x, y, x + 20.0, y + 10.0],
            line,
        };
        words.iter().map(word).collect()
    }

    /// Two charts, one under the other.
    fn sales() -> Vec<WordBox> {
        page(&[
            ("Tickets", 0.0, 0.0, 0),
            ("sold", 25.0, 0.0, 0),
            ("1,210", 130.0, 20.0, 1),
            ("90", 52.0, 30.0, 2),
            ("400", 90.0, 40.0, 3),
            ("2022", 50.0, 80.0, 4),
            ("2023", 90.0, 80.0, 4),
            ("2024", 130.0, 80.0, 4),
            ("Fuel", 0.0, 100.0, 5),
            ("7", 50.0, 120.0, 6),
            ("9", 90.0, 120.0, 6),
            ("8", 130.0, 120.0, 6),
            ("Q1", 50.0, 180.0, 7),
            ("Q2", 90.0, 180.0, 7),
            ("Q3", 130.0, 180.0, 7),
        ])
    }

    #[test]
    fn a_value_is_put_to_its_label() {
        let cases = [
            (
                "How many tickets were sold in 2023?",
                Some("Tickets sold: 2023 400"),
            ),
            (
                "In which year were most tickets sold?",
                Some("Tickets sold: 2024 1,210"),
            ),
            ("Which quarter had the lowest fuel use?", Some("Fuel: Q1 7")),
            // Neither a label nor what the labels are.
            ("Which route sold most tickets?", None),
            // Another subject.
            ("How many passengers came in 2023?", None),
        ];
        for (question, expected) in cases {
            assert_eq!(read(question, &sales()).as_deref(), expected, "{question}");
        }
    }

    #[test]
    fn a_row_without_values_or_two_best_are_no_answer() {
        let years: Vec<WordBox> = sales()
            .into_iter()
            .filter(|word| word.text != "400")
            .collect();
        assert_eq!(read("How many tickets were sold in 2022?", &years), None);
        let mut equal = sales();
        equal[10].text = "7".to_owned();
        assert_eq!(read("Which quarter had the lowest fuel use?", &equal), None);
        assert_eq!(read("anything", &[]), None);
    }

    #[test]
    fn places_that_are_no_numbers_do_no_harm() {
        let mut broken = sales();
        for word in &mut broken {
            word.bounds = [f32::NAN; 4];
        }
        assert_eq!(read("How many tickets were sold in 2022?", &broken), None);
    }
}
