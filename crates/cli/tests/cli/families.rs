//! The other families end to end, over the small reference checkpoints: ColPali (an adapter over its base) finds,
//! Idefics2 answers.

use serde_json::Value;

use crate::support::{Home, Said, repository};

fn golden(name: &str) -> String {
    let folder = repository()
        .join("crates/models/tests/golden/checkpoints")
        .join(name);
    folder.to_str().unwrap().to_owned()
}

fn run(home: &Home, arguments: &[&str]) -> Said {
    let arguments = [arguments, &["--precision", "f32"]].concat();
    home.run_with(arguments, "", &[("COLIBRI_RETRIEVER", "auto")])
}

#[test]
fn colpali_indexes_and_finds() {
    let home = Home::new();
    let colpali = golden("colpali");
    let documents = ["documents/invoice.pdf", "documents/chart.png"];
    let index = [
        &["index"],
        &documents[..],
        &["--retriever", &colpali, "--json"],
    ]
    .concat();
    let done = run(&home, &index).exits(0).last();
    assert_eq!(done["failed"], 0, "{done}");
    let stats = run(&home, &["stats", "--json"]).exits(0).last();
    let pages = stats["pages_with_rows"].as_u64().unwrap();
    // 32 × 32 patches, two `<bos>`, the prompt's words.
    assert!(
        pages >= 2 && stats["rows"].as_u64().unwrap() > pages * 1026,
        "{stats}"
    );
    // The form of the prompts, and how large pages are drawn.
    assert_eq!(stats["settings"]["prompt_version"], "0.3.11/256", "{stats}");

    let found = run(&home, &["search", "invoice", "--mode", "visual", "--json"])
        .exits(0)
        .last();
    let hits = found["hits"].as_array().unwrap();
    assert_eq!(hits.len() as u64, pages);
    let edges = hits
        .iter()
        .flat_map(|hit| hit["regions"].as_array().unwrap())
        .flat_map(|region| region["box"].as_array().unwrap())
        .filter_map(Value::as_f64);
    let mut seen = 0;
    for edge in edges {
        let cell = edge * 32.0;
        assert!(
            (cell - cell.round()).abs() < 0.01,
            "{edge} is no edge of a cell"
        );
        seen += 1;
    }
    assert!(seen >= 4, "{found}");

    // Rows of other prompts do not compare.
    let said = run(
        &home,
        &[
            "search",
            "invoice",
            "--mode",
            "visual",
            "--prompt-version",
            "0.3.1",
        ],
    )
    .exits(2);
    assert!(said.stderr.contains("0.3.11"), "{said}");
    let said = run(
        &home,
        &[
            "embed",
            "--query",
            "Who?",
            "-o",
            "q.npy",
            "--retriever",
            &colpali,
            "--prompt-version",
            "0.3.5",
        ],
    );
    assert!(said.code != 0 && said.stderr.contains("`0.3.4`"), "{said}");
    run(
        &home,
        &[
            "embed",
            "--query",
            "Who?",
            "-o",
            "q.npy",
            "--retriever",
            &colpali,
            "--prompt-version",
            "0.3.4",
        ],
    )
    .exits(0);
}

#[test]
fn idefics2_looks_and_answers() {
    let home = Home::new();
    let idefics2 = golden("idefics2");
    let ask = |arguments: &[&str]| {
        let more = ["--generator", &idefics2, "--max-tokens", "8", "--json"];
        run(&home, &[arguments, &more].concat()).exits(0).last()
    };
    let image = [
        "generate",
        "--image",
        "documents/chart.png",
        "Which month is highest?",
    ];
    let split = ask(&image);
    assert!(split["prompt_tokens"].as_u64().unwrap() > 5 * 6, "{split}");
    run(
        &home,
        &["index", "documents/invoice.pdf", "--retriever", "none"],
    )
    .exits(0);
    let done = ask(&["ask", "What is the total of the invoice?", "--mode", "text"]);
    assert!(done["prompt_tokens"].as_u64().unwrap() > 5 * 6, "{done}");
    assert_eq!(done["event"], "done", "{done}");
}

/// Turn after turn, pictures and words, as far as the window of its attention and beyond.
#[test]
fn idefics2_goes_on_talking() {
    let home = Home::new();
    let talk = |name: &str, picture: u64| {
        let generator = golden(name);
        let options = ["chat", "--no-index", "--precision", "f32", "--json"];
        let more = ["--generator", &generator, "--max-tokens", "8"];
        let input = "/image documents/chart.png\nWhich month is highest?\nAnd the lowest?\n\
                     /image documents/chart.png\nWhat is this?\n";
        let said = home.run_with([&options[..], &more].concat(), input, &[]);
        let events = said.exits(0).json();
        let done: Vec<u64> = events
            .iter()
            .filter(|event| event["event"] == "done")
            .map(|event| event["prompt_tokens"].as_u64().unwrap())
            .collect();
        // Two pictures of five frames each; the second turn adds words to the first's.
        assert_eq!(done.len(), 3, "{events:?}");
        assert!(done[0] > picture && done[1] > done[0], "{done:?}");
        assert!(done[2] > done[1] + picture, "{done:?}");
        let new = events
            .iter()
            .filter(|event| event["event"] == "done")
            .all(|event| event["new_tokens"].as_u64() > Some(0));
        assert!(new, "{events:?}");
    };
    talk("idefics2", 5 * 6);
    // Its window is 23 tokens.
    talk("idefics2-new", 5 * 5);
}
