//! The rest of `processor_config.json`: how many tokens a tile has.

use std::path::Path;

use serde_json::Value;

use super::error::{Error, Result};
use super::fields::{Fields, object};
use super::files::{JsonFile, ProcessorFiles, json_in};

/// Greatest number of tokens of a tile accepted (a tower of 70×70 patches has 4900).
const MAX_IMAGE_SEQ_LEN: u64 = 1 << 14;

/// The rest of `processor_config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessorConfig {
    /// Tokens of a tile. Absent in old repositories (the class defaults, 169 in transformers and
    /// 64 in colpali-engine, are wrong for most of them).
    pub image_seq_len: Option<usize>,
}

impl ProcessorConfig {
    /// Reads `image_seq_len` from the first folder whose `processor_config.json` has it, and checks
    /// it against `derived`, the number of tokens that the network makes of a tile:
    /// (image_size / patch_size / scale_factor)². `derived` is the answer where no file has it.
    ///
    /// # Errors
    /// [`Error::MissingFile`] where neither says it, [`Error::ImageSeqLen`] where they differ,
    /// [`Error::Read`], [`Error::Json`], [`Error::BadValue`].
    pub fn image_seq_len(files: &ProcessorFiles, derived: Option<usize>) -> Result<usize> {
        const FILE: &str = "processor_config.json";
        for dir in files.dirs() {
            let Some(JsonFile { path, value }) = json_in(dir, FILE)? else {
                continue;
            };
            let Some(found) = Self::from_json(&path, &value)?.image_seq_len else {
                continue;
            };
            return match derived {
                Some(expected) if expected != found => Err(Error::ImageSeqLen {
                    path,
                    expected,
                    found,
                }),
                Some(_) | None => Ok(found),
            };
        }
        derived.ok_or_else(|| Error::MissingFile {
            file: FILE,
            dirs: files.dir_list(),
        })
    }

    /// Reads the settings from JSON that came from `path`.
    ///
    /// # Errors
    /// [`Error::BadValue`].
    pub fn from_json(path: &Path, json: &Value) -> Result<Self> {
        let file = Fields {
            path,
            json: object(path, "(the whole file)", json)?,
        };
        let image_seq_len = file.or("image_seq_len", None, |value| {
            let found = value
                .as_u64()
                .filter(|len| (1..=MAX_IMAGE_SEQ_LEN).contains(len));
            match found {
                Some(len) => Ok(Some(len as usize)),
                None => Err(file.bad("image_seq_len", "a whole number from 1 to 16384", value)),
            }
        })?;
        Ok(Self { image_seq_len })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn image_seq_len_is_checked() {
        let read = |json| ProcessorConfig::from_json(Path::new("processor_config.json"), &json);
        assert_eq!(
            read(json!({"image_seq_len": 81})).unwrap().image_seq_len,
            Some(81)
        );
        assert_eq!(read(json!({})).unwrap().image_seq_len, None);
        for hostile in [json!(0), json!(-1), json!(1e9), json!("64"), json!([64])] {
            let json = json!({"image_seq_len": hostile});
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains("`image_seq_len`"), "{message}");
        }
    }
}
