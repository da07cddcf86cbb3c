//! What a precision loses: logits or rows of one checkpoint in one precision against another.
//!
//! `cargo run --workspace --example receipt -- FOLDER PRECISION FOLDER PRECISION [PICTURE]`, for example the same
//! folder in `f32` and `int4`, or a checkpoint and a copy of it that went through another quantiser
//! (`tools/compare/nf4.py`) in `f32`. A generator is compared by the distribution of the next token at every
//! position of a made-up prompt (and of a picture's first tiles), a checkpoint without an output head by its hidden
//! states.

#![expect(clippy::print_stdout, reason = "a report is printed")]

use std::{path::Path, sync::Arc};

use colibri_models::{NoTrace, Placement, Precision, vlm::idefics3};
use colibri_nn::{Weights, weights::WeightStore};

/// Positions compared.
const TOKENS: usize = 384;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [left, left_precision, right, right_precision, rest @ ..] = args.as_slice() else {
        return Err("arguments: FOLDER PRECISION FOLDER PRECISION [PICTURE]".into());
    };
    let picture = rest.first().map(Path::new);
    let exact = outputs(Path::new(left), precision(left_precision)?, picture)?;
    let found = outputs(Path::new(right), precision(right_precision)?, picture)?;
    let (mut divergence, mut agree, mut cosines) = (0.0, 0, Vec::new());
    for (exact, found) in exact.iter().zip(&found) {
        let (p, q) = (log_softmax(exact), log_softmax(found));
        divergence += p
            .iter()
            .zip(&q)
            .map(|(p, q)| p.exp() * (p - q))
            .sum::<f64>();
        agree += usize::from(greatest(exact) == greatest(found));
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        cosines.push(dot(exact, found) / (dot(exact, exact) * dot(found, found)).sqrt());
    }
    let count = exact.len() as f64;
    cosines.sort_by(f64::total_cmp);
    println!(
        "KL {:.6}, top-1 {:.1} %, cosine {:.5}, worst {:.4}, over {count} positions",
        divergence / count,
        100.0 * agree as f64 / count,
        cosines.iter().sum::<f64>() / count,
        cosines.first().copied().unwrap_or(1.0)
    );
    Ok(())
}

fn precision(name: &str) -> Result<Precision, Failure> {
    Ok(match name {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "int8" => Precision::Int8,
        "int4" => Precision::Int4,
        other => return Err(format!("`{other}` is none of f32, bf16, int8, int4").into()),
    })
}

/// Logits, or hidden states where there is no head, at every position.
fn outputs(
    folder: &Path,
    precision: Precision,
    picture: Option<&Path>,
) -> Result<Vec<Vec<f32>>, Failure> {
    let config = idefics3::Config::load(folder)?;
    let store = Arc::new(WeightStore::open_folder(folder)?);
    let has_head = store.contains("lm_head.weight");
    let weights = Weights::new(store, Placement::cpu(precision));
    let model = idefics3::Idefics3::load(&config, &weights.pp("model"))?;
    let mut ids: Vec<u32> = Vec::new();
    let visual = match picture {
        None => None,
        Some(path) => {
            let side = config.vision_config.image_size as u32;
            let tile = image::open(path)?
                .resize_exact(side, side, image::imageops::FilterType::Triangle)
                .to_rgb8();
            let plane = (side * side) as usize;
            let mut values = vec![0.0; 3 * plane];
            for (at, pixel) in tile.pixels().enumerate() {
                for channel in 0..3 {
                    values[channel * plane + at] = f32::from(pixel[channel]) / 127.5 - 1.0;
                }
            }
            ids.resize(config.tokens_per_tile(), config.image_token_id());
            Some(model.encode_frame(&values, (side as usize, side as usize), &mut NoTrace)?)
        }
    };
    let mut state = 88_172_645_463_325_252_u64;
    let ordinary = config
        .text_config
        .vocab_size
        .min(config.image_token_id() as usize) as u64;
    for _ in 0..TOKENS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ids.push(((state >> 11) % ordinary) as u32);
    }
    let merged = model.merge(&ids, visual.as_ref())?;
    let text = model.text();
    let hidden = text.norm(&text.forward(merged, None, &mut NoTrace)?)?;
    let out = if has_head {
        model.load_head(&weights)?.forward(&hidden)?
    } else {
        hidden
    };
    Ok(out.squeeze(0)?.to_vec2::<f32>()?)
}

fn log_softmax(values: &[f32]) -> Vec<f64> {
    let greatest = values.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let shifted: Vec<f64> = values
        .iter()
        .map(|value| f64::from(value - greatest))
        .collect();
    let total = shifted.iter().map(|value| value.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|value| value - total).collect()
}

fn greatest(values: &[f32]) -> usize {
    let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(at, _)| at)
}
