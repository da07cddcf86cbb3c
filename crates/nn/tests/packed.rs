//! Packed weights kept on the disk: the second load reads nothing and gives the same bits; what is damaged, foreign or
//! out of date is noticed and made again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{Device, Tensor};
use colibri_nn::{
    Placement, Precision, Weights,
    weights::{Adapter, TensorPool, WeightStore, list_packed, remove_packed},
};

const OUTPUTS: usize = 131;
const INPUTS: usize = 144;
const RANK: usize = 3;
const PRECISIONS: [Precision; 5] = [
    Precision::F32,
    Precision::Bf16,
    Precision::Bf16Short,
    Precision::Int8,
    Precision::Int4,
];

fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|at: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            // Two input features much smaller than the others, which integers balance.
            if at % INPUTS < 2 { value / 64.0 } else { value }
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn save(path: &Path, tensors: &[(&str, Tensor)]) {
    let tensors: HashMap<String, Tensor> = tensors
        .iter()
        .map(|(name, t)| ((*name).to_owned(), t.clone()))
        .collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        scene.write(1);
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, seed: u64) {
        save(
            &self.at("model.safetensors"),
            &[
                ("a.weight", noise(&[OUTPUTS, INPUTS], seed)),
                ("b.weight", noise(&[OUTPUTS, INPUTS], seed + 1)),
            ],
        );
    }

    /// What layer `name` makes of a few rows, and how many bytes of values were read for it.
    fn run(
        &self,
        name: &str,
        precision: Precision,
        packed: bool,
        adapter: Option<Arc<Adapter>>,
    ) -> (Vec<f32>, u64) {
        let store = Arc::new(WeightStore::open_folder(self.folder.path()).unwrap());
        let dir = packed.then(|| self.at("packed"));
        let pool = TensorPool::new(Some(self.at("hashes"))).keep_packed(dir);
        let weights = Weights::new(Arc::clone(&store), Placement::cpu(precision))
            .with_adapter(adapter)
            .with_pool(Some(Arc::new(pool)));
        let layer = weights.linear(name, INPUTS, OUTPUTS, false).unwrap();
        let y = layer.forward(&noise(&[5, INPUTS], 9)).unwrap();
        let values = y.flatten_all().unwrap().to_vec1().unwrap();
        (values, store.bytes_read())
    }

    fn packed_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for kept in list_packed(&self.at("packed")).unwrap() {
            for entry in fs_err::read_dir(&kept.folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|ending| ending == "packed") {
                    files.push(path);
                }
            }
        }
        files.sort();
        files
    }

    fn adapter(&self, factor: f64, merged: bool) -> Arc<Adapter> {
        let folder = self.at("adapter");
        fs_err::create_dir_all(&folder).unwrap();
        let config = format!(
            r#"{{"peft_type": "LORA", "r": {RANK}, "lora_alpha": {RANK}, "target_modules": ["a"]}}"#
        );
        fs_err::write(folder.join("adapter_config.json"), config).unwrap();
        let up = (noise(&[OUTPUTS, RANK], 4) * factor).unwrap();
        save(
            &folder.join("adapter_model.safetensors"),
            &[
                (
                    "base_model.model.a.lora_A.weight",
                    noise(&[RANK, INPUTS], 3),
                ),
                ("base_model.model.a.lora_B.weight", up),
            ],
        );
        Arc::new(Adapter::open(&folder, merged).unwrap())
    }
}

#[test]
fn the_second_load_reads_nothing_and_gives_the_same_bits() {
    let scene = Scene::new();
    for precision in PRECISIONS {
        let (wanted, _) = scene.run("a", precision, false, None);
        for load in 0..3 {
            let (found, read) = scene.run("a", precision, true, None);
            assert!(found == wanted, "{precision:?}, load {load}");
            assert_eq!(read == 0, load > 0, "{precision:?}, load {load}: {read}");
        }
    }
    assert_eq!(scene.packed_files().len(), PRECISIONS.len());
}

#[test]
fn adapters_beside_and_merged() {
    let scene = Scene::new();
    for merged in [false, true] {
        let adapter = scene.adapter(1.0, merged);
        let run = |packed, adapter: &Arc<Adapter>| {
            scene.run("a", Precision::Int8, packed, Some(Arc::clone(adapter)))
        };
        let (wanted, _) = run(false, &adapter);
        assert!(run(true, &adapter).0 == wanted);
        let (found, read) = run(true, &adapter);
        assert!(found == wanted && read == 0, "merged {merged}: {read}");
        // Another adapter of the same name over the same base.
        let other = scene.adapter(2.0, merged);
        let (wanted_of_other, _) = run(false, &other);
        assert!(wanted_of_other != wanted);
        assert!(run(true, &other).0 == wanted_of_other);
    }
}

/// What happened to the file of a packed matrix.
type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 9] = [
    ("emptied", |path| fs_err::write(path, b"").unwrap()),
    ("gone", |path| fs_err::remove_file(path).unwrap()),
    ("another file", |path| {
        fs_err::write(path, vec![0x5A; 100_000]).unwrap();
    }),
    ("cut in the header", |path| cut(path, 100)),
    ("cut at the header", |path| cut(path, 4096)),
    ("cut by a byte", |path| {
        cut(path, fs_err::metadata(path).unwrap().len() - 1);
    }),
    ("longer", |path| {
        let mut bytes = fs_err::read(path).unwrap();
        bytes.extend_from_slice(&[0; 64]);
        fs_err::write(path, bytes).unwrap();
    }),
    ("a bit of the header", |path| flip(path, 90)),
    ("a bit of the weights", |path| flip(path, 5000)),
];

fn cut(path: &Path, length: u64) {
    let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs_err::read(path).unwrap();
    bytes[at] ^= 4;
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn damage_is_noticed_and_mended() {
    let scene = Scene::new();
    let (wanted, _) = scene.run("a", Precision::Int8, true, None);
    for (what, damage) in DAMAGES {
        // Checked, and remembered as checked.
        assert_eq!(scene.run("a", Precision::Int8, true, None).1, 0, "{what}");
        damage(&scene.packed_files()[0]);
        let (found, read) = scene.run("a", Precision::Int8, true, None);
        assert!(found == wanted && read > 0, "{what}: {read}");
        let (found, read) = scene.run("a", Precision::Int8, true, None);
        assert!(found == wanted && read == 0, "{what}, mended: {read}");
    }
}

#[test]
fn the_file_of_another_matrix_is_noticed() {
    let scene = Scene::new();
    let (wanted, _) = scene.run("a", Precision::Bf16, true, None);
    let of_a = scene.packed_files()[0].clone();
    scene.run("b", Precision::Bf16, true, None);
    let files = scene.packed_files();
    let of_b = files.iter().find(|&path| *path != of_a).unwrap();
    fs_err::copy(of_b, &of_a).unwrap();
    assert!(scene.run("a", Precision::Bf16, true, None).0 == wanted);
}

#[test]
fn changed_weights_replace_what_was_packed() {
    let scene = Scene::new();
    scene.run("a", Precision::Bf16, true, None);
    let old = scene.packed_files();
    scene.write(77);
    let (wanted, _) = scene.run("a", Precision::Bf16, false, None);
    assert!(scene.run("a", Precision::Bf16, true, None).0 == wanted);
    let new = scene.packed_files();
    assert!(new.len() == 1 && new != old);
}

#[test]
fn what_is_kept_is_listed_and_removed() {
    let scene = Scene::new();
    assert_eq!(list_packed(&scene.at("packed")).unwrap(), []);
    let (wanted, _) = scene.run("a", Precision::F32, true, None);
    let kept = list_packed(&scene.at("packed")).unwrap();
    assert_eq!(kept.len(), 1);
    let file = fs_err::canonicalize(scene.at("model.safetensors")).unwrap();
    assert_eq!(kept[0].file.as_ref(), Some(&file));
    assert!(kept[0].bytes > (4 * OUTPUTS * INPUTS) as u64);
    remove_packed(&kept[0]).unwrap();
    assert_eq!(list_packed(&scene.at("packed")).unwrap(), []);
    assert!(scene.run("a", Precision::F32, true, None).0 == wanted);
}

#[test]
fn a_folder_that_cannot_be_made_costs_nothing_else() {
    let scene = Scene::new();
    fs_err::write(scene.at("packed"), b"a file").unwrap();
    let (wanted, _) = scene.run("a", Precision::Bf16, false, None);
    for _ in 0..2 {
        let (found, read) = scene.run("a", Precision::Bf16, true, None);
        assert!(found == wanted && read > 0);
    }
}
