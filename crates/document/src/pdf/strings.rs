//! PDF text strings (ISO 32000-2, 7.9.2.2): UTF-16 or UTF-8 with a byte order mark, else
//! `PDFDocEncoding`. Titles and `/ActualText` come in them.

/// 0x18 to 0x1f of `PDFDocEncoding` (ISO 32000-2, annex D.2).
const ACCENTS: [char; 8] = [
    '\u{2d8}', '\u{2c7}', '\u{2c6}', '\u{2d9}', '\u{2dd}', '\u{2db}', '\u{2da}', '\u{2dc}',
];

/// 0x80 to 0xa0 of `PDFDocEncoding`.
const UPPER: [char; 33] = [
    '\u{2022}', '\u{2020}', '\u{2021}', '\u{2026}', '\u{2014}', '\u{2013}', '\u{192}', '\u{2044}',
    '\u{2039}', '\u{203a}', '\u{2212}', '\u{2030}', '\u{201e}', '\u{201c}', '\u{201d}', '\u{2018}',
    '\u{2019}', '\u{201a}', '\u{2122}', '\u{fb01}', '\u{fb02}', '\u{141}', '\u{152}', '\u{160}',
    '\u{178}', '\u{17d}', '\u{131}', '\u{142}', '\u{153}', '\u{161}', '\u{17e}', '\u{fffd}',
    '\u{20ac}',
];

/// Decodes a text string; what is not a character becomes U+FFFD.
pub(super) fn decode(bytes: &[u8]) -> String {
    if let Some(rest) = bytes.strip_prefix(&[0xfe, 0xff]) {
        return utf16(rest, u16::from_be_bytes);
    }
    // Not in the standard, but written by some producers.
    if let Some(rest) = bytes.strip_prefix(&[0xff, 0xfe]) {
        return utf16(rest, u16::from_le_bytes);
    }
    if let Some(rest) = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]) {
        return String::from_utf8_lossy(rest).into_owned();
    }
    // Many producers write UTF-8 without a mark; PDFDocEncoding is hardly ever valid UTF-8.
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    bytes
        .iter()
        .map(|&b| match b {
            0x18..=0x1f => ACCENTS[usize::from(b - 0x18)],
            0x80..=0xa0 => UPPER[usize::from(b - 0x80)],
            0x00..=0x17 | 0x20..=0x7f | 0xa1..=0xff => char::from(b),
        })
        .collect()
}

fn utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|&pair| unit(pair));
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_told_by_its_mark() {
        assert_eq!(decode(b"\xfe\xff\0A\x20\xac"), "A\u{20ac}");
        assert_eq!(decode(b"\xff\xfeA\0\xac\x20"), "A\u{20ac}");
        assert_eq!(decode(b"\xef\xbb\xbf\xc3\xa9"), "\u{e9}");
        assert_eq!(decode(b"\xc3\xa9"), "\u{e9}");
        assert_eq!(decode(b"\xe9t\xe9 \x84"), "\u{e9}t\u{e9} \u{2014}");
    }

    #[test]
    fn half_a_character_is_dropped() {
        assert_eq!(decode(b"\xfe\xff\0A\0"), "A");
        assert_eq!(decode(b"\xfe\xff\xd8\x00"), "\u{fffd}");
        assert_eq!(decode(b""), "");
    }
}
