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

    /// Whether rows of questions made with `asked` compare with the rows of an index made with `self`. A question
    /// has no size: of the prompt version, what follows a `/` (how large pages were drawn) matters to pages only.
    ///
    /// # Errors
    /// [`Error::SettingsMismatch`] with the first setting that differs.
    pub fn check_query(&self, asked: &Self, index: &Path) -> Result<()> {
        self.compare(asked, index, |prompts| {
            prompts.split('/').next().unwrap_or(prompts)
        })
    }

    /// The first setting that differs, prompts compared by what `prompts` leaves of them.
    fn compare(
        &self,
        asked: &Self,
        index: &Path,
        prompts: impl for<'a> Fn(&'a str) -> &'a str,
    ) -> Result<()> {
        let versions =
            [self, asked].map(|settings| settings.prompt_version.as_deref().map(&prompts));
        let pairs = [
            (
                "retriever",
                [&self.retriever, &asked.retriever].map(Option::as_deref),
            ),
            (
                "revision",
                [&self.revision, &asked.revision].map(Option::as_deref),
            ),
            ("prompt version", versions),
            (
                "precision",
                [&self.precision, &asked.precision].map(Option::as_deref),
            ),
        ];
        match pairs.into_iter().find(|(_, [own, other])| own != other) {
            None => Ok(()),
            Some((what, values)) => {
                let [index_has, was_asked] = values.map(|value| value.unwrap_or("none").to_owned());
                Err(Error::SettingsMismatch {
                    path: index.to_owned(),
                    what,
                    index: index_has,
                    asked: was_asked,
                })
            }
        }
    }

    /// The settings after opening an index made with `self` for writing with `asked`.
    ///
    /// # Errors
    /// [`Error::SettingsMismatch`] with the first setting that differs.
    pub(crate) fn adopt(&self, asked: &Self, index: &Path) -> Result<Self> {
        if self.is_text_only() {
            return Ok(asked.clone());
        }
        self.compare(asked, index, |prompts| prompts)?;
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
    fn a_question_has_prompts_and_no_size() {
        let own = Settings {
            prompt_version: Some("0.3.11/2048".to_owned()),
            ..settings("a", "bf16", Some(128))
        };
        let of = |version: &str| Settings {
            prompt_version: Some(version.to_owned()),
            ..own.clone()
        };
        let path = Path::new("index");
        own.check_query(&of("0.3.11/1024"), path).unwrap();
        assert!(own.check_query(&of("0.3.9/2048"), path).is_err());
        assert!(own.adopt(&of("0.3.11/1024"), path).is_err());
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
