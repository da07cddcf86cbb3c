//! Questions: streams, turns, stops, readers that leave and come back.

use std::time::Duration;

use colibri_testkit::random::Role;
use serde_json::{Value, json};

use crate::{
    endless::Endless,
    support::{PATIENCE, Site, answer, at_rest, example, metric, parse_events, tiny},
};

/// A server whose answers do not end unless they are stopped.
async fn writing() -> (Site, Endless) {
    let endless = Endless::start().await;
    let site = Site::with(|config| {
        endless.answer_for(config);
        config.bounds.grace = Duration::ZERO;
        config.bounds.waiting_asks = 3;
    })
    .await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    (site, endless)
}

fn long(question: &str) -> Value {
    json!({"question": question, "max_new_tokens": 4096, "pages": 1})
}

/// Reads a stream until `name` comes; the response goes on.
async fn until(response: &mut reqwest::Response, name: &str) -> Vec<(String, Value)> {
    let mut text = String::new();
    loop {
        let piece = tokio::time::timeout(PATIENCE, response.chunk())
            .await
            .unwrap();
        text.push_str(&String::from_utf8_lossy(&piece.unwrap().unwrap()));
        let events = parse_events(&text);
        if events.iter().any(|(found, _)| found == name) {
            return events;
        }
    }
}

fn id(events: &[(String, Value)]) -> String {
    events[0].1["ask"].as_str().unwrap().to_owned()
}

/// How an answer ended, read from its log.
async fn end_of(site: &Site, id: &str) -> Value {
    let events = site
        .events(site.get(&format!("/api/asks/{id}/events")))
        .await;
    let (name, data) = events.into_iter().next_back().unwrap();
    assert!(name == "done" || name == "failed", "{name}");
    data
}

#[tokio::test]
async fn an_answer_of_quotes_streams_with_its_pages() {
    let site = Site::start().await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let question = "What is the total of the invoice from Osprey Print Works?";
    let request = site.post("/api/ask", &json!({"question": question}));
    let events = site.events(request).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names[0], *names.last().unwrap()), ("status", "done"));
    for name in ["evidence", "token", "citation"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    let find = |name: &str| &events.iter().find(|(found, _)| found == name).unwrap().1;
    let page = site.first_page("invoice.pdf").await;
    assert_eq!(find("evidence")["pages"][0]["page_id"], page);
    assert_eq!(find("citation")["page_id"], page);
    assert_eq!(find("citation")["name"], "invoice.pdf");
    let streamed: String = events
        .iter()
        .filter(|(name, _)| name == "token")
        .filter_map(|(_, data)| data["text"].as_str())
        .collect();
    assert_eq!(find("done")["answer"], streamed.trim_end());

    // The same in one object.
    let request = site.post("/api/ask", &json!({"question": question}));
    let (status, whole) = answer(request.header("accept", "application/json")).await;
    assert_eq!(status, 200);
    assert_eq!(whole["answer"], streamed.trim_end());
    assert_eq!(whole["evidence"][0]["page_id"], page);

    // Who comes back gets what he missed.
    let path = format!("/api/asks/{}/events", id(&events));
    let rest = site
        .events(site.get(&path).header("last-event-id", "2"))
        .await;
    assert_eq!(rest, events[2..]);
}

#[tokio::test]
async fn without_documents_there_is_nothing_to_ask() {
    let site = Site::start().await;
    let events = site
        .events(site.post("/api/ask", &json!({"question": "Who?"})))
        .await;
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["code"]), ("failed", &json!("index")));
    assert_eq!(data["hint"], "add a document first");
    for (body, part) in [
        (json!({"question": "  "}), "empty"),
        (json!({"question": "a", "pages": 0}), "pages"),
        (json!({"question": "a", "temperature": 9}), "temperature"),
        (
            json!({"question": "a", "max_new_tokens": 1_000_000}),
            "tokens",
        ),
        (json!({"question": "a".repeat(9000)}), "characters"),
        (json!({"quest": "a"}), "question"),
    ] {
        let (status, told) = answer(site.post("/api/ask", &body)).await;
        let message = told["error"]["message"].as_str().unwrap();
        assert!(
            status == 400 && message.contains(part),
            "{status} {message}"
        );
    }
}

/// Asks, reads the first word, stops, and sees that the work has ended and the next question is taken.
async fn stop(site: &Site) {
    for number in 1..=2 {
        let mut response = site
            .post("/api/ask", &long("total of the invoice?"))
            .send()
            .await
            .unwrap();
        let events = until(&mut response, "token").await;
        assert_eq!(metric(site, "asks_running").await, 1);
        let path = format!("/api/asks/{}", id(&events));
        assert_eq!(site.delete(&path).send().await.unwrap().status(), 204);
        let done = end_of(site, &id(&events)).await;
        assert_eq!(done["stop"], "cancelled");
        at_rest(site).await;
        assert_eq!(metric(site, "asks_stopped_total").await, number);
    }
}

#[tokio::test]
async fn stop_stops_a_model_of_this_process() {
    let site = Site::with(|config| {
        let folder = config.index.parent().unwrap().to_owned();
        config.models.generator = tiny(&folder, Role::Generator);
    })
    .await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    stop(&site).await;
}

#[tokio::test]
async fn stop_stops_a_model_elsewhere() {
    let (site, endless) = writing().await;
    stop(&site).await;
    endless.left(2).await;
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_work_and_the_next_is_served() {
    let (site, endless) = writing().await;
    let mut left = site
        .post("/api/ask", &long("total of the invoice?"))
        .send()
        .await
        .unwrap();
    let events = until(&mut left, "token").await;
    let mut next = site
        .post("/api/ask", &long("date of the invoice?"))
        .send()
        .await
        .unwrap();
    let waiting = until(&mut next, "status").await;
    drop(left);
    assert_eq!(end_of(&site, &id(&events)).await["stop"], "cancelled");
    until(&mut next, "token").await;
    drop(next);
    assert_eq!(end_of(&site, &id(&waiting)).await["stop"], "cancelled");
    at_rest(&site).await;
    assert_eq!(metric(&site, "asks_stopped_total").await, 2);
    endless.left(2).await;
}

#[tokio::test]
async fn who_waits_is_told_his_place_and_clients_take_turns() {
    let (site, _endless) = writing().await;
    let ask = |client: &'static str| {
        site.post("/api/ask", &long("total of the invoice?"))
            .header("x-client", client)
    };
    let mut running = ask("a").send().await.unwrap();
    let first = until(&mut running, "token").await;
    let mut second_of_a = ask("a").send().await.unwrap();
    let mut third_of_a = ask("a").send().await.unwrap();
    until(&mut second_of_a, "status").await;
    until(&mut third_of_a, "status").await;
    let mut first_of_b = ask("b").send().await.unwrap();
    let place = |events: &[(String, Value)]| {
        events
            .iter()
            .rev()
            .find_map(|(_, data)| data["position"].as_u64())
    };
    let mut told = until(&mut first_of_b, "status").await;
    while place(&told).is_none() {
        told.extend(until(&mut first_of_b, "status").await);
    }
    // Behind the one that runs and one of each line: a's second comes first, then b's first.
    assert_eq!(place(&told), Some(2));
    site.delete(&format!("/api/asks/{}", id(&first)))
        .send()
        .await
        .unwrap();
    until(&mut second_of_a, "token").await;
    drop(second_of_a);
    until(&mut first_of_b, "token").await;
}

#[tokio::test]
async fn too_many_questions_are_refused() {
    let (site, _endless) = writing().await;
    let mut held = Vec::new();
    // One runs, three may wait.
    for name in ["token", "status", "status", "status"] {
        let request = site.post("/api/ask", &long("total of the invoice?"));
        let mut response = request.send().await.unwrap();
        until(&mut response, name).await;
        held.push(response);
    }
    let (status, told) = answer(site.post("/api/ask", &long("invoice 5"))).await;
    assert_eq!((status, &told["error"]["code"]), (503, &json!("busy")));
    drop(held);
    at_rest(&site).await;
}

#[tokio::test]
async fn turns_before_are_part_of_the_question() {
    let site = Site::start().await;
    site.add("report.pdf", example("report.pdf")).await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let turns = json!([{"question": "What is the total of the invoice from Osprey Print Works?", "answer": "$1"}]);
    let body = json!({"question": "And the date?", "history": turns});
    let request = site
        .post("/api/ask", &body)
        .header("accept", "application/json");
    let (_, told) = answer(request).await;
    assert_eq!(told["evidence"][0]["name"], "invoice.pdf");
}

#[tokio::test]
async fn questions_can_be_kept_to_documents() {
    let site = Site::start().await;
    site.add("report.pdf", example("report.pdf")).await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let (_, listed) = answer(site.get("/api/documents")).await;
    let report = listed["documents"].as_array().unwrap();
    let report = report
        .iter()
        .find(|one| one["name"] == "report.pdf")
        .unwrap();
    let body = json!({"query": "total of the invoice", "documents": [report["id"]]});
    let (_, found) = answer(site.post("/api/search", &body)).await;
    let names = found["hits"].as_array().unwrap();
    assert!(names.iter().all(|hit| hit["name"] == "report.pdf"));
    let body = json!({"query": "total", "where": ["name~inv*"]});
    let (_, found) = answer(site.post("/api/search", &body)).await;
    assert_eq!(found["hits"][0]["name"], "invoice.pdf");
    let body = json!({"query": "total", "where": ["=="]});
    assert_eq!(answer(site.post("/api/search", &body)).await.0, 400);
}
