//! Writes a checkpoint of a published shape, made of noise:
//! `cargo run -p colibri-testkit --example random_checkpoint -- SmolVLM-256M generator FOLDER`.

use std::path::Path;

use colibri_testkit::random::{Role, SMOLVLM_2B, SMOLVLM_256M, TINY, write_checkpoint};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [shape, role, folder] = args.as_slice() else {
        panic!("arguments: SmolVLM-256M|SmolVLM-2.2B|tiny generator|retriever FOLDER");
    };
    let shape = match shape.as_str() {
        "SmolVLM-256M" => SMOLVLM_256M,
        "SmolVLM-2.2B" => SMOLVLM_2B,
        "tiny" => TINY,
        other => panic!("`{other}` is no known shape"),
    };
    let role = match role.as_str() {
        "generator" => Role::Generator,
        "retriever" => Role::Retriever,
        other => panic!("`{other}` is neither generator nor retriever"),
    };
    write_checkpoint(Path::new(folder), &shape, role);
}
