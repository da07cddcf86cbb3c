//! The checkpoint that the program carries: a very small retriever, so that pages are found by what they
//! look like on a machine that has never been online.
//!
//! It is an ordinary Hugging Face folder (`builtin/`, made by `training/`), unpacked once into the user's
//! cache and loaded like any other. It knows the words, names and figures of generated pages; on other
//! documents it is a help where there is no text layer, and no more.

use std::path::{Path, PathBuf};

use colibri_models::registry::Checkpoint;

use super::Located;
use crate::{Error, Result};

/// The name that chooses it.
pub const BUILTIN: &str = "builtin";

/// What it is, what it was trained on and what it cannot do, for people.
pub const ABOUT_BUILTIN: &str = "a very small retriever that this program carries, trained from scratch on generated \
    pages (invoices, forms, letters, reports, tables, slides, charts). It finds printed words, names and figures by \
    their look: of 200 generated pages it never saw, in fonts it never saw, the right one comes first for 83 % of the \
    questions. It knows no synonyms, no pictures, no handwriting and no small print; on 90 pages of real documents the \
    right one comes first for 15 % (text search: 76 %). It writes no answers.";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../builtin/", $name)).as_slice())),*]
    };
}

/// Every embedded file by its place below the folder.
static FILES: [(&str, &[u8]); 9] = files![
    "base/config.json",
    "base/model.safetensors",
    "base/preprocessor_config.json",
    "base/processor_config.json",
    "base/special_tokens_map.json",
    "base/tokenizer.json",
    "base/tokenizer_config.json",
    "retriever/adapter_config.json",
    "retriever/adapter_model.safetensors",
];

/// Unpacks the checkpoint below `cache`, unless it is there already.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn locate(cache: &Path) -> Result<Located> {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in FILES {
        hasher.update(name.as_bytes());
        hasher.update(bytes);
    }
    let revision = hasher.finalize().to_hex()[..16].to_owned();
    let folder = cache.join(format!("builtin-{revision}"));
    if !is_whole(&folder) {
        unpack(cache, &folder).map_err(|source| Error::Io {
            path: folder.clone(),
            source,
        })?;
    }
    Ok(Located {
        name: BUILTIN.to_owned(),
        revision,
        checkpoint: Checkpoint {
            folder: folder.join("retriever"),
            base: Some(folder.join("base")),
        },
        made_up: None,
    })
}

fn is_whole(folder: &Path) -> bool {
    FILES.iter().all(|(name, bytes)| {
        let found = fs_err::metadata(folder.join(name));
        found.is_ok_and(|found| found.len() == bytes.len() as u64)
    })
}

/// Writes beside the final place and renames, so that no half of it is ever seen.
fn unpack(cache: &Path, folder: &Path) -> std::io::Result<()> {
    let partial: PathBuf = cache.join(format!("builtin-{}.partial", std::process::id()));
    let _ = fs_err::remove_dir_all(&partial);
    for (name, bytes) in FILES {
        let path = partial.join(name);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::write(path, bytes)?;
    }
    let _ = fs_err::remove_dir_all(folder);
    match fs_err::rename(&partial, folder) {
        // Another process was quicker.
        Err(_) if is_whole(folder) => fs_err::remove_dir_all(&partial),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use colibri_models::registry::{Kind, inspect};

    #[test]
    fn it_unpacks_once_and_mends_itself() {
        let cache = tempfile::tempdir().unwrap();
        let located = locate(cache.path()).unwrap();
        assert!(matches!(
            inspect(&located.checkpoint.folder).unwrap(),
            Kind::Adapter { .. }
        ));
        assert_eq!(
            inspect(located.checkpoint.base_folder()).unwrap(),
            Kind::Retriever
        );
        let weights = located.checkpoint.base_folder().join("model.safetensors");
        fs_err::write(&weights, b"cut").unwrap();
        assert_eq!(locate(cache.path()).unwrap(), located);
        assert!(fs_err::metadata(&weights).unwrap().len() > 1000);
    }
}
