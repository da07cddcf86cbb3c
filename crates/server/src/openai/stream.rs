//! Events of an answer in the forms of that API: chunks, or one object.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};

use super::now;
use crate::{
    Error, Result,
    asks::{Ask, Reader},
    event_log::{Next, follow},
};

/// Comments sent while a question waits or is read.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the answer is to look like.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// The model as the caller called it.
    pub(super) model: String,
    /// Scheme and authority, for the links of citations.
    pub(super) origin: String,
    /// Whether the stream ends with the numbers of tokens.
    pub(super) with_usage: bool,
}

fn finish_reason(done: &Value) -> &'static str {
    if done["stop"] == "length" {
        "length"
    } else {
        "stop"
    }
}

fn usage(done: &Value) -> Value {
    let count = |key: &str| done[key].as_u64().unwrap_or_default();
    let (read, written) = (count("prompt_tokens"), count("new_tokens"));
    json!({"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written})
}

/// Citations as annotations: where the answer names the page, or its end.
fn annotations(done: &Value, origin: &str) -> Vec<Value> {
    let answer = done["answer"].as_str().unwrap_or_default();
    let citations = done["citations"].as_array().into_iter().flatten();
    let annotation = |citation: &Value| {
        let name = citation["name"].as_str().unwrap_or_default();
        let title = format!("{name} p.{}", citation["page"]);
        let characters = |bytes: usize| answer[..bytes].chars().count();
        let (start, end) = match answer.find(&title) {
            Some(at) => (characters(at), characters(at + title.len())),
            None => (characters(answer.len()), characters(answer.len())),
        };
        let url = format!("{origin}/#page={}", citation["page_id"]);
        json!({"type": "url_citation", "url_citation": {
            "start_index": start, "end_index": end, "title": title, "url": url,
        }})
    };
    citations.map(annotation).collect()
}

/// The answer as server-sent chunks that end with `[DONE]`.
pub(super) fn events(
    ask: &Arc<Ask>,
    reader: Reader,
    form: Form,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let id = format!("chatcmpl-{}", ask.id);
    let created = now();
    let chunk = move |model: &str, delta: Value, finish: Option<&str>| {
        json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        })
    };
    let first = chunk(
        &form.model,
        json!({"role": "assistant", "content": ""}),
        None,
    );
    let rest = follow(ask.log.clone(), 0, reader).flat_map(move |next| {
        let Next::Entry(entry) = next else {
            return stream::iter(Vec::new());
        };
        let data: Value = serde_json::from_str(&entry.data).unwrap_or_default();
        let chunks = match entry.name {
            "token" => vec![chunk(&form.model, json!({"content": data["text"]}), None)],
            "done" => {
                let notes = annotations(&data, &form.origin);
                let delta = if notes.is_empty() {
                    json!({})
                } else {
                    json!({"annotations": notes})
                };
                let mut chunks = vec![chunk(&form.model, delta, Some(finish_reason(&data)))];
                if form.with_usage {
                    let mut last = chunk(&form.model, json!({}), None);
                    last["choices"] = json!([]);
                    last["usage"] = usage(&data);
                    chunks.push(last);
                }
                chunks
            }
            "failed" => vec![Error::of_event(&data).body()],
            _ => Vec::new(),
        };
        stream::iter(chunks)
    });
    let chunks = stream::once(async { first }).chain(rest);
    let events = chunks
        .map(|chunk| chunk.to_string())
        .chain(stream::once(async { "[DONE]".to_owned() }))
        .map(|data| Ok(Event::default().data(data)));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// The answer as one object.
pub(super) async fn completion(ask: &Ask, form: &Form) -> Result<Value> {
    let mut after = 0;
    loop {
        let entry = match ask.log.next(after).await {
            Next::Entry(entry) => entry,
            Next::Missed(number) => {
                after += number;
                continue;
            }
            Next::End => return Err(Error::Ending),
        };
        after = entry.number;
        if !matches!(entry.name, "done" | "failed") {
            continue;
        }
        let data: Value = serde_json::from_str(&entry.data).unwrap_or_default();
        if entry.name == "failed" {
            return Err(Error::of_event(&data));
        }
        return Ok(json!({
            "id": format!("chatcmpl-{}", ask.id), "object": "chat.completion", "created": now(),
            "model": form.model, "usage": usage(&data),
            "choices": [{
                "index": 0, "finish_reason": finish_reason(&data),
                "message": {
                    "role": "assistant", "content": data["answer"], "refusal": null,
                    "annotations": annotations(&data, &form.origin),
                },
            }],
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_point_at_the_names_in_the_answer() {
        let done = json!({
            "answer": "“Größe 5” [a.pdf p.2]",
            "citations": [
                {"name": "a.pdf", "page": 2, "page_id": 7},
                {"name": "b.pdf", "page": 1, "page_id": 8},
            ],
        });
        let notes = annotations(&done, "http://localhost:1");
        assert_eq!(
            notes[0]["url_citation"],
            json!({"start_index": 11, "end_index": 20, "title": "a.pdf p.2", "url": "http://localhost:1/#page=7"})
        );
        assert_eq!(notes[1]["url_citation"]["start_index"], 21);
    }
}
