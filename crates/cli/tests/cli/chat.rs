//! Talks of several turns, from a pipe.

use serde_json::Value;

use crate::{models::SMALL, support::Home};

#[test]
fn chat_reads_turns_from_a_pipe() {
    let home = Home::indexed();
    let generator = home.generator();
    let options = [
        &[
            "chat",
            "--generator",
            &generator,
            "--max-tokens",
            "4",
            "--json",
        ][..],
        &SMALL,
    ]
    .concat();
    let input = "What is the invoice number?\n\nAnd the total?\n/clear\nWho is the managing director?\n/quit\nnot read\n";
    let events = home.run_with(&options, input, &[]).exits(0).json();
    let done: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "done")
        .collect();
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|done| done["new_tokens"] == 4), "{done:?}");
    // The second turn carries the first, the third, after /clear, nothing.
    let tokens = |at: usize| done[at]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(1) > tokens(2), "{} {}", tokens(1), tokens(2));

    let picture = [&options[..], &["--image", "documents/chart.png"]].concat();
    let events = home
        .run_with(
            &picture,
            "What is this?\n/image documents/chart.png\nAnd this?\n",
            &[],
        )
        .exits(0)
        .json();
    let done: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "done")
        .collect();
    assert_eq!(done.len(), 2);
    assert!(done[1]["prompt_tokens"].as_u64() > done[0]["prompt_tokens"].as_u64());
    // No prompt is written where nobody types, and what fails does not end the talk.
    let said = home
        .run_with(
            ["chat", "--generator", &generator, "--max-tokens", "2"],
            "/image nowhere.png\n/jump\nHello?\n",
            &[],
        )
        .exits(1);
    assert!(
        !said.stderr.contains("> ")
            && said.stderr.contains("nowhere.png")
            && said.stderr.contains("`/jump` is no command"),
        "{}",
        said.stderr
    );
    assert!(!said.stdout.is_empty());
}

#[test]
fn chat_quotes_without_a_generator() {
    let home = Home::indexed();
    let said = home
        .run_with(
            ["chat", "--generator", "none"],
            "Who presented the winter timetable?\n",
            &[],
        )
        .exits(0);
    assert!(
        said.stdout.contains("Tomas Berglund") && said.stdout.contains("[slides.pdf p.1]"),
        "{}",
        said.stdout
    );
}
