//! Transfers that go wrong: cut, resumed, lied to.

use std::path::PathBuf;
use std::time::Duration;

use colibri_engine::hub::{Error, Progress};

use crate::server::{Act, COMMIT, Served, Server, checkpoint, fetch, fetch_told, read};

const WEIGHTS: &str = "model.safetensors";

fn weights() -> Served {
    checkpoint()
        .into_iter()
        .find(|served| served.path == WEIGHTS)
        .unwrap()
}

fn incomplete(cache: &tempfile::TempDir) -> PathBuf {
    let blobs = cache.path().join("models--owner--model/blobs");
    blobs.join(format!("{}.incomplete", weights().blob()))
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server
        .asked(WEIGHTS)
        .into_iter()
        .map(|asked| asked.range)
        .collect()
}

fn retries(events: &[Progress]) -> usize {
    events
        .iter()
        .filter(|event| matches!(event, Progress::Retrying { .. }))
        .count()
}

/// A cache in which an earlier run left `bytes` of the weights.
fn begun(bytes: &[u8]) -> tempfile::TempDir {
    let cache = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(incomplete(&cache).parent().unwrap()).unwrap();
    fs_err::write(incomplete(&cache), bytes).unwrap();
    cache
}

#[tokio::test]
async fn a_cut_connection_goes_on_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    server
        .rule(WEIGHTS, 1, Act::CutAfter(100_000))
        .rule(WEIGHTS, 1, Act::CutAfter(1000));
    let (result, events) = fetch_told(&server.hub(cache.path())).await;
    assert_eq!(read(&result.unwrap(), WEIGHTS), weights().bytes);
    let expected = [
        None,
        Some("bytes=100000-".into()),
        Some("bytes=101000-".into()),
    ];
    assert_eq!(ranges(&server), expected);
    assert_eq!(retries(&events), 2);
}

#[tokio::test]
async fn a_body_that_ends_early_without_a_length_counts_as_cut() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    server.rule(WEIGHTS, 1, Act::ShorterByBody(5000));
    assert_eq!(
        read(&fetch(&server.hub(cache.path())).await.unwrap(), WEIGHTS),
        weights().bytes
    );
    assert_eq!(ranges(&server), [None, Some("bytes=5000-".into())]);
}

#[tokio::test]
async fn what_arrived_before_giving_up_is_kept_for_the_next_run() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    server.rule(WEIGHTS, 4, Act::CutAfter(1000));
    let error = fetch(&hub).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the connection was cut after 4000 of 1048653 bytes of `model.safetensors` (4 attempts)"
    );
    assert_eq!(error.code(), "hub_cut_connection");
    assert!(error.hint().unwrap().contains("goes on where it stopped"));
    assert_eq!(
        fs_err::read(incomplete(&cache)).unwrap(),
        weights().bytes[..4000]
    );
    // Not before it is all there.
    assert!(!cache.path().join("models--owner--model/refs").exists());
    assert_eq!(hub.cached(&crate::server::name(), None), None);

    server.forget();
    assert_eq!(read(&fetch(&hub).await.unwrap(), WEIGHTS), weights().bytes);
    assert_eq!(ranges(&server), [Some("bytes=4000-".into())]);
    assert!(!incomplete(&cache).exists());
}

#[tokio::test]
async fn a_connection_that_advances_is_not_given_up() {
    let cache = tempfile::tempdir().unwrap();
    let large = Served::large(WEIGHTS, 8 << 20);
    let server = Server::start(vec![Served::small("config.json", "{}"), large.clone()]).await;
    // More cuts than attempts, each after more than a mebibyte.
    server.rule(WEIGHTS, 6, Act::CutAfter((1 << 20) + 4096));
    assert_eq!(
        read(&fetch(&server.hub(cache.path())).await.unwrap(), WEIGHTS),
        large.bytes
    );
    assert_eq!(ranges(&server).len(), 7);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_starts_again() {
    let cache = begun(&weights().bytes[..70_000]);
    let server = Server::start(checkpoint()).await;
    server.rule(WEIGHTS, 1, Act::IgnoreRange);
    assert_eq!(
        read(&fetch(&server.hub(cache.path())).await.unwrap(), WEIGHTS),
        weights().bytes
    );
    assert_eq!(ranges(&server), [Some("bytes=70000-".into())]);
}

#[tokio::test]
async fn another_range_or_none_starts_again() {
    for act in [Act::OtherRange, Act::Status(416, vec![])] {
        let cache = begun(&weights().bytes[..70_000]);
        let server = Server::start(checkpoint()).await;
        server.rule(WEIGHTS, 1, act);
        assert_eq!(
            read(&fetch(&server.hub(cache.path())).await.unwrap(), WEIGHTS),
            weights().bytes
        );
        assert_eq!(ranges(&server), [Some("bytes=70000-".into()), None]);
    }
}

#[tokio::test]
async fn a_whole_file_left_behind_is_checked_and_used() {
    let cache = begun(&weights().bytes);
    let server = Server::start(checkpoint()).await;
    assert_eq!(
        read(&fetch(&server.hub(cache.path())).await.unwrap(), WEIGHTS),
        weights().bytes
    );
    assert!(ranges(&server).is_empty());
}

#[tokio::test]
async fn a_beginning_of_something_else_is_thrown_away() {
    let other = vec![9; 300_000];
    let longer = vec![9; weights().bytes.len() + 1];
    for (left_behind, expected) in [
        (other, vec![Some("bytes=300000-".to_owned()), None]),
        (longer, vec![None]),
    ] {
        let cache = begun(&left_behind);
        let server = Server::start(checkpoint()).await;
        assert_eq!(
            read(&fetch(&server.hub(cache.path())).await.unwrap(), WEIGHTS),
            weights().bytes
        );
        assert_eq!(ranges(&server), expected);
    }
}

#[tokio::test]
async fn wrong_bytes_are_deleted_and_told() {
    for (file, algorithm) in [(WEIGHTS, "SHA-256"), ("config.json", "git SHA-1")] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(checkpoint()).await;
        server.rule(file, 1, Act::Corrupt);
        let hub = server.hub(cache.path());
        let error = fetch(&hub).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("`{file}` arrived with the wrong {algorithm}")),
            "{text}"
        );
        assert_eq!(error.code(), "hub_wrong_checksum");
        let blobs = cache.path().join("models--owner--model/blobs");
        for entry in fs_err::read_dir(blobs).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.ends_with(".incomplete"), "{name} was left");
        }
        fetch(&hub).await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_length_is_an_error_and_nothing_is_kept() {
    for act in [Act::LongerByHeader, Act::LongerByBody] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(checkpoint()).await;
        server.rule(WEIGHTS, 1, act);
        let hub = server.hub(cache.path());
        let error = fetch(&hub).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "`model.safetensors` has 1048654 bytes on the server, 1048653 in the model's file list"
        );
        assert_eq!(fs_err::metadata(incomplete(&cache)).unwrap().len(), 0);
        assert_eq!(read(&fetch(&hub).await.unwrap(), WEIGHTS), weights().bytes);
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_given_up_in_the_end() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let busy = |status| Act::Status(status, vec![("Retry-After", "0".into())]);
    server
        .rule("/revision/", 1, busy(503))
        .rule("/tree/", 1, busy(429))
        .rule(WEIGHTS, 3, busy(502));
    let (result, events) = fetch_told(&server.hub(cache.path())).await;
    result.unwrap();
    assert_eq!(retries(&events), 5);

    let cache = tempfile::tempdir().unwrap();
    server.rule(WEIGHTS, 4, busy(500));
    let error = fetch(&server.hub(cache.path())).await.unwrap_err();
    assert!(
        matches!(error, Error::Status { status: 500, .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("answered HTTP 500 when asked for `model.safetensors`")
    );
}

#[tokio::test]
async fn a_cut_file_list_is_asked_for_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    server
        .rule("/revision/", 1, Act::CutAfter(0))
        .rule("/tree/", 2, Act::CutAfter(0));
    fetch(&server.hub(cache.path())).await.unwrap();
    assert_eq!(
        (
            server.asked("/revision/").len(),
            server.asked("/tree/").len()
        ),
        (2, 3)
    );
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    server
        .rule(WEIGHTS, 1, Act::Stall)
        .rule("/tree/", 1, Act::Mute);
    let mut config = server.config(cache.path());
    // Long enough for any answer on a busy machine to have many chances.
    config.timeouts.idle = Duration::from_millis(300);
    config.retry.attempts = 50;
    let hub = colibri_engine::hub::Hub::new(config);
    assert_eq!(read(&fetch(&hub).await.unwrap(), WEIGHTS), weights().bytes);
    assert!(server.asked(WEIGHTS).len() >= 2);
    assert!(server.asked("/tree/").len() >= 2);
}

#[tokio::test]
async fn a_fetch_that_is_dropped_lets_go_of_its_lock() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    server.rule(WEIGHTS, 1, Act::Stall);
    let hub = server.hub(cache.path());
    let first = tokio::spawn({
        let hub = hub.clone();
        async move { fetch(&hub).await }
    });
    while server.asked(WEIGHTS).is_empty() {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    fetch(&hub).await.unwrap();
}

/// `/dev/full` takes no byte: what a full disk does, without filling one.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_told_as_such() {
    let cache = begun(b"");
    fs_err::remove_file(incomplete(&cache)).unwrap();
    fs_err::os::unix::fs::symlink("/dev/full", incomplete(&cache)).unwrap();
    let server = Server::start(checkpoint()).await;
    let error = fetch(&server.hub(cache.path())).await.unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with("no space left on the disk for `"),
        "{error}"
    );
    // No retry helps against that.
    assert_eq!(
        server.asked(&format!("/resolve/{COMMIT}/{WEIGHTS}")).len(),
        1
    );
}
