//! Which documents are no longer there.

use std::path::{Path, PathBuf};

use colibri_index::{Filter, Writer};

use super::{DocumentStatus, IndexEvent, Summary};
use crate::Result;

/// Takes documents out of the index whose files were under one of the named folders and are gone. Runs
/// after everything else: a moved file has been recognised by its content until then.
pub(super) fn remove_missing(
    writer: &mut Writer,
    paths: &[PathBuf],
    summary: &mut Summary,
    on_event: &mut dyn FnMut(IndexEvent),
) -> Result<()> {
    let folders: Vec<PathBuf> = paths
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| fs_err::canonicalize(path).ok())
        .collect();
    if folders.is_empty() {
        return Ok(());
    }
    let mut gone = writer.index()?.list(&Filter::default())?;
    gone.retain(|document| {
        let path = Path::new(&document.record.path);
        folders.iter().any(|folder| path.starts_with(folder)) && is_gone(path)
    });
    let names: Vec<&str> = gone
        .iter()
        .map(|document| document.record.path.as_str())
        .collect();
    writer.remove(&names)?;
    for document in gone {
        summary.removed += 1;
        let (path, pages) = (document.record.path, document.num_pages as usize);
        on_event(IndexEvent::Document {
            path,
            status: DocumentStatus::Removed,
            pages,
            error: None,
        });
    }
    Ok(())
}

/// A file that cannot be looked at (a drive that is away, a folder without permission) is not gone.
fn is_gone(path: &Path) -> bool {
    matches!(fs_err::symlink_metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}
