//! Documents in, pages out, documents gone.

use colibri_engine::checkpoints::Choice;
use serde_json::json;

use crate::support::{Site, answer, example, examples};

#[tokio::test]
async fn a_document_comes_is_found_is_seen_and_goes() {
    let site = Site::start().await;
    let (status, empty) = answer(site.get("/api/documents")).await;
    assert_eq!((status, &empty["documents"]), (200, &json!([])));
    let (_, none) = answer(site.post("/api/search", &json!({"query": "total"}))).await;
    assert_eq!(none["hits"], json!([]));

    let job = site.add("../../invoice.pdf", example("invoice.pdf")).await;
    assert_eq!(
        (&job["kind"], &job["documents_done"]),
        (&json!("add"), &json!(1))
    );
    let (_, listed) = answer(site.get("/api/documents")).await;
    let document = &listed["documents"][0];
    assert_eq!(document["name"], "invoice.pdf");
    let path = document["path"].as_str().unwrap();
    assert!(path.contains("/uploads/") && !path.contains(".."), "{path}");

    let body = json!({"query": "total of the invoice", "k": 3});
    let (status, found) = answer(site.post("/api/search", &body)).await;
    assert_eq!(status, 200);
    let hit = &found["hits"][0];
    assert_eq!(
        (&hit["name"], &hit["page"]),
        (&json!("invoice.pdf"), &json!(1))
    );

    let page = hit["page_id"].as_i64().unwrap();
    let (_, info) = answer(site.get(&format!("/api/pages/{page}"))).await;
    assert_eq!(info["number"], 1);
    assert_eq!(info["previous"], json!(null));
    for (ending, kind, magic) in [
        (".png?size=300", "image/png", b"\x89PNG".as_slice()),
        (".webp", "image/webp", b"RIFF"),
        ("/thumbnail.webp", "image/webp", b"RIFF"),
    ] {
        let path = format!("/api/pages/{page}{ending}");
        let response = site.get(&path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], kind);
        let tag = response.headers()["etag"].clone();
        assert!(response.bytes().await.unwrap().starts_with(magic));
        let again = site.get(&path).header("if-none-match", tag).send().await;
        assert_eq!(again.unwrap().status(), 304);
    }

    let id = &document["id"];
    let (status, job) = answer(site.delete(&format!("/api/documents/{id}"))).await;
    assert_eq!(status, 202);
    assert_eq!(site.job(&job).await["state"], "done");
    let (_, listed) = answer(site.get("/api/documents")).await;
    assert_eq!(listed["documents"], json!([]));
    assert!(
        !std::path::Path::new(path).exists(),
        "the upload is removed with it"
    );
    let (status, _) = answer(site.get(&format!("/api/pages/{page}"))).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn jobs_tell_what_they_do_and_can_be_read_again() {
    let site = Site::start().await;
    let (_, job) = site.upload("report.pdf", example("report.pdf")).await;
    let path = format!("/api/jobs/{}/events", job["id"]);
    let events = site.events(site.get(&path)).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["job", "found", "page", "document", "done"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    let last = &events.last().unwrap().1;
    assert_eq!(
        (&last["state"], &last["documents"]),
        (&json!("done"), &json!(1))
    );
    // Who was there until the third event gets the rest.
    let rest = site
        .events(site.get(&path).header("last-event-id", "3"))
        .await;
    assert_eq!(rest, events[3..]);
    let (_, jobs) = answer(site.get("/api/jobs")).await;
    assert_eq!(jobs["jobs"][0]["title"], "report.pdf");
    let (_, again) = site.upload("report.pdf", example("report.pdf")).await;
    assert_eq!(
        site.job(&again).await["pages_done"],
        0,
        "known content is not read again"
    );
}

#[tokio::test]
async fn a_broken_file_fails_alone() {
    let site = Site::start().await;
    let (status, job) = site
        .upload("broken.pdf", b"%PDF-1.7\nnothing".to_vec())
        .await;
    assert_eq!(status, 202);
    let ended = site.job(&job).await;
    assert_eq!(ended["state"], "failed");
    assert!(
        ended["error"].as_str().unwrap().contains("broken.pdf"),
        "{ended}"
    );
    site.add("chart.png", example("chart.png")).await;
}

#[tokio::test]
async fn paths_of_the_server_are_taken_from_its_folders_only() {
    let root = fs_err::canonicalize(examples()).unwrap();
    let site = Site::with(|config| config.roots = vec![root.clone()]).await;
    let body = json!({"paths": [root.join("slides.pdf")], "metadata": {"year": 2026}});
    let (status, job) = answer(site.post("/api/documents/paths", &body)).await;
    assert_eq!(status, 202);
    assert_eq!(site.job(&job).await["state"], "done");
    let listed = answer(site.get("/api/documents?where=year%3E%3D2026"))
        .await
        .1;
    assert_eq!(listed["documents"][0]["name"], "slides.pdf");
    let listed = answer(site.get("/api/documents?where=year%3C2026")).await.1;
    assert_eq!(listed["documents"], json!([]));
    for path in ["/etc/hostname", "/no/such/file", "slides.pdf"] {
        let body = json!({"paths": [path]});
        let (status, told) = answer(site.post("/api/documents/paths", &body)).await;
        assert_eq!(status, 403, "{path}");
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains("--allow-path"), "{message}");
    }
    assert!(root.join("slides.pdf").exists());
}

#[tokio::test]
async fn the_heat_of_each_word_is_told() {
    let site = Site::with(|config| config.models.retriever = Choice::Named("builtin".into())).await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let page = site.first_page("invoice.pdf").await;
    let path = format!("/api/pages/{page}/heatmap?q=total%20amount");
    let (status, map) = answer(site.get(&path)).await;
    assert_eq!(status, 200);
    let boxes = map["boxes"].as_array().unwrap();
    let tokens = map["tokens"].as_array().unwrap();
    assert!(
        !boxes.is_empty() && tokens.len() >= 2,
        "{} tokens",
        tokens.len()
    );
    let words: String = tokens
        .iter()
        .filter_map(|one| one["text"].as_str())
        .collect();
    assert_eq!(words.trim(), "total amount");
    for token in tokens {
        let heat = token["heat"].as_array().unwrap();
        assert_eq!(heat.len(), boxes.len());
        assert_eq!(heat[token["at"].as_u64().unwrap() as usize], 255);
    }
    let (_, found) = answer(site.post("/api/search", &json!({"query": "total"}))).await;
    assert_eq!(found["mode"], "hybrid");
    assert!(!found["hits"][0]["regions"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn the_end_leaves_the_index_whole() {
    let site = Site::start().await;
    for name in [
        "invoice.pdf",
        "report.pdf",
        "slides.pdf",
        "scan.pdf",
        "chart.png",
    ] {
        site.upload(name, example(name)).await;
    }
    // In the midst of it.
    let folder = site.end().await;
    let index = folder.path().join("index");
    if colibri_engine::index::Index::exists(&index) {
        let index = colibri_engine::index::Index::open(&index).unwrap();
        assert!(index.verify().unwrap().is_empty());
    }
}
