//! Special tokens in a text: where the template placed them, and not where a user typed them.

use std::collections::{HashMap, HashSet};

use tokenizers::tokenizer::AddedToken;

use super::escape::Marked;

/// A special token where the template placed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) id: u32,
}

/// A special token and how it treats its neighbours.
#[derive(Debug, Clone)]
struct Special {
    id: u32,
    token: AddedToken,
}

/// The special tokens by their first two bytes, longest first.
#[derive(Debug, Default)]
pub(super) struct Specials {
    by_start: HashMap<(u8, Option<u8>), Vec<Special>>,
    pub(super) by_id: HashMap<u32, String>,
    pub(super) first_chars: HashSet<char>,
}

/// The places of special tokens after the marks have been taken out.
pub(super) fn without_marks(marked: &Marked, found: &[Found]) -> Vec<Found> {
    let width = marked.mark.len_utf8();
    let mut marks = marked
        .text
        .match_indices(marked.mark)
        .map(|(at, _)| at)
        .peekable();
    let mut removed = 0;
    let moved = found.iter().map(|found| {
        while marks.next_if(|&at| at < found.start).is_some() {
            removed += width;
        }
        Found {
            start: found.start - removed,
            end: found.end - removed,
            id: found.id,
        }
    });
    moved.collect()
}

impl Specials {
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let mut specials = Self::default();
        for (&id, token) in tokenizer.get_added_vocabulary().get_added_tokens_decoder() {
            let Some(first) = token.content.chars().next() else {
                continue;
            };
            if !token.special {
                continue;
            }
            specials.first_chars.insert(first);
            specials.by_id.insert(id, token.content.clone());
            let start = start_of(token.content.as_bytes());
            let list = specials.by_start.entry(start).or_default();
            list.push(Special {
                id,
                token: token.clone(),
            });
        }
        for list in specials.by_start.values_mut() {
            list.sort_by_key(|special| std::cmp::Reverse(special.token.content.len()));
        }
        specials
    }

    /// Special tokens in a text from left to right, the longest where several begin at one place.
    /// With a mark given, a token whose first character is followed by it is the user's.
    pub(super) fn find(&self, text: &str, mark: Option<char>) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let Some(special) = self.at_start(rest, mark) else {
                at += first;
                continue;
            };
            let (mut start, mut end) = (at, at + special.token.content.len());
            if special.token.single_word && !stands_alone(text, start, end) {
                at += first;
                continue;
            }
            if special.token.lstrip {
                let before = found.last().map_or(0, |last| last.end);
                start = before.max(text[..start].trim_end().len());
            }
            if special.token.rstrip {
                end += text[end..].len() - text[end..].trim_start().len();
            }
            found.push(Found {
                start,
                end,
                id: special.id,
            });
            at = end;
        }
        found
    }

    fn at_start(&self, text: &str, mark: Option<char>) -> Option<&Special> {
        let mut chars = text.chars();
        if !self.first_chars.contains(&chars.next()?) || (mark.is_some() && chars.next() == mark) {
            return None;
        }
        let (first, second) = start_of(text.as_bytes());
        let begins =
            |list: &'_ &Vec<Special>| list.iter().any(|s| text.starts_with(&s.token.content));
        let list = self.by_start.get(&(first, second)).filter(begins);
        let list = list.or_else(|| self.by_start.get(&(first, None)))?;
        list.iter()
            .find(|special| text.starts_with(&special.token.content))
    }
}

/// The key of [`Specials::by_start`]: the first byte, and the second where there is one.
fn start_of(text: &[u8]) -> (u8, Option<u8>) {
    (text.first().copied().unwrap_or(0), text.get(1).copied())
}

/// Whether neither neighbour is a letter, a digit or an underscore.
fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let word = |char: char| char.is_alphanumeric() || char == '_';
    !text[..start].ends_with(word) && !text[end..].starts_with(word)
}
