//! Which of the evidence pages an answer rests on.
//!
//! A small model cannot be trusted to number its sources, so the pages are compared with what it said: a
//! page whose text holds the answer's numbers and names is cited. Where no page has a text layer to compare
//! with, or none holds them, the best page is cited, since the answer was read from it first.

use std::collections::HashSet;

use crate::words::{content_words, words};

/// Share of the answer's own words that a page must hold.
const LEAST_SHARE: f64 = 0.6;

/// Indices of the cited pages, in the order given.
pub(super) fn cited(question: &str, answer: &str, pages: &[String]) -> Vec<usize> {
    if pages.is_empty() {
        return Vec::new();
    }
    let asked = content_words(question);
    // What the answer says beyond the question.
    let said: HashSet<String> = content_words(answer).difference(&asked).cloned().collect();
    let share = |page: &String| {
        let there: HashSet<String> = words(page).collect();
        said.iter().filter(|word| there.contains(*word)).count() as f64 / said.len().max(1) as f64
    };
    let shares: Vec<f64> = pages.iter().map(share).collect();
    let best = shares.iter().copied().fold(0.0, f64::max);
    let cited: Vec<usize> = (0..pages.len())
        .filter(|&page| shares[page] >= LEAST_SHARE && shares[page] == best)
        .collect();
    if cited.is_empty() { vec![0] } else { cited }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_that_holds_the_answer_is_cited() {
        let pages = [
            "About the company".to_owned(),
            "Total due: $145 by June".to_owned(),
            String::new(),
        ];
        assert_eq!(
            cited("What is the total?", " The total is $145.", &pages),
            [1]
        );
    }

    #[test]
    fn without_text_the_best_page_is_cited() {
        let pages = [String::new(), String::new()];
        assert_eq!(cited("What is the total?", "145", &pages), [0]);
        assert_eq!(cited("Total?", "145", &[]), Vec::<usize>::new());
    }
}
