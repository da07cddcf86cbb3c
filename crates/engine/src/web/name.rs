//! What a fetched file is called: answers cite it by this name.

use reqwest::Url;

/// File systems take 255 bytes; a few are left for those that add to a name.
const LONGEST_NAME: usize = 200;

/// A harmless file name from the last part of a URL, ending as its content does.
pub(super) fn file_name(url: &Url, extension: &str) -> String {
    let last = url
        .path_segments()
        .and_then(|parts| parts.rev().find(|part| !part.is_empty()))
        .or(url.host_str())
        .unwrap_or("document");
    let name: String = decoded(last)
        .chars()
        .map(|c| {
            let plain = c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ' | '(' | ')' | ',');
            if plain { c } else { '_' }
        })
        .collect();
    let trimmed = name.trim_matches(['.', ' ']);
    let mut name = trimmed.to_owned();
    let ending = format!(".{extension}");
    if name.to_lowercase().ends_with(&ending) {
        name.truncate(name.len() - ending.len());
    }
    while name.len() > LONGEST_NAME {
        name.pop();
    }
    if name.is_empty() {
        "document".clone_into(&mut name);
    }
    name + &ending
}

/// With `%41` as `A`; what is not UTF-8 then is left as it was.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_harmless_and_end_as_they_are() {
        for (url, name) in [
            ("https://arxiv.org/pdf/2407.01449", "2407.01449.pdf"),
            ("https://a.example/Report%20A.PDF?x=1", "Report A.pdf"),
            ("https://a.example/", "a.example.pdf"),
            (
                "https://a.example/..%2f..%2fetc%2fpasswd",
                "_.._etc_passwd.pdf",
            ),
            ("https://a.example/%ff", "_ff.pdf"),
            ("https://a.example/%00%0a", "__.pdf"),
            ("https://a.example/...", "document.pdf"),
        ] {
            assert_eq!(file_name(&url.parse().unwrap(), "pdf"), name, "{url}");
        }
        let long = format!("https://a.example/{}.pdf", "ä".repeat(300));
        let name = file_name(&long.parse().unwrap(), "pdf");
        assert!(name.len() < 210 && name.ends_with("ä.pdf"));
    }
}
