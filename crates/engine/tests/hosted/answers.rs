//! What is asked, and answers that come.

use std::ops::ControlFlow;

use colibri_engine::{
    generate::{Step, StopReason},
    hosted::HostedConfig,
};
use colibri_models::processor::{Content, Message, Role};
use image::RgbImage;
use serde_json::json;

use crate::server::{Act, Server, end, piece, refusal, response, stream};

fn go_on(_: Step<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn stop_if(stop: bool) -> ControlFlow<()> {
    if stop {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

#[test]
fn an_answer_is_streamed_and_the_request_is_what_services_expect() {
    let body = piece("The ") + ": keep-alive\n\n" + &piece("total") + &end("stop");
    let server = Server::start([Act::Bytes(stream(&body))]);
    let picture = RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8, y as u8, 0]));
    let messages = [
        Message::text(Role::System, "Be brief."),
        Message {
            role: Role::User,
            content: vec![Content::Image, Content::Text("Total?".to_owned())],
        },
    ];
    let outcome = server.ask_with(&server.config(), &messages, &[picture], &go_on);
    let completion = outcome.result.unwrap();
    assert_eq!(completion.text, "The total");
    assert_eq!(outcome.pieces, ["The ", "total"]);
    assert_eq!(completion.stop, StopReason::EndOfTurn);
    assert_eq!((completion.prompt_tokens, completion.new_tokens), (11, 3));

    let asked = &server.asked()[0];
    assert_eq!(asked.path, "/v1/chat/completions");
    assert_eq!(asked.authorization.as_deref(), Some("Bearer sk-secret"));
    let body = &asked.body;
    assert_eq!(body["model"], "some/model");
    assert_eq!(
        (&body["stream"], &body["max_tokens"]),
        (&json!(true), &json!(500))
    );
    assert_eq!(
        body["messages"][0],
        json!({"role": "system", "content": "Be brief."})
    );
    let parts = &body["messages"][1]["content"];
    assert_eq!(parts[1], json!({"type": "text", "text": "Total?"}));
    let url = parts[0]["image_url"]["url"].as_str().unwrap();
    assert!(
        url.starts_with("data:image/png;base64,iVBORw0KGgo"),
        "{url}"
    );
}

#[test]
fn slow_bytes_are_an_answer_too() {
    let body = piece("é") + &piece("…日本") + &end("length");
    let server = Server::start([Act::Trickle(stream(&body))]);
    let completion = server.ask().result.unwrap();
    assert_eq!(completion.text, "é…日本");
    assert_eq!(completion.stop, StopReason::Length);
}

#[test]
fn services_that_do_not_stream_or_tell_little_are_understood() {
    // In one piece.
    let whole = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."},
        "finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}});
    let whole = refusal("200 OK", &[], &whole);
    // No usage, no `[DONE]`, no last blank line.
    let bare = piece("No.")
        + "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}";
    // Only `[DONE]`, no kind of content.
    let done = response("200 OK", &[], &(piece("Done.") + "data: [DONE]\n\n"));
    for (bytes, text, tokens) in [
        (whole, "Yes.", 1),
        (stream(&bare), "No.", 0),
        (done, "Done.", 0),
    ] {
        let server = Server::start([Act::Bytes(bytes)]);
        let completion = server.ask().result.unwrap();
        assert_eq!(
            (completion.text.as_str(), completion.new_tokens),
            (text, tokens)
        );
        assert_eq!(completion.stop, StopReason::EndOfTurn);
    }
}

#[test]
fn a_neighbour_without_a_key_is_sent_none() {
    let server = Server::start([Act::Bytes(stream(&end("stop")))]);
    let config = HostedConfig {
        api_key: None,
        ..server.config()
    };
    let outcome = server.ask_with(&config, &[Message::user(0, "Why?")], &[], &go_on);
    assert_eq!(outcome.text(), "");
    assert_eq!(server.asked()[0].authorization, None);
}

#[test]
fn parameters_a_service_does_not_know_give_way() {
    let unknown = |parameter: &str| {
        let error = json!({"error": {"message": "Unsupported parameter", "param": parameter,
            "code": "unsupported_parameter"}});
        Act::Bytes(refusal("400 Bad Request", &[], &error))
    };
    let server = Server::start([
        unknown("max_tokens"),
        unknown("temperature"),
        unknown("stream_options"),
        Act::Bytes(stream(&(piece("ok") + &end("stop")))),
    ]);
    assert_eq!(server.ask().text(), "ok");
    let last = &server.asked()[3].body;
    assert_eq!(last["max_completion_tokens"], 500);
    for gone in ["max_tokens", "temperature", "stream_options"] {
        assert!(last.get(gone).is_none(), "{last}");
    }
    assert!(server.waits().is_empty());
}

#[test]
fn a_caller_who_stops_keeps_what_was_written() {
    // In the middle of the text.
    let server = Server::start([Act::Bytes(stream(
        &(piece("one") + &piece("two") + &end("stop")),
    ))]);
    let stop = |step: Step<'_>| stop_if(matches!(step, Step::Text(_)));
    let messages = [Message::user(0, "Why?")];
    let outcome = server.ask_with(&server.config(), &messages, &[], &stop);
    let completion = outcome.result.unwrap();
    assert_eq!(completion.stop, StopReason::Cancelled);
    assert_eq!(completion.text, "one");

    // While the server says nothing at all.
    let server = Server::start([
        Act::Bytes(refusal("503 Busy", &[], &json!({}))),
        Act::Bytes(Vec::new()),
    ]);
    let stop = |step: Step<'_>| stop_if(matches!(step, Step::Note(_)));
    let outcome = server.ask_with(&server.config(), &messages, &[], &stop);
    assert_eq!(outcome.result.unwrap().stop, StopReason::Cancelled);
    let stop = |step: Step<'_>| stop_if(matches!(step, Step::Waiting));
    let server = Server::start([Act::Stall(Vec::new())]);
    let outcome = server.ask_with(&server.config(), &messages, &[], &stop);
    assert_eq!(outcome.result.unwrap().stop, StopReason::Cancelled);
}
