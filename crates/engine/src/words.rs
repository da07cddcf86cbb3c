//! Words for comparing questions with what is written on pages.

use std::collections::HashSet;

/// Words that say nothing about what is asked.
const STOP_WORDS: &[&str] = &[
    "a",
    "about",
    "according",
    "an",
    "and",
    "are",
    "as",
    "at",
    "be",
    "been",
    "by",
    "did",
    "do",
    "does",
    "for",
    "from",
    "had",
    "has",
    "have",
    "how",
    "in",
    "into",
    "is",
    "it",
    "its",
    "many",
    "much",
    "of",
    "on",
    "or",
    "that",
    "the",
    "their",
    "there",
    "this",
    "to",
    "was",
    "were",
    "what",
    "when",
    "where",
    "which",
    "who",
    "whom",
    "whose",
    "why",
    "will",
    "with",
];

/// Words for comparison: lower case, without the endings that number and tense add.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| {
        !(c.is_alphanumeric() || c == '.' || c == ',' || c == '%' || c == '$' || c == '€')
    })
    .map(|word| word.trim_matches(['.', ',']).to_lowercase())
    .filter(|word| !word.is_empty())
    .map(|word| stem(&word))
}

fn stem(word: &str) -> String {
    if word.chars().any(char::is_numeric) {
        return word.replace(',', "");
    }
    for end in ["ing", "ies", "ed", "es", "s", "e"] {
        if let Some(rest) = word.strip_suffix(end)
            && rest.chars().count() >= 3
        {
            return rest.to_owned();
        }
    }
    word.to_owned()
}

/// The words of a question that say what is asked.
pub(crate) fn content_words(question: &str) -> HashSet<String> {
    let stop: HashSet<String> = STOP_WORDS.iter().map(|word| stem(word)).collect();
    let kept: HashSet<String> = words(question)
        .filter(|word| !stop.contains(word))
        .collect();
    if kept.is_empty() {
        words(question).collect()
    } else {
        kept
    }
}
