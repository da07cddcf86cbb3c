//! Document and query prompts of ColIdefics3 in all versions, and where their tokens look.

use colibri_models::processor::{
    ColIdefics3Processor, ImageProcessor, PageBox, PreprocessorConfig, ProcessorFiles,
    PromptVersion, TileOptions, TokenKind,
};
use serde_json::Value;

use crate::golden;

fn load(files: &ProcessorFiles, derived: Option<usize>, version: &str) -> ColIdefics3Processor {
    let version: PromptVersion = version.parse().unwrap();
    ColIdefics3Processor::load(files, derived, version).unwrap()
}

#[test]
fn prompts_of_the_small_retrievers() {
    let mut seen = 0;
    for (path, case) in golden::cases() {
        let kind = case["kind"].as_str().unwrap();
        // ColPali's prompts are compared where its networks are (`golden_networks`).
        let colpali = case["checkpoint"].as_str().unwrap().starts_with("colpali");
        if (kind != "page" && kind != "query") || colpali {
            continue;
        }
        let files = golden::files(&case);
        let derived = Some(golden::derived_seq_len(&case));
        for (version, expected) in case["prompt_versions"].as_object().unwrap() {
            let processor = load(&files, derived, version);
            let ids = if kind == "query" {
                processor
                    .query_ids(case["query"].as_str().unwrap())
                    .unwrap()
            } else {
                let mut config = PreprocessorConfig::load(&files).unwrap();
                if let Some(edge) = case["processor"]["longest_edge"].as_u64() {
                    config.longest_edge = u32::try_from(edge).unwrap();
                }
                let name = case["images"][0].as_str().unwrap();
                let page = image::open(golden::folder().join("images").join(name)).unwrap();
                let tiles = ImageProcessor::new(config)
                    .cut(&page.to_rgb8(), &TileOptions::default())
                    .unwrap();
                assert_eq!(golden::sha256(tiles.as_bytes()), case["tiles"][0]["sha256"]);
                processor.document_ids(tiles.grid()).unwrap()
            };
            assert_eq!(
                ids,
                golden::ids(&expected["ids"]),
                "{version} of {}",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen} prompts");
}

/// The published files of a model, its tokenizer under the usual name.
fn real(name: &str) -> Option<(ProcessorFiles, tempfile::TempDir)> {
    let settings = golden::json(format!("real/{name}/settings.json"));
    let folder = golden::shared(settings["folder"].as_str().unwrap())?;
    let tokenizer = folder.join(settings["tokenizer"].as_str().unwrap());
    let named = tempfile::tempdir().unwrap();
    fs_err::copy(tokenizer, named.path().join("tokenizer.json")).unwrap();
    Some((
        ProcessorFiles::new(folder).with_fallback(named.path()),
        named,
    ))
}

#[test]
fn prompts_with_the_published_files() {
    for name in ["smolvlm-256m", "smolvlm-instruct"] {
        let Some((files, _named)) = real(name) else {
            continue;
        };
        let retrieval = golden::json(format!("real/{name}/retrieval.json"));
        let (width, height) = golden::size(&retrieval["page_size"]);
        for (version, expected) in retrieval["documents"].as_object().unwrap() {
            let processor = load(&files, None, version);
            let plan = processor
                .images()
                .plan(width, height, &TileOptions::default())
                .unwrap();
            let ids = processor.document_ids(plan.grid).unwrap();
            assert_eq!(ids, golden::ids(&expected["ids"]), "{name} {version}");
            for query in retrieval["queries"].as_array().unwrap() {
                let ids = processor
                    .query_ids(query["query"].as_str().unwrap())
                    .unwrap();
                let expected = golden::ids(&query["versions"][version]["ids"]);
                assert_eq!(ids, expected, "{name} {version} {query}");
            }
        }
    }
}

#[test]
fn frames_and_tokens_of_every_size() {
    for name in ["smolvlm-256m", "smolvlm-instruct"] {
        let Some((files, _named)) = real(name) else {
            continue;
        };
        let processor = load(&files, None, "0.3.11");
        let cases = golden::json(format!("real/{name}/expansions.json"));
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= 17);
        for case in cases {
            let (width, height) = golden::size(&case["size"]);
            let options = TileOptions {
                split: case["do_image_splitting"].as_bool(),
                detail: None,
            };
            let grid = processor
                .images()
                .plan(width, height, &options)
                .unwrap()
                .grid;
            assert_eq!(grid.num_frames(), case["frames"], "{name} {width}×{height}");
            assert_eq!(
                (grid.rows, grid.cols),
                (number(&case["rows"]), number(&case["cols"]))
            );
            let ids = processor.document_ids(grid).unwrap();
            assert_eq!(ids, golden::ids(&case["ids"]), "{name} {width}×{height}");
            assert_eq!(ids.len(), case["num_tokens"]);
            check_geometry(&processor, &ids, width, height, options);
        }
    }
}

fn number(json: &Value) -> u32 {
    u32::try_from(json.as_u64().unwrap()).unwrap()
}

/// Each tile's tokens come once, the boxes of the tiles cover the page, those of the overview again.
fn check_geometry(
    processor: &ColIdefics3Processor,
    ids: &[u32],
    width: u32,
    height: u32,
    options: TileOptions,
) {
    let grid = processor
        .images()
        .plan(width, height, &options)
        .unwrap()
        .grid;
    let geometry = processor.geometry(ids, grid);
    assert_eq!(geometry.len(), ids.len());
    let seq_len = processor.image_seq_len();
    let mut visual = 0;
    let mut area = 0.0;
    for (token, &id) in geometry.iter().zip(ids) {
        match (token.kind, token.page_box) {
            (
                TokenKind::Visual { tile, row, col },
                Some(PageBox {
                    left,
                    top,
                    right,
                    bottom,
                }),
            ) => {
                assert_eq!(id, processor.tokenizer().image_id());
                let side = seq_len.isqrt();
                assert_eq!((tile * side + row) * side + col, visual);
                visual += 1;
                area += (right - left) * (bottom - top);
            }
            (TokenKind::Text | TokenKind::Tag, None) => {
                assert_ne!(id, processor.tokenizer().image_id());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(visual, grid.num_frames() * seq_len);
    let times = if grid.is_split() { 2.0 } else { 1.0 };
    assert!((area - times).abs() < 1e-3, "{area}");
    let tags = geometry
        .iter()
        .filter(|token| token.kind == TokenKind::Tag)
        .count();
    let text = geometry
        .iter()
        .filter(|token| token.kind == TokenKind::Text)
        .count();
    // `<|im_start|>User:` before, `Describe the image.<end_of_utterance>\nAssistant:` behind.
    assert_eq!(text, 12);
    assert_eq!(tags + text + visual, ids.len());
}
