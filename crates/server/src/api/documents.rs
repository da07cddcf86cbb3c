//! Documents: which there are, and how they come and go.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path as UrlPath, Query, Request, State},
    http::StatusCode,
};
use colibri_engine::{
    index::{DocumentInfo, Filter, Metadata},
    web,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::names::file_name;
use crate::{
    App, Error, Result,
    body::JsonBody,
    jobs::{JobInfo, Task},
    uploads,
};

/// Several `where` parameters are written one a line in one.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    #[serde(rename = "where")]
    filter: Option<String>,
}

/// A document as it is listed.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    name: String,
    /// Its first page, for a picture of it.
    first_page: Option<i64>,
    /// Where it came from, if it was fetched.
    url: Option<String>,
    #[serde(flatten)]
    info: DocumentInfo,
}

/// Expressions of a filter, one a line.
pub(crate) fn filter(lines: Option<&str>) -> Result<Filter> {
    let lines = lines.unwrap_or_default().lines().map(str::trim);
    Ok(Filter::parse_all(lines.filter(|line| !line.is_empty()))?)
}

/// `GET /api/documents`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>> {
    let documents = app.blocking(move |app| listed(app, &query)).await?;
    Ok(Json(json!({"documents": documents})))
}

fn listed(app: &App, query: &ListQuery) -> Result<Vec<Listed>> {
    let Some(index) = app.index_if_any()? else {
        return Ok(Vec::new());
    };
    let documents = index.list(&filter(query.filter.as_deref())?)?;
    let listed = documents.into_iter().map(|info| {
        let first_page = index.page_id(&info.record.path, 1)?;
        let url = info.record.metadata.get("url").and_then(Value::as_str);
        Ok(Listed {
            name: file_name(&info.record.path),
            first_page: first_page.map(|page| page.0),
            url: url.map(str::to_owned),
            info,
        })
    });
    listed.collect()
}

/// Where something was begun, and what.
type Begun = (StatusCode, Json<JobInfo>);

fn begin(app: &App, task: Task) -> Result<Begun> {
    let job = app.jobs.put(task)?;
    Ok((StatusCode::ACCEPTED, Json(job.info())))
}

#[derive(Debug, Deserialize)]
pub(crate) struct UploadQuery {
    /// What the file is called.
    name: String,
}

/// `POST /api/documents?name=…`: the body is the file.
pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Begun> {
    let path = uploads::receive(&app, request, &query.name).await?;
    begin(
        &app,
        Task::Add {
            paths: vec![path],
            metadata: Metadata::new(),
        },
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UrlBody {
    url: String,
}

/// `POST /api/documents/url`
pub(crate) async fn add_url(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody<UrlBody>,
) -> Result<Begun> {
    if app.config().fetch.is_none() {
        return Err(Error::Forbidden {
            why: "this server fetches nothing".to_owned(),
        });
    }
    if !web::is_url(&body.url) {
        return Err(Error::bad("`url` must begin with `https://` or `http://`"));
    }
    begin(&app, Task::Fetch { url: body.url })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathsBody {
    paths: Vec<PathBuf>,
    #[serde(default)]
    metadata: Metadata,
}

/// `POST /api/documents/paths`: files and folders on the server's machine, below the allowed folders.
pub(crate) async fn add_paths(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody<PathsBody>,
) -> Result<Begun> {
    if body.paths.is_empty() {
        return Err(Error::bad("`paths` is empty"));
    }
    let roots = app.config().roots.clone();
    let paths = body.paths;
    let allowed = tokio::task::spawn_blocking(move || {
        let within = |path: &PathBuf| allowed_path(&roots, path);
        paths.iter().map(within).collect::<Result<Vec<_>>>()
    });
    let paths = allowed.await.map_err(|_| Error::Thread {
        doing: "looking at the paths",
    })??;
    begin(
        &app,
        Task::Add {
            paths,
            metadata: body.metadata,
        },
    )
}

/// The path with links followed, if it lies below one of the folders. Whether something else exists is not
/// told.
fn allowed_path(roots: &[PathBuf], path: &Path) -> Result<PathBuf> {
    let refused = || Error::Forbidden {
        why: format!(
            "`{}` is not in a folder that this server was given with `--allow-path`",
            path.display()
        ),
    };
    let whole = fs_err::canonicalize(path).map_err(|_| refused())?;
    let within =
        |root: &PathBuf| fs_err::canonicalize(root).is_ok_and(|root| whole.starts_with(&root));
    if path.is_absolute() && roots.iter().any(within) {
        Ok(whole)
    } else {
        Err(refused())
    }
}

/// `DELETE /api/documents/{id}`
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    UrlPath(id): UrlPath<i64>,
) -> Result<Begun> {
    let path = app
        .blocking(move |app| {
            let index = app.index()?;
            let documents = index.list(&Filter::default())?;
            let found = documents.into_iter().find(|document| document.id.0 == id);
            found
                .map(|document| document.record.path)
                .ok_or_else(|| Error::no(format!("document {id}")))
        })
        .await?;
    begin(
        &app,
        Task::Remove {
            documents: vec![path],
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_roots_are_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("papers");
        let secret = dir.path().join("secret.pdf");
        fs_err::create_dir(&root).unwrap();
        fs_err::write(&secret, "x").unwrap();
        fs_err::write(root.join("a.pdf"), "x").unwrap();
        std::os::unix::fs::symlink(&secret, root.join("link.pdf")).unwrap();
        let roots = [root.clone()];
        assert!(allowed_path(&roots, &root.join("a.pdf")).is_ok());
        assert!(allowed_path(&roots, &root).is_ok());
        for refused in [
            root.join("../secret.pdf"),
            root.join("link.pdf"),
            root.join("missing.pdf"),
            secret,
            "a.pdf".into(),
            "/etc/hostname".into(),
        ] {
            assert!(allowed_path(&roots, &refused).is_err(), "{refused:?}");
        }
        assert!(allowed_path(&[], &root.join("a.pdf")).is_err());
    }
}
