//! Rust source without comments and literals, so that words in it are code.

/// `source` with every comment, string and character literal blanked. Lines stay where they are.
///
/// Raw strings, byte and C strings, nested comments and lifetimes are told apart as the Rust reference's
/// chapter on tokens does; what does not compile may come out in any way.
pub(crate) fn code_only(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = token(rest, first, &out);
        let (token, after) = rest.split_at(length);
        if is_code {
            out.push_str(token);
        } else {
            out.push(' ');
            out.extend(token.chars().filter(|char| *char == '\n'));
        }
        rest = after;
    }
    out
}

/// The length of what `rest` begins with, and whether it is code. `before` is the code up to here.
fn token(rest: &str, first: char, before: &str) -> (usize, bool) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    if first == '"' {
        return (string(rest), false);
    }
    if first == '\'' {
        return char_literal(rest).map_or((1, true), |length| (length, false));
    }
    if is_word(first) && !before.ends_with(is_word) {
        let length = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        if matches!(word, "r" | "br" | "cr")
            && let Some(raw) = raw_string(after)
        {
            return (length + raw, false);
        }
        return (length, true);
    }
    (first.len_utf8(), true)
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `#…"…"#…`, if `text` begins with one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let body = text[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(hashes + 1 + length)
}

/// The length of a character literal; `None` for the quote of a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, char) = chars.next()?;
    if char == '\\' {
        chars.next()?;
        return chars.find(|(_, char)| *char == '\'').map(|(at, _)| at + 1);
    }
    let (at, close) = chars.next()?;
    (close == '\'').then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that are left.
    fn words(source: &str) -> Vec<String> {
        let code = code_only(source);
        assert_eq!(
            code.matches('\n').count(),
            source.matches('\n').count(),
            "{source}"
        );
        code.split(|char| !is_word(char))
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn comments_go() {
        assert_eq!(
            words("a // unsafe\nb /* unsafe /* unsafe */ unsafe */ c"),
            ["a", "b", "c"]
        );
        assert_eq!(words("/// unsafe\n//! unsafe\nunsafe"), ["unsafe"]);
        assert_eq!(words("a /* unsafe"), ["a"]);
        assert_eq!(words("a / b"), ["a", "b"]);
    }

    #[test]
    fn strings_go() {
        assert_eq!(words(r#"a "unsafe \" unsafe" b"#), ["a", "b"]);
        assert_eq!(
            words(r###"a r#"unsafe " unsafe"# b r"\" c br##"unsafe"# "## d"###),
            ["a", "b", "c", "d"]
        );
        assert_eq!(words("a \"// unsafe\n\" b"), ["a", "b"]);
        assert_eq!(words("number\"unsafe\" r#match"), ["number", "r", "match"]);
        assert_eq!(words("bar \"unsafe\" for b"), ["bar", "for", "b"]);
        assert_eq!(words("b\"unsafe\" c\"unsafe\" x"), ["b", "c", "x"]);
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        assert_eq!(
            words("'\"' unsafe '\\'' b '\\u{22}' c 'é' d"),
            ["unsafe", "b", "c", "d"]
        );
        assert_eq!(
            words("fn f<'a>(x: &'a str) -> &'static str"),
            ["fn", "f", "a", "x", "a", "str", "static", "str"]
        );
        assert_eq!(
            words("match c { '/' => 1, '*' => 2 }"),
            ["match", "c", "1", "2"]
        );
    }

    #[test]
    fn own_sources_come_out_as_code() {
        // This file is full of the word, and has none of it in code.
        assert!(
            !words(include_str!("strip.rs"))
                .iter()
                .any(|word| word == "unsafe")
        );
    }
}
