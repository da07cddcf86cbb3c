//! What the hub refuses, what we refuse, and what the error tells to do.

use colibri_engine::hub::{Error, FileSet, Hub, Progress};

use crate::server::{Act, COMMIT, NAME, Served, Server, checkpoint, fetch, fetch_told, name, read};

fn refuse(status: u16, code: &'static str) -> Act {
    let headers = if code.is_empty() {
        vec![]
    } else {
        vec![("X-Error-Code", code.to_owned())]
    };
    Act::Status(status, headers)
}

/// The error of a fetch in which every request for `part` is answered like this.
async fn refused(part: &str, act: Act, token: Option<&str>) -> Error {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    server.rule(part, 100, act);
    let mut config = server.config(cache.path());
    config.token = token.map(str::to_owned);
    let error = fetch(&Hub::new(config)).await.unwrap_err();
    assert_eq!(
        server.asked(part).len(),
        1,
        "a refusal is not asked for again"
    );
    error
}

#[tokio::test]
async fn unauthorized_with_and_without_a_token() {
    let error = refused("/revision/", refuse(401, ""), None).await;
    assert!(
        error.to_string().ends_with("without a token (HTTP 401)"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("set HF_TOKEN"));
    let error = refused("/revision/", refuse(401, ""), Some("hf_old")).await;
    assert!(
        error
            .to_string()
            .ends_with("to the token it was sent (HTTP 401)"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("make a new one"));
    // The hub hides what an anonymous may not see behind a 401 with this code.
    let error = refused("/revision/", refuse(401, "RepoNotFound"), None).await;
    assert!(
        error
            .to_string()
            .ends_with("has no model `owner/model`, or it is private"),
        "{error}"
    );
}

#[tokio::test]
async fn a_gated_model_names_the_page_of_its_licence() {
    for (part, act) in [
        ("/revision/", refuse(403, "GatedRepo")),
        ("/resolve/", refuse(401, "GatedRepo")),
        ("/resolve/", refuse(403, "")),
    ] {
        let error = refused(part, act, None).await;
        assert!(
            error
                .to_string()
                .starts_with("`owner/model` is gated, and no token was sent"),
            "{error}"
        );
        assert_eq!(error.code(), "hub_gated");
        let hint = error.hint().unwrap();
        assert!(
            hint.starts_with("accept the licence at http://127.0.0.1:"),
            "{hint}"
        );
        assert!(hint.contains("/owner/model and set HF_TOKEN"), "{hint}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let error = refused("/revision/", refuse(404, "RepoNotFound"), Some("t")).await;
    assert!(
        error.to_string().ends_with("has no model `owner/model`"),
        "{error}"
    );
    let error = refused("/revision/", refuse(404, ""), None).await;
    assert!(matches!(error, Error::ModelNotFound { .. }), "{error:?}");
    let error = refused("/revision/", refuse(404, "RevisionNotFound"), None).await;
    assert_eq!(
        error.to_string(),
        "the model `owner/model` has no revision `main`"
    );
    let error = refused("/tree/", refuse(404, ""), None).await;
    assert_eq!(
        error.to_string(),
        format!("the model `owner/model` has no revision `{COMMIT}`")
    );
    let error = refused("config.json", refuse(404, "EntryNotFound"), None).await;
    assert_eq!(
        error.to_string(),
        format!("the model `owner/model` at commit `{COMMIT}` has no file `config.json`")
    );
}

#[tokio::test]
async fn no_network_and_no_cache() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let hub = server.hub(cache.path());
    drop(server);
    // The listener goes with its task; until then connections are refused or cut, which is as good.
    let (result, events) = fetch_told(&hub).await;
    let error = result.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("could not be reached while asking for revision `main`"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("colibri models pull"));
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(
        events
            .iter()
            .all(|event| matches!(event, Progress::Retrying { attempts: 4, .. }))
    );
}

#[tokio::test]
async fn a_redirect_to_another_host_loses_the_token() {
    let cache = tempfile::tempdir().unwrap();
    let hub_server = Server::start(checkpoint()).await;
    let content = Server::start(checkpoint()).await;
    let there = format!(
        "http://{}/{NAME}/resolve/{COMMIT}/model.safetensors",
        content.address
    );
    let back = format!(
        "http://{}/{NAME}/resolve/{COMMIT}/tokenizer.json",
        hub_server.address
    );
    let send_to = |target: &str| Act::Status(302, vec![("Location", target.to_owned())]);
    hub_server
        .rule(
            "/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors",
            1,
            send_to(&there),
        )
        // Within the hub: a renamed model. By way of another host and back: the token stays away.
        .rule(
            "config.json",
            1,
            send_to(&format!("/{NAME}/resolve/{COMMIT}/config.json?again")),
        )
        .rule(
            "tokenizer.json",
            1,
            send_to(&format!("http://{}/back", content.address)),
        );
    content.rule("/back", 1, send_to(&back));
    let mut config = hub_server.config(cache.path());
    config.token = Some("hf_secret".into());
    let snapshot = fetch(&Hub::new(config)).await.unwrap();
    assert_eq!(read(&snapshot, "model.safetensors").len(), (1 << 20) + 77);

    let tokens = |server: &Server, part: &str| -> Vec<bool> {
        server
            .asked(part)
            .iter()
            .map(|asked| asked.authorization.is_some())
            .collect()
    };
    assert_eq!(content.log().len(), 2);
    assert!(
        content
            .log()
            .iter()
            .all(|asked| asked.authorization.is_none()),
        "{:?}",
        content.log()
    );
    assert_eq!(tokens(&hub_server, "config.json"), [true, true, true]); // preprocessor_config.json too
    assert_eq!(tokens(&hub_server, "tokenizer.json"), [true, false]);
    assert_eq!(
        hub_server.asked("/api/")[0].authorization.as_deref(),
        Some("Bearer hf_secret")
    );
}

#[tokio::test]
async fn a_refusal_of_another_host_is_not_the_hubs() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(checkpoint()).await;
    let content = Server::start(vec![]).await;
    let there = format!("http://{}/x?signature=secret", content.address);
    server.rule(
        "model.safetensors",
        1,
        Act::Status(307, vec![("Location", there)]),
    );
    content.rule("/x", 1, refuse(403, "GatedRepo"));
    let error = fetch(&server.hub(cache.path())).await.unwrap_err();
    assert!(
        matches!(error, Error::Status { status: 403, .. }),
        "{error:?}"
    );
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn redirects_end() {
    for (target, reason) in [
        (
            "/owner/model/resolve/0123456789abcdef0123456789abcdef01234567/config.json",
            "there are too many",
        ),
        ("ftp://host/x", "it does not lead to a web address"),
        ("http://[", "it names no address"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(checkpoint()).await;
        server.rule(
            "/config.json",
            100,
            Act::Status(302, vec![("Location", target.into())]),
        );
        let error = fetch(&server.hub(cache.path())).await.unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{error:?}");
        assert!(error.to_string().ends_with(reason), "{error}");
        assert!(server.asked("/config.json").len() <= 11);
    }
}

#[tokio::test]
async fn hostile_names_are_refused_and_nothing_is_written_outside() {
    for hostile in [
        "../../evil.json",
        "/etc/evil.json",
        "a/../../evil",
        "..\\evil",
        "a//b",
    ] {
        let cache = tempfile::tempdir().unwrap();
        let mut files = checkpoint();
        files.push(Served::small(hostile, "evil"));
        let server = Server::start(files).await;
        let error = fetch(&server.hub(cache.path())).await.unwrap_err();
        assert!(
            matches!(error, Error::UnsafeFileName { .. }),
            "{hostile}: {error:?}"
        );
        assert!(server.asked("/resolve/").is_empty());
    }
    for shard in [
        "../../../evil.safetensors",
        "/etc/evil.safetensors",
        "evil.bin",
    ] {
        let cache = tempfile::tempdir().unwrap();
        let index = serde_json::json!({ "weight_map": { "a": shard } }).to_string();
        let server = Server::start(vec![
            Served::small("config.json", "{}"),
            Served::small("model.safetensors.index.json", &index),
        ])
        .await;
        let error = fetch(&server.hub(cache.path())).await.unwrap_err();
        assert!(
            matches!(error, Error::UnsafeFileName { .. }),
            "{shard}: {error:?}"
        );
        assert!(server.asked("evil").is_empty());
    }
}

#[tokio::test]
async fn a_shard_that_is_not_listed_is_missing() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Served::small(
        "model.safetensors.index.json",
        r#"{"weight_map": {"a": "model-1.safetensors"}}"#,
    )])
    .await;
    let error = fetch(&server.hub(cache.path())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the index of `owner/model` names the shard `model-1.safetensors`, which the model does not have"
    );
}

#[tokio::test]
async fn pickles_are_never_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(vec![
        Served::small("config.json", "{}"),
        Served::large("pytorch_model.bin", 100),
        Served::large("model.pt", 100),
        Served::small("run.py", "print()"),
    ])
    .await;
    let hub = server.hub(cache.path());
    let error = fetch(&hub).await.unwrap_err();
    assert!(
        matches!(&error, Error::OnlyPickles { files, .. } if files.len() == 2),
        "{error:?}"
    );
    assert!(server.asked("/resolve/").is_empty());
    let settings = hub
        .snapshot(&name(), None, &FileSet::settings(), &|_| {})
        .await
        .unwrap();
    assert_eq!(settings.files, ["config.json"]);
}

#[tokio::test]
async fn answers_that_are_none_are_told() {
    let body = |text: &str| Act::Body(text.to_owned());
    let error = refused("/revision/", body("<html>"), None).await;
    assert_eq!(error.code(), "hub_answer");
    let error = refused("/revision/", body(r#"{"sha": "../../../../etc"}"#), None).await;
    assert!(matches!(error, Error::AnswerField { .. }), "{error:?}");
    let error = refused(
        "/tree/",
        body(r#"[{"type": "file", "path": "config.json", "size": 1}]"#),
        None,
    )
    .await;
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");
    let odd = r#"[{"type": "file", "path": "config.json", "size": 1, "oid": "../../x"}]"#;
    let error = refused("/tree/", body(odd), None).await;
    assert_eq!(
        error.to_string(),
        "the answer for the file list of `owner/model` names `../../x` where a checksum in \
         hexadecimal digits belongs"
    );
    let error = refused("/tree/", body(&" ".repeat((32 << 20) + 1)), None).await;
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}
