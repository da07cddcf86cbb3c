//! The lines of a page that answer a query best.
//!
//! A window of words slides over the text; the one with the most different query words wins, the earliest
//! of equals. Words are compared without endings, roughly: this chooses what to show, not what is found.

/// Words in a window.
const WINDOW: usize = 40;
/// A match may differ in this many characters at the end of the shorter word.
const ENDING: usize = 2;

/// About forty words of `text` around the words of `terms` (lower case), white space collapsed.
pub(crate) fn snippet(text: &str, terms: &[String]) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() <= WINDOW {
        return words.join(" ");
    }
    let wanted: Vec<Vec<String>> = terms.iter().map(|term| tokens(term)).collect();
    let matches: Vec<Option<usize>> = words.iter().map(|word| matching(word, &wanted)).collect();
    let start = best_window(&matches, wanted.len());
    let mut out = words[start..start + WINDOW].join(" ");
    if start > 0 {
        out.insert_str(0, "… ");
    }
    if start + WINDOW < words.len() {
        out.push_str(" …");
    }
    out
}

/// The start of the window with the most different matches, moved so that they stand in its middle.
fn best_window(matches: &[Option<usize>], num_terms: usize) -> usize {
    let last_start = matches.len() - WINDOW;
    let mut counts = vec![0usize; num_terms];
    let mut different = 0;
    let mut best = (0, 0);
    for end in 0..matches.len() {
        if let Some(term) = matches[end] {
            different += usize::from(counts[term] == 0);
            counts[term] += 1;
        }
        if end >= WINDOW
            && let Some(term) = matches[end - WINDOW]
        {
            counts[term] -= 1;
            different -= usize::from(counts[term] == 0);
        }
        if different > best.0 {
            best = (different, (end + 1).saturating_sub(WINDOW));
        }
    }
    let (found, start) = best;
    if found == 0 {
        return 0;
    }
    // The window ends at the last match; leave some words after it.
    let first = (start..matches.len())
        .find(|at| matches[*at].is_some())
        .unwrap_or(start);
    let slack = (first - start).min(WINDOW) / 2;
    (start + slack).min(last_start)
}

/// Which of the wanted words this word is.
fn matching(word: &str, wanted: &[Vec<String>]) -> Option<usize> {
    let parts = tokens(word);
    wanted.iter().position(|wanted| {
        // A term of several parts ("21,015,324") must occur as it is.
        !wanted.is_empty()
            && parts
                .windows(wanted.len())
                .any(|parts| parts.iter().zip(wanted).all(|(a, b)| alike(a, b)))
    })
}

fn tokens(word: &str) -> Vec<String> {
    word.split(|c: char| !c.is_alphanumeric())
        .filter(|part| !part.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Whether two words differ in their endings at most.
fn alike(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    if !a.chars().chain(b.chars()).all(char::is_alphabetic) {
        return false;
    }
    let common = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let shorter = a.chars().count().min(b.chars().count());
    common >= 4 && common + ENDING >= shorter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search_text::terms;

    #[test]
    fn shows_the_words_asked_for() {
        let filler = "lorem ipsum dolor ".repeat(60);
        let text = format!("{filler} the collection holds 21,015,324 passages in total. {filler}");
        let shown = snippet(
            &text,
            &terms("How many passages does the collection contain?"),
        );
        assert!(
            shown.contains("collection holds 21,015,324 passages"),
            "{shown}"
        );
        assert!(shown.starts_with("… ") && shown.ends_with(" …"));
    }

    #[test]
    fn without_a_match_it_is_the_beginning() {
        let text = "one two three ".repeat(30);
        assert!(snippet(&text, &terms("elephant")).starts_with("one two three"));
        assert_eq!(snippet(" short\n text ", &[]), "short text");
        assert_eq!(snippet("", &terms("x")), "");
    }

    #[test]
    fn words_match_without_their_endings() {
        assert!(alike("passages", "passage"));
        assert!(alike("retriever", "retrieval"));
        assert!(!alike("2015", "2016"));
        assert!(!alike("train", "trains5"));
        assert!(!alike("cat", "car"));
    }
}
