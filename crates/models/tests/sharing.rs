//! A retriever and a generator in the memory of little more than one: equal tensors are held once, others are
//! not, and neither changes what comes out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use colibri_models::{
    Part, Placement, Precision, TensorPool,
    generate::GenerateOptions,
    generators::{Generator, Request},
    processor::Message,
    registry::{Checkpoint, LoadOptions, load_generator, load_retriever},
    retrievers::Retriever,
    shared,
};
use colibri_testkit::random::{Role, TINY, write_checkpoint};
use half::bf16;
use image::{Rgb, RgbImage};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

const CHANGED: &str = "model.vision_model.encoder.layers.1.mlp.fc1.weight";
/// Rank of the adapter.
const RANK: usize = 4;
/// Values of the changed tensor and of the head of the generator.
const CHANGED_VALUES: usize = 64 * 32;
const HEAD_VALUES: usize = 1024 * 48;

struct Pair {
    _scratch: tempfile::TempDir,
    retriever: Checkpoint,
    generator: Checkpoint,
}

/// A generator, and an adapter over a base with the generator's weights, rewritten by `change`.
fn pair(change: impl Fn(&str, Dtype, Vec<u8>) -> (Dtype, Vec<u8>)) -> Pair {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    write_checkpoint(&at("generator"), &TINY, Role::Generator);
    write_checkpoint(&at("base"), &TINY, Role::Retriever);
    rewrite(&at("base/model.safetensors"), &change);
    write_adapter(&at("adapter"));
    Pair {
        retriever: Checkpoint {
            folder: at("adapter"),
            base: Some(at("base")),
        },
        generator: Checkpoint {
            folder: at("generator"),
            base: None,
        },
        _scratch: scratch,
    }
}

fn rewrite(path: &Path, change: &impl Fn(&str, Dtype, Vec<u8>) -> (Dtype, Vec<u8>)) {
    let bytes = fs_err::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let changed = tensors.iter().map(|(name, view)| {
        let new = change(name, view.dtype(), view.data().to_vec());
        (name.to_owned(), view.shape().to_vec(), new)
    });
    let changed: Vec<_> = changed.collect();
    let views = changed.iter().map(|(name, shape, (dtype, data))| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.clone(), view)
    });
    fs_err::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Factors for the query projections of both layers.
fn write_adapter(folder: &Path) {
    fs_err::create_dir_all(folder).unwrap();
    let config = serde_json::json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "base_model_name_or_path": "../base",
        "target_modules": ".*text_model.*q_proj",
    });
    fs_err::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    let data: Vec<u8> = (0..RANK * 48)
        .flat_map(|at| ((at % 13) as f32 * 0.02 - 0.1).to_le_bytes())
        .collect();
    let mut views = Vec::new();
    for layer in 0..2 {
        let module = format!("base_model.model.model.text_model.layers.{layer}.self_attn.q_proj");
        for (end, shape) in [("lora_A", [RANK, 48]), ("lora_B", [48, RANK])] {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), &data).unwrap();
            views.push((format!("{module}.{end}.weight"), view));
        }
    }
    let bytes = safetensors::serialize(views, None).unwrap();
    fs_err::write(folder.join("adapter_model.safetensors"), bytes).unwrap();
}

fn options(precision: Precision, pool: Option<&Arc<TensorPool>>) -> LoadOptions {
    LoadOptions {
        pool: pool.map(Arc::clone),
        ..LoadOptions::new(Placement::cpu(precision))
    }
}

fn rows(retriever: &dyn Retriever) -> Vec<f32> {
    let page = RgbImage::from_fn(90, 120, |x, y| {
        Rgb([(x * 3 % 256) as u8, (y % 200) as u8, 9])
    });
    let embedding = retriever.embed_page(&page, &mut |_, _| true).unwrap();
    embedding.rows.values
}

fn answer(generator: &dyn Generator) -> Vec<u32> {
    let page = RgbImage::from_fn(90, 120, |x, y| {
        Rgb([(x * 3 % 256) as u8, (y % 200) as u8, 9])
    });
    let options = GenerateOptions {
        max_new_tokens: 8,
        ..GenerateOptions::default()
    };
    let request = Request {
        messages: &[Message::user(1, "What is shown?")],
        images: &[page],
        options: &options,
    };
    let mut on_step = |_: colibri_models::generate::Step<'_>| ControlFlow::Continue(());
    generator.generate(&request, &mut on_step).unwrap().ids
}

/// Loads both, alone and through a pool; the results are the same. Bytes the retriever added to the pool and
/// bytes it holds alone, in that order.
fn check(pair: &Pair, precision: Precision, cache: Option<PathBuf>) -> (usize, usize) {
    let alone = options(precision, None);
    let retriever = load_retriever(&pair.retriever, &alone).unwrap();
    let generator = load_generator(&pair.generator, &alone).unwrap();
    let pool = Arc::new(TensorPool::new(cache));
    let pooled = options(precision, Some(&pool));
    let other_generator = load_generator(&pair.generator, &pooled).unwrap();
    let other_retriever = load_retriever(&pair.retriever, &pooled).unwrap();
    assert_eq!(rows(&*retriever), rows(&*other_retriever));
    assert_eq!(answer(&*generator), answer(&*other_generator));
    assert_eq!(generator.num_bytes(), other_generator.num_bytes());
    (other_retriever.num_bytes(), retriever.num_bytes())
}

fn unchanged(_: &str, dtype: Dtype, data: Vec<u8>) -> (Dtype, Vec<u8>) {
    (dtype, data)
}

#[test]
fn a_pair_of_one_base_holds_it_once() {
    let pair = pair(unchanged);
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let (added, alone) = check(&pair, precision, None);
        // The projection and the adapter are its own.
        assert!(added * 5 < alone, "{precision:?}: {added} of {alone}");
    }
}

#[test]
fn an_f32_copy_is_the_same_base() {
    let pair = pair(|_, _, data| {
        let wide = data.chunks_exact(2).flat_map(|pair| {
            bf16::from_le_bytes([pair[0], pair[1]])
                .to_f32()
                .to_le_bytes()
        });
        (Dtype::F32, wide.collect())
    });
    let (added, alone) = check(&pair, Precision::Bf16, None);
    assert!(added * 5 < alone, "{added} of {alone}");
}

#[test]
fn one_changed_value_in_the_middle_keeps_one_tensor_apart() {
    let changed = pair(|name, dtype, mut data| {
        if name == CHANGED {
            let at = data.len() - 2;
            data[at] ^= 1;
        }
        (dtype, data)
    });
    let same = check(&pair(unchanged), Precision::F32, None).0;
    let (added, _) = check(&changed, Precision::F32, None);
    assert_eq!(added - same, 4 * CHANGED_VALUES);

    let pool = TensorPool::new(None);
    let parts = shared(&changed.generator, &changed.retriever, &pool).unwrap();
    let of = |part: Part| parts.iter().find(|shared| shared.part == part).unwrap();
    let vision = of(Part::Vision);
    assert_eq!(vision.tensors - vision.shared, 1);
    assert_eq!(
        vision.bytes - vision.shared_bytes,
        2 * CHANGED_VALUES as u64
    );
    assert_eq!(
        (of(Part::Text).shared, of(Part::Head).shared),
        (of(Part::Text).tensors, 0)
    );
}

#[test]
fn hashes_are_kept_on_the_disk_and_not_believed_blindly() {
    let pair = pair(unchanged);
    let cache = tempfile::tempdir().unwrap();
    let dir = cache.path().join("tensors");
    let first = check(&pair, Precision::Bf16, Some(dir.clone()));
    let kept: Vec<PathBuf> = fs_err::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(check(&pair, Precision::Bf16, Some(dir.clone())), first);
    for (path, junk) in kept.iter().zip(["", "{\"version\":1,\"file\":7}"]) {
        fs_err::write(path, junk).unwrap();
    }
    assert_eq!(check(&pair, Precision::Bf16, Some(dir.clone())), first);
    // The file has changed since: what was kept of it no longer counts.
    let base = pair.retriever.base.as_ref().unwrap();
    rewrite(&base.join("model.safetensors"), &|name, dtype, mut data| {
        if name == CHANGED {
            data[1500] ^= 1;
        }
        (dtype, data)
    });
    let (added, _) = check(&pair, Precision::Bf16, Some(dir));
    assert_eq!(added - first.0, 2 * CHANGED_VALUES);
}

#[test]
fn a_matrix_leaves_with_its_last_model() {
    let pair = pair(unchanged);
    let pool = Arc::new(TensorPool::new(None));
    let pooled = options(Precision::F32, Some(&pool));
    let generator = load_generator(&pair.generator, &pooled).unwrap();
    let (all, before) = (generator.num_bytes(), answer(&*generator));
    let retriever = load_retriever(&pair.retriever, &pooled).unwrap();
    drop(generator);
    let again = load_generator(&pair.generator, &pooled).unwrap();
    // The retriever held the base; only the head had to be read anew.
    assert_eq!(again.num_bytes(), 4 * HEAD_VALUES);
    assert_eq!(answer(&*again), before);
    drop((again, retriever));
    assert_eq!(
        load_generator(&pair.generator, &pooled)
            .unwrap()
            .num_bytes(),
        all
    );
}
