//! Cases, the models they are run through, and what is kept of every stage.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use candle_core::{DType, Tensor};
use colibri_models::{
    Placement, Precision, Result, Trace,
    generators::Idefics3Generator,
    processor::{Content, DocumentPrompt, Message, Role, TileOptions, VideoRecipe},
    registry::{Checkpoint, LoadOptions},
    retrievers::{ColIdefics3, ColPali, PageEmbedding, Retriever, Rows},
    vlm::{idefics3::Config, paligemma},
};
use colibri_nn::{
    Weights,
    weights::{Adapter, WeightStore},
};
use colibri_testkit::golden::{Case, CaseContent, relative_l2};
use image::RgbImage;
use sha2::{Digest as _, Sha256};

/// f32 rounding accumulated over a stage; the reference itself moves by about 1e-6 between its own paths.
pub(crate) const STAGE_TOLERANCE: f64 = 1e-4;
/// Rows are compared by direction.
pub(crate) const ROW_COSINE: f64 = 0.99999;

pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub(crate) fn checkpoint(case: &Case) -> Checkpoint {
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

pub(crate) fn weights(checkpoint: &Checkpoint, options: &LoadOptions) -> Weights {
    let store = WeightStore::open_folder(checkpoint.base_folder()).unwrap();
    let adapter = checkpoint
        .base
        .as_ref()
        .map(|_| Adapter::open(&checkpoint.folder, options.merge_adapter).unwrap());
    Weights::new(store.into(), options.placement.clone()).with_adapter(adapter.map(Into::into))
}

/// A retriever of either family.
pub(crate) enum AnyRetriever {
    ColIdefics3(Box<ColIdefics3>),
    ColPali(Box<ColPali>),
}

impl AnyRetriever {
    pub(crate) fn model(&self) -> &dyn Retriever {
        match self {
            Self::ColIdefics3(model) => model.as_ref(),
            Self::ColPali(model) => model.as_ref(),
        }
    }

    pub(crate) fn tiles(&self, case: &Case) -> TileOptions {
        match self {
            Self::ColIdefics3(model) => {
                tile_options(case, model.processor().images().config().tile_side)
            }
            Self::ColPali(_) => TileOptions::default(),
        }
    }

    pub(crate) fn document(&self, case: &Case) -> DocumentPrompt {
        let image = &images(case)[0];
        match self {
            Self::ColIdefics3(model) => model.processor().document(image, &self.tiles(case)),
            Self::ColPali(model) => model.processor().document(image),
        }
        .unwrap()
    }

    pub(crate) fn query_ids(&self, case: &Case) -> Vec<u32> {
        let query = case.query.as_ref().unwrap();
        match self {
            Self::ColIdefics3(model) => model.processor().query_ids(query),
            Self::ColPali(model) => model.processor().query_ids(query),
        }
        .unwrap()
    }

    pub(crate) fn embed_page(&self, case: &Case, trace: &mut dyn Trace) -> PageEmbedding {
        let (image, on_tile) = (&images(case)[0], &mut |_, _| true);
        match self {
            Self::ColIdefics3(model) => {
                model.embed_page_traced(image, &self.tiles(case), on_tile, trace)
            }
            Self::ColPali(model) => model.embed_page_traced(image, on_tile, trace),
        }
        .unwrap()
    }

    pub(crate) fn embed_query(&self, case: &Case, trace: &mut dyn Trace) -> Rows {
        let query = case.query.as_ref().unwrap();
        match self {
            Self::ColIdefics3(model) => model.embed_query_traced(query, trace),
            Self::ColPali(model) => model.embed_query_traced(query, trace),
        }
        .unwrap()
    }
}

pub(crate) fn retriever(case: &Case, options: &LoadOptions) -> AnyRetriever {
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

pub(crate) fn generator(case: &Case, options: &LoadOptions) -> Idefics3Generator {
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

pub(crate) fn images(case: &Case) -> Vec<RgbImage> {
    let open = |name: &String| {
        image::open(golden().join("images").join(name))
            .unwrap()
            .to_rgb8()
    };
    case.images.iter().map(open).collect()
}

pub(crate) fn tile_options(case: &Case, tile_side: u32) -> TileOptions {
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
pub(crate) fn clip(case: &Case, recipe: &VideoRecipe) -> Vec<Content> {
    let indices = recipe.choose(case.clip.len(), case.rate);
    let names: Vec<&String> = indices.iter().map(|&index| &case.clip[index]).collect();
    assert_eq!(names, case.images.iter().collect::<Vec<_>>());
    let seconds = indices.iter().map(|&index| index as f64 / case.rate);
    let seconds: Vec<f64> = seconds.collect();
    recipe.content(&seconds, case.clip.len() as f64 / case.rate)
}

pub(crate) fn messages(case: &Case, recipe: &VideoRecipe) -> Vec<Message> {
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
pub(crate) struct Recorder(BTreeMap<String, Vec<f32>>);

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
    pub(crate) fn compare(&self, case: &Case) {
        self.compare_within(case, STAGE_TOLERANCE);
    }

    /// Every stage within a relative error of `tolerance`.
    pub(crate) fn compare_within(&self, case: &Case, tolerance: f64) {
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
                difference < tolerance,
                "{}: the first stage that differs is `{}`, by {difference:e}",
                case.label(),
                stage.name
            );
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

pub(crate) fn cases(kinds: &[&str]) -> Vec<Case> {
    let cases: Vec<Case> = Case::all(&golden().join("cases"))
        .into_iter()
        .filter(|case| kinds.contains(&case.kind.as_str()))
        .collect();
    assert!(!cases.is_empty());
    cases
}

pub(crate) fn on_cpu() -> LoadOptions {
    LoadOptions::new(Placement::cpu(Precision::F32))
}
