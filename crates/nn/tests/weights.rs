//! Damaged, lying and mismatched weight files give one error that names the file, the tensor and the
//! shapes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::HashMap, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor};
use colibri_nn::{
    Error, Placement, Precision, Weights,
    weights::{Adapter, WeightStore},
};

fn save(folder: &Path, file: &str, tensors: &[(&str, Tensor)]) {
    let tensors: HashMap<String, Tensor> = tensors
        .iter()
        .map(|(name, t)| ((*name).to_owned(), t.clone()))
        .collect();
    candle_core::safetensors::save(&tensors, folder.join(file)).unwrap();
}

fn ramp(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::arange(0_f32, count as f32, &Device::Cpu)
        .unwrap()
        .reshape(shape)
        .unwrap()
}

fn open(folder: &Path) -> Result<Weights, Error> {
    Ok(Weights::new(
        Arc::new(WeightStore::open_folder(folder)?),
        Placement::cpu(Precision::F32),
    ))
}

#[test]
fn every_float_type_is_widened() {
    let folder = tempfile::tempdir().unwrap();
    let half = |dtype| ramp(&[2, 3]).to_dtype(dtype).unwrap();
    save(
        folder.path(),
        "model.safetensors",
        &[
            ("a", ramp(&[2, 3])),
            ("b", half(DType::BF16)),
            ("c", half(DType::F16)),
        ],
    );
    let weights = open(folder.path()).unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(
            weights.values(name, &[2, 3]).unwrap(),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        );
    }
}

#[test]
fn a_wrong_shape_names_everything() {
    let folder = tempfile::tempdir().unwrap();
    save(
        folder.path(),
        "model.safetensors",
        &[("x.proj.weight", ramp(&[2, 3]))],
    );
    let error = open(folder.path())
        .unwrap()
        .pp("x")
        .linear("proj", 4, 2, false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`x.proj.weight`") && error.contains("model.safetensors"),
        "{error}"
    );
    assert!(
        error.contains("[2, 3]") && error.contains("[2, 4]"),
        "{error}"
    );
    let error = open(folder.path())
        .unwrap()
        .pp("x")
        .linear("k", 4, 2, false)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("tensor `x.k.weight` is missing from"),
        "{error}"
    );
}

#[test]
fn integers_and_infinities_are_not_weights() {
    let folder = tempfile::tempdir().unwrap();
    let integers = Tensor::zeros((2, 3), DType::I64, &Device::Cpu).unwrap();
    let infinite = Tensor::new(&[[1.0_f32, f32::INFINITY]], &Device::Cpu).unwrap();
    save(
        folder.path(),
        "model.safetensors",
        &[("i", integers), ("inf", infinite)],
    );
    let weights = open(folder.path()).unwrap();
    assert!(matches!(
        weights.values("i", &[2, 3]),
        Err(Error::TensorType { .. })
    ));
    assert!(matches!(
        weights.values("inf", &[1, 2]),
        Err(Error::NotFinite { .. })
    ));
}

#[test]
fn every_truncation_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "model.safetensors", &[("a", ramp(&[2, 3]))]);
    let path = folder.path().join("model.safetensors");
    let whole = fs_err::read(&path).unwrap();
    for len in 0..whole.len() {
        fs_err::write(&path, &whole[..len]).unwrap();
        let error = open(folder.path())
            .err()
            .unwrap_or_else(|| panic!("{len} bytes of {} were accepted", whole.len()));
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    save(
        folder.path(),
        "model-00001-of-00002.safetensors",
        &[("a", ramp(&[2]))],
    );
    save(
        folder.path(),
        "model-00002-of-00002.safetensors",
        &[("b", ramp(&[3]))],
    );
    let index = folder.path().join("model.safetensors.index.json");
    let write = |second: &str| {
        let text = format!(
            r#"{{"weight_map": {{"a": "model-00001-of-00002.safetensors", "b": "{second}"}}}}"#
        );
        fs_err::write(&index, text).unwrap();
    };
    write("model-00002-of-00002.safetensors");
    let weights = open(folder.path()).unwrap();
    assert_eq!(weights.values("b", &[3]).unwrap(), [0.0, 1.0, 2.0]);
    write("model-00001-of-00002.safetensors");
    assert!(matches!(
        open(folder.path()),
        Err(Error::MissingTensor { .. })
    ));
    write("../elsewhere.safetensors");
    assert!(matches!(open(folder.path()), Err(Error::Header { .. })));
    save(
        folder.path(),
        "model-00002-of-00002.safetensors",
        &[("a", ramp(&[2])), ("b", ramp(&[3]))],
    );
    write("model-00002-of-00002.safetensors");
    assert!(matches!(
        open(folder.path()),
        Err(Error::DuplicateTensor { .. })
    ));
}

fn adapter(folder: &Path, config: &str, tensors: &[(&str, Tensor)]) -> Result<Adapter, Error> {
    fs_err::write(folder.join("adapter_config.json"), config).unwrap();
    save(folder, "adapter_model.safetensors", tensors);
    Adapter::open(folder, false)
}

#[test]
fn adapters_that_cannot_be_applied_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let a = ("base_model.model.x.q_proj.lora_A.weight", ramp(&[2, 3]));
    let b = ("base_model.model.x.q_proj.lora_B.weight", ramp(&[4, 2]));
    let good = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}"#;
    let ok = adapter(folder.path(), good, &[a.clone(), b.clone()]).unwrap();
    assert_eq!(ok.modules().collect::<Vec<_>>(), ["x.q_proj"]);
    for (config, reason) in [
        (
            r#"{"peft_type": "IA3", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}"#,
            "IA3",
        ),
        (
            r#"{"r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "use_dora": true}"#,
            "use_dora",
        ),
        (
            r#"{"r": 0, "lora_alpha": 2, "target_modules": ["q_proj"]}"#,
            "rank 0",
        ),
        (
            r#"{"r": 2, "lora_alpha": 2, "target_modules": ["k_proj"]}"#,
            "does not match",
        ),
        (
            r#"{"r": 2, "lora_alpha": 2, "target_modules": "(["}"#,
            "regular expression",
        ),
        // A fullmatch: the expression has to cover the whole name.
        (
            r#"{"r": 2, "lora_alpha": 2, "target_modules": "q_proj"}"#,
            "does not match",
        ),
    ] {
        let error = adapter(folder.path(), config, &[a.clone(), b.clone()])
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn an_adapted_module_needs_both_factors_in_its_own_shape() {
    let folder = tempfile::tempdir().unwrap();
    save(
        folder.path(),
        "model.safetensors",
        &[
            ("x.q_proj.weight", ramp(&[4, 3])),
            ("x.k_proj.weight", ramp(&[4, 3])),
        ],
    );
    let config = r#"{"r": 2, "lora_alpha": 4, "target_modules": "x\\.[qk]_proj"}"#;
    let a = ("base_model.model.x.q_proj.lora_A.weight", ramp(&[2, 3]));
    let tall = ("base_model.model.x.q_proj.lora_B.weight", ramp(&[5, 2]));
    let adapter = Arc::new(adapter(folder.path(), config, &[a, tall]).unwrap());
    assert_eq!(adapter.config().scale(), 2.0);
    let weights = open(folder.path())
        .unwrap()
        .with_adapter(Some(adapter))
        .pp("x");
    let error = weights.linear("q_proj", 3, 4, false).unwrap_err();
    assert!(matches!(error, Error::TensorShape { .. }), "{error}");
    let error = weights
        .linear("k_proj", 3, 4, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`x.k_proj` should be adapted"), "{error}");
}
