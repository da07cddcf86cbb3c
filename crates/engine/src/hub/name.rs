//! Names that become paths and addresses: models, revisions, files.
//!
//! Each is checked before it is used, by the hub's own rules and by ours: nothing that passes can
//! leave the cache folder, and nothing that the hub accepts for a model we could load is refused.

use std::fmt;
use std::str::FromStr;

use super::error::{Error, shortened};

/// The name of a model on the hub: `owner/name`, with a revision where one is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName {
    owner: String,
    name: String,
    revision: Option<String>,
}

impl ModelName {
    /// Who published it: a user or an organisation.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The model's name within its owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The revision after `@`, where one was given.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// `owner/name`, without the revision.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The same model without its revision.
    #[must_use]
    pub fn without_revision(&self) -> Self {
        Self {
            owner: self.owner.clone(),
            name: self.name.clone(),
            revision: None,
        }
    }

    /// The folder in the cache: `models--owner--name`.
    pub(super) fn folder(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }

    /// The inverse of [`Self::folder`]; `None` for folders of other kinds (datasets, models without owner).
    pub(super) fn from_folder(folder: &str) -> Option<Self> {
        let (owner, name) = folder.strip_prefix("models--")?.split_once("--")?;
        (part_fault(owner).is_none() && part_fault(name).is_none()).then(|| Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: None,
        })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        self.revision
            .as_ref()
            .map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

impl FromStr for ModelName {
    type Err = Error;

    /// Reads `owner/name` or `owner/name@revision`.
    ///
    /// # Errors
    /// [`Error::ModelName`] or [`Error::Revision`] with the rule that is broken.
    fn from_str(text: &str) -> Result<Self, Error> {
        let fault = |reason| Error::ModelName {
            text: shortened(text),
            reason,
        };
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = repository.split_once('/').ok_or(fault("it has no `/`"))?;
        if let Some(reason) = part_fault(owner).or_else(|| part_fault(name)) {
            return Err(fault(reason));
        }
        if let Some(revision) = revision {
            check_revision(revision)?;
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }
}

/// The hub's rule for owners and names (`validate_repo_id` in `huggingface_hub`): which part is broken.
fn part_fault(part: &str) -> Option<&'static str> {
    if part.is_empty() {
        return Some("owner and name may not be empty");
    }
    if part.len() > 96 {
        return Some("owner and name have at most 96 characters");
    }
    if part.contains('/') {
        return Some("it has more than one `/`");
    }
    if !part
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Some("only letters, digits, `-`, `_` and `.` are allowed");
    }
    if part.contains("--") || part.contains("..") {
        return Some("`--` and `..` are not allowed");
    }
    if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
        return Some("`-` and `.` may not stand first or last");
    }
    if part.to_ascii_lowercase().ends_with(".git") {
        return Some("it may not end in `.git`");
    }
    None
}

/// Checks a branch, tag, reference (`refs/pr/1`) or commit: it names a file under `refs/`.
///
/// # Errors
/// [`Error::Revision`] with the rule that is broken.
pub(super) fn check_revision(revision: &str) -> Result<(), Error> {
    let fault = |reason| {
        Err(Error::Revision {
            revision: shortened(revision),
            reason,
        })
    };
    if revision.is_empty() || revision.len() > 200 {
        return fault("it has between 1 and 200 characters");
    }
    if !revision
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b'+'))
    {
        return fault("only letters, digits, `-`, `_`, `.`, `+` and `/` are allowed");
    }
    if revision
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.') || part.ends_with('.'))
        || revision.contains("..")
    {
        return fault("its parts may not be empty, begin or end with `.` or hold `..`");
    }
    Ok(())
}

/// Whether a text is a full commit: 40 lower-case hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether a text is exactly `digits` lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Why a path of a listing cannot be one of a git tree: it would leave the folder. A hub that lists
/// such a path is not to be trusted with the rest either.
pub(super) fn path_fault(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > 4096 {
        return Some("a path has between 1 and 4096 bytes");
    }
    if path.contains('\0') {
        return Some("a path holds no NUL");
    }
    if path.starts_with(['/', '\\']) {
        return Some("a path is relative");
    }
    // Backslashes count as separators so that the answer is the same on every system.
    if path
        .split(['/', '\\'])
        .any(|part| matches!(part, "" | "." | ".."))
    {
        return Some("a path does not climb and has no empty part");
    }
    None
}

/// Why a name is not a plain file name that every file system takes as it is.
pub(super) fn plain_name_fault(name: &str) -> Option<&'static str> {
    if let Some(reason) = path_fault(name) {
        return Some(reason);
    }
    if name.len() > 200 {
        return Some("a file name has at most 200 bytes");
    }
    if name.starts_with('.') {
        return Some("a file name does not begin with `.`");
    }
    if name.contains(['/', '\\']) {
        return Some("the file lies at the top of the model's folder");
    }
    if name
        .chars()
        .any(|c| c.is_control() || matches!(c, ':' | '<' | '>' | '"' | '|' | '?' | '*'))
    {
        return Some("a file name holds no control characters and none of `:<>\"|?*`");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_real_models_pass() {
        for text in [
            "HuggingFaceTB/SmolVLM-256M-Instruct",
            "vidore/colSmol-256M",
            "vidore/colsmolvlm-v0.1",
            "vidore/colpaligemma-3b-pt-448-base",
            "_owner/name_1.0",
        ] {
            let name: ModelName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(name.repository(), text);
            assert_eq!(ModelName::from_folder(&name.folder()), Some(name));
        }
    }

    #[test]
    fn a_revision_follows_the_at_sign() {
        let name: ModelName = "a/b@refs/pr/3".parse().unwrap();
        assert_eq!(
            (name.owner(), name.name(), name.revision()),
            ("a", "b", Some("refs/pr/3"))
        );
        assert_eq!(name.repository(), "a/b");
        assert_eq!(name.to_string(), "a/b@refs/pr/3");
        assert_eq!(name.without_revision().to_string(), "a/b");
    }

    #[test]
    fn path_tricks_are_refused() {
        for text in [
            "", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/.", "./b", "a/b--c", "a/b..c", "a/-b",
            "a/b.git", "a\\b/c", "a/b c", "a/b\0", "a/b%2f", "ä/b", "~/b", "C:/b",
        ] {
            assert!(
                matches!(text.parse::<ModelName>(), Err(Error::ModelName { .. })),
                "`{text}` passed"
            );
        }
        assert!(
            ("a/".to_owned() + &"b".repeat(97))
                .parse::<ModelName>()
                .is_err()
        );
    }

    #[test]
    fn revisions_stay_under_refs() {
        for good in [
            "main",
            "v1.0",
            "refs/pr/1",
            "e425d3590a626ff778db01604b4a7496ddceb211",
            "a+b_c-d",
        ] {
            check_revision(good).unwrap();
        }
        for bad in [
            "", "/main", "a//b", "../x", "a/../b", ".hidden", "a/.b", "a.", "a b", "a\\b", "a@{1}",
        ] {
            assert!(check_revision(bad).is_err(), "`{bad}` passed");
        }
        assert!("a/b@../../x".parse::<ModelName>().is_err());
    }

    #[test]
    fn file_names_stay_in_their_folder() {
        for good in [
            "config.json",
            "model-00001-of-00002.safetensors",
            "my weights (1).safetensors",
        ] {
            assert_eq!(plain_name_fault(good), None);
        }
        for bad in [
            "", "../x", "/x", "a/b", "..", ".", "a\\b", "C:x", "a\nb", ".bashrc", "x\0",
        ] {
            assert!(plain_name_fault(bad).is_some(), "`{bad}` passed");
        }
        for good in ["onnx/model.onnx", "a:b/c", ".gitattributes"] {
            assert_eq!(path_fault(good), None);
        }
        for bad in ["a/../b", "/etc/passwd", "a//b", "..\\x", "\\x", "a/"] {
            assert!(path_fault(bad).is_some(), "`{bad}` passed");
        }
    }
}
