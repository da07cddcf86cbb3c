//! Every stage of the networks equals transformers and colpali-engine on small random checkpoints of true
//! structure (`tools/golden`). A failure names the first stage that differs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    num::NonZeroU32,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use colibri_models::{
    Placement, Precision, Result, Trace,
    generate::{GenerateOptions, StopReason},
    generators::{Idefics3Generator, Request},
    processor::{Content, DocumentPrompt, Message, Role, TileOptions, VideoRecipe},
    registry::{Checkpoint, Kind, LoadOptions, inspect, load_generator, load_retriever},
    retrievers::{ColIdefics3, ColPali, PageEmbedding, Retriever, Rows},
    vision::siglip::positions,
    vlm::{idefics3::Config, paligemma},
};
use colibri_nn::{
    Weights,
    weights::{Adapter, WeightStore},
};
use colibri_testkit::golden::{Case, CaseContent, cosine, expand, relative_l2};
use image::RgbImage;
use sha2::{Digest as _, Sha256};

/// f32 rounding accumulated over a stage; the reference itself moves by about 1e-6 between its own paths.
const STAGE_TOLERANCE: f64 = 1e-4;
/// Rows are compared by direction.
const ROW_COSINE: f64 = 0.99999;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn checkpoint(case: &Case) -> Checkpoint {
    let folder = |name: &str| golden().join("checkpoints").join(name);
    match &case.adapter {
        Some(adapter) => Checkpoint {
            folder: folder(adapter),
            base: Some(folder(&case.checkpoint)),
        },
        None => Checkpoint {
            folder: folder(&case.checkpoint),
            base: None,
        },
    }
}

fn weights(checkpoint: &Checkpoint, options: &LoadOptions) -> Weights {
    let store = WeightStore::open_folder(checkpoint.base_folder()).unwrap();
    let adapter = checkpoint
        .base
        .as_ref()
        .map(|_| Adapter::open(&checkpoint.folder, options.merge_adapter).unwrap());
    Weights::new(store.into(), options.placement.clone()).with_adapter(adapter.map(Into::into))
}

/// A retriever of either family.
enum AnyRetriever {
    ColIdefics3(Box<ColIdefics3>),
    ColPali(Box<ColPali>),
}

impl AnyRetriever {
    fn model(&self) -> &dyn Retriever {
        match self {
            Self::ColIdefics3(model) => model.as_ref(),
            Self::ColPali(model) => model.as_ref(),
        }
    }

    fn tiles(&self, case: &Case) -> TileOptions {
        match self {
            Self::ColIdefics3(model) => {
                tile_options(case, model.processor().images().config().tile_side)
            }
            Self::ColPali(_) => TileOptions::default(),
        }
    }

    fn document(&self, case: &Case) -> DocumentPrompt {
        let image = &images(case)[0];
        match self {
            Self::ColIdefics3(model) => model.processor().document(image, &self.tiles(case)),
            Self::ColPali(model) => model.processor().document(image),
        }
        .unwrap()
    }

    fn query_ids(&self, case: &Case) -> Vec<u32> {
        let query = case.query.as_ref().unwrap();
        match self {
            Self::ColIdefics3(model) => model.processor().query_ids(query),
            Self::ColPali(model) => model.processor().query_ids(query),
        }
        .unwrap()
    }

    fn embed_page(&self, case: &Case, trace: &mut dyn Trace) -> PageEmbedding {
        let (image, on_tile) = (&images(case)[0], &mut |_, _| true);
        match self {
            Self::ColIdefics3(model) => {
                model.embed_page_traced(image, &self.tiles(case), on_tile, trace)
            }
            Self::ColPali(model) => model.embed_page_traced(image, on_tile, trace),
        }
        .unwrap()
    }

    fn embed_query(&self, case: &Case, trace: &mut dyn Trace) -> Rows {
        let query = case.query.as_ref().unwrap();
        match self {
            Self::ColIdefics3(model) => model.embed_query_traced(query, trace),
            Self::ColPali(model) => model.embed_query_traced(query, trace),
        }
        .unwrap()
    }
}

fn retriever(case: &Case, options: &LoadOptions) -> AnyRetriever {
    let checkpoint = checkpoint(case);
    let mut options = options.clone();
    options.prompt_version = case
        .prompt_version
        .as_ref()
        .map(|name| name.parse().unwrap());
    let weights = weights(&checkpoint, &options);
    if case.checkpoint.starts_with("colpali") {
        let config = paligemma::Config::load(checkpoint.base_folder()).unwrap();
        let model = ColPali::load(&config, &weights, &checkpoint, &options);
        return AnyRetriever::ColPali(Box::new(model.unwrap()));
    }
    let config = Config::load(checkpoint.base_folder()).unwrap();
    let model = ColIdefics3::load(&config, &weights, &checkpoint, &options);
    AnyRetriever::ColIdefics3(Box::new(model.unwrap()))
}

fn generator(case: &Case, options: &LoadOptions) -> Idefics3Generator {
    let checkpoint = checkpoint(case);
    let config = Config::load(checkpoint.base_folder()).unwrap();
    Idefics3Generator::load(
        &config,
        &weights(&checkpoint, options),
        &checkpoint,
        options,
    )
    .unwrap()
}

fn images(case: &Case) -> Vec<RgbImage> {
    let open = |name: &String| {
        image::open(golden().join("images").join(name))
            .unwrap()
            .to_rgb8()
    };
    case.images.iter().map(open).collect()
}

fn tile_options(case: &Case, tile_side: u32) -> TileOptions {
    let number = |name: &str| case.processor.get(name).and_then(serde_json::Value::as_u64);
    TileOptions {
        detail: number("longest_edge").map(|edge| {
            assert_eq!(edge as u32 % tile_side, 0, "{}", case.label());
            NonZeroU32::new(edge as u32 / tile_side).unwrap()
        }),
        split: case
            .processor
            .get("do_image_splitting")
            .and_then(serde_json::Value::as_bool),
    }
}

/// A clip as the checkpoint's recipe shows it, whose frames must be those that transformers sampled.
fn clip(case: &Case, recipe: &VideoRecipe) -> Vec<Content> {
    let indices = recipe.choose(case.clip.len(), case.rate);
    let names: Vec<&String> = indices.iter().map(|&index| &case.clip[index]).collect();
    assert_eq!(names, case.images.iter().collect::<Vec<_>>());
    let seconds = indices.iter().map(|&index| index as f64 / case.rate);
    let seconds: Vec<f64> = seconds.collect();
    recipe.content(&seconds, case.clip.len() as f64 / case.rate)
}

fn messages(case: &Case, recipe: &VideoRecipe) -> Vec<Message> {
    let content = |part: &CaseContent| match part {
        CaseContent::Image => vec![Content::Image],
        CaseContent::Video => clip(case, recipe),
        CaseContent::Text { text } => vec![Content::Text(text.clone())],
    };
    let role = |name: &str| match name {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => panic!("role {other}"),
    };
    let message = |m: &colibri_testkit::golden::CaseMessage| Message {
        role: role(&m.role),
        content: m.content.iter().flat_map(content).collect(),
    };
    case.messages.iter().map(message).collect()
}

/// Keeps every stage; the stages of single tiles are joined.
#[derive(Default)]
struct Recorder(BTreeMap<String, Vec<f32>>);

impl Trace for Recorder {
    fn record(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let values = value
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        self.0.entry(name.to_owned()).or_default().extend(values);
        Ok(())
    }
}

impl Recorder {
    fn compare(&self, case: &Case) {
        let expected = case.tensors();
        assert!(!case.stages.is_empty(), "{}", case.label());
        for stage in &case.stages {
            let [rows, width] = stage.shape;
            let found = self
                .0
                .get(&stage.name)
                .unwrap_or_else(|| panic!("{}: no stage `{}`", case.label(), stage.name));
            assert_eq!(
                found.len(),
                rows * width,
                "{}: size of `{}`",
                case.label(),
                stage.name
            );
            let kept: Vec<f32> = found
                .chunks_exact(width)
                .step_by(stage.row_step)
                .flatten()
                .copied()
                .collect();
            let difference = relative_l2(&kept, &expected[&stage.name]);
            assert!(
                difference < STAGE_TOLERANCE,
                "{}: the first stage that differs is `{}`, by {difference:e}",
                case.label(),
                stage.name
            );
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

fn cases(kinds: &[&str]) -> Vec<Case> {
    let cases: Vec<Case> = Case::all(&golden().join("cases"))
        .into_iter()
        .filter(|case| kinds.contains(&case.kind.as_str()))
        .collect();
    assert!(!cases.is_empty());
    cases
}

fn on_cpu() -> LoadOptions {
    LoadOptions::new(Placement::cpu(Precision::F32))
}

fn generate(case: &Case, options: &LoadOptions) {
    let model = generator(case, options);
    let tiles = tile_options(case, model.processor().images().config().tile_side);
    let messages = messages(case, &model.processor().video());
    let images = images(case);
    let prompt = model
        .processor()
        .process(&messages, &images, true, &tiles)
        .unwrap();
    assert_eq!(prompt.ids, expand(&case.ids), "{}: ids", case.label());
    assert_eq!(prompt.tiles.len(), case.tiles.len(), "{}", case.label());
    for (tiles, expected) in prompt.tiles.iter().zip(&case.tiles) {
        assert_eq!(
            sha256(tiles.as_bytes()),
            expected.sha256,
            "{}: pixels",
            case.label()
        );
        let sizes: Vec<[u32; 2]> = tiles.frames().map(|f| [f.width, f.height]).collect();
        if !expected.sizes.is_empty() {
            assert_eq!(sizes, expected.sizes, "{}: sizes", case.label());
        }
    }

    let expected = case.generated.as_ref().unwrap();
    let generate_options = GenerateOptions {
        max_new_tokens: 32,
        ..GenerateOptions::default()
    };
    let request = Request {
        messages: &messages,
        images: &images,
        options: &generate_options,
    };
    let mut recorder = Recorder::default();
    let mut streamed = String::new();
    let mut on_step = |step: colibri_models::generate::Step<'_>| {
        if let colibri_models::generate::Step::Text(text) = step {
            streamed.push_str(text);
        }
        ControlFlow::Continue(())
    };
    let completion = model
        .generate_traced(&request, &tiles, &mut on_step, &mut recorder)
        .unwrap();
    recorder.compare(case);
    assert_eq!(
        completion.ids,
        expected.ids,
        "{}: generated ids",
        case.label()
    );
    assert_eq!(completion.text, expected.text, "{}: text", case.label());
    assert_eq!(streamed, expected.text, "{}: streamed text", case.label());
    let stop = if expected.stopped == "eos" {
        StopReason::EndOfTurn
    } else {
        StopReason::Length
    };
    assert_eq!(completion.stop, stop, "{}", case.label());
}

#[test]
fn generators_equal_transformers() {
    for case in cases(&["generate"]) {
        generate(&case, &on_cpu());
    }
}

/// The same source on candle's operations, which CUDA and Metal run.
#[test]
fn generators_equal_transformers_through_candle() {
    for case in cases(&["generate"]) {
        generate(
            &case,
            &LoadOptions::new(Placement::candle(Device::Cpu, DType::F32)),
        );
    }
}

fn embed(case: &Case, options: &LoadOptions) -> Rows {
    let model = retriever(case, options);
    let mut recorder = Recorder::default();
    let rows = if case.kind == "page" {
        let prompt = model.document(case);
        assert_eq!(prompt.ids, expand(&case.ids), "{}: ids", case.label());
        assert_eq!(
            sha256(prompt.tiles.as_bytes()),
            case.tiles[0].sha256,
            "{}: pixels",
            case.label()
        );
        let embedding = model.embed_page(case, &mut recorder);
        assert_eq!(embedding.geometry.len(), prompt.ids.len());
        embedding.rows
    } else {
        assert_eq!(
            model.query_ids(case),
            expand(&case.ids),
            "{}: ids",
            case.label()
        );
        model.embed_query(case, &mut recorder)
    };
    recorder.compare(case);
    for (found, expected) in rows
        .values
        .chunks_exact(128)
        .zip(case.tensors()["rows"].chunks_exact(128))
    {
        if case
            .stages
            .iter()
            .any(|stage| stage.name == "rows" && stage.row_step == 1)
        {
            assert!(cosine(found, expected) >= ROW_COSINE, "{}", case.label());
        }
    }
    rows
}

#[test]
fn retrievers_equal_colpali_engine() {
    for case in cases(&["page", "query"]) {
        embed(&case, &on_cpu());
    }
}

#[test]
fn retrievers_equal_colpali_engine_through_candle() {
    for case in cases(&["page", "query"]) {
        embed(
            &case,
            &LoadOptions::new(Placement::candle(Device::Cpu, DType::F32)),
        );
    }
}

#[test]
fn a_merged_adapter_gives_the_same_rows() {
    for case in cases(&["page", "query"]) {
        embed(
            &case,
            &LoadOptions {
                merge_adapter: true,
                ..on_cpu()
            },
        );
    }
}

#[test]
fn every_prompt_version_gives_its_ids() {
    for case in cases(&["page", "query"]) {
        for (version, expected) in &case.prompt_versions {
            let mut case = case.clone();
            case.prompt_version = Some(version.clone());
            let model = retriever(&case, &on_cpu());
            let ids = if case.kind == "page" {
                model.document(&case).ids
            } else {
                model.query_ids(&case)
            };
            assert_eq!(ids, expand(&expected.ids), "{} {version}", case.label());
        }
    }
}

/// The reference padded two pages of different length to one batch; its scores are those of our rows,
/// which were computed one page at a time.
#[test]
fn scores_equal_those_of_a_padded_batch() {
    for batch in cases(&["batch"]) {
        let folder = golden().join("cases").join(batch.adapter.as_ref().unwrap());
        let rows =
            |name: &String| embed(&Case::load(&folder.join(format!("{name}.json"))), &on_cpu());
        let pages: Vec<Rows> = batch.pages.iter().map(rows).collect();
        for (query, scores) in batch.queries.iter().map(rows).zip(&batch.scores) {
            for (page, expected) in pages.iter().zip(scores) {
                let dot = |q: &[f32], d: &[f32]| q.iter().zip(d).map(|(a, b)| a * b).sum::<f32>();
                let best = |q: &[f32]| {
                    page.values
                        .chunks_exact(128)
                        .map(|d| dot(q, d))
                        .fold(f32::MIN, f32::max)
                };
                let score: f32 = query.values.chunks_exact(128).map(best).sum();
                assert!(
                    (score - expected).abs() < 1e-3,
                    "{}: {score} {expected}",
                    batch.label()
                );
            }
        }
    }
}

#[test]
fn folders_tell_what_they_hold() {
    for case in cases(&["generate"]) {
        assert_eq!(inspect(&checkpoint(&case).folder).unwrap(), Kind::Generator);
    }
    for case in cases(&["page"]) {
        let checkpoint = checkpoint(&case);
        assert_eq!(
            matches!(inspect(&checkpoint.folder).unwrap(), Kind::Adapter { .. }),
            case.adapter.is_some()
        );
        assert_eq!(inspect(checkpoint.base_folder()).unwrap(), Kind::Retriever);
    }
}

#[test]
fn lower_precisions_point_the_same_way() {
    // Random weights are the hard case: nothing in them is redundant. The receipts on real shapes are in
    // docs/models.md; here the paths must be right, not the last percent.
    for (precision, least) in [
        (Precision::Bf16, 0.99),
        (Precision::Int8, 0.95),
        (Precision::Int4, 0.7),
    ] {
        for case in cases(&["page"]) {
            let expected = embed(&case, &on_cpu());
            let model = retriever(&case, &LoadOptions::new(Placement::cpu(precision)));
            let found = model.embed_page(&case, &mut colibri_models::NoTrace);
            let cosines = found
                .rows
                .values
                .chunks_exact(128)
                .zip(expected.values.chunks_exact(128))
                .map(|(a, b)| cosine(a, b));
            let mean = cosines.sum::<f64>() / expected.num_rows() as f64;
            assert!(mean > least, "{} {precision:?}: {mean}", case.label());
        }
    }
}

#[test]
fn work_stops_when_asked() {
    for case in cases(&["page"]) {
        let error = retriever(&case, &on_cpu())
            .model()
            .embed_page(&images(&case)[0], &mut |done, total| done + 1 < total)
            .unwrap_err();
        assert!(matches!(error, colibri_models::Error::Cancelled));
    }

    let case = cases(&["generate"])
        .into_iter()
        .find(|case| case.generated.as_ref().unwrap().stopped == "length")
        .unwrap();
    let model = generator(&case, &on_cpu());
    let tiles = tile_options(&case, model.processor().images().config().tile_side);
    let options = GenerateOptions::default();
    let messages = messages(&case, &model.processor().video());
    let images = images(&case);
    let request = Request {
        messages: &messages,
        images: &images,
        options: &options,
    };
    let mut texts = 0;
    let mut on_step = |step: colibri_models::generate::Step<'_>| {
        texts += usize::from(matches!(step, colibri_models::generate::Step::Text(_)));
        if texts == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let completion = model
        .generate_traced(&request, &tiles, &mut on_step, &mut colibri_models::NoTrace)
        .unwrap();
    assert_eq!(completion.stop, StopReason::Cancelled);
    assert!(
        case.generated
            .unwrap()
            .text
            .starts_with(completion.text.trim_end_matches('\u{fffd}'))
    );
}

/// The files of three layouts, the adapter of yet another way of saying them, and what is no generator.
#[test]
fn the_registry_loads_every_retriever() {
    let mut seen = 0;
    for case in cases(&["query"]) {
        let checkpoint = checkpoint(&case);
        let mut options = on_cpu();
        options.prompt_version = case
            .prompt_version
            .as_ref()
            .map(|name| name.parse().unwrap());
        let model = load_retriever(&checkpoint, &options).unwrap();
        let rows = model.embed_query(case.query.as_ref().unwrap()).unwrap();
        let expected = retriever(&case, &on_cpu()).embed_query(&case, &mut colibri_models::NoTrace);
        assert_eq!(rows, expected, "{}", case.label());
        assert_eq!(
            model.settings().prompt_version.as_str(),
            case.prompt_version.unwrap()
        );
        assert!(load_generator(&checkpoint, &on_cpu()).is_err());
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
}

/// What each library does when nothing is said.
#[test]
fn colpali_reads_the_prompts_of_the_library_that_saved_it() {
    for (name, version) in [("colpali-hf", "0.3.1"), ("colpali-merged", "0.3.11")] {
        let case = cases(&["page"])
            .into_iter()
            .find(|case| case.checkpoint == name)
            .unwrap();
        let model = load_retriever(&checkpoint(&case), &on_cpu()).unwrap();
        assert_eq!(model.settings().prompt_version.as_str(), version);
        let found = model
            .embed_page(&images(&case)[0], &mut |_, _| true)
            .unwrap();
        assert_eq!(found.rows.num_rows(), case.num_tokens);
        // 64 patches, each a cell of one grid over the page.
        let cells = found.geometry.iter().filter_map(|token| token.page_box);
        let cells: Vec<_> = cells.collect();
        assert_eq!(cells.len(), 64);
        let last = cells[63];
        assert_eq!(
            (last.left, last.top, last.right, last.bottom),
            (0.875, 0.875, 1.0, 1.0)
        );
    }
    let case = cases(&["page"])
        .into_iter()
        .find(|case| case.checkpoint == "colpali-hf")
        .unwrap();
    let mut options = on_cpu();
    options.prompt_version = Some("0.3.5".parse().unwrap());
    let error = load_retriever(&checkpoint(&case), &options).err().unwrap();
    assert!(error.to_string().contains("`0.3.4`"), "{error}");
}

/// For every number of patches along a side, where they stand in the table of positions.
#[test]
fn fractional_positions_equal_torch() {
    #[derive(serde::Deserialize)]
    struct Side {
        side: usize,
        buckets: Vec<Vec<u32>>,
    }
    let text = fs_err::read(golden().join("positions.json")).unwrap();
    let sides: Vec<Side> = serde_json::from_slice(&text).unwrap();
    assert!(sides.iter().any(|side| side.side == 70));
    for Side { side, buckets } in sides {
        assert_eq!(buckets.len(), side);
        for (index, expected) in buckets.iter().enumerate() {
            let across = positions(1, index + 1, side);
            assert_eq!(&across, expected, "{} of {side}", index + 1);
            let down: Vec<u32> = expected.iter().map(|row| row * side as u32).collect();
            assert_eq!(positions(index + 1, 1, side), down);
        }
    }
}

/// An adapter whose modules are named as a later version names them fits a base of the earlier names.
#[test]
fn an_adapter_of_another_layout_fits() {
    let case = cases(&["query"])
        .into_iter()
        .find(|case| case.adapter.as_deref() == Some("colpali"))
        .unwrap();
    let mut checkpoint = checkpoint(&case);
    let folder = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(&checkpoint.folder).unwrap() {
        let from = entry.unwrap().path();
        fs_err::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("adapter_model.safetensors");
    let bytes = fs_err::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.iter().map(|(name, view)| {
        let name = name.replace("model.language_model.model.", "model.model.language_model.");
        (name, view)
    });
    let written = safetensors::serialize(renamed, None).unwrap();
    assert_ne!(written.len(), 0);
    fs_err::write(&path, written).unwrap();
    checkpoint.folder = folder.path().to_owned();
    let model = load_retriever(&checkpoint, &on_cpu()).unwrap();
    let query = case.query.as_ref().unwrap();
    let expected = retriever(&case, &on_cpu()).embed_query(&case, &mut colibri_models::NoTrace);
    assert_eq!(model.embed_query(query).unwrap(), expected);
}
