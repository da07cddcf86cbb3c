//! The questions that come with the example documents, answered by text alone.

use crate::support::{Home, questions};
use serde_json::Value;

/// The other two have no text layer.
const BORN_DIGITAL: [&str; 3] = ["report.pdf", "invoice.pdf", "slides.pdf"];

fn born_digital() -> Vec<Value> {
    questions()
        .into_iter()
        .filter(|question| BORN_DIGITAL.iter().any(|name| question["doc"] == *name))
        .collect()
}

#[test]
fn the_right_page_is_first() {
    let home = Home::indexed();
    let questions = born_digital();
    let lines: Vec<String> = questions.iter().map(Value::to_string).collect();
    let lines = lines.join("\n");
    fs_err::write(home.path("questions.jsonl"), &lines).unwrap();
    let said = home
        .run(["search", "--queries", "questions.jsonl", "-k", "3"])
        .exits(0);
    let found = said.json();
    assert_eq!(found.len(), questions.len());
    let mut wrong = Vec::new();
    for (found, question) in found.iter().zip(&questions) {
        assert_eq!(found["query"], question["question"]);
        let best = &found["hits"][0];
        let document = best["document"].as_str().unwrap_or_default();
        if !document.ends_with(question["doc"].as_str().unwrap())
            || best["page"] != question["page"]
        {
            wrong.push(question["question"].clone());
        }
    }
    assert!(
        wrong.len() * 5 <= questions.len(),
        "more than one in five is wrong: {wrong:?}"
    );
    // The same from standard input.
    assert_eq!(
        home.run_with(["search", "--queries", "-", "-k", "3"], &lines, &[])
            .exits(0)
            .stdout,
        said.stdout
    );
}

#[test]
fn quotes_hold_the_answer_and_its_page() {
    let home = Home::indexed();
    let questions = born_digital();
    let (mut right_page, mut right_line) = (0, 0);
    for question in &questions {
        let done = home
            .run([
                "ask",
                question["question"].as_str().unwrap(),
                "--generator",
                "none",
                "--json",
            ])
            .exits(0)
            .last();
        let cited = done["citations"].as_array().unwrap();
        let document = cited[0]["document"].as_str().unwrap();
        right_page += usize::from(
            document.ends_with(question["doc"].as_str().unwrap())
                && cited[0]["page"] == question["page"],
        );
        let holds = done["answer"]
            .as_str()
            .unwrap()
            .contains(question["answer"].as_str().unwrap());
        if !holds {
            eprintln!(
                "{}: {} lacks {}",
                question["question"], done["answer"], question["answer"]
            );
        }
        right_line += usize::from(holds);
    }
    assert!(
        right_page * 5 >= questions.len() * 4,
        "{right_page} of {}",
        questions.len()
    );
    // All eleven; two of them stand in charts, where places say which value belongs to which label.
    assert_eq!(right_line, questions.len());
}

#[test]
fn a_question_the_documents_do_not_answer() {
    let home = Home::indexed();
    let said = home.run(["ask", "Xylophone zyzzyva?", "--generator", "none"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (1, "Not in these documents.\n")
    );
}
