//! Documents that are named in the question itself: indexed into a cache, and searched alone.
//!
//! The cache is one index for each way of making rows. Documents are known there by content, so a second
//! question about the same files encodes nothing, whatever they are called now; a filter keeps the search
//! to the documents that were named.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use colibri_index::{Filter, Index};

use crate::{
    Error, Result,
    checkpoints::LoadedRetriever,
    ingest::{DocumentStatus, IndexEvent, IngestOptions, ingest},
};

/// An index that holds the named documents, and the filter that lets only them through.
#[derive(Debug)]
pub struct Prepared {
    /// The index.
    pub index: Index,
    /// Only the named documents.
    pub filter: Filter,
    /// Named documents that could not be read.
    pub failed: usize,
}

/// Brings the documents at and under `paths` into the cache below `cache_dir`.
///
/// # Errors
/// [`Error::NothingToRead`] if none of the paths holds a readable document; otherwise as [`ingest`].
pub fn prepare(
    cache_dir: &Path,
    paths: &[PathBuf],
    retriever: Option<&LoadedRetriever>,
    options: &IngestOptions,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(IndexEvent),
) -> Result<Prepared> {
    let dir = cache_dir.join(folder_name(retriever));
    let mut present = BTreeSet::new();
    let summary = ingest(&dir, paths, retriever, options, stop, &mut |event| {
        if let IndexEvent::Document { path, status, .. } = &event
            && !matches!(status, DocumentStatus::Failed | DocumentStatus::Removed)
        {
            present.insert(path.clone());
        }
        on_event(event);
    })?;
    if present.is_empty() {
        let quoted: Vec<String> = paths
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        return Err(Error::NothingToRead {
            paths: quoted.join(", "),
        });
    }
    Ok(Prepared {
        index: Index::open(&dir)?,
        filter: Filter::paths_are(present),
        failed: summary.failed,
    })
}

/// One folder for each way of making rows, since they do not mix.
fn folder_name(retriever: Option<&LoadedRetriever>) -> String {
    let Some(retriever) = retriever else {
        return "text".to_owned();
    };
    let settings = retriever.index_settings();
    let text = serde_json::to_string(&settings).unwrap_or_default();
    format!("rows-{}", &blake3::hash(text.as_bytes()).to_hex()[..16])
}
