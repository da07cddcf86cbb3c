//! What a model will need is counted without reading a value, and is what it then holds: for every architecture.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::PathBuf, sync::Arc};

use colibri_models::{
    Placement, Precision, TensorPool,
    footprint::{Needs, Role},
    processor::TileOptions,
    registry::{Checkpoint, Kind, LoadOptions, inspect, load_generator, load_retriever},
};

const PRECISIONS: [Precision; 4] = [
    Precision::F32,
    Precision::Bf16,
    Precision::Int8,
    Precision::Int4,
];

/// Every golden checkpoint with what it is for; `NAME-base` is what the adapter `NAME` adapts.
fn all() -> Vec<(Checkpoint, Role)> {
    let folders = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints");
    let mut all = Vec::new();
    for entry in fs_err::read_dir(&folders).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let found = match inspect(&folder) {
            Ok(Kind::Generator) => (None, Role::Generator),
            Ok(Kind::Retriever) => (None, Role::Retriever),
            Ok(Kind::Adapter { .. }) => {
                (Some(folders.join(format!("{name}-base"))), Role::Retriever)
            }
            // The base of ColPali is no model by itself.
            Err(_) => continue,
        };
        let (base, role) = found;
        all.push((Checkpoint { folder, base }, role));
    }
    for part in ["smolvlm", "idefics2", "idefics3", "colpali", "colsmol"] {
        let is_it = |checkpoint: &Checkpoint| checkpoint.folder.to_str().unwrap().contains(part);
        assert!(all.iter().any(|(one, _)| is_it(one)), "no {part}");
    }
    all
}

fn needs_of(checkpoint: &Checkpoint, role: Role, pool: &Arc<TensorPool>) -> Needs {
    Needs::of(checkpoint, None, role, &TileOptions::default(), 2, pool).unwrap()
}

/// Bytes of the matrices of the loaded model, and the model.
fn held(checkpoint: &Checkpoint, role: Role, options: &LoadOptions) -> (u64, Box<dyn Send>) {
    match role {
        Role::Retriever => {
            let model = load_retriever(checkpoint, options).unwrap();
            (model.num_bytes() as u64, Box::new(model))
        }
        Role::Generator => {
            let model = load_generator(checkpoint, options).unwrap();
            (model.num_bytes() as u64, Box::new(model))
        }
    }
}

#[test]
fn what_is_counted_is_what_is_held() {
    for (checkpoint, role) in &all() {
        let pool = Arc::new(TensorPool::new(None));
        let needs = needs_of(checkpoint, *role, &pool);
        for precision in PRECISIONS {
            let counted = needs.in_precision(precision);
            let options = LoadOptions::new(Placement::cpu(precision));
            let (held, _) = held(checkpoint, *role, &options);
            // Integers may carry a factor for each input feature, bfloat16 in twelve bits weights that have no code: both depend on
            // the values.
            let room = match precision {
                Precision::F32 => 0,
                Precision::Bf16 | Precision::Bf16Short => held / 64,
                Precision::Int8 | Precision::Int4 => held / 8,
            };
            assert!(
                counted.matrices <= held && held <= counted.matrices + room,
                "{} in {precision:?}: {} counted, {held} held",
                checkpoint.folder.display(),
                counted.matrices,
            );
            assert_eq!(counted.shared, 0);
            assert!(counted.values > 0 && counted.looking > 0 && counted.page_tokens > 0);
        }
    }
}

#[test]
fn what_another_model_holds_is_told() {
    let (checkpoint, role) = all().remove(0);
    let pool = Arc::new(TensorPool::new(None));
    let options = LoadOptions {
        pool: Some(Arc::clone(&pool)),
        ..LoadOptions::new(Placement::cpu(Precision::Bf16))
    };
    let (_, model) = held(&checkpoint, role, &options);
    let beside = needs_of(&checkpoint, role, &pool);
    let same = beside.in_precision(Precision::Bf16);
    assert!(same.shared > 0 && same.shared <= same.matrices, "{same:?}");
    // In another form nothing is shared, and after the model has gone neither.
    assert_eq!(beside.in_precision(Precision::F32).shared, 0);
    drop(model);
    let alone = needs_of(&checkpoint, role, &pool);
    assert_eq!(alone.in_precision(Precision::Bf16).shared, 0);
}
