//! From a model's name to its files.

use std::path::{Path, PathBuf};

use colibri_models::registry::{self, Checkpoint, Kind};

use super::{Located, ModelEvent, OnModelEvent, fingerprint::fingerprint, folder};
use crate::{
    Error, Result,
    hub::{FileSet, Hub, ModelName},
};

pub(super) fn locate(
    hub: &Hub,
    name: &str,
    example: &'static str,
    on_event: OnModelEvent<'_>,
) -> Result<Located> {
    let (dir, name, mut revision) = find(hub, name, None, example, on_event)?;
    let base = match registry::inspect(&dir)? {
        Kind::Generator | Kind::Retriever => None,
        Kind::Adapter {
            base,
            revision: pinned,
        } => {
            // A relative folder is meant from where the adapter lies, so that the pair can be moved.
            let beside = dir.join(&base);
            let (dir, _, base_revision) = if beside.join("config.json").is_file() {
                let revision = fingerprint(&beside)?;
                (beside, String::new(), revision)
            } else {
                find(hub, &base, pinned.as_deref(), example, on_event)?
            };
            revision = format!("{revision}+{base_revision}");
            Some(dir)
        }
    };
    Ok(Located {
        name,
        revision,
        checkpoint: Checkpoint { folder: dir, base },
    })
}

/// Folder, name to remember, revision.
fn find(
    hub: &Hub,
    name: &str,
    revision: Option<&str>,
    example: &'static str,
    on_event: OnModelEvent<'_>,
) -> Result<(PathBuf, String, String)> {
    if let Some(dir) = folder(name) {
        let dir = canonical(&dir)?;
        let revision = fingerprint(&dir)?;
        let name = dir
            .to_str()
            .ok_or_else(|| Error::PathName { path: dir.clone() })?
            .to_owned();
        return Ok((dir, name, revision));
    }
    let parsed: ModelName = name.parse().map_err(|_| Error::ModelName {
        name: name.to_owned(),
        example,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io {
            path: "the network".into(),
            source,
        })?;
    let repository = parsed.repository();
    let snapshot =
        runtime.block_on(
            hub.snapshot(&parsed, revision, &FileSet::checkpoint(), &|progress| {
                on_event(ModelEvent::Fetch {
                    model: repository.clone(),
                    progress,
                });
            }),
        )?;
    Ok((snapshot.dir, parsed.repository(), snapshot.commit))
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs_err::canonicalize(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}
