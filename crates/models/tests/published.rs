//! Every checkpoint of docs/models.md loads from its configuration, and its files have the tensors that the model asks
//! for. `golden/published.json` (`tools/golden/published.py`) says what transformers, colpali-engine and PEFT have in
//! them; the files here are that long, and empty.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::print_stderr,
    reason = "it says which files are real and which are derived"
)]

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use colibri_models::{
    footprint::{Needs, Precision, Role},
    registry::{Checkpoint, Kind, inspect},
};
use serde_json::{Value, json};

#[derive(Clone, serde::Deserialize)]
struct Published {
    name: String,
    /// The golden checkpoint whose tokenizer and settings serve where the published ones are not at hand.
    stand_in: String,
    kind: String,
    /// What was never seen, and is our own in `config`.
    unseen: Vec<String>,
    config: Value,
    tensors: BTreeMap<String, Vec<usize>>,
    parameters: u64,
    #[serde(default)]
    adapter: BTreeMap<String, Vec<usize>>,
    #[serde(default)]
    adapter_parameters: u64,
    #[serde(default)]
    target_modules: String,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn published() -> Vec<Published> {
    let text = fs_err::read(golden().join("published.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// `layers.*30.` stands for thirty layers.
fn expanded(shapes: &BTreeMap<String, Vec<usize>>) -> BTreeMap<String, Vec<usize>> {
    let mut out = BTreeMap::new();
    for (name, shape) in shapes {
        let Some((before, rest)) = name.split_once("layers.*") else {
            out.insert(name.clone(), shape.clone());
            continue;
        };
        let (count, after) = rest.split_once('.').unwrap();
        for layer in 0..count.parse::<usize>().unwrap() {
            out.insert(format!("{before}layers.{layer}.{after}"), shape.clone());
        }
    }
    out
}

/// A weight file in bf16 of which only the header is written; the rest is a hole.
fn write_sparse(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) {
    let mut header = serde_json::Map::new();
    let mut end = 0_u64;
    for (name, shape) in shapes {
        let start = end;
        end += 2 * shape.iter().map(|&dim| dim as u64).product::<u64>();
        header.insert(
            name.clone(),
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut file = fs_err::File::create(path).unwrap();
    file.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_len(8 + text.len() as u64 + end).unwrap();
}

/// Tokenizer and settings of the stand-in, over them what is at hand of the published files, and the
/// configuration: the published one, or the derived one.
fn write_settings(folder: &Path, model: &Published, stand_in: &str) {
    fs_err::create_dir_all(folder).unwrap();
    let from = golden().join("checkpoints").join(stand_in);
    for entry in fs_err::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.contains("safetensors") && name != "config.json" && name != "adapter_config.json" {
            fs_err::copy(entry.path(), folder.join(name)).unwrap();
        }
    }
    fs_err::write(folder.join("config.json"), model.config.to_string()).unwrap();
}

/// Which of the published files are at hand beside the checkout, and took the place of ours.
fn take_real(folder: &Path, model: &Published) -> Vec<String> {
    let mut taken = Vec::new();
    let base = match model.name.as_str() {
        "vidore/colpali-v1.2" | "vidore/colpali-v1.3" => "vidore/colpaligemma-3b-pt-448-base",
        name => name,
    };
    let relative = format!("models/{}", base.replace('/', "__"));
    let Some(real) =
        colibri_testkit::shared::find(&relative, &format!("published files of {base}"))
    else {
        return taken;
    };
    for (theirs, ours) in [
        ("config.json", "config.json"),
        ("config.reduced.json", "config.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("processor_config.json", "processor_config.json"),
        ("generation_config.json", "generation_config.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("tokenizer.derived.json", "tokenizer.json"),
    ] {
        let from = real.join(theirs);
        if from.is_file() {
            fs_err::copy(from, folder.join(ours)).unwrap();
            taken.push(theirs.to_owned());
        }
    }
    taken
}

fn write(scratch: &Path, model: &Published, use_real: bool) -> (Checkpoint, Vec<String>) {
    let folder = scratch.join("model");
    let is_adapter = model.kind == "adapter";
    let base = scratch.join("base");
    let full = if is_adapter { &base } else { &folder };
    let stand_in = if is_adapter {
        format!("{}-base", model.stand_in)
    } else {
        model.stand_in.clone()
    };
    write_settings(full, model, &stand_in);
    write_sparse(&full.join("model.safetensors"), &expanded(&model.tensors));
    if is_adapter {
        write_settings(&folder, model, &model.stand_in);
        fs_err::remove_file(folder.join("config.json")).unwrap();
        write_sparse(
            &folder.join("adapter_model.safetensors"),
            &expanded(&model.adapter),
        );
        let adapter = json!({
            "base_model_name_or_path": "../base", "peft_type": "LORA", "r": 32, "lora_alpha": 32, "bias": "none",
            "target_modules": model.target_modules, "use_dora": false, "use_rslora": false,
        });
        fs_err::write(folder.join("adapter_config.json"), adapter.to_string()).unwrap();
    }
    let real = if use_real {
        take_real(full, model)
    } else {
        Vec::new()
    };
    let base = is_adapter.then_some(base);
    (Checkpoint { folder, base }, real)
}

fn role(model: &Published) -> Role {
    if model.kind == "generator" {
        Role::Generator
    } else {
        Role::Retriever
    }
}

fn check(model: &Published, use_real: bool) {
    let scratch = tempfile::tempdir().unwrap();
    let (checkpoint, real) = write(scratch.path(), model, use_real);
    let name = &model.name;
    let kind = inspect(&checkpoint.folder).unwrap();
    match model.kind.as_str() {
        "generator" => assert_eq!(kind, Kind::Generator, "{name}"),
        "retriever" => assert_eq!(kind, Kind::Retriever, "{name}"),
        _ => assert!(matches!(kind, Kind::Adapter { .. }), "{name}"),
    }
    let needs =
        Needs::alone(&checkpoint, role(model)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        needs.num_tensors(),
        expanded(&model.tensors).len(),
        "{name}"
    );
    assert_eq!(
        needs.unused(&checkpoint).unwrap(),
        Vec::<String>::new(),
        "{name}"
    );
    // Every value is held once: matrices in bf16 and what is in f32 make up the parameters. Rows are padded by less than 2 %.
    let held = needs.in_precision(Precision::F32);
    let parameters = model.parameters + model.adapter_parameters;
    let matrices = held.matrices / 4;
    assert!(
        matrices <= parameters + parameters / 50 && matrices + parameters / 100 >= parameters,
        "{name}: {matrices} values in matrices, {parameters} parameters"
    );
    let int4 = needs.in_precision(Precision::Int4);
    assert!(int4.matrices < held.matrices / 6, "{name}");
    let derived = if real.is_empty() {
        "all derived".to_owned()
    } else {
        format!("real: {}", real.join(", "))
    };
    let unseen = if model.unseen.is_empty() {
        String::new()
    } else {
        format!("; never seen: {}", model.unseen.join(", "))
    };
    let gigabytes = [Precision::Bf16, Precision::Int8, Precision::Int4].map(|precision| {
        let held = needs.in_precision(precision);
        format!("{:.2}", (held.matrices + held.values) as f64 / 1e9)
    });
    eprintln!(
        "{name}: {} tensors; weights in bf16, int8, int4: {} GB; {derived}{unseen}",
        needs.num_tensors(),
        gigabytes.join(", ")
    );
}

#[test]
fn every_published_checkpoint_loads_from_its_configuration() {
    for model in &published() {
        check(model, false);
    }
}

#[test]
fn and_with_the_published_files_that_are_at_hand() {
    for model in &published() {
        check(model, true);
    }
}

/// A tensor of another shape, and one that is missing, are told by name.
#[test]
fn a_wrong_shape_is_told() {
    for model in published() {
        if ![
            "colSmol-256M",
            "colpali-v1.3-hf",
            "idefics2-8b",
            "SmolVLM2-2.2B-Instruct",
        ]
        .iter()
        .any(|name| model.name.ends_with(name))
        {
            continue;
        }
        let down = model
            .tensors
            .keys()
            .find(|name| name.contains("mlp.down_proj.weight"))
            .unwrap()
            .clone();
        let mut changed = model.clone();
        changed.tensors.get_mut(&down).unwrap()[1] += 1;
        let mut missing = model.clone();
        missing.tensors.remove(&down);
        for (model, word) in [(changed, "shape"), (missing, "down_proj")] {
            let scratch = tempfile::tempdir().unwrap();
            let (checkpoint, _) = write(scratch.path(), &model, false);
            let error = Needs::alone(&checkpoint, role(&model))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("mlp.down_proj.weight") && error.contains(word),
                "{error}"
            );
        }
    }
}

/// The table that people read and the list that is tested are of the same checkpoints.
#[test]
fn the_documentation_names_them_all() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let text = fs_err::read_to_string(path).unwrap();
    for model in published() {
        let (owner, rest) = model.name.split_once('/').unwrap();
        assert!(text.contains(owner), "docs/models.md does not name {owner}");
        assert!(
            text.contains(&format!("`{}`", model.name)),
            "docs/models.md does not name {owner}/{rest}"
        );
    }
}
