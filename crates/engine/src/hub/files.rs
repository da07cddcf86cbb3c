//! Which files of a model are wanted.
//!
//! Settings by name, weights as safetensors. Nothing that is a program or can hide one: no pickles
//! (`.bin`, `.pt`, `.pth`, `.ckpt`, `.pkl`), no Python, no shared objects; they are not refused by
//! a list, they are simply never named. Only files at the top of the repository count, so `onnx/`
//! and training checkpoints stay where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::checksum::Checksum;
use super::error::{Error, shortened};
use super::name::plain_name_fault;

/// The settings files, as transformers and PEFT name them.
pub(super) const SETTINGS: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "adapter_config.json",
];

/// Weights in one file.
pub(super) const WEIGHTS: &str = "model.safetensors";
/// The index of weights in several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Weights of a PEFT adapter.
pub(super) const ADAPTER: &str = "adapter_model.safetensors";

/// Settings are read whole: the largest known (a Gemma `tokenizer.json`) has 33 MB.
const LARGEST_SETTING: u64 = 256 << 20;
/// The index of a 400B model has about 100 kB a shard at worst; ours have a few.
const LARGEST_INDEX: u64 = 64 << 20;

const PICKLES: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];

/// The files that are wanted of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSet {
    pub(super) weights: bool,
}

impl FileSet {
    /// Everything to run a model: settings, tokenizer, chat template, weights.
    pub fn checkpoint() -> Self {
        Self { weights: true }
    }

    /// All but the weights.
    pub fn settings() -> Self {
        Self { weights: false }
    }

    /// Whether a file of this name can belong to the set.
    pub fn includes(&self, name: &str) -> bool {
        SETTINGS.contains(&name)
            || (self.weights && (name == INDEX || name.ends_with(".safetensors")))
    }

    /// The files of a listing to fetch before the shards are known, and the index, where there is one
    /// that has to be read.
    ///
    /// `model.safetensors` goes before an index with shards, as in transformers; with neither, every
    /// safetensors file at the top is taken. An adapter's weights come always.
    ///
    /// # Errors
    /// [`Error::OnlyPickles`], [`Error::NoWeights`], [`Error::TooLarge`], [`Error::UnsafeFileName`].
    pub(super) fn select(
        self,
        name: &str,
        commit: &str,
        listing: &[RepoFile],
    ) -> Result<Selection, Error> {
        let find = |path: &str| listing.iter().find(|file| file.path == path).cloned();
        let mut files: Vec<RepoFile> = SETTINGS.iter().filter_map(|path| find(path)).collect();
        let mut index = None;
        if self.weights {
            let before = files.len();
            if let Some(weights) = find(WEIGHTS) {
                files.push(weights);
            } else if let Some(found) = find(INDEX) {
                files.push(found.clone());
                index = Some(found);
            } else {
                files.extend(listing.iter().filter(|f| is_loose_weight(&f.path)).cloned());
            }
            files.extend(find(ADAPTER));
            if files.len() == before {
                return Err(no_weights(name, commit, listing));
            }
        }
        for file in &files {
            check_name(name, &file.path)?;
            let limit = if file.path == INDEX {
                LARGEST_INDEX
            } else {
                LARGEST_SETTING
            };
            if !file.path.ends_with(".safetensors") && file.bytes > limit {
                return Err(Error::TooLarge {
                    ask: format!("`{}` of `{name}`", file.path),
                    limit,
                });
            }
        }
        Ok(Selection { files, index })
    }
}

/// A file of a repository, as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Path within the repository.
    pub(super) path: String,
    /// Its size (of the file itself, not of an LFS pointer).
    pub(super) bytes: u64,
    /// Its checksum, which is its blob's name.
    pub(super) checksum: Checksum,
}

/// What [`FileSet::select`] chose.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) files: Vec<RepoFile>,
    pub(super) index: Option<RepoFile>,
}

/// The shards that the index at `path` names, each once.
///
/// # Errors
/// [`Error::Index`], [`Error::TooLarge`], [`Error::UnsafeFileName`] for a shard that is no plain
/// safetensors name, [`Error::Io`].
pub(super) fn shards(name: &str, path: &Path) -> Result<BTreeSet<String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    // Bounded even if the cache was filled by someone else.
    let bytes = fs_err::metadata(path)
        .map_err(|e| Error::io(path, e))?
        .len();
    if bytes > LARGEST_INDEX {
        return Err(Error::TooLarge {
            ask: format!("`{}`", path.display()),
            limit: LARGEST_INDEX,
        });
    }
    let text = fs_err::read(path).map_err(|e| Error::io(path, e))?;
    let index: Index = serde_json::from_slice(&text).map_err(|source| Error::Index {
        path: path.to_owned(),
        source,
    })?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    for shard in &shards {
        check_name(name, shard)?;
        if !shard.ends_with(".safetensors") {
            let reason = "a shard is a `.safetensors` file";
            return Err(Error::UnsafeFileName {
                name: name.into(),
                file: shortened(shard),
                reason,
            });
        }
    }
    Ok(shards)
}

/// Refuses a name that is not a plain file name.
fn check_name(name: &str, file: &str) -> Result<(), Error> {
    plain_name_fault(file).map_or(Ok(()), |reason| {
        Err(Error::UnsafeFileName {
            name: name.to_owned(),
            file: shortened(file),
            reason,
        })
    })
}

/// Weights under another name than the usual, at the top of the repository.
fn is_loose_weight(path: &str) -> bool {
    path.ends_with(".safetensors") && !path.contains('/') && path != ADAPTER
}

/// Says why there is nothing to load.
fn no_weights(name: &str, commit: &str, listing: &[RepoFile]) -> Error {
    let is_pickle = |path: &str| {
        path.rsplit_once('.')
            .is_some_and(|(_, end)| PICKLES.contains(&end))
    };
    let pickles: Vec<String> = listing
        .iter()
        .map(|f| &f.path)
        .filter(|p| is_pickle(p))
        .map(|p| shortened(p))
        .collect();
    if pickles.is_empty() {
        Error::NoWeights {
            name: name.to_owned(),
            commit: commit.to_owned(),
        }
    } else {
        Error::OnlyPickles {
            name: name.to_owned(),
            files: pickles,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Vec<RepoFile> {
        paths
            .iter()
            .map(|path| RepoFile {
                path: (*path).to_owned(),
                bytes: 1,
                checksum: Checksum::Git(String::new()),
            })
            .collect()
    }

    fn chosen(paths: &[&str]) -> Vec<String> {
        let selection = FileSet::checkpoint()
            .select("a/b", "c", &listing(paths))
            .unwrap();
        selection.files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn one_file_goes_before_shards_and_variants() {
        let paths = [
            ".gitattributes",
            "README.md",
            "config.json",
            "merges.txt",
            "model.fp16.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            INDEX,
            WEIGHTS,
            "onnx/model.onnx",
            "onnx/config.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "run.py",
        ];
        assert_eq!(chosen(&paths), ["config.json", "tokenizer.json", WEIGHTS]);
    }

    #[test]
    fn the_index_is_read_before_its_shards() {
        let paths = ["config.json", INDEX, "model-00001-of-00001.safetensors"];
        let selection = FileSet::checkpoint()
            .select("a/b", "c", &listing(&paths))
            .unwrap();
        assert_eq!(selection.index.unwrap().path, INDEX);
        assert_eq!(chosen(&paths), ["config.json", INDEX]);
    }

    #[test]
    fn an_adapter_alone_or_beside_a_model() {
        assert_eq!(
            chosen(&["adapter_config.json", ADAPTER]),
            ["adapter_config.json", ADAPTER]
        );
        assert_eq!(chosen(&[ADAPTER, WEIGHTS]), [WEIGHTS, ADAPTER]);
    }

    #[test]
    fn other_weights_are_taken_where_the_usual_are_missing() {
        assert_eq!(
            chosen(&["consolidated.safetensors", "x/y.safetensors"]),
            ["consolidated.safetensors"]
        );
    }

    #[test]
    fn pickles_are_named_and_never_chosen() {
        let paths = ["config.json", "pytorch_model.bin", "training_args.bin"];
        let error = FileSet::checkpoint()
            .select("a/b", "c", &listing(&paths))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the model `a/b` holds its weights only as `pytorch_model.bin`, `training_args.bin`, \
             which Colibri never opens"
        );
        let none = FileSet::checkpoint().select("a/b", "c", &listing(&["config.json"]));
        assert!(matches!(none, Err(Error::NoWeights { .. })));
        let settings = FileSet::settings()
            .select("a/b", "c", &listing(&paths))
            .unwrap();
        assert_eq!(settings.files.len(), 1);
    }

    #[test]
    fn settings_have_a_bound() {
        let mut files = listing(&["tokenizer.json", WEIGHTS]);
        files[1].bytes = u64::MAX;
        FileSet::checkpoint().select("a/b", "c", &files).unwrap();
        files[0].bytes = LARGEST_SETTING + 1;
        let error = FileSet::checkpoint()
            .select("a/b", "c", &files)
            .unwrap_err();
        assert!(matches!(
            error,
            Error::TooLarge {
                limit: LARGEST_SETTING,
                ..
            }
        ));
    }

    #[test]
    fn hostile_shards_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(INDEX);
        for shard in [
            "../../x.safetensors",
            "/x.safetensors",
            "a/x.safetensors",
            "x.bin",
            "",
        ] {
            let json = serde_json::json!({ "weight_map": { "t": shard } });
            fs_err::write(&path, json.to_string()).unwrap();
            assert!(
                matches!(shards("a/b", &path), Err(Error::UnsafeFileName { .. })),
                "`{shard}`"
            );
        }
        fs_err::write(&path, "{}").unwrap();
        assert!(matches!(shards("a/b", &path), Err(Error::Index { .. })));
    }
}
