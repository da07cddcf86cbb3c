//! The half-blocks that call `kernels` equal the same half-blocks made of candle operations, with and
//! without adapters, and do so over a cache as well as all at once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::HashMap, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor};
use colibri_nn::{
    KvCache, KvPrecision, Placement, Precision, Rope, Weights,
    blocks::{AttentionBlock, AttentionShape, Mlp, MlpBlock, Visibility},
    weights::{Adapter, WeightStore},
};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const Q_HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;

/// Repeatable values around zero.
fn noise(seed: u64, count: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 2.0 * scale
        })
        .collect()
}

fn tensor(seed: u64, shape: &[usize], scale: f32) -> Tensor {
    Tensor::from_vec(
        noise(seed, shape.iter().product(), scale),
        shape,
        &Device::Cpu,
    )
    .unwrap()
}

fn write_model(folder: &Path) {
    let mut tensors = HashMap::new();
    let mut add = |name: &str, shape: &[usize], scale: f32| {
        let seed = tensors.len() as u64 + 11;
        tensors.insert(name.to_owned(), tensor(seed, shape, scale));
    };
    add("norm1.weight", &[HIDDEN], 1.0);
    add("norm1.bias", &[HIDDEN], 0.3);
    add("norm2.weight", &[HIDDEN], 1.0);
    for (name, out, inputs) in [
        ("attn.q_proj", Q_HEADS * HEAD_DIM, HIDDEN),
        ("attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
        ("attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN),
        ("attn.o_proj", HIDDEN, Q_HEADS * HEAD_DIM),
        ("mlp.gate_proj", INNER, HIDDEN),
        ("mlp.up_proj", INNER, HIDDEN),
        ("mlp.down_proj", HIDDEN, INNER),
        ("mlp.fc1", INNER, HIDDEN),
        ("mlp.fc2", HIDDEN, INNER),
    ] {
        add(&format!("{name}.weight"), &[out, inputs], 0.4);
        add(&format!("{name}.bias"), &[out], 0.2);
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();

    let mut factors = HashMap::new();
    for (name, out, inputs) in [
        ("attn.q_proj", Q_HEADS * HEAD_DIM, HIDDEN),
        ("attn.o_proj", HIDDEN, Q_HEADS * HEAD_DIM),
        ("mlp.gate_proj", INNER, HIDDEN),
        ("mlp.fc1", INNER, HIDDEN),
    ] {
        let module = format!("base_model.model.{name}");
        let seed = factors.len() as u64 + 101;
        factors.insert(
            format!("{module}.lora_A.weight"),
            tensor(seed, &[3, inputs], 0.4),
        );
        factors.insert(
            format!("{module}.lora_B.weight"),
            tensor(seed + 1, &[out, 3], 0.4),
        );
    }
    candle_core::safetensors::save(&factors, folder.join("adapter_model.safetensors")).unwrap();
    let config = r#"{"peft_type": "LORA", "r": 3, "lora_alpha": 6, "bias": "none",
        "target_modules": "(attn\\.(q|o)_proj|mlp\\.(gate_proj|fc1))"}"#;
    fs_err::write(folder.join("adapter_config.json"), config).unwrap();
}

fn open(folder: &Path, placement: Placement, merged: Option<bool>) -> Weights {
    let store = Arc::new(WeightStore::open_folder(folder).unwrap());
    let adapter = merged.map(|merged| Arc::new(Adapter::open(folder, merged).unwrap()));
    Weights::new(store, placement).with_adapter(adapter)
}

fn attention(vb: &Weights, visibility: Visibility) -> AttentionBlock {
    let inv_freq: Vec<f32> = (0..HEAD_DIM / 2).map(|i| 0.5_f32.powi(i as i32)).collect();
    let attn = vb.pp("attn");
    AttentionBlock {
        norm: vb.layer_norm("norm1", HIDDEN, 1e-6).unwrap(),
        q_proj: attn
            .linear("q_proj", HIDDEN, Q_HEADS * HEAD_DIM, true)
            .unwrap(),
        k_proj: attn
            .linear("k_proj", HIDDEN, KV_HEADS * HEAD_DIM, true)
            .unwrap(),
        v_proj: attn
            .linear("v_proj", HIDDEN, KV_HEADS * HEAD_DIM, true)
            .unwrap(),
        o_proj: attn
            .linear("o_proj", Q_HEADS * HEAD_DIM, HIDDEN, true)
            .unwrap(),
        shape: AttentionShape {
            q_heads: Q_HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            scale: 0.35,
        },
        rope: Some(Arc::new(
            Rope::new(&inv_freq, 64, 1.0, vb.placement()).unwrap(),
        )),
        visibility,
    }
}

fn mlp(vb: &Weights, gated: bool) -> MlpBlock {
    let scope = vb.pp("mlp");
    let mlp = if gated {
        Mlp::SiluGated {
            gate_proj: scope.linear("gate_proj", HIDDEN, INNER, true).unwrap(),
            up_proj: scope.linear("up_proj", HIDDEN, INNER, true).unwrap(),
            down_proj: scope.linear("down_proj", INNER, HIDDEN, true).unwrap(),
        }
    } else {
        Mlp::Gelu {
            fc1: scope.linear("fc1", HIDDEN, INNER, true).unwrap(),
            fc2: scope.linear("fc2", INNER, HIDDEN, true).unwrap(),
        }
    };
    MlpBlock {
        norm: vb.rms_norm("norm2", HIDDEN, 1e-5).unwrap(),
        mlp,
    }
}

fn relative_difference(a: &Tensor, b: &Tensor) -> f32 {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (a, b) = (values(a), values(b));
    let norm: f32 = b.iter().map(|y| y * y).sum();
    let difference: f32 = a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum();
    (difference / norm).sqrt()
}

/// f32 rounding through one half-block.
const TOLERANCE: f32 = 2e-6;

fn both(folder: &Path, merged: Option<bool>) -> [Weights; 2] {
    [
        open(folder, Placement::cpu(Precision::F32), merged),
        open(folder, Placement::candle(Device::Cpu, DType::F32), merged),
    ]
}

#[test]
fn kernels_equal_candle() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let x = tensor(3, &[2, 7, HIDDEN], 1.0);
    let mut plain = Vec::new();
    for merged in [None, Some(false), Some(true)] {
        let [packed, dense] = both(folder.path(), merged);
        for visibility in [Visibility::Full, Visibility::Causal] {
            let a = attention(&packed, visibility)
                .forward(x.copy().unwrap(), None)
                .unwrap();
            let b = attention(&dense, visibility)
                .forward(x.clone(), None)
                .unwrap();
            assert!(
                relative_difference(&a, &b) < TOLERANCE,
                "{merged:?} {visibility:?}"
            );
            plain.push(a);
        }
        for gated in [false, true] {
            let a = mlp(&packed, gated).forward(x.copy().unwrap()).unwrap();
            let b = mlp(&dense, gated).forward(x.clone()).unwrap();
            assert!(
                relative_difference(&a, &b) < TOLERANCE,
                "{merged:?} gated {gated}"
            );
            plain.push(a);
        }
    }
    // Order: attention full, causal, MLP plain, gated; for no adapter, beside, merged.
    for (index, merged) in plain[8..].iter().enumerate() {
        assert!(
            relative_difference(&plain[4 + index], merged) < TOLERANCE,
            "beside against merged, {index}"
        );
        assert!(
            relative_difference(&plain[index], merged) > 1e-3,
            "the adapter must change stage {index}"
        );
    }
}

#[test]
fn a_cache_continues_a_sequence() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let x = tensor(5, &[1, 9, HIDDEN], 1.0);
    for weights in both(folder.path(), None) {
        let block = attention(&weights, Visibility::Causal);
        let whole = block.forward(x.copy().unwrap(), None).unwrap();
        let mut cache = KvCache::new(1, 16, KvPrecision::Auto);
        let mut parts = Vec::new();
        for (start, len) in [(0, 5), (5, 1), (6, 3)] {
            let part = x.narrow(1, start, len).unwrap().copy().unwrap();
            parts.push(
                block
                    .forward(part, Some(&mut cache.layers_mut()[0]))
                    .unwrap(),
            );
        }
        let joined = Tensor::cat(&parts, 1).unwrap();
        assert!(relative_difference(&joined, &whole) < TOLERANCE);
        assert_eq!(cache.len(), 9);

        cache.truncate(5).unwrap();
        let again = x.narrow(1, 5, 1).unwrap().copy().unwrap();
        let again = block
            .forward(again, Some(&mut cache.layers_mut()[0]))
            .unwrap();
        assert!(relative_difference(&again, &parts[1]) < TOLERANCE);
    }
}

/// Keys and values in bytes: 2^-8 of the greatest value of a head for each, and the same whether they were read in
/// one piece or in several.
#[test]
fn a_cache_in_bytes_stays_close_and_does_not_depend_on_cuts() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let x = tensor(5, &[1, 9, HIDDEN], 1.0);
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let weights = open(folder.path(), Placement::cpu(precision), Some(false));
        let block = attention(&weights, Visibility::Causal);
        let run = |kept, cuts: &[(usize, usize)]| {
            let mut cache = KvCache::new(1, 16, kept);
            let parts: Vec<Tensor> = cuts
                .iter()
                .map(|&(start, len)| {
                    let part = x.narrow(1, start, len).unwrap().copy().unwrap();
                    let layer = &mut cache.layers_mut()[0];
                    block.forward(part, Some(layer)).unwrap()
                })
                .collect();
            (Tensor::cat(&parts, 1).unwrap(), cache.num_bytes())
        };
        let (whole, held) = run(KvPrecision::Int8, &[(0, 9)]);
        let (parts, _) = run(KvPrecision::Int8, &[(0, 5), (5, 1), (6, 3)]);
        assert_eq!(relative_difference(&parts, &whole), 0.0);
        let (plain, all) = run(KvPrecision::Auto, &[(0, 9)]);
        let difference = relative_difference(&whole, &plain);
        assert!((1e-6..0.02).contains(&difference), "{difference}");
        assert!(held < all, "{held} of {all} bytes");
    }
}

#[test]
fn a_sequence_beyond_the_position_table_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let [packed, _] = both(folder.path(), None);
    let error = attention(&packed, Visibility::Causal)
        .forward(tensor(1, &[1, 65, HIDDEN], 1.0), None)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the sequence has 65 tokens, the model allows 64"
    );
}

#[test]
fn lower_precisions_stay_close() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let x = tensor(3, &[1, 7, HIDDEN], 1.0);
    let run = |precision| {
        let weights = open(folder.path(), Placement::cpu(precision), Some(false));
        let y = attention(&weights, Visibility::Causal)
            .forward(x.copy().unwrap(), None)
            .unwrap();
        mlp(&weights, true).forward(y).unwrap()
    };
    let exact = run(Precision::F32);
    // 8 bits of mantissa, and 8 bits with one scale a row: about 2^-9 and 2^-8 for each factor.
    assert!(relative_difference(&run(Precision::Bf16), &exact) < 0.01);
    assert!(relative_difference(&run(Precision::Int8), &exact) < 0.03);
    assert!(relative_difference(&run(Precision::Int4), &exact) < 0.1);
}
