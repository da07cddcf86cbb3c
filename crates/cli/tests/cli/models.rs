//! Every command that runs a model, over checkpoints of noise: paths, formats and promises.

use serde_json::Value;

use crate::support::{Home, snapshot};

/// A page of few tiles costs little even here.
pub(crate) const SMALL: [&str; 4] = ["--precision", "f32", "--detail", "2"];

/// Where no retriever is named, an index's own serves.
pub(crate) fn run(home: &Home, arguments: &[&str]) -> crate::support::Said {
    let arguments = [arguments, &SMALL].concat();
    home.run_with(arguments, "", &[("COLIBRI_RETRIEVER", "auto")])
}

fn names(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect()
}

#[test]
fn index_and_search_by_looking() {
    let home = Home::new();
    let retriever = home.retriever();
    let done = run(
        &home,
        &["index", "documents", "--retriever", &retriever, "--json"],
    )
    .exits(0)
    .last();
    assert_eq!(done["pages"], 8);
    let stats = run(&home, &["stats", "--json"]).exits(0).last();
    assert_eq!(
        (&stats["pages_with_rows"], &stats["dim"]),
        (&8.into(), &128.into())
    );
    assert!(stats["rows"].as_u64().unwrap() > 8 * 16);

    for mode in ["visual", "hybrid"] {
        // The index remembers its retriever.
        let found = run(
            &home,
            &["search", "invoice", "--mode", mode, "-k", "8", "--json"],
        )
        .exits(0)
        .last();
        assert_eq!(found["mode"], mode);
        let hits = found["hits"].as_array().unwrap();
        assert_eq!(hits.len(), 8);
        for hit in hits {
            assert!(hit["visual"].is_number(), "{hit}");
            for region in hit["regions"].as_array().unwrap() {
                let bounds: Vec<f64> = region["box"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|edge| edge.as_f64().unwrap())
                    .collect();
                assert!(
                    bounds.len() == 4 && bounds[0] < bounds[2] && bounds[1] < bounds[3],
                    "{region}"
                );
                assert!(
                    bounds.iter().all(|edge| (0.0..=1.0).contains(edge)),
                    "{region}"
                );
            }
        }
    }
    // A picture has no text, and is found all the same.
    let found = run(
        &home,
        &[
            "search", "x", "--mode", "visual", "--where", "kind=PNG", "--json",
        ],
    )
    .exits(0)
    .last();
    assert_eq!(found["hits"].as_array().unwrap().len(), 1);
    // A second run looks at nothing again.
    let lines = run(&home, &["index", "documents", "--json"])
        .exits(0)
        .json();
    assert!(
        lines[..5].iter().all(|line| line["status"] == "unchanged"),
        "{lines:?}"
    );
}

#[test]
fn another_retriever_is_refused_with_the_remedy() {
    let home = Home::new();
    let retriever = home.retriever();
    run(
        &home,
        &[
            "index",
            "documents/chart.png",
            "--retriever",
            &retriever,
            "-q",
        ],
    )
    .exits(0);
    let arguments = ["search", "x", "--precision", "bf16", "--detail", "2"];
    let said = home.run_with(arguments, "", &[("COLIBRI_RETRIEVER", "auto")]);
    snapshot!(said, @r"
    exit code 2
    ----- err -----
    error: the index in `[home]/.local/share/colibri/index` was made with precision `f32`, not `bf16`

    hint: use precision `f32`, choose another folder with --index, or remove this index and build it again
    ");
    let said = home.run(["index", "documents/chart.png", "--retriever", "none"]);
    snapshot!(said, @r"
    exit code 2
    ----- err -----
    error: the index in `[home]/.local/share/colibri/index` was made with retriever `[home]/retriever`, not `none`

    hint: use retriever `[home]/retriever`, choose another folder with --index, or remove this index and build it again
    ");
    let other = home.path("other");
    fs_err::create_dir(&other).unwrap();
    for entry in fs_err::read_dir(home.path(&retriever)).unwrap() {
        let from = entry.unwrap().path();
        fs_err::copy(&from, other.join(from.file_name().unwrap())).unwrap();
    }
    snapshot!(run(&home, &["index", "documents/chart.png", "--retriever", "other"]), @r"
    exit code 2
    ----- err -----
    error: the index in `[home]/.local/share/colibri/index` was made with retriever `[home]/retriever`, not `[home]/other`

    hint: use retriever `[home]/retriever`, choose another folder with --index, or remove this index and build it again
    ");
    // By text nothing has to fit.
    home.run(["search", "x", "--mode", "text"]).exits(1);
}

#[test]
fn a_text_index_takes_on_a_retriever() {
    let home = Home::indexed();
    let retriever = home.retriever();
    run(
        &home,
        &["index", "documents", "--retriever", &retriever, "-q"],
    )
    .exits(0);
    assert_eq!(
        run(&home, &["stats", "--json"]).exits(0).last()["pages_with_rows"],
        8
    );
}

#[test]
fn ask_streams_what_the_generator_writes() {
    let home = Home::new();
    let (retriever, generator) = (home.retriever(), home.generator());
    let arguments = [
        "ask",
        "Who signed?",
        "documents",
        "--retriever",
        &retriever,
        "--generator",
        &generator,
        "--max-tokens",
        "6",
        "-k",
        "2",
        "--instructions",
        "Be brief.",
        "--with-text",
        "--json",
    ];
    let said = run(&home, &arguments).exits(0);
    let events = said.json();
    let done = events.last().unwrap();
    assert_eq!(done["event"], "done");
    assert_eq!(done["new_tokens"], 6);
    assert!(done["prompt_tokens"].as_u64().unwrap() > 100);
    assert_eq!(done["stop"], "length");
    assert_eq!(done["generator"], "[home]/generator");
    assert!(done["citations"][0]["page"].is_u64());
    for part in ["retrieve", "prepare", "first_token", "total"] {
        assert!(done["timings_ms"][part].as_f64().unwrap() > 0.0, "{part}");
    }
    let memory = |part: &str| done["memory"][part].as_u64().unwrap();
    assert!(memory("peak_bytes") > 1 << 20);
    assert_eq!(done["peak_memory_bytes"], done["memory"]["peak_bytes"]);
    let weights = memory("vision_weights_bytes") + memory("text_weights_bytes");
    assert!(weights > 0 && memory("weights_bytes") == weights);
    assert!(memory("features_bytes") > 0 && memory("kv_bytes") > 0);
    assert!(memory("prefix_bytes") >= memory("kv_bytes"));
    let text: String = events
        .iter()
        .filter(|event| event["event"] == "token")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert_eq!(text.trim(), done["answer"].as_str().unwrap());
    let evidence = events
        .iter()
        .find(|event| event["event"] == "evidence")
        .unwrap();
    assert_eq!(evidence["pages"].as_array().unwrap().len(), 2);
    // Greedy decoding says the same again; a seed draws the same again.
    let drawn = |seed: &str| {
        let more = ["--temperature", "2", "--seed", seed];
        run(&home, &[&arguments[..], &more].concat())
            .exits(0)
            .last()["answer"]
            .clone()
    };
    assert_eq!(
        run(&home, &arguments).exits(0).last()["answer"],
        done["answer"]
    );
    assert_eq!(drawn("5"), drawn("5"));
    assert_ne!(drawn("5"), drawn("6"));
}

#[test]
fn ask_for_people_ends_with_citations() {
    let home = Home::indexed();
    let generator = home.generator();
    let said = run(
        &home,
        &[
            "ask",
            "invoice number",
            "--generator",
            &generator,
            "--max-tokens",
            "4",
            "-k",
            "1",
        ],
    )
    .exits(0);
    assert!(
        said.stdout.ends_with("\n[invoice.pdf p.1]\n"),
        "{:?}",
        said.stdout
    );
    assert_eq!(said.stderr, "");
}

#[test]
fn generate_looks_at_pictures_or_at_none() {
    let home = Home::new();
    let generator = home.generator();
    let generate = |more: &[&str]| {
        run(
            &home,
            &[
                &["generate", "--generator", &generator, "--max-tokens", "5"],
                more,
            ]
            .concat(),
        )
    };
    let chart = "documents/chart.png";
    let events = generate(&["Compare.", "--image", chart, "--image", chart, "--json"])
        .exits(0)
        .json();
    let two = events.last().unwrap();
    assert_eq!(
        (&two["event"], &two["new_tokens"]),
        (&"done".into(), &5.into())
    );
    assert!(names(&events).contains(&"token"));
    let one = generate(&["Compare.", "--image", chart, "--json"])
        .exits(0)
        .last();
    let none = generate(&["Compare.", "--json"]).exits(0).last();
    let tokens = |done: &Value| done["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&none) < tokens(&one) && tokens(&one) < tokens(two));
    let plain = generate(&["Compare."]).exits(0);
    assert_eq!(plain.stdout.trim(), none["text"].as_str().unwrap());
    let piped = home.run_with(
        [
            &[
                "generate",
                "-",
                "--generator",
                &generator,
                "--max-tokens",
                "5",
            ][..],
            &SMALL,
        ]
        .concat(),
        "Compare.",
        &[],
    );
    assert_eq!(piped.exits(0).stdout, plain.stdout);
    snapshot!(generate(&["Look.", "--image", "nowhere.png"]), @r"
    exit code 1
    ----- err -----
    error: cannot use `nowhere.png`
      because: failed to query resolved metadata `nowhere.png`: No such file or directory (os error 2)
    ");
    snapshot!(generate(&["Look.", "--image", "documents/report.pdf"]), @r"
    exit code 1
    ----- err -----
    error: cannot read the picture `documents/report.pdf`: not a picture (PNG, JPEG, WebP, TIFF, GIF, BMP) by its first bytes
    ");
}

#[test]
fn info_tells_shapes() {
    let home = Home::empty();
    let retriever = home.retriever();
    snapshot!(home.run(["models", "info", &retriever]), @r"
    exit code 0
    ----- out -----
    folder   retriever
    kind     retriever
    weights  127 120 parameters, [size]
    vision   2 layers of 32 with 2 heads, frames of 64 pixels, patches of 8, 16 tokens a frame
    text     2 layers of 48 with 3 heads (1 for keys), vocabulary of 1024, 8192 positions
    checked  60 tensors, all there and of the shapes that the configuration says
    memory   weights in f32 [size], bf16 [size], int8 [size], int4 [size]
    ");
    let info = home
        .run(["models", "info", &retriever, "--json"])
        .exits(0)
        .last();
    assert_eq!(
        (&info["kind"], &info["shapes"]["text"]["vocabulary"]),
        (&"retriever".into(), &1024.into())
    );
    fs_err::write(home.path("retriever/model.safetensors"), [255; 8]).unwrap();
    home.run(["models", "info", &retriever]).exits(2);
}

#[test]
fn the_wrong_kind_of_checkpoint_is_named() {
    let home = Home::new();
    let (retriever, generator) = (home.retriever(), home.generator());
    let said = home.run(["index", "documents", "--retriever", &generator]);
    snapshot!(said, @r"
    exit code 2
    ----- err -----
    error: `[home]/generator` holds a generator, not a retriever (ColIdefics3 has `linear.weight`)
    ");
    snapshot!(home.run(["generate", "Hello", "--generator", &retriever]), @r"
    exit code 2
    ----- err -----
    error: `[home]/retriever` holds a retriever without an output head, not a generator
    ");
}

#[test]
fn packed_weights_are_kept_listed_and_removed() {
    let home = Home::empty();
    let retriever = home.retriever();
    let packed = || {
        let listed = home.run(["models", "list", "--json"]).exits(1).last();
        listed["packed"].as_array().unwrap().clone()
    };
    let embed = |file: &str, more: &[&str]| {
        let arguments = [
            "embed",
            "--retriever",
            &retriever,
            "--query",
            "x",
            "-o",
            file,
        ];
        run(&home, &[&arguments, more].concat()).exits(0);
        fs_err::read(home.path(file)).unwrap()
    };
    let wanted = embed("0.npy", &["--no-packed"]);
    assert!(packed().is_empty());
    assert!(embed("1.npy", &[]) == wanted && embed("2.npy", &[]) == wanted);
    let kept = packed();
    assert!(kept.len() == 1 && kept[0]["bytes"].as_u64().unwrap() > 4096);
    let removed = home.run(["models", "unpack", "--json"]).exits(0).last();
    assert_eq!(removed["removed"].as_array(), Some(&kept));
    assert_eq!(removed["bytes"], kept[0]["bytes"]);
    assert!(packed().is_empty());
    let said = home.run(["models", "unpack"]).exits(0);
    assert_eq!(said.stdout, "nothing is packed\n");
    assert!(embed("3.npy", &[]) == wanted);
}
