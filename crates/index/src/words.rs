//! The words of a page as bytes.
//!
//! One version byte, the number of words, then for each word its length, its UTF-8 text, four `f32` and
//! its line; numbers are LEB128, floats little-endian. About 25 bytes a word, a third of JSON.

use crate::record::WordBox;

const VERSION: u8 = 1;
/// Length and line take a byte each at least, the box 16.
const MIN_WORD_BYTES: usize = 18;

/// The words as bytes; nothing for no words.
pub(crate) fn encode(words: &[WordBox]) -> Vec<u8> {
    if words.is_empty() {
        return Vec::new();
    }
    let mut bytes = Vec::with_capacity(words.len() * 28 + 8);
    bytes.push(VERSION);
    put_number(&mut bytes, words.len() as u64);
    for word in words {
        put_number(&mut bytes, word.text.len() as u64);
        bytes.extend_from_slice(word.text.as_bytes());
        for value in word.bounds {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        put_number(&mut bytes, u64::from(word.line));
    }
    bytes
}

/// The words in `bytes`, or what is wrong with them.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<WordBox>, &'static str> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader { rest: bytes };
    if reader.take(1)? != [VERSION] {
        return Err("an unknown version of word boxes");
    }
    let count = reader.number()? as usize;
    if count > reader.rest.len() / MIN_WORD_BYTES {
        return Err("more words than bytes");
    }
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let len = reader.number()?;
        let text = reader.take(usize::try_from(len).map_err(|_| "a word too long")?)?;
        let text = std::str::from_utf8(text)
            .map_err(|_| "a word that is not UTF-8")?
            .to_owned();
        let mut bounds = [0.0; 4];
        for value in &mut bounds {
            let four = reader.take(4)?;
            *value = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        }
        let line = u32::try_from(reader.number()?).map_err(|_| "a line number too large")?;
        words.push(WordBox { text, bounds, line });
    }
    if reader.rest.is_empty() {
        Ok(words)
    } else {
        Err("bytes after the last word")
    }
}

fn put_number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or("word boxes cut short")?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number too long")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_come_back_as_they_went_in(
            words in proptest::collection::vec((".{0,20}", any::<[u16; 4]>(), any::<u32>()), 0..40),
        ) {
            let words: Vec<WordBox> = words
                .into_iter()
                .map(|(text, bounds, line)| WordBox { text, bounds: bounds.map(|v| f32::from(v) / 7.0), line })
                .collect();
            prop_assert_eq!(decode(&encode(&words)).unwrap(), words);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            drop(decode(&bytes));
        }
    }

    #[test]
    fn cutting_anywhere_is_an_error() {
        let words = vec![
            WordBox {
                text: "naïve".into(),
                bounds: [1.0, 2.0, 3.0, 4.0],
                line: 300
            };
            3
        ];
        let bytes = encode(&words);
        for len in 1..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(&longer), Err("bytes after the last word"));
    }
}
