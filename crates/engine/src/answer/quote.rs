//! Answering without a generator: the passages of the evidence that say most about the question.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use super::{
    event::{AnswerEvent, Citation, Done, Timings},
    prompt::NOT_THERE,
};
use crate::{
    memory::Used,
    retrieve::{PageHit, SearchResult},
    words::{content_words, words},
};

/// Passages quoted at most.
const MOST_PASSAGES: usize = 3;
/// A passage that scores less than this share of the best is left out.
const LEAST_SHARE: f64 = 0.2;
/// What a word counts that an earlier passage already holds.
const QUOTED_BEFORE: f64 = 0.25;
/// Lines of a passage. The line that holds the question's words is often a label or a table's head, and the
/// answer stands below it.
const LINES: usize = 3;
/// What the first, second and third line of a passage count.
const LINE_WEIGHTS: [f64; LINES] = [1.0, 0.6, 0.4];
/// A passage that holds a number, where the question asks for one.
const NUMBER_BONUS: f64 = 0.8;
/// Later pages weigh less: the search has already said which is best.
const RANK_DECAY: f64 = 0.85;

/// Neighbouring lines of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Quote {
    /// Index of the page among those given.
    page: usize,
    /// The lines, joined by ` / `.
    text: String,
}

/// One line of one page, with its words.
struct Line<'a> {
    page: usize,
    text: &'a str,
    words: HashSet<String>,
}

/// The answer of quotes: what a chart says, and lines, each with the page it stands on.
pub(super) fn answer(
    question: &str,
    found: &SearchResult,
    places: &[Citation],
    texts: &[String],
    chart: Option<(usize, String)>,
    on_event: &mut dyn FnMut(AnswerEvent),
) -> Done {
    let lines = best_passages(question, texts);
    let mut citations: Vec<Citation> = Vec::new();
    let mut answer = String::new();
    let name = |citation: &Citation| {
        let path = Path::new(&citation.document);
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let mut say = |text: String, from: Option<&Citation>| {
        on_event(AnswerEvent::Token { text: text.clone() });
        answer.push_str(&text);
        let new = from.filter(|place| !citations.contains(place));
        citations.extend(new.cloned());
    };
    let looked = is_found_by_look(found, texts);
    if looked {
        let text = format!(
            "The page that fits best has no text to quote: {} {}\n",
            name(&places[0]),
            places[0].place()
        );
        say(text, Some(&places[0]));
    }
    let lines = lines.into_iter().map(|line| (line.page, line.text));
    let quoted: Vec<(usize, String)> = chart.into_iter().chain(lines).collect();
    for (page, line) in quoted.iter().take(MOST_PASSAGES) {
        let place = &places[*page];
        let text = format!("“{line}” [{} {}]\n", name(place), place.place());
        say(text, Some(place));
    }
    if quoted.is_empty() && !looked {
        say(NOT_THERE.to_owned(), None);
    }
    Done {
        answer: answer.trim_end().to_owned(),
        citations,
        generator: "quotes".to_owned(),
        stop: None,
        prompt_tokens: 0,
        new_tokens: 0,
        timings_ms: Timings::default(),
        peak_memory_bytes: 0,
        memory: Used::default(),
    }
}

/// Whether the best page was found by what it looks like, and there is nothing on it that could be quoted.
pub(super) fn is_found_by_look(found: &SearchResult, texts: &[String]) -> bool {
    let by_look = |hit: &PageHit| hit.hit.visual.is_some() && texts[0].trim().is_empty();
    found.hits.first().is_some_and(by_look)
}

/// The best passages of `pages` (their texts, the best page first) for `question`, the best first; none if no
/// line shares a word with it.
fn best_passages(question: &str, pages: &[String]) -> Vec<Quote> {
    let asked = content_words(question);
    let lines: Vec<Line<'_>> = pages
        .iter()
        .enumerate()
        .flat_map(|(page, text)| {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.map(move |text| Line {
                page,
                text,
                words: words(text).collect(),
            })
        })
        .collect();
    // A word that stands in few lines says more.
    let mut lines_with: HashMap<&str, f64> = HashMap::new();
    for line in &lines {
        for word in line.words.intersection(&asked) {
            *lines_with.entry(word).or_default() += 1.0;
        }
    }
    let weight = |word: &str| (1.0 + lines.len() as f64 / lines_with[word]).ln();
    let passage = |first: usize| {
        let page = lines[first].page;
        lines[first..]
            .iter()
            .take(LINES)
            .take_while(move |line| line.page == page)
    };
    let numbers = wants_number(question);
    // What a passage adds to those already quoted: a word of the question counts once, where it stands
    // first, and little if it was quoted before. So a title brings its subject, and the next passage the
    // part of the question that the title does not speak of.
    let score = |first: usize, quoted: &HashSet<&str>| {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut score = 0.0;
        for (line, line_weight) in passage(first).zip(LINE_WEIGHTS) {
            for word in line.words.intersection(&asked) {
                if seen.insert(word) {
                    let news = if quoted.contains(word.as_str()) {
                        QUOTED_BEFORE
                    } else {
                        1.0
                    };
                    score += line_weight * news * weight(word);
                }
            }
        }
        if numbers && passage(first).any(|line| line.text.chars().any(|c| c.is_ascii_digit())) {
            score += NUMBER_BONUS;
        }
        score * RANK_DECAY.powi(lines[first].page as i32)
    };
    let candidates: Vec<usize> = (0..lines.len())
        .filter(|&first| !lines[first].words.is_disjoint(&asked))
        .collect();
    let mut taken: HashSet<usize> = HashSet::new();
    let mut quoted: HashSet<&str> = HashSet::new();
    let mut quotes: Vec<Quote> = Vec::new();
    let mut best = 0.0;
    while quotes.len() < MOST_PASSAGES {
        let open = candidates.iter().filter(|first| !taken.contains(first));
        let scored = open.map(|&first| (score(first, &quoted), first));
        let Some((found, first)) = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
        else {
            break;
        };
        if found < best * LEAST_SHARE {
            break;
        }
        best = f64::max(best, found);
        let mut text = Vec::new();
        for (at, line) in (first..).zip(passage(first)) {
            if !taken.insert(at) {
                break;
            }
            quoted.extend(line.words.intersection(&asked).map(String::as_str));
            text.push(line.text);
        }
        quotes.push(Quote {
            page: lines[first].page,
            text: text.join(" / "),
        });
    }
    quotes
}

fn wants_number(question: &str) -> bool {
    question.to_lowercase().split_whitespace().any(|word| {
        matches!(
            word,
            "how"
                | "when"
                | "number"
                | "total"
                | "year"
                | "date"
                | "time"
                | "price"
                | "cost"
                | "amount"
                | "percentage"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn the_line_with_the_rare_words_is_quoted() {
        let text = "Annual report\nThe report covers the year 2023.\nRevenue of Product B grew to 4.2 million.\nThe report ends here.";
        let quotes = best_passages("What was the revenue of Product B?", &page(text));
        assert!(
            quotes[0]
                .text
                .starts_with("Revenue of Product B grew to 4.2 million."),
            "{quotes:?}"
        );
    }

    #[test]
    fn a_label_brings_its_value() {
        let quotes = best_passages(
            "What is the invoice total?",
            &page("Invoice 17\nInvoice total:\n1,250.00 EUR\nThank you"),
        );
        assert!(
            quotes[0].text.starts_with("Invoice total: / 1,250.00 EUR"),
            "{quotes:?}"
        );
    }

    #[test]
    fn nothing_is_quoted_where_nothing_fits() {
        assert_eq!(
            best_passages("Who painted the ceiling?", &page("Rows and columns\n1 2 3")),
            []
        );
        assert_eq!(best_passages("anything", &[]), []);
    }

    #[test]
    fn endings_do_not_hide_a_word() {
        let quotes = best_passages(
            "Which months were reported?",
            &page("Totals\nThe report names each month.\nOther"),
        );
        assert!(
            quotes[0].text.starts_with("The report names each month."),
            "{quotes:?}"
        );
    }
}
