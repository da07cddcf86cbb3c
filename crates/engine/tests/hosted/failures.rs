//! Services that refuse, are busy, break off, are silent, or talk nonsense.

use std::{ops::ControlFlow, time::Duration};

use colibri_engine::{
    generate::Step,
    hosted::{Error as HostedError, Hosted, HostedConfig},
};
use colibri_models::processor::Message;
use serde_json::json;

use crate::server::{Act, Server, end, piece, refusal, response, stream};

fn good() -> Act {
    Act::Bytes(stream(&(piece("fine") + &end("stop"))))
}

fn seconds(spans: &[Duration]) -> Vec<f64> {
    spans.iter().map(Duration::as_secs_f64).collect()
}

#[test]
fn a_wrong_key_is_told_and_never_repeated() {
    let body = json!({"error": {"message": "Incorrect API key provided: sk-secret.",
        "type": "invalid_request_error", "code": "invalid_api_key"}});
    let server = Server::start([Act::Bytes(refusal("401 Unauthorized", &[], &body))]);
    let outcome = server.ask();
    let error = outcome.error();
    assert!(
        error.contains("refused the key in OPENAI_API_KEY: Incorrect API key provided: (hidden)."),
        "{error}"
    );
    assert!(error.contains("hint: check OPENAI_API_KEY"), "{error}");
    assert!(!error.contains("sk-secret") && !format!("{:?}", outcome.result).contains("sk-secret"));
    assert_eq!(outcome.code(), "hosted_unauthorized");
    assert_eq!(server.asked().len(), 1);

    let server = Server::start([Act::Bytes(refusal("401 Unauthorized", &[], &json!({})))]);
    let config = HostedConfig {
        api_key: None,
        ..server.config()
    };
    let go_on = |_: Step<'_>| ControlFlow::Continue(());
    let error = server
        .ask_with(&config, &[Message::user(0, "Why?")], &[], &go_on)
        .error();
    assert!(
        error.contains("an answer without a key") && error.ends_with("hint: set OPENAI_API_KEY"),
        "{error}"
    );
}

#[test]
fn a_model_that_is_not_there_is_told() {
    let body = json!({"error": "model 'some/model' not found"});
    let server = Server::start([Act::Bytes(refusal("404 Not Found", &[], &body))]);
    let outcome = server.ask();
    assert_eq!(outcome.code(), "hosted_not_found");
    assert!(
        outcome.error().contains("no model `some/model`"),
        "{}",
        outcome.error()
    );
}

#[test]
fn a_busy_service_is_given_the_time_it_asks_for() {
    let busy = |headers: &[(&str, &str)]| {
        Act::Bytes(refusal(
            "429 Too Many Requests",
            headers,
            &json!({"error": {"message": "slow down"}}),
        ))
    };
    let server = Server::start([busy(&[("retry-after", "7")]), busy(&[]), good()]);
    let outcome = server.ask();
    assert_eq!(outcome.text(), "fine");
    // What it asks for, then twice the first wait.
    assert_eq!(seconds(&server.waits()), [7.0, 2.0]);
    assert!(
        outcome.notes[0].contains("(429): slow down; trying again in 7 s"),
        "{:?}",
        outcome.notes
    );

    // Longer than anybody waits: told at once.
    let server = Server::start([busy(&[("retry-after", "3600")])]);
    let outcome = server.ask();
    assert_eq!((outcome.code(), server.asked().len()), ("hosted_busy", 1));

    // Waiting does not fill an empty account.
    let quota = json!({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}});
    let server = Server::start([Act::Bytes(refusal("429 Too Many Requests", &[], &quota))]);
    let outcome = server.ask();
    assert_eq!(server.asked().len(), 1);
    assert!(
        outcome
            .error()
            .contains("exceeded your current quota\nhint: see to your account"),
        "{}",
        outcome.error()
    );
}

#[test]
fn a_broken_service_is_tried_four_times() {
    let broken = || {
        Act::Bytes(response(
            "500 Internal Server Error",
            &[],
            "<html>oops</html>",
        ))
    };
    let server = Server::start([broken(), broken(), broken(), good()]);
    assert_eq!(server.ask().text(), "fine");
    assert_eq!(seconds(&server.waits()), [1.0, 2.0, 4.0]);
    let server = Server::start([broken(), broken(), broken(), broken()]);
    let outcome = server.ask();
    assert!(
        outcome
            .error()
            .contains("cannot answer now (500)\nhint: try again later"),
        "{}",
        outcome.error()
    );
    assert_eq!((outcome.notes.len(), server.asked().len()), (3, 4));
}

#[test]
fn a_cut_connection_is_tried_again_unless_words_were_seen() {
    // Before a word: no answer at all, half a header, a stream without an end.
    let server = Server::start([
        Act::Bytes(Vec::new()),
        Act::Bytes(b"HTTP/1.1 200 O".to_vec()),
        Act::Bytes(stream("data: {\"choices\":[]}\n\n")),
        good(),
    ]);
    assert_eq!(server.ask().text(), "fine");
    assert_eq!(server.asked().len(), 4);

    let cut = |head: &str| {
        let text = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{head}\r\n");
        Act::Bytes([text.into_bytes(), piece("half an").into_bytes()].concat())
    };
    for head in ["connection: close\r\n", "content-length: 100000\r\n"] {
        let server = Server::start([cut(head), good()]);
        let outcome = server.ask();
        assert_eq!(outcome.code(), "hosted_cut", "{head}");
        assert_eq!(outcome.pieces, ["half an"]);
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn a_silent_service_is_given_up() {
    for beginning in [Vec::new(), stream(""), stream(&piece("and then"))] {
        let server = Server::start([Act::Stall(beginning)]);
        let outcome = server.ask();
        assert_eq!(outcome.code(), "hosted_timeout");
        let error = outcome.error();
        assert!(
            error.contains("has said nothing for 300 s\nhint: give it longer with OPENAI_TIMEOUT"),
            "{error}"
        );
    }
    // All is said, only the costs are missing.
    let said = piece("all")
        + "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let server = Server::start([Act::StallAfterText(stream(&said))]);
    assert_eq!(server.ask().text(), "all");
}

#[test]
fn an_answer_without_an_end_is_given_up() {
    let server = Server::start([Act::Bytes(stream(&piece("x").repeat(100)))]);
    server.end_whole();
    let outcome = server.ask();
    assert!(
        matches!(outcome.code(), "hosted_timeout" | "hosted_cut"),
        "{}",
        outcome.error()
    );
    let large = piece(&"x".repeat(1 << 20)).repeat(9);
    let server = Server::start([Act::Bytes(stream(&large))]);
    assert!(server.ask().error().contains("more than 8388608 bytes"));
}

#[test]
fn nonsense_is_told_with_a_hint_at_the_address() {
    let html = response("200 OK", &[("content-type", "text/html")], "<html></html>");
    let cases = [
        (html, "it is of type `text/html`"),
        (stream("data: {not json\n\n"), "in `{not json`"),
        (stream("<html>\n</html>\n"), "it holds no event"),
        (stream("data: \u{0}\u{7}\n\n"), "in ``"),
        (
            [stream("data: "), vec![0xff, b'\n', b'\n']].concat(),
            "it is not UTF-8",
        ),
        (
            refusal("200 OK", &[], &json!([1, 2])),
            "cannot be understood",
        ),
    ];
    for (bytes, expected) in cases {
        let server = Server::start([Act::Bytes(bytes)]);
        let outcome = server.ask();
        let error = outcome.error();
        assert!(
            error.contains(expected) && error.contains("hint: set OPENAI_BASE_URL"),
            "{error}"
        );
        assert_eq!(outcome.code(), "hosted_garbage");
    }
}

#[test]
fn a_failure_in_the_middle_and_a_filter_are_told() {
    let failed = piece("I ") + "data: {\"error\": {\"message\": \"CUDA out of memory\"}}\n\n";
    let server = Server::start([Act::Bytes(stream(&failed))]);
    let outcome = server.ask();
    assert!(
        outcome
            .error()
            .contains("gave up in the middle of the answer: CUDA out of memory")
    );
    assert_eq!(outcome.code(), "hosted_gave_up");
    let server = Server::start([Act::Bytes(stream(&(piece("I ") + &end("content_filter"))))]);
    assert_eq!(server.ask().code(), "hosted_filtered");
    let server = Server::start([Act::Bytes(response(
        "302 Found",
        &[("location", "http://127.0.0.1:1/")],
        "",
    ))]);
    assert_eq!(server.ask().code(), "hosted_redirect");
    let long =
        json!({"error": {"message": "maximum context length is 8192 tokens", "param": "messages"}});
    let server = Server::start([Act::Bytes(refusal("400 Bad Request", &[], &long))]);
    let outcome = server.ask();
    assert!(
        outcome
            .error()
            .contains("refused the request (400): maximum context length"),
        "{}",
        outcome.error()
    );
}

#[test]
fn nobody_at_the_address_is_told_after_four_attempts() {
    let server = Server::start([]);
    let config = HostedConfig {
        // Reserved, and nobody listens there.
        base_url: "http://127.0.0.1:1/v1".to_owned(),
        ..server.config()
    };
    let go_on = |_: Step<'_>| ControlFlow::Continue(());
    let outcome = server.ask_with(&config, &[Message::user(0, "Why?")], &[], &go_on);
    assert_eq!(outcome.code(), "hosted_unreachable");
    assert_eq!(outcome.notes.len(), 3);
}

#[test]
fn what_cannot_be_asked_is_told_before_anything_is_sent() {
    let with = |model: &str, base: &str, key: &str| {
        let config = HostedConfig {
            base_url: base.to_owned(),
            api_key: Some(key.to_owned()),
            ..HostedConfig::default()
        };
        Hosted::new(model, config, None)
    };
    assert!(matches!(
        with(" ", "http://h/v1", "k"),
        Err(HostedError::Model)
    ));
    assert!(matches!(
        with("m", "localhost", "k"),
        Err(HostedError::BaseUrl { .. })
    ));
    assert!(matches!(
        with("m", "http://h/v1", "a\u{1}b"),
        Err(HostedError::Key)
    ));
    assert!(with("m", "http://h/v1", "k").is_ok());
}
