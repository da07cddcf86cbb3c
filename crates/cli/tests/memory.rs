//! A checkpoint of the full shape of SmolVLM-256M reads one page and writes an answer within 1.5 GB, by the
//! kernel's own count of the process.

use std::process::Command;

use colibri_testkit::random::{Role, SMOLVLM_256M, write_checkpoint};

const LIMIT_BYTES: u64 = 1_500_000_000;

#[test]
fn a_full_shape_reads_a_page_in_bounded_memory() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("generator");
    write_checkpoint(&folder, &SMOLVLM_256M, Role::Generator);
    let examples =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/documents");
    // A landscape picture: 3 rows of 4 tiles and the overview, as many as a page of A4.
    let output = Command::new(env!("CARGO_BIN_EXE_colibri"))
        .args([
            "generate",
            "What is shown?",
            "--json",
            "--precision",
            "bf16",
            "--max-tokens",
            "8",
            "--generator",
        ])
        .arg(&folder)
        .arg("--image")
        .arg(examples.join("chart.png"))
        .env("HOME", scratch.path())
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{lines}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let done: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(done["event"], "done", "{done}");
    assert_eq!(done["new_tokens"], 8, "{done}");
    assert!(done["prompt_tokens"].as_u64().unwrap() > 800, "{done}");
    let peak = done["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak > 500_000_000, "the weights alone have 513 MB: {peak}");
    assert!(peak < LIMIT_BYTES, "{peak} bytes");
}
