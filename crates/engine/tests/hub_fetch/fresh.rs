//! Fetches that go well: which files come, where they lie, what is told.

use colibri_engine::hub::{Bytes, FileSet, Progress};

use crate::server::{Act, COMMIT, NAME, Served, Server, checkpoint, fetch, fetch_told, name, read};

#[tokio::test]
async fn a_fresh_fetch_fills_the_standard_layout() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let snapshot = fetch(&server.hub(cache.path())).await.unwrap();

    let repo = cache.path().join("models--owner--model");
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(snapshot.dir, repo.join("snapshots").join(COMMIT));
    assert_eq!(
        snapshot.files,
        [
            "chat_template.json",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
            "tokenizer.json"
        ]
    );
    for served in checkpoint() {
        if !snapshot.files.contains(&served.path) {
            assert!(
                !snapshot.dir.join(&served.path).exists(),
                "{} came too",
                served.path
            );
            assert!(
                !repo.join("blobs").join(served.blob()).exists(),
                "{} came too",
                served.path
            );
            continue;
        }
        assert_eq!(read(&snapshot, &served.path), served.bytes);
        assert_eq!(
            fs_err::read(repo.join("blobs").join(served.blob())).unwrap(),
            served.bytes
        );
        #[cfg(unix)]
        assert_eq!(
            fs_err::read_link(snapshot.dir.join(&served.path)).unwrap(),
            std::path::Path::new("../../blobs").join(served.blob())
        );
    }
    assert_eq!(
        fs_err::read_to_string(repo.join("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(snapshot.path("README.md"), None);
    // Nothing half-done is left.
    let blobs = fs_err::read_dir(repo.join("blobs")).unwrap().count();
    assert_eq!(blobs, snapshot.files.len());
}

#[tokio::test]
async fn the_second_fetch_costs_one_request_and_a_pinned_commit_none() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    let first = fetch(&hub).await.unwrap();
    server.forget();

    assert_eq!(fetch(&hub).await.unwrap(), first);
    let paths: Vec<String> = server.log().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, [format!("/api/models/{NAME}/revision/main")]);

    server.forget();
    let want = FileSet::checkpoint();
    let pinned = hub
        .snapshot(&name(), Some(COMMIT), &want, &|_| {})
        .await
        .unwrap();
    assert_eq!(pinned, first);
    assert!(server.log().is_empty());
}

#[tokio::test]
async fn a_revision_is_pinned_by_name_or_argument() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    let want = FileSet::settings();

    let name = "owner/model@refs/pr/3".parse().unwrap();
    let snapshot = hub.snapshot(&name, None, &want, &|_| {}).await.unwrap();
    assert_eq!(
        server.log()[0].path,
        "/api/models/owner/model/revision/refs%2Fpr%2F3"
    );
    let reference = cache.path().join("models--owner--model/refs/refs/pr/3");
    assert_eq!(fs_err::read_to_string(reference).unwrap(), COMMIT);
    assert!(!snapshot.files.contains(&"model.safetensors".to_owned()));

    // A commit is not asked for, and makes no reference.
    server.forget();
    let other = tempfile::tempdir().unwrap();
    let hub = server.hub(other.path());
    hub.snapshot(&name, Some(COMMIT), &want, &|_| {})
        .await
        .unwrap();
    assert!(server.asked("/revision/").is_empty());
    assert!(!other.path().join("models--owner--model/refs").exists());
}

#[tokio::test]
async fn events_add_up() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    server.rule("tokenizer.json", 1, Act::Trickle);
    let (result, events) = fetch_told(&server.hub(cache.path())).await;
    let snapshot = result.unwrap();

    let sizes: Vec<u64> = checkpoint()
        .iter()
        .filter(|served| snapshot.files.contains(&served.path))
        .map(|served| served.bytes.len() as u64)
        .collect();
    let total: u64 = sizes.iter().sum();
    assert_eq!(
        events[0],
        Progress::Planned {
            commit: COMMIT.into(),
            files: 5,
            all: Bytes { done: 0, total }
        }
    );
    let mut last = 0;
    let mut finished = 0;
    for event in &events[1..] {
        let (Progress::FileStarted { all, .. }
        | Progress::FileAdvanced { all, .. }
        | Progress::FileFinished { all, .. }) = event
        else {
            panic!("{event:?} in a fetch without trouble")
        };
        assert_eq!(all.total, total);
        assert!(all.done >= last, "{event:?} after {last}");
        last = all.done;
        finished += usize::from(matches!(event, Progress::FileFinished { .. }));
    }
    assert_eq!((last, finished), (total, 5));
    // The weights (a mebibyte) are told in pieces.
    let pieces = events.iter().filter(|event| {
        matches!(event, Progress::FileAdvanced { file, .. } if &**file == "model.safetensors")
    });
    assert!(pieces.count() >= 2);
}

#[tokio::test]
async fn the_index_names_the_shards() {
    let cache = tempfile::tempdir().unwrap();
    let index = r#"{"metadata": {"total_size": 9}, "weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
        "c": "model-00001-of-00002.safetensors"}}"#;
    let server = Server::start(vec![
        Served::small("config.json", "{}"),
        Served::large("model-00001-of-00002.safetensors", 5000),
        Served::large("model-00002-of-00002.safetensors", 6000),
        Served::large("model-00003-of-00002.safetensors", 7000),
        Served::small("model.safetensors.index.json", index),
    ])
    .await;
    let hub = server.hub(cache.path());
    let (result, events) = fetch_told(&hub).await;
    let snapshot = result.unwrap();
    assert_eq!(
        snapshot.files,
        [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json"
        ]
    );
    assert_eq!(hub.cached(&name(), None), Some(snapshot.clone()));
    // The plan is told once, with the shards in it.
    let total = 2 + 5000 + 6000 + index.len() as u64;
    let done = index.len() as u64;
    assert_eq!(
        events[0],
        Progress::Planned {
            commit: COMMIT.into(),
            files: 4,
            all: Bytes { done, total }
        }
    );
    assert_eq!(
        events.last(),
        Some(&Progress::FileFinished {
            file: "model-00002-of-00002.safetensors".into(),
            all: Bytes { done: total, total }
        })
    );
    // And known without asking again, up to the commit.
    server.forget();
    fetch(&hub).await.unwrap();
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn an_adapter_comes_without_a_model() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(vec![
        Served::small("adapter_config.json", "{}"),
        Served::large("adapter_model.safetensors", 3000),
        Served::large("checkpoint-10/adapter_model.safetensors", 3000),
        Served::large("training_args.bin", 30),
    ])
    .await;
    let snapshot = fetch(&server.hub(cache.path())).await.unwrap();
    assert_eq!(
        snapshot.files,
        ["adapter_config.json", "adapter_model.safetensors"]
    );
}

#[tokio::test]
async fn a_list_in_pages_is_read_to_its_end() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    server.page(3);
    let snapshot = fetch(&server.hub(cache.path())).await.unwrap();
    assert_eq!(snapshot.files.len(), 5);
    // Ten entries: the question of the next page is kept, the host of its link is not.
    let pages = server.asked("/tree/");
    let queries: Vec<&str> = pages
        .iter()
        .map(|a| a.path.split_once('?').unwrap().1)
        .collect();
    assert_eq!(
        queries,
        [
            "recursive=true",
            "recursive=true&cursor=3",
            "recursive=true&cursor=6",
            "recursive=true&cursor=9"
        ]
    );
}

#[tokio::test]
async fn two_at_once_write_each_blob_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let (one, two) = (server.hub(cache.path()), server.hub(cache.path()));
    let (one, two) = tokio::join!(fetch(&one), fetch(&two));
    let snapshot = one.unwrap();
    assert_eq!(snapshot, two.unwrap());
    for served in checkpoint()
        .iter()
        .filter(|served| snapshot.files.contains(&served.path))
    {
        assert_eq!(read(&snapshot, &served.path), served.bytes);
        let times = server
            .asked(&format!("/resolve/{COMMIT}/{}", served.path))
            .len();
        // An empty file is made without asking.
        assert_eq!(
            times,
            usize::from(!served.bytes.is_empty()),
            "{}",
            served.path
        );
    }
}

#[tokio::test]
async fn a_new_commit_shares_the_blobs_of_the_old() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    fetch(&hub).await.unwrap();
    // As if `main` had stood elsewhere before.
    let repo = cache.path().join("models--owner--model");
    let old = "f".repeat(40);
    fs_err::rename(
        repo.join("snapshots").join(COMMIT),
        repo.join("snapshots").join(&old),
    )
    .unwrap();
    fs_err::remove_dir_all(repo.join(".no_exist")).unwrap();
    fs_err::write(repo.join("refs/main"), &old).unwrap();
    assert_eq!(hub.cached(&name(), None).unwrap().commit, old);

    server.forget();
    let snapshot = fetch(&hub).await.unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(snapshot.files.len(), 5);
    assert!(server.asked("/resolve/").is_empty());
    assert_eq!(
        fs_err::read_to_string(repo.join("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(hub.cached(&name(), Some(&old)).unwrap().commit, old);
}
