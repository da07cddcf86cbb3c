//! The OpenAPI document says what the server answers, and the app's files are there.

use serde_json::{Value, json};

use crate::support::{Site, answer};

#[tokio::test]
async fn every_documented_path_is_answered() {
    let site = Site::start().await;
    let (status, document) = answer(site.get("/api/openapi.json")).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let mut documented = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            documented.push(format!("{} {path}", method.to_uppercase()));
            // An empty call may be refused for what it lacks, never for where it goes.
            let real = path
                .replace("{id}", "1")
                .replace("{page}", "1")
                .replace("{name}", "colibri");
            let call = format!("{} {real}", method.to_uppercase());
            let status = site
                .raw_status(
                    &call,
                    &[&format!("Host: {}", site.address), "Content-Length: 0"],
                )
                .await;
            assert_ne!(status, "405", "{call}");
            assert_ne!(status, "500", "{call}");
        }
    }
    // What the routes have and the document has not would show in their source.
    let routes = include_str!("../../src/routes.rs");
    let known = routes.matches(".route(").count();
    // The three of the app's own files are not part of the API.
    assert_eq!(document["paths"].as_object().unwrap().len() + 3, known);
    assert!(documented.len() >= known - 3);
    for reference in references(&document) {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match value {
                Value::String(text) if key == "$ref" => vec![text.clone()],
                other => references(other),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_app_is_there_and_loads_nothing_from_elsewhere() {
    let site = Site::start().await;
    let page = site.get("/").send().await.unwrap().text().await.unwrap();
    for part in ["src=\"http", "href=\"http", "<style", "style=", "onclick="] {
        assert!(!page.contains(part), "{part}");
    }
    let mut waiting: Vec<String> = page
        .split('"')
        .filter(|part| part.starts_with("/assets/"))
        .map(str::to_owned)
        .collect();
    let mut seen = Vec::new();
    while let Some(path) = waiting.pop() {
        if seen.contains(&path) {
            continue;
        }
        let response = site.get(&path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let text = response.text().await.unwrap();
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!text.contains(sink), "{sink} in {path}");
        }
        let imports = text
            .split('"')
            .filter(|part| part.starts_with("./") && path.ends_with(".js"));
        waiting.extend(imports.map(|part| format!("/assets/{}", &part[2..])));
        seen.push(path);
    }
    assert!(seen.len() >= 10, "{seen:?}");
}

#[tokio::test]
async fn metrics_and_activity_are_told() {
    let site = Site::start().await;
    answer(site.post("/api/search", &json!({"query": "a"}))).await;
    let (status, text) = answer(site.get("/metrics")).await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(
            name.starts_with("colibri_") && value.parse::<f64>().is_ok(),
            "{line}"
        );
    }
    let (_, health) = answer(site.get("/api/health")).await;
    for part in [
        "resident_bytes",
        "peak_bytes",
        "weights_bytes",
        "prefix_bytes",
        "other_bytes",
    ] {
        assert!(health["memory"][part].is_u64(), "{part}: {health}");
    }
    assert!(health["memory"]["peak_bytes"].as_u64().unwrap() > 0);
}
