//! Measurements: that they run and say what they promise; how fast it is, is no test.

use crate::support::Home;

#[test]
fn a_search_is_measured() {
    let home = Home::empty();
    let said = home
        .run([
            "bench", "search", "--pages", "3", "--rows", "4", "--runs", "1", "--json",
        ])
        .exits(0);
    let figures = said.last();
    assert_eq!(
        (&figures["work"], &figures["tokens"]),
        (&"search".into(), &12.into())
    );
    for field in [
        "seconds_per_query",
        "gflops",
        "peak_share",
        "peak_memory_bytes",
    ] {
        assert!(figures[field].as_f64().unwrap() > 0.0, "{field}: {figures}");
    }
    assert!(figures.get("seconds_per_page").is_none());
}

#[test]
fn an_unknown_shape_is_named_with_those_that_are_known() {
    let said = Home::empty()
        .run(["bench", "pipeline", "--random", "SmolVLM-9B"])
        .exits(1);
    assert!(said.stderr.contains("SmolVLM-2.2B"), "{}", said.stderr);
}

#[test]
fn doctor_finds_every_path_right() {
    let doctor = Home::empty().run(["doctor", "--json"]).exits(0).last();
    assert_eq!(doctor["kernels"]["wrong"].as_array().unwrap().len(), 0);
    assert!(doctor["kernels"]["checked"].as_u64().unwrap() >= 13);
}

#[test]
fn two_checkpoints_of_one_base_differ_in_their_heads_alone() {
    let home = Home::empty();
    let (retriever, generator) = (home.retriever(), home.generator());
    let said = home
        .run(["models", "info", &retriever, &generator, "--json"])
        .exits(0)
        .last();
    for part in said["parts"].as_array().unwrap() {
        let expected = if part["part"] == "head" {
            0.into()
        } else {
            part["tensors"].clone()
        };
        assert_eq!(part["shared"], expected, "{part}");
    }
    let said = home
        .run(["models", "info", &retriever, &generator])
        .exits(0);
    assert!(
        said.stdout.contains("head      0 of 1 tensors"),
        "{}",
        said.stdout
    );
}
