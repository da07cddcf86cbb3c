//! The JSON that other programs read: names and kinds of its fields.

use serde_json::Value;

use crate::support::Home;

/// The keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn index_writes_documents_and_done() {
    let home = Home::new();
    fs_err::write(
        home.path("documents/broken.pdf"),
        "%PDF-1.7\nnothing follows",
    )
    .unwrap();
    let said = home.run(["index", "documents", "--json"]).exits(1);
    let mut lines = said.json();
    let done = lines.pop().unwrap();
    assert_eq!(
        keys(&done),
        [
            "documents",
            "event",
            "failed",
            "pages",
            "removed",
            "seconds"
        ]
    );
    assert_eq!(
        (
            &done["event"],
            &done["documents"],
            &done["pages"],
            &done["failed"]
        ),
        (&"done".into(), &5.into(), &8.into(), &1.into())
    );
    assert_eq!(lines.len(), 6);
    for line in &lines {
        assert_eq!(line["event"], "document");
        let failed = line["path"] == "[home]/documents/broken.pdf";
        assert_eq!(line["status"], if failed { "failed" } else { "indexed" });
        assert_eq!(line["error"].is_string(), failed, "{line}");
        assert_eq!(line["pages"] == 0, failed);
    }
    fs_err::remove_file(home.path("documents/report.pdf")).unwrap();
    let lines = home
        .run(["index", "documents/chart.png", "documents", "--json"])
        .exits(1)
        .json();
    let status = |name: &str| {
        lines
            .iter()
            .find(|line| {
                line["path"]
                    .as_str()
                    .is_some_and(|path| path.ends_with(name))
            })
            .unwrap()["status"]
            .clone()
    };
    assert_eq!(status("chart.png"), "unchanged");
    assert_eq!(status("report.pdf"), "removed");

    let lines = home
        .run([
            "index",
            "documents",
            "--json",
            "--verbose",
            "--index",
            "new",
        ])
        .exits(1)
        .json();
    assert_eq!(lines[0]["event"], "found");
    assert_eq!(
        lines.iter().filter(|line| line["event"] == "page").count(),
        6
    );
}

#[test]
fn search_writes_one_object() {
    let home = Home::indexed();
    let said = home
        .run(["search", "total of the invoice", "-k", "2", "--json"])
        .exits(0);
    let found = said.json();
    assert_eq!(found.len(), 1);
    assert_eq!(keys(&found[0]), ["hits", "mode", "query"]);
    assert_eq!(found[0]["mode"], "text");
    let hit = &found[0]["hits"][0];
    for key in ["rank", "score", "document", "page", "regions", "text"] {
        assert!(hit.get(key).is_some(), "{key} is missing in {hit}");
    }
    assert_eq!(
        (&hit["rank"], &hit["page"], &hit["document"]),
        (&1.into(), &1.into(), &"[home]/documents/invoice.pdf".into())
    );
    assert!(hit["score"].as_f64().unwrap() > 0.0 && hit["regions"].is_array());

    let nothing = home.run(["search", "zyzzyva", "--json"]).exits(1).last();
    assert_eq!(nothing["hits"], Value::Array(Vec::new()));
}

#[test]
fn ask_writes_events_until_done() {
    let home = Home::indexed();
    let said = home
        .run([
            "ask",
            "What is the invoice number?",
            "--json",
            "--generator",
            "none",
        ])
        .exits(0);
    let events = said.json();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(names[..2], ["status", "evidence"]);
    assert_eq!(names.last(), Some(&"done"));
    let tokens: String = events
        .iter()
        .filter(|event| event["event"] == "token")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    let done = events.last().unwrap();
    assert_eq!(tokens.trim(), done["answer"].as_str().unwrap());
    let citations: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "citation")
        .collect();
    assert_eq!(citations.len(), done["citations"].as_array().unwrap().len());
    assert_eq!(citations[0]["document"], done["citations"][0]["document"]);
    assert_eq!(keys(&done["citations"][0]), ["document", "page"]);
    assert!(
        done["peak_memory_bytes"].as_u64().is_some()
            && done["timings_ms"]["total"].as_f64().is_some()
    );
    let page = &events[1]["pages"][0];
    for key in ["rank", "document", "page", "score", "regions", "text"] {
        assert!(page.get(key).is_some(), "{key} is missing in {page}");
    }
}

#[test]
fn a_failure_is_the_last_event() {
    let home = Home::new();
    for arguments in [
        vec!["ask", "Why?", "--json"],
        vec!["index", "--json"],
        vec!["generate", "Why?", "--json"],
    ] {
        let said = home.run(&arguments);
        assert_ne!(said.code, 0);
        let last = said.last();
        assert_eq!(last["event"], "failed", "{arguments:?}");
        for key in ["error", "code", "hint"] {
            assert!(
                last[key].as_str().is_some_and(|text| !text.is_empty()),
                "{key} is missing in {last}"
            );
        }
        assert!(
            said.stderr.contains("error: ") && said.stderr.contains("\n\nhint: "),
            "{}",
            said.stderr
        );
    }
}

#[test]
fn the_other_commands_write_one_object() {
    let home = Home::indexed();
    let one = |arguments: &[&str], code: i32| {
        let mut lines = home
            .run([arguments, &["--json"]].concat())
            .exits(code)
            .json();
        assert_eq!(lines.len(), 1, "{arguments:?}");
        lines.pop().unwrap()
    };
    let list = one(&["list"], 0);
    let documents = list["documents"].as_array().unwrap();
    assert_eq!(documents.len(), 5);
    for key in [
        "path",
        "kind",
        "title",
        "pages",
        "size_bytes",
        "content_hash",
        "metadata",
    ] {
        assert!(
            documents[0].get(key).is_some(),
            "{key} is missing in {}",
            documents[0]
        );
    }
    let stats = one(&["stats"], 0);
    assert_eq!(
        (&stats["documents"], &stats["pages"], &stats["rows"]),
        (&5.into(), &8.into(), &0.into())
    );
    assert!(stats["bytes_per_page"].as_f64().unwrap() > 0.0 && stats["peak_memory_bytes"].is_u64());
    assert_eq!(stats["memory"]["peak_bytes"], stats["peak_memory_bytes"]);
    assert!(stats["memory"]["files_bytes"].is_u64() && stats["memory"]["other_bytes"].is_u64());
    assert_eq!(one(&["verify"], 0)["problems"], Value::Array(Vec::new()));
    let removed = one(&["remove", "documents/scan.pdf"], 0);
    assert_eq!(
        (&removed["removed"], &removed["pages"]),
        (&1.into(), &1.into())
    );
    assert!(one(&["compact"], 0)["reclaimed_bytes"].is_u64());
    let doctor = one(&["doctor"], 0);
    assert_eq!(
        (&doctor["index"]["state"], &doctor["hub"]["offline"]),
        (&"present, text only".into(), &true.into())
    );
    assert_eq!(doctor["models"][0]["cached"], false);
    assert!(doctor["limits"]["max_pages"].is_u64());
    assert_eq!(
        one(&["models", "list"], 1)["models"],
        Value::Array(Vec::new())
    );
}
