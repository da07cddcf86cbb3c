//! Which prompts a retriever reads.
//!
//! colpali-engine changed the prompts of its models several times, and vectors made with different ones do not compare
//! well, so the version is a value that an index records. What the prompts are stands with each model's processor.

use std::fmt;
use std::str::FromStr;

use super::error::{Error, Result};

/// The prompts of one range of colpali-engine versions, named by its first. Not every model has every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PromptVersion {
    /// 0.3.1 to 0.3.3, and transformers' own `ColPaliProcessor`: `Question: ` before a question.
    V0_3_1,
    /// ColPali in 0.3.4 to 0.3.10: `Query: ` before a question.
    V0_3_4,
    /// ColIdefics3 in 0.3.5 to 0.3.8, with which its checkpoints were trained: chat template with the text before
    /// the image; `Query: ` before a question, a line break behind it.
    V0_3_5,
    /// ColIdefics3 in 0.3.9 and 0.3.10: a document prompt with a lower-case role on a line of its own.
    V0_3_9,
    /// 0.3.11 to 0.3.18: questions bare; for ColIdefics3 the image first, and a generation prompt.
    #[default]
    V0_3_11,
}

impl PromptVersion {
    /// All versions, the oldest first.
    pub const ALL: [Self; 5] = [
        Self::V0_3_1,
        Self::V0_3_4,
        Self::V0_3_5,
        Self::V0_3_9,
        Self::V0_3_11,
    ];
    /// Those of ColPali.
    pub const COLPALI: &'static [Self] = &[Self::V0_3_1, Self::V0_3_4, Self::V0_3_11];
    /// Those of ColIdefics3.
    pub const COLIDEFICS3: &'static [Self] = &[Self::V0_3_5, Self::V0_3_9, Self::V0_3_11];

    /// The name that an index records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_3_4 => "0.3.4",
            Self::V0_3_5 => "0.3.5",
            Self::V0_3_9 => "0.3.9",
            Self::V0_3_11 => "0.3.11",
        }
    }

    /// Fails where a model has no prompts of this version.
    pub(super) fn known_to(self, known: &[Self]) -> Result<()> {
        if known.contains(&self) {
            return Ok(());
        }
        Err(Error::PromptVersion {
            found: self.as_str().to_owned(),
            known: known.iter().map(|version| version.as_str()).collect(),
        })
    }
}

impl fmt::Display for PromptVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PromptVersion {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let version = Self::ALL
            .into_iter()
            .find(|version| version.as_str() == name);
        version.ok_or_else(|| Error::PromptVersion {
            found: name.to_owned(),
            known: Self::ALL.map(Self::as_str).to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_by_name() {
        for version in PromptVersion::ALL {
            assert_eq!(
                version.to_string().parse::<PromptVersion>().unwrap(),
                version
            );
        }
        assert_eq!(PromptVersion::default(), PromptVersion::V0_3_11);
        let message = "0.3.12".parse::<PromptVersion>().unwrap_err().to_string();
        assert!(
            message.contains("`0.3.12`") && message.contains("`0.3.9`"),
            "{message}"
        );
        let refused = PromptVersion::V0_3_5.known_to(PromptVersion::COLPALI);
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("`0.3.5`") && message.contains("`0.3.4`"),
            "{message}"
        );
    }
}
