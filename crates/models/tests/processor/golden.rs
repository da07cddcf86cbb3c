//! Reading the files of `tools/golden`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use colibri_models::processor::{Content, Message, ProcessorFiles, Role};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// `tests/golden`.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A JSON file under `tests/golden`.
pub(crate) fn json(path: impl AsRef<Path>) -> Value {
    let path = folder().join(path);
    let text = fs_err::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The manifests of the network cases, with their paths.
pub(crate) fn cases() -> Vec<(PathBuf, Value)> {
    let mut out = Vec::new();
    for group in fs_err::read_dir(folder().join("cases")).unwrap() {
        for file in fs_err::read_dir(group.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                out.push((path.clone(), json(&path)));
            }
        }
    }
    out.sort_by(|(left, _), (right, _)| left.cmp(right));
    assert!(out.len() >= 10, "{} cases", out.len());
    out
}

/// The processor files of a case: its adapter over its checkpoint, or the checkpoint alone.
pub(crate) fn files(case: &Value) -> ProcessorFiles {
    let checkpoint = |key: &str| {
        case[key]
            .as_str()
            .map(|name| folder().join("checkpoints").join(name))
    };
    match (checkpoint("checkpoint").unwrap(), checkpoint("adapter")) {
        (base, Some(adapter)) => ProcessorFiles::new(adapter).with_fallback(base),
        (base, None) => ProcessorFiles::new(base),
    }
}

/// The number of visual tokens of a tile by the `config.json` of a case's checkpoint.
pub(crate) fn derived_seq_len(case: &Value) -> usize {
    let name = case["checkpoint"].as_str().unwrap();
    let config = json(Path::new("checkpoints").join(name).join("config.json"));
    let vision = |key: &str, default| config["vision_config"][key].as_u64().unwrap_or(default);
    let scale = config["scale_factor"].as_u64().unwrap_or(2);
    let side = vision("image_size", 224) / vision("patch_size", 32) / scale;
    usize::try_from(side * side).unwrap()
}

/// `../shared/models/<name>` beside the checkout; says so where it is absent.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/models")
        .join(name);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no {}", path.display());
    None
}

/// Ids, in which `[id, count]` stands for a run.
pub(crate) fn ids(json: &Value) -> Vec<u32> {
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let mut out = Vec::new();
    for entry in json.as_array().unwrap() {
        match entry.as_array() {
            Some(run) => out.extend(std::iter::repeat_n(
                number(&run[0]),
                number(&run[1]) as usize,
            )),
            None => out.push(number(entry)),
        }
    }
    out
}

/// A conversation; `None` where a role is none of ours.
pub(crate) fn messages(json: &Value) -> Option<Vec<Message>> {
    let content = |part: &Value| match part["type"].as_str().unwrap() {
        "image" => Content::Image,
        _ => Content::Text(part["text"].as_str().unwrap().to_owned()),
    };
    let message = |message: &Value| {
        let role = match message["role"].as_str().unwrap() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => return None,
        };
        let content = message["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(content)
            .collect();
        Some(Message { role, content })
    };
    json.as_array().unwrap().iter().map(message).collect()
}

/// Width and height.
pub(crate) fn size(json: &Value) -> (u32, u32) {
    let side = |at: usize| u32::try_from(json[at].as_u64().unwrap()).unwrap();
    (side(0), side(1))
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in Sha256::digest(bytes) {
        write!(out, "{byte:02x}").unwrap();
    }
    out
}
