//! What the cache alone can do: offline, made by Python, half full, listed.

use std::path::{Path, PathBuf};

use colibri_engine::hub::{Error, FileSet, Hub, Progress};

use crate::server::{Act, COMMIT, Served, Server, checkpoint, fetch, fetch_told, name, read};

/// Lays a cache out as `huggingface_hub` does: relative links, references without a line end, lock files.
fn python_cache(cache: &Path, files: &[Served]) -> PathBuf {
    let repo = cache.join("models--owner--model");
    let snapshot = repo.join("snapshots").join(COMMIT);
    for folder in [
        repo.join("blobs"),
        repo.join("refs"),
        snapshot.clone(),
        repo.join(".no_exist"),
    ] {
        fs_err::create_dir_all(folder).unwrap();
    }
    let locks = cache.join(".locks/models--owner--model");
    fs_err::create_dir_all(&locks).unwrap();
    fs_err::write(
        cache.join("CACHEDIR.TAG"),
        "Signature: 8a477f597d28d172789f06886806bc55",
    )
    .unwrap();
    fs_err::create_dir_all(cache.join("datasets--owner--data/snapshots")).unwrap();
    fs_err::write(repo.join("refs/main"), COMMIT).unwrap();
    for served in files {
        let blob = served.blob();
        fs_err::write(repo.join("blobs").join(&blob), &served.bytes).unwrap();
        fs_err::write(locks.join(format!("{blob}.lock")), "").unwrap();
        let pointer = snapshot.join(&served.path);
        fs_err::create_dir_all(pointer.parent().unwrap()).unwrap();
        #[cfg(unix)]
        {
            let up = "../".repeat(2 + served.path.matches('/').count());
            fs_err::os::unix::fs::symlink(format!("{up}blobs/{blob}"), pointer).unwrap();
        }
        #[cfg(not(unix))]
        fs_err::write(pointer, &served.bytes).unwrap();
    }
    repo
}

fn offline(server: &Server, cache: &Path) -> Hub {
    let mut config = server.config(cache);
    config.offline = true;
    Hub::new(config)
}

#[tokio::test]
async fn a_cache_made_by_python_is_used_as_it_is() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    python_cache(cache.path(), &checkpoint());

    let hub = offline(&server, cache.path());
    let snapshot = fetch(&hub).await.unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(snapshot.files.len(), 5);
    assert_eq!(hub.cached(&name(), None), Some(snapshot.clone()));
    assert!(server.log().is_empty());

    // With the network only the lists are asked for; the first time, to know that nothing is missing.
    let hub = server.hub(cache.path());
    assert_eq!(fetch(&hub).await.unwrap(), snapshot);
    assert!(server.asked("/resolve/").is_empty());
    assert_eq!(server.log().len(), 2);
}

#[tokio::test]
async fn only_what_is_missing_is_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let some: Vec<Served> = checkpoint()
        .into_iter()
        .filter(|served| served.path != "tokenizer.json")
        .collect();
    let repo = python_cache(cache.path(), &some);
    // And one whose bytes are gone, and one that was cut short by someone.
    let config = some
        .iter()
        .find(|served| served.path == "config.json")
        .unwrap();
    fs_err::remove_file(repo.join("blobs").join(config.blob())).unwrap();
    let processor = some
        .iter()
        .find(|served| served.path == "preprocessor_config.json")
        .unwrap();
    fs_err::write(repo.join("blobs").join(processor.blob()), "{").unwrap();

    let (result, events) = fetch_told(&server.hub(cache.path())).await;
    let snapshot = result.unwrap();
    for served in checkpoint()
        .iter()
        .filter(|served| snapshot.files.contains(&served.path))
    {
        assert_eq!(read(&snapshot, &served.path), served.bytes);
    }
    let mut fetched: Vec<String> = server
        .asked("/resolve/")
        .into_iter()
        .map(|asked| asked.path.rsplit_once('/').unwrap().1.to_owned())
        .collect();
    fetched.sort();
    assert_eq!(
        fetched,
        ["config.json", "preprocessor_config.json", "tokenizer.json"]
    );
    let Progress::Planned { files: 5, all, .. } = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(all.done, (1 << 20) + 77);
}

#[tokio::test]
async fn offline_without_the_model_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = offline(&server, cache.path());
    let error = fetch(&hub).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`owner/model` at revision `main` is not in the cache `{}` and HF_HUB_OFFLINE is set",
            cache.path().display()
        )
    );
    assert_eq!(error.code(), "hub_offline");
    let hint = error.hint().unwrap();
    assert!(
        hint.starts_with("run `colibri models pull owner/model`"),
        "{hint}"
    );
    assert!(hint.contains("or give a folder"), "{hint}");
    assert!(server.log().is_empty());
    // Nothing is made by looking.
    assert_eq!(fs_err::read_dir(cache.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn offline_knows_revisions_apart() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    python_cache(cache.path(), &checkpoint());
    let hub = offline(&server, cache.path());
    let want = FileSet::checkpoint();
    hub.snapshot(&name(), Some(COMMIT), &want, &|_| {})
        .await
        .unwrap();
    for other in ["v2", &"e".repeat(40)] {
        let error = hub
            .snapshot(&name(), Some(other), &want, &|_| {})
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Offline { .. }), "{error:?}");
        let hint = error.hint().unwrap();
        assert!(
            hint.contains(&format!("ask for `owner/model@{COMMIT}`")),
            "{hint}"
        );
    }
    let error = hub
        .snapshot(&name(), Some("../main"), &want, &|_| {})
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Revision { .. }), "{error:?}");
}

#[tokio::test]
async fn offline_with_half_a_model_names_what_is_missing() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let index = r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
    python_cache(
        cache.path(),
        &[
            Served::small("config.json", "{}"),
            Served::small("model.safetensors.index.json", index),
            Served::large("m-1.safetensors", 100),
        ],
    );
    let hub = offline(&server, cache.path());
    let error = fetch(&hub).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("lacks `m-2.safetensors` and HF_HUB_OFFLINE is set"),
        "{error}"
    );
    assert_eq!(hub.cached(&name(), None), None);
    let settings = hub
        .snapshot(&name(), None, &FileSet::settings(), &|_| {})
        .await
        .unwrap();
    assert_eq!(settings.files, ["config.json"]);
}

#[tokio::test]
async fn without_a_network_the_cache_serves_at_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    let snapshot = fetch(&hub).await.unwrap();

    server.forget();
    server.rule("/revision/", 100, Act::CutAfter(0));
    let (result, events) = fetch_told(&hub).await;
    assert_eq!(result.unwrap(), snapshot);
    assert!(
        matches!(&events[..], [Progress::FromCache { commit, .. }] if commit == COMMIT),
        "{events:?}"
    );
    assert_eq!(
        server.log().len(),
        1,
        "nobody waits for retries when the cache can serve"
    );
}

#[tokio::test]
async fn a_refusal_is_not_hidden_by_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    fetch(&hub).await.unwrap();
    server.rule("/revision/", 1, Act::Status(403, vec![]));
    assert!(matches!(
        fetch(&hub).await.unwrap_err(),
        Error::Gated { .. }
    ));
}

#[tokio::test]
async fn the_cache_is_listed() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    assert_eq!(hub.list_cached().unwrap(), []);
    assert_eq!(
        server
            .hub(&cache.path().join("none"))
            .list_cached()
            .unwrap(),
        []
    );

    let repo = python_cache(cache.path(), &checkpoint());
    fs_err::create_dir_all(repo.join("refs/refs/pr")).unwrap();
    fs_err::write(repo.join("refs/refs/pr/1"), COMMIT).unwrap();
    fs_err::write(repo.join("refs/v1"), "9".repeat(40)).unwrap();
    fs_err::create_dir_all(cache.path().join("models--another--one/snapshots")).unwrap();

    let models = hub.list_cached().unwrap();
    let names: Vec<String> = models.iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["another/one", "owner/model"]);
    assert_eq!((models[0].bytes, models[0].revisions.len()), (0, 0));
    let total: u64 = checkpoint()
        .iter()
        .map(|served| served.bytes.len() as u64)
        .sum();
    assert_eq!(models[1].bytes, total);
    let [revision] = &models[1].revisions[..] else {
        panic!("{models:?}")
    };
    assert_eq!(revision.commit, COMMIT);
    assert_eq!(revision.references, ["main", "refs/pr/1"]);
    assert_eq!(
        (revision.files, revision.bytes),
        (checkpoint().len(), total)
    );
}

#[tokio::test]
async fn files_that_change_between_two_commits_are_fetched_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    let snapshot = fetch(&hub).await.unwrap();
    // The same commit with other bytes cannot be; a cache whose record of it is lost finds out by size.
    fs_err::remove_dir_all(cache.path().join("models--owner--model/.no_exist")).unwrap();
    let mut files = checkpoint();
    let config = files
        .iter_mut()
        .find(|served| served.path == "config.json")
        .unwrap();
    config.bytes = b"{}".to_vec();
    server.replace(files);
    assert_eq!(fetch(&hub).await.unwrap().dir, snapshot.dir);
    assert_eq!(read(&snapshot, "config.json"), b"{}");
}

#[tokio::test]
async fn a_cache_that_takes_no_notes_still_serves() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let repo = python_cache(cache.path(), &checkpoint());
    // A file where the folder of notes would be: what a read-only cache does, also to root.
    fs_err::remove_dir_all(repo.join(".no_exist")).unwrap();
    fs_err::write(repo.join(".no_exist"), "").unwrap();
    let hub = server.hub(cache.path());
    assert_eq!(fetch(&hub).await.unwrap().files.len(), 5);
    assert_eq!(fetch(&hub).await.unwrap().files.len(), 5);
    assert_eq!(server.log().len(), 4, "asked anew each time");
}
