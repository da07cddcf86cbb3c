//! The header of a safetensors file, validated before anything else is believed.
//!
//! Format: eight bytes little-endian header length, that many bytes of JSON mapping a tensor name to
//! `{dtype, shape, data_offsets}`, then the data
//! (<https://github.com/huggingface/safetensors#format>). A header may lie about every number in
//! it, so each is checked against the others and against the length of the file.

use std::{collections::BTreeMap, path::Path};

use crate::{Error, Result};

/// Headers beyond this size are refused, as the reference implementation does.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The element types that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    F32,
    Bf16,
    F16,
}

impl ElementType {
    pub(crate) fn num_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// Where a tensor lies in its file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `None` for a type we cannot read; only an error if the tensor is asked for.
    pub(crate) element_type: Option<ElementType>,
    /// The type's name in the file.
    pub(crate) type_name: String,
    pub(crate) shape: Vec<usize>,
    /// Offset of the first byte from the start of the file.
    pub(crate) offset: u64,
}

#[derive(serde::Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

fn type_bits(name: &str) -> Option<u64> {
    Some(match name {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// Reads the header's length from the first eight bytes of a file of `file_bytes` bytes.
pub(crate) fn header_length(path: &Path, first: [u8; 8], file_bytes: u64) -> Result<u64> {
    let length = u64::from_le_bytes(first);
    if length > MAX_HEADER_BYTES {
        return Err(invalid(path, format!("its header claims {length} bytes")));
    }
    if length + 8 > file_bytes {
        return Err(Error::Length {
            path: path.to_owned(),
            expected: length + 8,
            found: file_bytes,
        });
    }
    Ok(length)
}

/// Parses the header's JSON and checks it against itself and the length of the file.
pub(crate) fn parse(path: &Path, json: &[u8], file_bytes: u64) -> Result<BTreeMap<String, Entry>> {
    let raw: BTreeMap<String, serde_json::Value> = serde_json::from_slice(json)
        .map_err(|error| invalid(path, format!("its header is not JSON ({error})")))?;
    let data_start = 8 + json.len() as u64;
    let mut entries = BTreeMap::new();
    let mut spans = Vec::with_capacity(raw.len());
    for (name, value) in raw {
        if name == "__metadata__" {
            continue;
        }
        let entry: RawEntry = serde_json::from_value(value)
            .map_err(|error| invalid(path, format!("tensor `{name}`: {error}")))?;
        let (begin, end) = entry.data_offsets;
        let bits = type_bits(&entry.dtype).ok_or_else(|| {
            invalid(
                path,
                format!("tensor `{name}` has unknown type `{}`", entry.dtype),
            )
        })?;
        let elements = entry
            .shape
            .iter()
            .try_fold(1_u64, |product, &dim| product.checked_mul(dim as u64))
            .and_then(|count| count.checked_mul(bits))
            .ok_or_else(|| {
                invalid(
                    path,
                    format!("tensor `{name}` has an impossible shape {:?}", entry.shape),
                )
            })?;
        if begin > end || end - begin != elements.div_ceil(8) {
            return Err(invalid(
                path,
                format!(
                    "tensor `{name}` of type {} and shape {:?} cannot occupy bytes {begin}..{end}",
                    entry.dtype, entry.shape
                ),
            ));
        }
        spans.push((begin, end));
        let element_type = match entry.dtype.as_str() {
            "F32" => Some(ElementType::F32),
            "BF16" => Some(ElementType::Bf16),
            "F16" => Some(ElementType::F16),
            _ => None,
        };
        let offset = data_start
            .checked_add(begin)
            .ok_or_else(|| invalid(path, format!("tensor `{name}` lies beyond any file")))?;
        entries.insert(
            name,
            Entry {
                element_type,
                type_name: entry.dtype,
                shape: entry.shape,
                offset,
            },
        );
    }
    check_spans(path, spans, data_start, file_bytes)?;
    Ok(entries)
}

/// The data must be covered exactly once: no gap, no overlap, no missing or additional byte.
fn check_spans(
    path: &Path,
    mut spans: Vec<(u64, u64)>,
    data_start: u64,
    file_bytes: u64,
) -> Result<()> {
    spans.sort_unstable();
    let mut end_so_far = 0;
    for (begin, end) in spans {
        if begin != end_so_far {
            return Err(invalid(
                path,
                format!("tensor data overlaps or leaves a gap at byte {begin}"),
            ));
        }
        end_so_far = end;
    }
    let expected = data_start.saturating_add(end_so_far);
    if expected != file_bytes {
        return Err(Error::Length {
            path: path.to_owned(),
            expected,
            found: file_bytes,
        });
    }
    Ok(())
}

fn invalid(path: &Path, reason: String) -> Error {
    Error::Header {
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(json: &str, data_bytes: u64) -> Result<BTreeMap<String, Entry>> {
        parse(
            Path::new("x.safetensors"),
            json.as_bytes(),
            8 + json.len() as u64 + data_bytes,
        )
    }

    #[test]
    fn a_correct_header_is_read() {
        let json = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"I64","shape":[1],"data_offsets":[24,32]}}"#;
        let entries = parse_text(json, 32).unwrap();
        assert_eq!(entries["a"].shape, [2, 3]);
        assert_eq!(entries["a"].offset, 8 + json.len() as u64);
        assert_eq!(entries["b"].element_type, None);
    }

    #[test]
    fn lies_are_refused() {
        for (json, bytes) in [
            (
                r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,20]}}"#,
                20,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#,
                23,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#,
                25,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[24,0]}}"#,
                24,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                8,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[18446744073709551615,3],"data_offsets":[0,24]}}"#,
                24,
            ),
            (
                r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
                4,
            ),
            (r#"{"a":3}"#, 0),
            ("[]", 0),
        ] {
            assert!(parse_text(json, bytes).is_err(), "{json}");
        }
    }

    #[test]
    fn a_header_longer_than_the_file_is_a_truncation() {
        let error = header_length(Path::new("x"), 50_u64.to_le_bytes(), 20).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Length {
                    expected: 58,
                    found: 20,
                    ..
                }
            ),
            "{error}"
        );
        assert!(header_length(Path::new("x"), u64::MAX.to_le_bytes(), 20).is_err());
    }
}
