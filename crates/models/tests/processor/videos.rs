//! Videos against transformers' SmolVLM processors: sampled frames, prompts, pixels.

use colibri_models::processor::{
    Content, Idefics3Processor, ImageProcessor, Message, PreprocessorConfig, ProcessorFiles, Role,
    TileGrid, TileOptions, VideoRecipe, VideoSampling,
};
use image::RgbImage;
use serde_json::Value;

use crate::{golden, pixels::pattern};

fn timed(fps: f64, max_frames: u32, longest_edge: u32) -> VideoRecipe {
    VideoRecipe::Timed(VideoSampling {
        fps,
        max_frames,
        longest_edge,
    })
}

fn whole(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn the_same_frames_are_sampled() {
    let cases = golden::json("video/sampled.json");
    let cases = cases.as_array().unwrap();
    for case in cases {
        let most = u32::try_from(whole(&case["max_frames"])).unwrap();
        let recipe = timed(case["fps"].as_f64().unwrap(), most, 512);
        let chosen = recipe.choose(whole(&case["frames"]), case["rate"].as_f64().unwrap());
        let expected: Vec<usize> = case["indices"]
            .as_array()
            .unwrap()
            .iter()
            .map(whole)
            .collect();
        assert_eq!(chosen, expected, "{case}");
    }
    assert!(cases.len() >= 70, "{} cases", cases.len());
    assert!(timed(1.0, 64, 512).choose(0, 25.0).is_empty());
}

/// The ids of a turn that shows a clip and asks about it.
fn ids(processor: &Idefics3Processor, recipe: &VideoRecipe, case: &Value) -> Vec<u32> {
    let (frames, rate) = (whole(&case["frames"]), case["rate"].as_f64().unwrap());
    let seconds: Vec<f64> = recipe
        .choose(frames, rate)
        .into_iter()
        .map(|index| index as f64 / rate)
        .collect();
    let mut content = recipe.content(&seconds, frames as f64 / rate);
    content.push(Content::Text(case["question"].as_str().unwrap().to_owned()));
    let message = Message {
        role: Role::User,
        content,
    };
    let grid = TileGrid {
        rows: 0,
        cols: 0,
        tile_side: u32::try_from(whole(&case["tile"])).unwrap(),
    };
    processor
        .ids(&[message], &vec![grid; seconds.len()], true)
        .unwrap()
}

#[test]
fn prompts_of_videos_with_small_tokenizers() {
    let cases = golden::json("video/prompts.json");
    let cases = cases.as_array().unwrap();
    for case in cases {
        let name = case["checkpoint"].as_str().unwrap();
        let files = ProcessorFiles::new(golden::folder().join("checkpoints").join(name));
        let processor =
            Idefics3Processor::load(&files, Some(whole(&case["image_seq_len"]))).unwrap();
        let tile = u32::try_from(whole(&case["tile"])).unwrap();
        let ids = ids(&processor, &timed(1.0, 64, tile), case);
        assert_eq!(ids, golden::ids(&case["ids"]), "{name} {}", case["frames"]);
        assert_eq!(ids.len(), whole(&case["num_tokens"]));
    }
    assert_eq!(cases.len(), 12);
}

/// A folder with the files of a published SmolVLM2 and the tokenizer that all of them share.
fn smolvlm2(settings: &Value, image_seq_len: &str) -> Option<tempfile::TempDir> {
    let shared = |key: &str| golden::shared(settings[key].as_str().unwrap());
    let checkpoint = golden::shared(settings["checkpoints"][image_seq_len].as_str().unwrap())?;
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (shared("tokenizer_of")?, "tokenizer.json"),
        (shared("tokenizer_of")?, "tokenizer_config.json"),
        (shared("template_of")?, "chat_template.json"),
        (checkpoint, "preprocessor_config.json"),
    ];
    for (from, name) in files {
        fs_err::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    Some(folder)
}

#[test]
fn prompts_of_videos_with_the_published_files() {
    let settings = golden::json("video/settings.json");
    let mut seen = 0;
    for case in golden::json("video/real-prompts.json").as_array().unwrap() {
        let length = whole(&case["image_seq_len"]);
        let Some(folder) = smolvlm2(&settings, &length.to_string()) else {
            return;
        };
        let files = ProcessorFiles::new(folder.path());
        let processor = Idefics3Processor::load(&files, Some(length)).unwrap();
        // The recipe comes from the published file.
        let recipe = processor.video();
        let tile = u32::try_from(whole(&case["tile"])).unwrap();
        assert_eq!(recipe, timed(1.0, 64, tile));
        let ids = ids(&processor, &recipe, case);
        assert_eq!(
            ids,
            golden::ids(&case["ids"]),
            "{length} {}",
            case["frames"]
        );
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn frames_are_processed_alike_and_shrinking_them_before_changes_nothing() {
    let cases = golden::json("video/frames.json");
    let cases = cases.as_array().unwrap();
    for case in cases {
        let (width, height) = golden::size(&case["size"]);
        let edge = |key: &str| u32::try_from(whole(&case[key])).unwrap();
        let config = PreprocessorConfig {
            tile_side: edge("tile"),
            longest_edge: edge("longest_edge"),
            do_image_splitting: false,
            ..PreprocessorConfig::default()
        };
        let processor = ImageProcessor::new(config);
        let frame = pattern(width, height);
        let tiles = processor.cut(&frame, &TileOptions::default()).unwrap();
        assert_eq!(golden::sha256(tiles.as_bytes()), case["sha256"], "{case}");
        let small = timed(1.0, 64, edge("longest_edge")).shrink(frame).unwrap();
        assert!(small.width().max(small.height()) <= edge("longest_edge").max(width.max(height)));
        let again = processor.cut(&small, &TileOptions::default()).unwrap();
        assert_eq!(tiles.as_bytes(), again.as_bytes(), "{case}");
        // What the other resampler gives at the published sizes differs by rounding alone. (It does not on a
        // frame squeezed to ten pixels and stretched again.)
        if edge("tile") >= 384 {
            assert!(case["torchvision_largest"].as_u64().unwrap() <= 2, "{case}");
        }
    }
    assert_eq!(cases.len(), 21);
}

#[test]
fn frames_are_not_cut_and_pictures_beside_them_are() {
    let folder = golden::folder().join("checkpoints/smolvlm-single");
    let processor = Idefics3Processor::load(&ProcessorFiles::new(folder), None).unwrap();
    let message = Message {
        role: Role::User,
        content: vec![Content::Frame, Content::Image, Content::Frame],
    };
    let images = vec![RgbImage::new(300, 200); 3];
    let prompt = processor
        .process(&[message], &images, true, &TileOptions::default())
        .unwrap();
    let split: Vec<bool> = prompt
        .tiles
        .iter()
        .map(|tiles| tiles.grid().is_split())
        .collect();
    assert_eq!(split, [false, true, false]);
}

#[test]
fn the_first_recipe_takes_fifty_evenly_spaced_frames_and_no_words() {
    let recipe = VideoRecipe::of(None, 2048);
    // One a second while there are few, by the whole part of the rate.
    assert_eq!(recipe.choose(100, 25.9), [0, 25, 50, 75]);
    let many = recipe.choose(30_000, 25.0);
    assert_eq!(many.len(), 50);
    assert_eq!((many[0], many[1], many[49]), (0, 600, 1199 * 25));
    assert_eq!(recipe.choose(3, 0.5), [0, 1, 2]);
    let content = recipe.content(&[0.0, 1.0], 2.0);
    assert_eq!(content, [Content::Frame, Content::Frame]);
}

#[test]
fn long_videos_are_told_by_days_and_many_frames_in_words() {
    let content = timed(1.0, 64, 512).content(&vec![7205.0; 1234], 2.0 * 86_400.0 + 3661.9);
    let Content::Text(intro) = &content[0] else {
        panic!("{:?}", content[0])
    };
    assert_eq!(
        intro,
        "You are provided the following series of one thousand, two hundred and thirty-four frames from a 2 days, 1:01:01 [H:MM:SS] video.\n"
    );
    assert_eq!(content[1], Content::Text("\nFrame from 120:05:".to_owned()));
}
