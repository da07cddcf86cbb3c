//! From a model's name to its files.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use colibri_models::registry::{self, Checkpoint, Kind};

use super::{Located, ModelEvent, OnModelEvent, fingerprint::fingerprint, folder};
use crate::{
    Error, Result,
    hub::{FileSet, Hub, ModelName, Snapshot},
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
        made_up: None,
    })
}

/// How long a hub may take to answer when nobody asked for it by name.
const PROBE: Duration = Duration::from_secs(5);

/// Like [`locate`] for a model that nobody named: a hub that cannot be reached at once is not waited for,
/// since something else serves.
pub(super) fn locate_default(
    hub: &Hub,
    name: &str,
    example: &'static str,
    on_event: OnModelEvent<'_>,
) -> Result<Located> {
    if let Ok(parsed) = name.parse::<ModelName>()
        && folder(name).is_none()
        && hub.cached(&parsed, None).is_none()
    {
        let mut config = hub.config().clone();
        config.retry.attempts = 1;
        config.timeouts.connect = config.timeouts.connect.min(PROBE);
        config.timeouts.idle = config.timeouts.idle.min(PROBE);
        fetch(
            &Hub::new(config),
            &parsed,
            None,
            FileSet::settings(),
            on_event,
        )?;
    }
    locate(hub, name, example, on_event)
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
    let snapshot = fetch(hub, &parsed, revision, FileSet::checkpoint(), on_event)?;
    Ok((snapshot.dir, parsed.repository(), snapshot.commit))
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs_err::canonicalize(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

fn fetch(
    hub: &Hub,
    name: &ModelName,
    revision: Option<&str>,
    want: FileSet,
    on_event: OnModelEvent<'_>,
) -> Result<Snapshot> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io {
            path: "the network".into(),
            source,
        })?;
    let model = name.repository();
    let on_progress = |progress| {
        on_event(ModelEvent::Fetch {
            model: model.clone(),
            progress,
        });
    };
    let snapshot = hub.snapshot(name, revision, &want, &on_progress);
    Ok(runtime.block_on(snapshot)?)
}
