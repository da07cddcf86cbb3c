//! The checkpoint that the program carries: a very small retriever and generator, so that pages are found by what
//! they look like, and those without text can be read, on a machine that has never been online.
//!
//! They are ordinary Hugging Face folders (`builtin/`, made by `training/`), unpacked once into the user's cache and
//! loaded like any others: `base/` is a generator whose file holds the retriever's projection too, `retriever/` an
//! adapter over it, so what both have in common is there once.

use std::path::{Path, PathBuf};

use colibri_models::{footprint::Role, registry::Checkpoint};

use super::Located;
use crate::{Error, Result};

/// The name that chooses it.
pub const BUILTIN: &str = "builtin";

/// What it is, what it was trained on and what it cannot do, for people.
pub const ABOUT_BUILTIN: &str = "a very small retriever and generator that this program carries, trained from scratch on \
    generated pages (invoices, forms, letters, reports, tables, slides, charts). It finds printed words, names and \
    figures by their look: of 200 generated pages it never saw, in fonts it never saw, the right one came first for \
    199 of 200 questions; on 90 pages of real documents it comes first for 29 % (text search: 76 %). As a generator it \
    answers short questions about one page: on such generated pages 67 % of those about a key or a cell were exact, 37 % \
    of all cells of all tables, 59 % about letters, 23 % about charts, and of the characters of a cut-out of a page read aloud 2 % of \
    single words and 8 % of several lines were wrong. \
    It knows no synonyms, no pictures, no handwriting and no small print, and does not say when it does not know.";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../builtin/", $name)).as_slice())),*]
    };
}

/// Every embedded file by its place below the folder.
static FILES: [(&str, &[u8]); 11] = files![
    "base/chat_template.json",
    "base/config.json",
    "base/generation_config.json",
    "base/model.safetensors",
    "base/preprocessor_config.json",
    "base/processor_config.json",
    "base/special_tokens_map.json",
    "base/tokenizer.json",
    "base/tokenizer_config.json",
    "retriever/adapter_config.json",
    "retriever/adapter_model.safetensors",
];

/// The retriever or the generator; unpacks both below `cache`, unless they are there already.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn locate(cache: &Path, role: Role) -> Result<Located> {
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
        checkpoint: match role {
            Role::Retriever => Checkpoint {
                folder: folder.join("retriever"),
                base: Some(folder.join("base")),
            },
            Role::Generator => Checkpoint {
                folder: folder.join("base"),
                base: None,
            },
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
    use colibri_models::{
        Part, TensorPool,
        registry::{Kind, inspect},
    };

    #[test]
    fn it_unpacks_once_and_mends_itself() {
        let cache = tempfile::tempdir().unwrap();
        let located = locate(cache.path(), Role::Retriever).unwrap();
        assert!(matches!(
            inspect(&located.checkpoint.folder).unwrap(),
            Kind::Adapter { .. }
        ));
        let weights = located.checkpoint.base_folder().join("model.safetensors");
        fs_err::write(&weights, b"cut").unwrap();
        assert_eq!(locate(cache.path(), Role::Retriever).unwrap(), located);
        assert!(fs_err::metadata(&weights).unwrap().len() > 1000);
    }

    #[test]
    fn retriever_and_generator_share_all_but_their_heads() {
        let cache = tempfile::tempdir().unwrap();
        let retriever = locate(cache.path(), Role::Retriever).unwrap().checkpoint;
        let generator = locate(cache.path(), Role::Generator).unwrap().checkpoint;
        let parts = colibri_models::shared(&retriever, &generator, &TensorPool::new(None)).unwrap();
        let tower = parts.iter().find(|part| part.part == Part::Vision).unwrap();
        assert_eq!(tower.shared, tower.tensors);
        assert_eq!(retriever.base_folder(), generator.folder);
    }

    #[test]
    fn what_is_embedded_is_small() {
        let size: usize = FILES.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(size <= 24_000_000, "{size}");
    }
}
