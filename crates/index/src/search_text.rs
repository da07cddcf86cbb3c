//! From human text to full-text search: what is put into the full-text table, and how a question becomes
//! a query.
//!
//! FTS5's own tokenizer (`unicode61` with accents removed, then Porter stems) does the cutting. Before it
//! sees a page, words that a line break cut in two are put together, and characters of scripts written
//! without spaces are set apart, since it would take a whole clause for one word. Questions go the same way,
//! and are then made of quoted phrases only, so nothing a person types is ever query syntax.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

/// A longer question is a pasted text; its first words say what it is about.
const MAX_TERMS: usize = 64;
/// A longer word is not a word.
const MAX_TERM_CHARS: usize = 128;

/// Words of a question that say nothing about what is looked for.
const STOP_WORDS: &[&str] = &[
    "a",
    "about",
    "according",
    "after",
    "an",
    "and",
    "are",
    "as",
    "at",
    "be",
    "been",
    "being",
    "by",
    "can",
    "could",
    "did",
    "do",
    "does",
    "for",
    "from",
    "give",
    "had",
    "has",
    "have",
    "having",
    "he",
    "her",
    "him",
    "his",
    "how",
    "i",
    "if",
    "in",
    "into",
    "is",
    "it",
    "its",
    "may",
    "me",
    "might",
    "my",
    "of",
    "on",
    "or",
    "our",
    "please",
    "shall",
    "she",
    "should",
    "show",
    "so",
    "such",
    "tell",
    "than",
    "that",
    "the",
    "their",
    "them",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "to",
    "us",
    "was",
    "we",
    "were",
    "what",
    "when",
    "where",
    "which",
    "while",
    "who",
    "whom",
    "whose",
    "why",
    "will",
    "with",
    "would",
    "you",
    "your",
];

/// The text of a page as it is indexed.
pub(crate) fn body(text: &str) -> Cow<'_, str> {
    let mut joined = joined_words(text);
    if !joined.is_empty() {
        joined.insert(0, '\n');
        joined.insert_str(0, text);
        return Cow::Owned(spaced(&joined).into_owned());
    }
    spaced(text)
}

/// What a document is called: its title, its file's name and the folder it is in.
pub(crate) fn names(path: &str, title: &str) -> String {
    let path = Path::new(path);
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy())
        .unwrap_or_default();
    let folder = path
        .parent()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let mut names = title.to_owned();
    for part in [stem, folder] {
        if !part.is_empty() && part != names {
            names.push(' ');
            names.push_str(&part);
        }
    }
    spaced(names.trim()).into_owned()
}

/// The FTS5 expression for a question, or `None` if it holds no word at all.
pub(crate) fn query(question: &str) -> Option<String> {
    let words = terms(question);
    let mut expression = String::new();
    for word in &words {
        if !expression.is_empty() {
            expression.push_str(" OR ");
        }
        expression.push('"');
        expression.push_str(word); // holds no quote: see `terms`
        expression.push('"');
    }
    (!expression.is_empty()).then_some(expression)
}

/// The words and phrases of a question that are worth looking for, without quotes or control characters.
pub(crate) fn terms(question: &str) -> Vec<String> {
    let question = spaced(question);
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    let words = question
        .split(|c: char| c.is_whitespace() || c.is_control() || c == '"')
        .filter_map(word);
    for word in words {
        let parts: Vec<&str> = word
            .split(|c: char| !c.is_alphanumeric())
            .filter(|part| !part.is_empty())
            .collect();
        // "late-interaction" is looked for as it is and by its parts; "21,015,324" only as it is.
        let split = parts.len() > 1
            && parts
                .iter()
                .any(|part| part.chars().all(char::is_alphabetic));
        let parts = if split { parts } else { Vec::new() };
        let parts = parts
            .into_iter()
            .filter(|part| part.chars().count() > 1 && part.chars().all(char::is_alphabetic));
        for term in std::iter::once(word.as_str()).chain(parts) {
            let lower = term.to_lowercase();
            if seen.insert(lower.clone()) {
                all.push(lower);
            }
        }
        if all.len() >= MAX_TERMS * 2 {
            break;
        }
    }
    let stop = |term: &String| STOP_WORDS.binary_search(&term.as_str()).is_ok();
    // A question of stop words only ("who is who?") still asks for something.
    if !all.iter().all(stop) {
        all.retain(|term| !stop(term));
    }
    all.truncate(MAX_TERMS);
    all
}

/// A word without the punctuation around it and without a possessive ending.
fn word(raw: &str) -> Option<String> {
    let trimmed = raw.trim_matches(|c: char| !c.is_alphanumeric());
    let trimmed = ["'s", "’s", "'S", "’S"]
        .iter()
        .find_map(|end| trimmed.strip_suffix(end))
        .unwrap_or(trimmed);
    (!trimmed.is_empty()).then(|| trimmed.chars().take(MAX_TERM_CHARS).collect())
}

/// The words that a hyphen at the end of a line cut in two, put together.
fn joined_words(text: &str) -> String {
    // U+FFFE and U+0002 are what some PDF producers leave for a soft hyphen.
    let is_hyphen = |c: char| matches!(c, '-' | '\u{2010}' | '\u{ad}' | '\u{fffe}' | '\u{2}');
    let mut joined = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(next) = lines.peek() else { break };
        let line = line.trim_end();
        let Some(head) = line.strip_suffix(is_hyphen) else {
            continue;
        };
        let head = head
            .rsplit(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap_or_default();
        let tail = next.trim_start();
        let tail = &tail[..tail
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(tail.len())];
        if head.ends_with(char::is_alphabetic) && tail.starts_with(char::is_lowercase) {
            joined.push_str(head);
            joined.push_str(tail);
            joined.push(' ');
        }
    }
    joined
}

/// Sets every character of a script without spaces apart.
fn spaced(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unspaced) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if is_unspaced(character) {
            out.push(' ');
            out.push(character);
            out.push(' ');
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Han, Hiragana, Katakana, Thai, Lao, Khmer and Burmese letters.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}'
        | '\u{3041}'..='\u{309f}' | '\u{30a1}'..='\u{30ff}'
        | '\u{0e01}'..='\u{0eff}' | '\u{1780}'..='\u{17ff}' | '\u{1000}'..='\u{109f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_sorted_for_the_search_among_them() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn a_question_becomes_quoted_words() {
        assert_eq!(query("What is the total?").as_deref(), Some("\"total\""));
        assert_eq!(query("who is who?").as_deref(), Some("\"who\" OR \"is\""));
        assert_eq!(query(" \u{2014} ?! \" "), None);
        assert_eq!(
            query("Acme's 21,015,324 late-interaction rows").as_deref(),
            Some(
                "\"acme\" OR \"21,015,324\" OR \"late-interaction\" OR \"late\" OR \"interaction\" OR \"rows\""
            )
        );
        assert_eq!(
            query("a\"b NEAR(c) *").as_deref(),
            Some("\"b\" OR \"near(c\" OR \"near\"")
        );
    }

    #[test]
    fn words_cut_by_a_line_break_are_found_whole() {
        let text = "dense retrie-\nval of pas\u{ad}\n sages, late-\nInteraction, 10-\n20";
        assert_eq!(joined_words(text), "retrieval passages ");
        assert!(body(text).ends_with("\nretrieval passages "));
        assert_eq!(body("plain"), "plain");
    }

    #[test]
    fn characters_of_scripts_without_spaces_stand_alone() {
        assert_eq!(body("売上 2023"), " 売  上  2023");
        assert_eq!(
            query("売上は").as_deref(),
            Some("\"売\" OR \"上\" OR \"は\"")
        );
    }

    #[test]
    fn names_are_title_file_and_folder() {
        assert_eq!(
            names("/home/a/reports/acme-2023.pdf", "Annual Report"),
            "Annual Report acme-2023 reports"
        );
        assert_eq!(names("scan.png", ""), "scan");
        assert_eq!(names("", ""), "");
    }
}
