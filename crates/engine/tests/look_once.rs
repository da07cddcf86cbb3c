//! A page that was looked at for the index is not looked at again, and answers do not depend on that.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use colibri_engine::{
    DEFAULT_FEATURE_BYTES, KeptFeatures, TokenPrecision,
    answer::{AnswerOptions, Answering},
    checkpoints::Models,
    generate::GenerateOptions,
    index::{Filter, Index, Mode},
    retrieve::Searcher,
};

mod support;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// Two pages, and a retriever and a generator over one base.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        support::write_pages(&folder.path().join("pages"), 2);
        support::write_pair(folder.path());
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn models(&self, max_bytes: u64) -> Models {
        self.models_keeping(max_bytes, TokenPrecision::F16)
    }

    fn models_keeping(&self, max_bytes: u64, precision: TokenPrecision) -> Models {
        support::models(self.folder.path(), |config| {
            config.features = KeptFeatures {
                max_bytes,
                precision,
            };
        })
    }

    fn index(&self, name: &str, models: &Models) -> PathBuf {
        let dir = self.at(name);
        support::index(&dir, &self.at("pages"), models);
        dir
    }
}

/// Answers to questions of one conversation, and the tiles the generator looked at for each.
fn ask(dir: &Path, models: &Models, questions: &[&str]) -> Vec<(String, u64)> {
    let index = Index::open(dir).unwrap();
    let searcher = Searcher::open(&index, models, Mode::Visual, &|_| {}).unwrap();
    let options = AnswerOptions {
        pages: 2,
        generate: GenerateOptions {
            max_new_tokens: 12,
            ..GenerateOptions::default()
        },
        ..AnswerOptions::default()
    };
    let mut answering = Answering::new(&index, searcher, models, Filter::default(), options);
    let stop = AtomicBool::new(false);
    let generator = models.generator(&|_| {}).unwrap().unwrap();
    let looked_at = || generator.model.looking().unwrap().tiles_looked_at();
    questions
        .iter()
        .map(|question| {
            let before = looked_at();
            let asked = answering
                .ask(question, &stop, &|_| {}, &mut |_| {})
                .unwrap();
            let done = asked.done;
            let shown = format!("{} {}", done.prompt_tokens, done.answer);
            (shown, looked_at() - before)
        })
        .collect()
}

const QUESTIONS: [&str; 2] = [
    "What is in the first picture?",
    "And in the second one, below?",
];

fn answers(asked: &[(String, u64)]) -> Vec<&String> {
    asked.iter().map(|(answer, _)| answer).collect()
}

/// One value of a tensor in the middle of the tower of the retriever.
fn change_the_tower(world: &World) {
    let path = world.at("retriever").join("model.safetensors");
    let mut bytes = fs_err::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensor = &header["model.vision_model.encoder.layers.1.mlp.fc1.weight"];
    let start = tensor["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + length + start + 100] ^= 1;
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn pages_of_a_shared_tower_are_never_looked_at_for_an_answer() {
    let world = World::new();
    let without = world.models(0);
    let plain = world.index("plain", &without);
    let wanted = ask(&plain, &without, &QUESTIONS);
    assert!(wanted[0].1 > 0, "{wanted:?}");
    assert_eq!(
        Index::open(&plain).unwrap().stats().unwrap().features.pages,
        0
    );

    let with = world.models(DEFAULT_FEATURE_BYTES);
    let dir = world.index("kept", &with);
    assert_eq!(
        Index::open(&dir).unwrap().stats().unwrap().features.pages,
        2
    );
    let found = ask(&dir, &with, &QUESTIONS);
    assert_eq!(answers(&found), answers(&wanted));
    assert_eq!((found[0].1, found[1].1), (0, 0));
    // The pages' files are not needed any more, and other questions are answered as well.
    fs_err::remove_dir_all(world.at("pages")).unwrap();
    let later = ask(&dir, &world.models(DEFAULT_FEATURE_BYTES), &QUESTIONS);
    assert_eq!(answers(&later), answers(&wanted));
}

#[test]
fn another_tower_looks_once_for_itself() {
    let world = World::new();
    change_the_tower(&world);
    let without = world.models(0);
    let wanted = ask(&world.index("plain", &without), &without, &QUESTIONS);
    let with = world.models(DEFAULT_FEATURE_BYTES);
    let dir = world.index("kept", &with);
    let found = ask(&dir, &with, &QUESTIONS);
    assert_eq!(answers(&found), answers(&wanted));
    assert!(found[0].1 > 0 && found[1].1 == 0, "{found:?}");
    // The retriever's and the generator's, two pages each.
    let stats = Index::open(&dir).unwrap().stats().unwrap();
    assert_eq!(stats.features.pages, 4);
    let later = ask(&dir, &world.models(DEFAULT_FEATURE_BYTES), &QUESTIONS);
    assert_eq!(answers(&later), answers(&wanted));
    assert_eq!(later[0].1, 0);
}

#[test]
fn damaged_features_cost_a_look_and_leave_with_a_compaction() {
    let world = World::new();
    let models = world.models(DEFAULT_FEATURE_BYTES);
    let dir = world.index("kept", &models);
    let wanted = ask(&dir, &models, &QUESTIONS[..1]);
    for entry in fs_err::read_dir(dir.join("features")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs_err::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs_err::write(&path, bytes).unwrap();
    }
    assert_eq!(Index::open(&dir).unwrap().verify().unwrap().len(), 2);
    let found = ask(&dir, &models, &QUESTIONS[..1]);
    assert_eq!(answers(&found), answers(&wanted));
    assert!(found[0].1 > 0);
    assert!(Index::open(&dir).unwrap().verify().unwrap().is_empty());

    let mut writer = Index::open_writer_as_it_is(&dir).unwrap();
    writer.remove_where(&Filter::default()).unwrap();
    writer.compact().unwrap();
    assert_eq!(writer.index().unwrap().stats().unwrap().features.pages, 0);
}

#[test]
fn a_prompt_that_begins_alike_is_read_from_where_it_differs() {
    let world = World::new();
    let models = world.models(DEFAULT_FEATURE_BYTES);
    let dir = world.index("kept", &models);
    let together = ask(&dir, &models, &QUESTIONS);
    let generator = models.generator(&|_| {}).unwrap().unwrap().model;
    assert!(generator.looking().unwrap().kept_bytes() > 0);
    // Each question with nothing kept of the one before.
    generator.forget();
    assert_eq!(generator.looking().unwrap().kept_bytes(), 0);
    let first = ask(&dir, &models, &QUESTIONS[..1]);
    assert_eq!(answers(&first)[0], answers(&together)[0]);
    let warm = ask(&dir, &models, &QUESTIONS[1..]);
    generator.forget();
    let cold = ask(&dir, &models, &QUESTIONS[1..]);
    assert_eq!(answers(&warm), answers(&cold));
}

#[test]
fn bytes_serve_like_halves_and_neither_is_taken_for_the_other() {
    let world = World::new();
    let keeping = |max_bytes| world.models_keeping(max_bytes, TokenPrecision::Int8);
    let dir = world.index("without", &keeping(0));
    let wanted = ask(&dir, &keeping(0), &QUESTIONS);

    let dir = world.index("with", &keeping(DEFAULT_FEATURE_BYTES));
    let found = ask(&dir, &keeping(DEFAULT_FEATURE_BYTES), &QUESTIONS);
    for ((found, looked_at), (wanted, _)) in found.iter().zip(&wanted) {
        assert_eq!((found, *looked_at), (wanted, 0));
    }
    let kept = |dir: &Path| Index::open(dir).unwrap().stats().unwrap().features;
    let int8 = kept(&dir);
    assert_eq!(int8.pages, 2);
    // Another form is another key: the same index is looked at anew for f16, which takes about twice the room.
    let halves = ask(&dir, &world.models(DEFAULT_FEATURE_BYTES), &QUESTIONS);
    assert!(halves[0].1 > 0 && halves[1].1 == 0);
    let both = kept(&dir);
    assert_eq!(both.pages, 4);
    assert!((both.bytes - int8.bytes) * 2 > int8.bytes * 3);
}
