//! What low precision costs: rows and logits against the same checkpoint's own in f32, on pages given as pictures.
//!
//! `cargo bench -p colibri-models --bench receipts -- FOLDER [base=FOLDER] [precisions=bf16,int8] [features=] [kv=] PICTURE…`. Of a retriever:
//! cosine of the rows of all pages and of a few questions. Of a generator: over every eighth position of the prompt, the
//! divergence of its next-token distribution (KL, in nats) and how often the likeliest token is the same; with `features=`
//! also of what it answers from visual tokens as an index keeps them, with `kv=` of keys and values in bytes, against f32 and
//! against the same precision without.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on stops")]
#![expect(clippy::print_stdout, reason = "its result")]

use std::{ops::ControlFlow, path::PathBuf};

use candle_core::Tensor;
use colibri_models::{
    KvPrecision, Placement, Precision, Result, TokenPrecision, Trace,
    generate::{GenerateOptions, Step},
    generators::{Idefics3Generator, Looking as _, Request},
    processor::{Message, TileOptions},
    registry::{Checkpoint, Kind, LoadOptions, inspect, load_retriever},
    vlm::idefics3::Config,
};
use colibri_nn::{Weights, weights::WeightStore};
use image::RgbImage;

const QUESTIONS: [&str; 3] = [
    "How does latency compare between methods?",
    "What was the total revenue in 2015?",
    "Who signed the letter?",
];
/// Of the positions of a prompt, one in so many is looked at.
const STRIDE: usize = 8;

fn precision(name: &str) -> Precision {
    match name {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "int8" => Precision::Int8,
        "int4" => Precision::Int4,
        other => panic!("`{other}` is no precision"),
    }
}

fn main() {
    let args: Vec<String> = std::env::args()
        .filter(|arg| arg != "--bench")
        .skip(1)
        .collect();
    let option = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(name));
    let (base, names) = (
        option("base=").map(PathBuf::from),
        option("precisions=").unwrap_or("bf16,int8"),
    );
    let mut plain = args.iter().filter(|arg| !arg.contains('='));
    let Some(folder) = plain.next().map(PathBuf::from) else {
        println!("skipped: no checkpoint folder was given");
        return;
    };
    let pages: Vec<RgbImage> = plain
        .map(|path| image::open(path).unwrap().to_rgb8())
        .collect();
    // An adapter over a base is a retriever.
    let is_retriever = base.is_some() || inspect(&folder).unwrap() == Kind::Retriever;
    let checkpoint = Checkpoint { folder, base };
    if is_retriever {
        let wanted = rows(&checkpoint, Precision::F32, &pages);
        for name in names.split(',') {
            let found = rows(&checkpoint, precision(name), &pages);
            report(&format!("{name} pages"), &found.0, &wanted.0);
            report(&format!("{name} questions"), &found.1, &wanted.1);
        }
    } else {
        let auto = KvPrecision::Auto;
        let wanted = logits(&checkpoint, Precision::F32, auto, &pages);
        let with_kv = |name: &str, plain: &[Vec<f32>]| {
            if option("kv=").is_some() {
                let found = logits(&checkpoint, precision(name), KvPrecision::Int8, &pages);
                compare(
                    &format!("{name}, keys and values in int8,"),
                    &found,
                    &wanted,
                );
                if name != "f32" {
                    compare("the same, against without", &found, plain);
                }
            }
        };
        with_kv("f32", &wanted);
        let features = [TokenPrecision::F16, TokenPrecision::Int8];
        for form in features
            .into_iter()
            .filter(|_| option("features=").is_some())
        {
            let found = logits_seen(&checkpoint, form, &pages);
            compare(
                &format!("f32 with what was seen in {form:?},"),
                &found,
                &wanted,
            );
        }
        for name in names.split(',') {
            let found = logits(&checkpoint, precision(name), auto, &pages);
            compare(name, &found, &wanted);
            with_kv(name, &found);
        }
    }
}

/// Rows of all pages and of all questions.
fn rows(
    checkpoint: &Checkpoint,
    precision: Precision,
    pages: &[RgbImage],
) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let options = LoadOptions::new(Placement::cpu(precision));
    let model = load_retriever(checkpoint, &options).unwrap();
    let split = |values: &[f32], dim: usize| -> Vec<Vec<f32>> {
        values.chunks_exact(dim).map(<[f32]>::to_vec).collect()
    };
    let of_page = |page| {
        let rows = model.embed_page(page, &mut |_, _| true).unwrap().rows;
        split(&rows.values, rows.dim)
    };
    let of_question = |question: &&str| {
        let rows = model.embed_query(question).unwrap();
        split(&rows.values, rows.dim)
    };
    (
        pages.iter().flat_map(of_page).collect(),
        QUESTIONS.iter().flat_map(of_question).collect(),
    )
}

fn report(name: &str, found: &[Vec<f32>], wanted: &[Vec<f32>]) {
    assert_eq!(found.len(), wanted.len());
    let mut cosines: Vec<f64> = found
        .iter()
        .zip(wanted)
        .map(|(found, wanted)| {
            let products = found.iter().zip(wanted);
            products.map(|(a, b)| f64::from(a * b)).sum()
        })
        .collect();
    cosines.sort_unstable_by(f64::total_cmp);
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    println!(
        "{name}: {} rows, mean cosine {mean:.5}, worst {:.4}, 1st percentile {:.4}",
        cosines.len(),
        cosines[0],
        cosines[cosines.len() / 100],
    );
}

/// Keeps the states that the output head reads.
#[derive(Default)]
struct States(Option<Tensor>);

impl Trace for States {
    fn record(&mut self, name: &str, value: &Tensor) -> Result<()> {
        if name == "text.norm" {
            self.0 = Some(value.copy()?);
        }
        Ok(())
    }
}

/// Logits of the positions looked at, over all pages.
fn logits(
    checkpoint: &Checkpoint,
    precision: Precision,
    kv: KvPrecision,
    pages: &[RgbImage],
) -> Vec<Vec<f32>> {
    let answer = |model: &Idefics3Generator, page: &RgbImage, states: &mut States| {
        let request = Request {
            messages: &[Message::user(1, QUESTIONS[0])],
            images: std::slice::from_ref(page),
            options: &one_token(),
        };
        let mut go_on = |_: Step<'_>| ControlFlow::Continue(());
        model
            .generate_traced(&request, &TileOptions::default(), &mut go_on, states)
            .unwrap();
    };
    logits_of(checkpoint, precision, kv, pages, &answer)
}

/// The same in f32, from visual tokens as an index keeps them.
fn logits_seen(checkpoint: &Checkpoint, form: TokenPrecision, pages: &[RgbImage]) -> Vec<Vec<f32>> {
    let answer = |model: &Idefics3Generator, page: &RgbImage, states: &mut States| {
        let seen = model.look(page, &mut |_, _| true).unwrap().rounded(form);
        let messages = [Message::user(1, QUESTIONS[0])];
        model
            .generate_seen_traced(&messages, &[seen], &one_token(), states)
            .unwrap();
    };
    logits_of(
        checkpoint,
        Precision::F32,
        KvPrecision::Auto,
        pages,
        &answer,
    )
}

fn one_token() -> GenerateOptions {
    GenerateOptions {
        max_new_tokens: 1,
        ..GenerateOptions::default()
    }
}

fn logits_of(
    checkpoint: &Checkpoint,
    precision: Precision,
    kv: KvPrecision,
    pages: &[RgbImage],
    answer: &dyn Fn(&Idefics3Generator, &RgbImage, &mut States),
) -> Vec<Vec<f32>> {
    let folder = &checkpoint.folder;
    let options = LoadOptions {
        kv,
        ..LoadOptions::new(Placement::cpu(precision))
    };
    let config = Config::load(folder).unwrap();
    let store = WeightStore::open_folder(folder).unwrap();
    let weights = Weights::new(store.into(), options.placement.clone());
    let model = Idefics3Generator::load(&config, &weights, checkpoint, &options).unwrap();
    let text = &config.text_config;
    let head = weights
        .linear("lm_head", text.hidden_size, text.vocab_size, false)
        .unwrap();
    let mut all = Vec::new();
    for page in pages {
        let mut states = States::default();
        answer(&model, page, &mut states);
        let states = states.0.unwrap(); // (1, tokens, hidden)
        for position in (0..states.dim(1).unwrap()).step_by(STRIDE) {
            let state = states.narrow(1, position, 1).unwrap().copy().unwrap();
            let logits = head.forward(&state).unwrap().flatten_all().unwrap();
            all.push(logits.to_vec1::<f32>().unwrap());
        }
    }
    all
}

fn compare(name: &str, found: &[Vec<f32>], wanted: &[Vec<f32>]) {
    assert_eq!(found.len(), wanted.len());
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits
            .iter()
            .map(|&value| (f64::from(value) - greatest).exp())
            .sum();
        let shift = greatest + sum.ln();
        logits
            .iter()
            .map(|&value| f64::from(value) - shift)
            .collect()
    };
    let likeliest = |values: &[f64]| {
        (0..values.len())
            .max_by(|&a, &b| values[a].total_cmp(&values[b]))
            .unwrap_or_default()
    };
    let (mut sum, mut worst, mut same) = (0.0, 0.0_f64, 0);
    for (found, wanted) in found.iter().zip(wanted) {
        let (found, wanted) = (log_softmax(found), log_softmax(wanted));
        let terms = wanted.iter().zip(&found);
        let divergence: f64 = terms.map(|(p, q)| p.exp() * (p - q)).sum();
        sum += divergence;
        worst = worst.max(divergence);
        same += usize::from(likeliest(&found) == likeliest(&wanted));
    }
    println!(
        "{name} logits: {} positions, mean KL {:.5}, worst {worst:.4}, likeliest token the same {:.1} %",
        found.len(),
        sum / found.len() as f64,
        100.0 * same as f64 / found.len() as f64,
    );
}
