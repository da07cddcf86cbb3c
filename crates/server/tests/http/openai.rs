//! The API that OpenAI's clients speak.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colibri_engine::checkpoints::Choice;
use colibri_testkit::random::Role;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Site, answer, example, tiny};

const QUESTION: &str = "What is the total of the invoice from Osprey Print Works?";

fn body(model: &str, content: &Value) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": content}], "unknown": {"field": 1}})
}

/// The chunks of a stream, `[DONE]` left out.
async fn chunks(site: &Site, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let request = site.post("/v1/chat/completions", &body).timeout(PATIENCE);
    let text = request.send().await.unwrap().text().await.unwrap();
    let mut data: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    assert_eq!(data.pop(), Some("[DONE]"));
    data.into_iter()
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn the_documents_answer_with_annotations() {
    let site = Site::start().await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let (status, whole) =
        answer(site.post("/v1/chat/completions", &body("colibri", &json!(QUESTION)))).await;
    assert_eq!(status, 200);
    let message = &whole["choices"][0]["message"];
    let citation = &message["annotations"][0]["url_citation"];
    let page = site.first_page("invoice.pdf").await;
    assert_eq!(citation["title"], "invoice.pdf p.1");
    assert_eq!(citation["url"], site.url(&format!("/#page={page}")));
    let text: Vec<char> = message["content"].as_str().unwrap().chars().collect();
    let place = |key: &str| citation[key].as_u64().unwrap() as usize;
    let marked: String = text[place("start_index")..place("end_index")]
        .iter()
        .collect();
    assert_eq!(marked, "invoice.pdf p.1");

    let mut asked = body("colibri", &json!([{"type": "text", "text": QUESTION}]));
    asked["stream_options"] = json!({"include_usage": true});
    let chunks = chunks(&site, asked).await;
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let streamed: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(streamed.trim_end(), message["content"].as_str().unwrap());
    let last = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!(last["finish_reason"], "stop");
    assert_eq!(last["delta"]["annotations"], message["annotations"]);
    assert_eq!(chunks.last().unwrap()["choices"], json!([]));
    assert!(chunks.last().unwrap()["usage"]["total_tokens"].is_u64());
}

#[tokio::test]
async fn pictures_go_to_the_generator() {
    let mut name = String::new();
    let site = Site::with(|config| {
        let folder = config.index.parent().unwrap().to_owned();
        config.models.generator = tiny(&folder, Role::Generator);
        if let Choice::Named(folder) = &config.models.generator {
            name.clone_from(folder);
        }
    })
    .await;
    let url = format!(
        "data:image/png;base64,{}",
        STANDARD.encode(example("chart.png"))
    );
    let content = json!([
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What is this?"},
    ]);
    let short = name.rsplit('/').next().unwrap().to_owned();
    for model in [name.as_str(), &short, "colibri"] {
        let mut asked = body(model, &content);
        asked["max_tokens"] = json!(5);
        let (status, whole) = answer(site.post("/v1/chat/completions", &asked)).await;
        assert_eq!(status, 200, "{whole}");
        assert_eq!(whole["usage"]["completion_tokens"], 5);
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
        assert!(whole["usage"]["prompt_tokens"].as_u64().unwrap() > 10);
    }
    let (_, models) = answer(site.get("/v1/models")).await;
    assert_eq!(models["data"][0]["id"], "colibri");
    assert_eq!(models["data"][1]["id"], name);
    for (content, part) in [
        (
            json!([{"type": "image_url", "image_url": {"url": "https://evil.example/a.png"}}]),
            "data URL",
        ),
        (
            json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}]),
            "base64",
        ),
        (
            json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]),
            "picture",
        ),
        (json!([{"type": "audio"}]), "audio"),
    ] {
        let (status, told) =
            answer(site.post("/v1/chat/completions", &body(&name, &content))).await;
        let message = told["error"]["message"].as_str().unwrap();
        assert!(
            (400..500).contains(&status) && message.contains(part),
            "{status} {message}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_said_in_their_form() {
    let site = Site::start().await;
    let (status, told) =
        answer(site.post("/v1/chat/completions", &body("gpt-4o", &json!("hi")))).await;
    assert_eq!((status, &told["error"]["code"]), (404, &json!("not_found")));
    let mut asked = body("colibri", &json!("hi"));
    asked["messages"] = json!([]);
    assert_eq!(
        answer(site.post("/v1/chat/completions", &asked)).await.0,
        400
    );
    let asked = json!({"model": "colibri", "messages": [{"role": "wizard", "content": "hi"}]});
    assert_eq!(
        answer(site.post("/v1/chat/completions", &asked)).await.0,
        400
    );
    let (status, told) = answer(site.post("/v1/embeddings", &json!({"input": "hi"}))).await;
    assert_eq!(
        (status, &told["error"]["code"]),
        (409, &json!("no_retriever"))
    );
    // Without a generator nobody looks at pictures.
    let url = format!(
        "data:image/png;base64,{}",
        STANDARD.encode(example("chart.png"))
    );
    let picture = json!([{"type": "image_url", "image_url": {"url": url}}]);
    let asked = body("colibri", &picture);
    let (status, told) = answer(site.post("/v1/chat/completions", &asked)).await;
    assert_eq!(
        (status, &told["error"]["code"]),
        (409, &json!("no_generator"))
    );
    // An answer that fails ends its stream with the reason.
    let chunks = chunks(&site, body("colibri", &json!(QUESTION))).await;
    assert!(
        chunks.last().unwrap()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no index")
    );
}

#[tokio::test]
async fn rows_are_given_and_compared() {
    let site = Site::with(|config| config.models.retriever = Choice::Named("builtin".into())).await;
    let (status, told) =
        answer(site.post("/v1/chat/completions", &body("builtin", &json!("hi")))).await;
    let message = told["error"]["message"].as_str().unwrap();
    assert_eq!(
        (status, message),
        (
            404,
            "there is no conversation with `builtin`: it finds pages (`/v1/embeddings`, `/v1/rerank`); \
             `colibri` answers from the documents"
        )
    );
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let asked = json!({"input": ["total", {"text": "total"}]});
    let (status, told) = answer(site.post("/v1/embeddings", &asked)).await;
    assert_eq!(status, 200, "{told}");
    let rows = told["data"][0]["embedding"].as_array().unwrap();
    assert_eq!(told["data"][0]["shape"], json!([rows.len(), 128]));
    assert_eq!(told["data"][0]["embedding"], told["data"][1]["embedding"]);
    let length: f64 = rows[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap().powi(2))
        .sum();
    assert!((length - 1.0).abs() < 1e-3, "{length}");
    let asked = json!({"input": "total", "encoding_format": "base64"});
    let (_, packed) = answer(site.post("/v1/embeddings", &asked)).await;
    let bytes = STANDARD
        .decode(packed["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    assert_eq!(bytes.len(), rows.len() * 128 * 4);
    let first = f32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert!((f64::from(first) - rows[0][0].as_f64().unwrap()).abs() < 1e-6);

    let page = site.first_page("invoice.pdf").await;
    let asked = json!({"query": "total amount", "documents": [{"page_id": page}, "total amount", "winter"], "top_n": 2});
    let (status, ranked) = answer(site.post("/v1/rerank", &asked)).await;
    assert_eq!(status, 200, "{ranked}");
    let results = ranked["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    // The same words have the same rows.
    assert_eq!(results[0]["index"], 1);
    assert!((results[0]["relevance_score"].as_f64().unwrap() - 1.0).abs() < 1e-3);
}
