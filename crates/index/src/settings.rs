//! What an index was made with.
//!
//! Rows of two retrievers (or of two revisions, prompts or precisions of one) cannot be compared, so the
//! index remembers them and refuses others. An index without a retriever holds text only; it may be given
//! one later, after which [`crate::Index::documents_without_rows`] names what has to be encoded.

use std::path::Path;

use crate::error::{Error, Result};

/// The retriever an index belongs to; all `None` for an index of text only.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// Hub name or folder of the retriever; `None` for a text-only index.
    pub retriever: Option<String>,
    /// Its revision: a commit, or a fingerprint of its weights.
    pub revision: Option<String>,
    /// The version of the prompts and of the page preparation.
    pub prompt_version: Option<String>,
    /// The arithmetic the rows were computed in, such as `bf16`.
    pub precision: Option<String>,
    /// Values in a row; taken from the first rows when not known.
    pub dim: Option<usize>,
}

impl Settings {
    /// Settings of an index that has no retriever.
    pub fn text_only() -> Self {
        Self::default()
    }

    /// Whether the index holds text only.
    pub fn is_text_only(&self) -> bool {
        self.retriever.is_none()
    }

    /// The settings after opening an index made with `self` for writing with `asked`.
    ///
    /// # Errors
    /// [`Error::SettingsMismatch`] with the first setting that differs.
    pub(crate) fn adopt(&self, asked: &Self, index: &Path) -> Result<Self> {
        if self.is_text_only() {
            return Ok(asked.clone());
        }
        let pairs = [
            ("retriever", &self.retriever, &asked.retriever),
            ("revision", &self.revision, &asked.revision),
            (
                "prompt version",
                &self.prompt_version,
                &asked.prompt_version,
            ),
            ("precision", &self.precision, &asked.precision),
        ];
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        for (what, own, other) in pairs {
            if own != other {
                return Err(Error::SettingsMismatch {
                    path: index.to_owned(),
                    what,
                    index: text(own),
                    asked: text(other),
                });
            }
        }
        match (self.dim, asked.dim) {
            (Some(own), Some(other)) if own != other => Err(Error::SettingsMismatch {
                path: index.to_owned(),
                what: "row dimension",
                index: own.to_string(),
                asked: other.to_string(),
            }),
            (own, other) => Ok(Self {
                dim: own.or(other),
                ..self.clone()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(retriever: &str, precision: &str, dim: Option<usize>) -> Settings {
        Settings {
            retriever: Some(retriever.to_owned()),
            revision: Some("main".to_owned()),
            prompt_version: Some("1".to_owned()),
            precision: Some(precision.to_owned()),
            dim,
        }
    }

    #[test]
    fn each_differing_setting_is_named_with_both_values() {
        let own = settings("a", "bf16", Some(128));
        let path = Path::new("index");
        for (asked, expected) in [
            (settings("b", "bf16", Some(128)), ("retriever", "a", "b")),
            (
                settings("a", "int8", Some(128)),
                ("precision", "bf16", "int8"),
            ),
            (
                settings("a", "bf16", Some(64)),
                ("row dimension", "128", "64"),
            ),
            (
                Settings {
                    revision: None,
                    ..own.clone()
                },
                ("revision", "main", "none"),
            ),
            (
                Settings {
                    prompt_version: Some("2".to_owned()),
                    ..own.clone()
                },
                ("prompt version", "1", "2"),
            ),
            (Settings::text_only(), ("retriever", "a", "none")),
        ] {
            match own.adopt(&asked, path) {
                Err(Error::SettingsMismatch {
                    what, index, asked, ..
                }) => {
                    assert_eq!((what, index.as_str(), asked.as_str()), expected);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_text_only_index_takes_a_retriever_and_an_unknown_dimension_is_filled_in() {
        let path = Path::new("index");
        let asked = settings("a", "bf16", Some(128));
        assert_eq!(Settings::text_only().adopt(&asked, path).unwrap(), asked);
        let unknown = settings("a", "bf16", None);
        assert_eq!(unknown.adopt(&asked, path).unwrap(), asked);
        assert_eq!(asked.adopt(&unknown, path).unwrap(), asked);
    }
}
