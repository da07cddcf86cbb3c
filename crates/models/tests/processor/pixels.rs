//! Every size through Pillow's resampler and transformers' image processor, by hashes.

use colibri_models::processor::resample::{Filter, resize};
use colibri_models::processor::{
    ImageProcessor, PreprocessorConfig, TileGrid, TileOptions, TilePlan,
};
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::golden;

/// The source pictures of `tools/golden/pixels.py`: gradients that wrap, hard stripes, noise and
/// flat light areas in a mosaic of 32 pixels.
pub(crate) fn pattern(width: u32, height: u32) -> RgbImage {
    let value = |x: u32, y: u32, c: u32| {
        let mut hash = x
            .wrapping_mul(0x9E37_79B1)
            .wrapping_add(y.wrapping_mul(0x85EB_CA77))
            .wrapping_add(c.wrapping_mul(0xC2B2_AE3D));
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
        hash = (hash ^ (hash >> 12)).wrapping_mul(0x297A_2D39);
        hash ^= hash >> 15;
        let value = match ((x >> 5) + 3 * (y >> 5)) & 3 {
            0 => 3 * x + 5 * y + 85 * c,
            1 => ((x / 3 + y / 5 + c) & 1) * 255,
            2 => hash,
            _ => 255 - 16 * c,
        };
        (value & 255) as u8
    };
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([value(x, y, 0), value(x, y, 1), value(x, y, 2)])
    })
}

#[test]
fn the_pattern_is_the_one_of_the_goldens() {
    for sample in golden::json("pixels/pattern.json")["samples"]
        .as_array()
        .unwrap()
    {
        let (width, height) = golden::size(&sample["size"]);
        assert_eq!(
            golden::sha256(pattern(width, height).as_raw()),
            sample["sha256"]
        );
    }
}

#[test]
fn resizing_is_pillows() {
    let cases = golden::json("pixels/resize.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 40);
    for case in cases {
        let filter = match case["filter"].as_str().unwrap() {
            "lanczos" => Filter::Lanczos,
            "bicubic" => Filter::Bicubic,
            "bilinear" => Filter::Bilinear,
            other => panic!("unknown filter {other}"),
        };
        let (width, height) = golden::size(&case["from"]);
        let (to_width, to_height) = golden::size(&case["to"]);
        let resized = resize(&pattern(width, height), to_width, to_height, filter).unwrap();
        assert_eq!(golden::sha256(resized.as_raw()), case["sha256"], "{case}");
    }
}

fn processor(case: &Value) -> ImageProcessor {
    let number = |key: &str| u32::try_from(case[key].as_u64().unwrap()).unwrap();
    ImageProcessor::new(PreprocessorConfig {
        longest_edge: number("longest_edge"),
        tile_side: number("tile"),
        do_image_splitting: case["do_image_splitting"].as_bool().unwrap(),
        ..PreprocessorConfig::default()
    })
}

#[test]
fn tiles_are_those_of_transformers() {
    let cases = golden::json("pixels/processor.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 80);
    for case in cases {
        let (width, height) = golden::size(&case["size"]);
        let number = |key: &str| u32::try_from(case[key].as_u64().unwrap()).unwrap();
        let processor = processor(case);
        let tiles = processor
            .cut(&pattern(width, height), &TileOptions::default())
            .unwrap();
        let TilePlan { resized, grid, .. } = tiles.plan;
        assert_eq!(resized, golden::size(&case["resized"]), "{case}");
        let expected = TileGrid {
            rows: number("rows"),
            cols: number("cols"),
            tile_side: number("tile"),
        };
        assert_eq!(grid, expected, "{case}");
        assert_eq!(tiles.num_frames(), number("frames") as usize, "{case}");
        for (at, tile) in tiles.frames().enumerate() {
            let digits = golden::sha256(tile.pixels);
            assert_eq!(
                digits[..8],
                *case["frame_sha256"][at].as_str().unwrap(),
                "{at} of {case}"
            );
        }
        assert_eq!(golden::sha256(tiles.as_bytes()), case["sha256"], "{case}");
    }
}

#[test]
fn detail_is_longest_edge_in_tiles() {
    let cases = golden::json("pixels/processor.json");
    let edge = |case: &Value| case["longest_edge"].as_u64().unwrap();
    let of_512 = |case: &&Value| case["tile"] == 512 && edge(case).is_multiple_of(512);
    let mut seen = std::collections::BTreeSet::new();
    for case in cases.as_array().unwrap().iter().filter(of_512) {
        let (width, height) = golden::size(&case["size"]);
        let mut other = case.clone();
        other["longest_edge"] = Value::from(2048);
        other["do_image_splitting"] = Value::from(!case["do_image_splitting"].as_bool().unwrap());
        let options = TileOptions {
            detail: std::num::NonZeroU32::new((edge(case) / 512) as u32),
            split: case["do_image_splitting"].as_bool(),
        };
        let found = processor(&other).plan(width, height, &options).unwrap();
        let expected = processor(case)
            .plan(width, height, &TileOptions::default())
            .unwrap();
        assert_eq!(found, expected, "{case}");
        seen.insert(edge(case));
    }
    assert!(seen.len() >= 4, "{seen:?}");
}

#[test]
fn floats_are_those_of_numpy() {
    let bytes = fs_err::read(golden::folder().join("pixels/normalise.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let other = PreprocessorConfig {
        rescale_factor: 0.003_921_568_627_450_98,
        image_mean: [0.485, 0.456, 0.406],
        image_std: [0.229, 0.224, 0.225],
        ..PreprocessorConfig::default()
    };
    for (name, config) in [("half", PreprocessorConfig::default()), ("other", other)] {
        let tile: Vec<u8> = (0..=255).flat_map(|byte| [byte; 3]).collect();
        let mut found = vec![0.0; tile.len()];
        ImageProcessor::new(config).normalize_tile(&tile, &mut found);
        let (expected, _) = tensors.tensor(name).unwrap().data().as_chunks::<4>();
        let expected: Vec<u32> = expected
            .iter()
            .map(|four| u32::from_le_bytes(*four))
            .collect();
        let found: Vec<u32> = found.iter().map(|value| value.to_bits()).collect();
        assert_eq!(found, expected, "{name}");
    }
}
