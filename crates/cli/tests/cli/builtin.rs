//! The checkpoint that the program carries serves where nothing better is to be had.

use crate::support::{Home, repository};

#[derive(serde::Deserialize)]
struct Question {
    doc: String,
    page: u64,
    #[serde(rename = "question")]
    text: String,
}

const CHOOSE: &[(&str, &str)] = &[("COLIBRI_RETRIEVER", "auto")];

#[test]
fn scans_and_charts_are_found_by_what_they_look_like() {
    let home = Home::new();
    let said = home.run_with(["index", "documents"], "", CHOOSE).exits(0);
    assert_eq!(
        said.stderr
            .matches("note: the built-in retriever serves")
            .count(),
        1,
        "{}",
        said.stderr
    );
    assert!(
        said.stderr
            .contains("colibri models pull vidore/colSmol-256M"),
        "{}",
        said.stderr
    );

    let text =
        fs_err::read_to_string(repository().join("examples/documents/questions.jsonl")).unwrap();
    let questions: Vec<Question> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = |mode: &str, question: &Question| {
        let said = home
            .run_with(
                ["search", &question.text, "--mode", mode, "--json"],
                "",
                CHOOSE,
            )
            .exits(0);
        let hit = said.last()["hits"][0].clone();
        hit["document"].as_str().unwrap().ends_with(&question.doc) && hit["page"] == question.page
    };
    let right = |mode: &str, only: &[&str]| {
        let asked = questions
            .iter()
            .filter(|q| only.is_empty() || only.contains(&q.doc.as_str()));
        let (right, all) = asked.fold((0, 0), |(right, all), q| {
            (right + i32::from(first(mode, q)), all + 1)
        });
        f64::from(right) / f64::from(all)
    };
    // Eight pages: chance is 0.125. It finds thirteen of fifteen; another processor rounds otherwise, and one or
    // two may go either way.
    assert!(right("visual", &[]) >= 0.75);
    // The documents without a text layer, which text alone never finds.
    assert!(right("hybrid", &["scan.pdf", "chart.png"]) >= 0.75);
    assert!(right("hybrid", &[]) >= 0.9);
}

#[test]
fn it_is_unpacked_into_the_cache_and_can_be_named() {
    let home = Home::new();
    let said = home
        .run(["index", "documents/chart.png", "--retriever", "builtin"])
        .exits(0);
    assert!(!said.stderr.contains("note:"), "{}", said.stderr);
    let unpacked = fs_err::read_dir(home.path(".cache/colibri")).unwrap();
    let names: Vec<String> = unpacked
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("builtin-"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let said = home
        .run_with(
            ["search", "tickets", "--mode", "visual", "--json"],
            "",
            CHOOSE,
        )
        .exits(0);
    assert!(said.last()["hits"][0]["visual"].as_f64().unwrap() > 0.0);
}

#[test]
fn it_says_what_it_is() {
    let home = Home::empty();
    // A folder of the same name does not hide it.
    fs_err::create_dir(home.path("builtin")).unwrap();
    let said = home.run(["models", "info", "builtin"]).exits(0);
    assert!(
        said.stdout.contains("trained from scratch"),
        "{}",
        said.stdout
    );
    assert!(
        said.stdout.contains("adapter of a retriever"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_budget_is_kept_or_refused_with_what_would_do() {
    let home = Home::new();
    let index = |memory: &str| {
        let words = [
            "index",
            "documents/chart.png",
            "--verbose",
            "--memory",
            memory,
        ];
        home.run_with(words, "", CHOOSE)
    };
    let refused = index("1MB").exits(1).stderr;
    assert!(
        refused.contains("error: `builtin` needs") && refused.contains("more than the 1MB it"),
        "{refused}"
    );
    let (_, hint) = refused.split_once("hint: `--memory ").unwrap();
    let (enough, _) = hint.split_once('`').unwrap();
    let said = index(enough).exits(0).stderr;
    assert!(
        said.contains("retriever builtin in int4, 1 page at a time"),
        "{said}"
    );
    let doctor = home
        .run_with(["doctor", "--memory", "2GB"], "", CHOOSE)
        .exits(0);
    assert!(
        doctor
            .stdout
            .contains("plan       retriever builtin in bf16"),
        "{}",
        doctor.stdout
    );
}

#[test]
fn pages_without_text_are_read_and_others_quoted() {
    let home = Home::new();
    home.run_with(["index", "documents"], "", CHOOSE).exits(0);
    let ask = |question: &str| {
        let said = home
            .run_with(["ask", question, "--json"], "", CHOOSE)
            .exits(0);
        let note = "read by a very small built-in model, which errs often";
        assert_eq!(said.stderr.matches(note).count(), 1, "{}", said.stderr);
        let done = said.last();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let document = text(&done["citations"][0]["document"]);
        let file = document.rsplit('/').next().unwrap().to_owned();
        (text(&done["generator"]), text(&done["answer"]), file)
    };
    for (question, answer, file) in [
        (
            "On which day were the most tickets sold?",
            "Saturday",
            "chart.png",
        ),
        (
            "When will the pier light be repaired?",
            "9 June 2025",
            "scan.pdf",
        ),
    ] {
        let read = ("builtin".to_owned(), answer.to_owned(), file.to_owned());
        assert_eq!(ask(question), read);
    }
    let (generator, answer, file) = ask("What is the invoice number?");
    assert!(answer.contains("20417"), "{answer}");
    assert_eq!(
        (generator.as_str(), file.as_str()),
        ("quotes", "invoice.pdf")
    );
}

#[test]
fn the_built_in_generator_reads_every_page_when_it_is_named() {
    let home = Home::new();
    for (question, answer) in [
        ("What is the invoice number?", "20417"),
        ("What is the total?", "$2,346.00"),
        ("What is the due date?", "14 March 2025"),
    ] {
        let words = ["ask", question, "documents/invoice.pdf"];
        let with = ["--generator", "builtin", "--retriever", "builtin", "--json"];
        let said = home.run_with([words.as_slice(), &with].concat(), "", &[]);
        let done = said.exits(0).last();
        assert_eq!(done["answer"], answer);
        assert_eq!(done["citations"][0]["page"], 1);
    }
}
