//! Retrievers, generators and single products.

use std::{ops::ControlFlow, time::Instant};

use colibri_models::{
    Precision, decoding_precision,
    generate::{Completion, GenerateOptions, Step},
    generators::Request,
    machine::{self, Multiplication},
    processor::Message,
};

use super::{Figures, ProductFigures, Text, arithmetic::Model, page};
use crate::{
    Result,
    checkpoints::{LoadedGenerator, LoadedRetriever, PrecisionChoice},
    memory, threads,
};

/// Tokens written when decoding is measured.
const DECODED: usize = 64;
/// A question of ordinary length.
const QUESTION: &str = "How does latency compare between methods?";

/// Seconds to embed a page.
///
/// # Errors
/// When a layer fails.
pub fn embed_page(
    retriever: &LoadedRetriever,
    precision: PrecisionChoice,
    runs: usize,
) -> Result<Figures> {
    let image = page(0);
    let (mut best, mut tiles, mut rows) = (f64::INFINITY, 0, 0);
    for _ in 0..runs.max(1) {
        let started = Instant::now();
        let mut on_tile = |_, total| {
            tiles = total;
            true
        };
        let embedding = retriever.model.embed_page(&image, &mut on_tile)?;
        best = best.min(started.elapsed().as_secs_f64());
        rows = embedding.rows.num_rows();
    }
    let operations = Model::of(retriever.located.checkpoint.base_folder())
        .map(|model| tiles as f64 * model.frame() + model.text(rows));
    Ok(Figures {
        model: Some(retriever.located.name.clone()),
        tokens: Some(rows),
        tiles: Some(tiles),
        seconds_per_page: Some(best),
        weight_bytes: Some(retriever.model.num_bytes()),
        ..rated("embed-page", precision, operations, best)
    })
}

/// Seconds to embed a question.
///
/// # Errors
/// When a layer fails.
pub fn embed_query(
    retriever: &LoadedRetriever,
    precision: PrecisionChoice,
    runs: usize,
) -> Result<Figures> {
    let (mut best, mut rows) = (f64::INFINITY, 0);
    for _ in 0..10 * runs.max(1) {
        let started = Instant::now();
        rows = retriever.model.embed_query(QUESTION)?.num_rows();
        best = best.min(started.elapsed().as_secs_f64());
    }
    // A question has so few rows that reading the weights takes longer than multiplying with them.
    let bytes = Model::of(retriever.located.checkpoint.base_folder())
        .map(|model| model.weights() * bytes_a_value(precision));
    Ok(Figures {
        model: Some(retriever.located.name.clone()),
        tokens: Some(rows),
        seconds_per_query: Some(best),
        weight_bytes: Some(retriever.model.num_bytes()),
        ..read("embed-query", precision, bytes, best)
    })
}

/// A generator with some pages before it.
///
/// # Errors
/// When a layer fails.
pub fn generator(
    generator: &LoadedGenerator,
    precision: PrecisionChoice,
    what: Text,
    pages: usize,
    runs: usize,
) -> Result<Figures> {
    let model = Model::of(generator.located.checkpoint.base_folder());
    let mut best = Timed {
        prefill: f64::INFINITY,
        first: f64::INFINITY,
        decode: f64::INFINITY,
        ..Timed::default()
    };
    for _ in 0..runs.max(1) {
        let first = answer(generator, pages, 1)?;
        best.tiles = first.tiles;
        best.prompt = first.completion.prompt_tokens;
        best.first = best.first.min(first.total);
        best.prefill = best.prefill.min(first.total - first.looked);
        if what == Text::Decode {
            best.decode = best
                .decode
                .min(answer(generator, pages, DECODED + 1)?.a_token());
        }
    }
    let operations = |model: &Model| model.text(best.prompt);
    let figures = match what {
        Text::Prefill => Figures {
            tokens_per_second: Some(best.prompt as f64 / best.prefill),
            ..rated(
                "prefill",
                precision,
                model.as_ref().map(operations),
                best.prefill,
            )
        },
        Text::FirstToken => {
            let looking = |model: &Model| best.tiles as f64 * model.frame();
            let all = model
                .as_ref()
                .map(|model| looking(model) + operations(model));
            Figures {
                seconds_to_first_token: Some(best.first),
                ..rated("first-token", precision, all, best.first)
            }
        }
        Text::Decode => {
            let values = |model: &Model| model.weights() + model.head();
            let bytes = model
                .as_ref()
                .map(|model| values(model) * bytes_a_value(precision));
            Figures {
                tokens_per_second: Some(1.0 / best.decode),
                ..read("decode", precision, bytes, best.decode)
            }
        }
    };
    Ok(Figures {
        model: Some(generator.located.name.clone()),
        tokens: Some(best.prompt),
        tiles: Some(best.tiles),
        weight_bytes: Some(generator.model.num_bytes()),
        ..figures
    })
}

#[derive(Default)]
struct Timed {
    prefill: f64,
    first: f64,
    decode: f64,
    tiles: usize,
    prompt: usize,
}

/// An answer, and the seconds from its beginning until something was done.
struct Answer {
    completion: Completion,
    tiles: usize,
    looked: f64,
    written: Vec<f64>,
    total: f64,
}

impl Answer {
    /// Seconds a token, from the first to the last; infinite where there was only one.
    fn a_token(&self) -> f64 {
        let written = &self.written[..self.written.len().min(self.completion.ids.len())];
        match written {
            [first, .., last] => (last - first) / (written.len() - 1) as f64,
            _ => f64::INFINITY,
        }
    }
}

/// Answers from some pages.
fn answer(generator: &LoadedGenerator, pages: usize, max_new_tokens: usize) -> Result<Answer> {
    let options = GenerateOptions {
        max_new_tokens,
        ..GenerateOptions::default()
    };
    let messages = [Message::user(pages, QUESTION)];
    let images: Vec<_> = (0..).take(pages).map(page).collect();
    let request = Request {
        messages: &messages,
        images: &images,
        options: &options,
    };
    // Every answer reads its whole prompt.
    generator.model.forget();
    let started = Instant::now();
    let (mut looked, mut tiles) = (0.0, 0);
    let mut written = Vec::with_capacity(max_new_tokens);
    let mut on_step = |step: Step<'_>| {
        match step {
            Step::Tile { total, .. } => tiles = total,
            Step::Prefill { .. } => looked = started.elapsed().as_secs_f64(),
            // Made-up weights write ids that may be no text.
            Step::Text(_) | Step::Waiting => written.push(started.elapsed().as_secs_f64()),
            Step::Status(_) | Step::Note(_) => {}
        }
        ControlFlow::Continue(())
    };
    let completion = generator.model.generate(&request, &mut on_step)?;
    Ok(Answer {
        completion,
        tiles,
        looked,
        written,
        total: started.elapsed().as_secs_f64(),
    })
}

/// The matrices of the 256M and the 2.2B models, where they take their time: those that look at pages.
const LOOKING: [(&str, [usize; 3]); 4] = [
    ("256M tower, MLP", [1024, 768, 3072]),
    ("256M tower, attention", [1024, 768, 768]),
    ("256M connector", [64, 12_288, 576]),
    ("2.2B tower, MLP", [729, 1152, 4304]),
];
/// Those that read and write text, as they are held for that.
const TEXT: [(&str, [usize; 3]); 6] = [
    ("256M text, MLP", [1141, 576, 1536]),
    ("256M question, MLP", [20, 576, 1536]),
    ("256M decode, head", [1, 576, 49_280]),
    ("2.2B text, MLP", [1440, 2048, 8192]),
    ("2.2B decode, MLP", [1, 2048, 8192]),
    ("2.2B decode, head", [1, 2048, 49_155]),
];

/// Rows up to which reading the matrix takes longer than multiplying.
const FEW_ROWS: usize = 32;

/// Single products at the shapes of the models; all precisions with `auto`.
pub fn kernels(precision: PrecisionChoice, runs: usize) -> Figures {
    let precisions = if precision == PrecisionChoice::Auto {
        vec![
            Precision::F32,
            Precision::Bf16,
            Precision::Int8,
            Precision::Int4,
        ]
    } else {
        vec![precision.precision()]
    };
    let bandwidth = machine::bytes_per_second();
    let mut products = Vec::new();
    let (mut peak_share, mut peak) = (f64::INFINITY, 0.0);
    for precision in precisions {
        peak = machine::operations_per_second(precision);
        let looking = LOOKING.map(|of| (precision, of));
        let text = TEXT.map(|of| (decoding_precision(precision), of));
        for (form, (of, shape)) in looking.into_iter().chain(text) {
            let [rows, inputs, outputs] = shape;
            let mut product = Multiplication::new(form, rows, inputs, outputs);
            let seconds = product.seconds(3 * runs.max(1));
            let rate = product.operations() / seconds;
            let bytes = product.num_bytes() as f64 / seconds;
            let share = if rows <= FEW_ROWS {
                bytes / bandwidth
            } else {
                rate / peak
            };
            if rows > FEW_ROWS {
                peak_share = f64::min(peak_share, share);
            }
            products.push(ProductFigures {
                of,
                precision: precision_name(precision),
                shape,
                seconds,
                gflops: rate / 1e9,
                gigabytes_per_second: bytes / 1e9,
                peak_share: share,
            });
        }
    }
    Figures {
        work: "kernels",
        threads: threads::count(),
        peak_gflops: (precision != PrecisionChoice::Auto).then_some(peak / 1e9),
        peak_gigabytes_per_second: Some(bandwidth / 1e9),
        // The weakest of the large products.
        peak_share: Some(peak_share),
        products,
        peak_memory_bytes: memory::peak_bytes(),
        ..Figures::default()
    }
}

fn precision_name(precision: Precision) -> &'static str {
    colibri_models::Placement::cpu(precision).precision_name()
}

/// Bytes read for each value of the text model.
fn bytes_a_value(precision: PrecisionChoice) -> f64 {
    let form = decoding_precision(precision.precision());
    let matrix = Multiplication::new(form, 1, 256, 256);
    matrix.num_bytes() as f64 / (256.0 * 256.0)
}

/// Figures of work that multiplies.
fn rated(
    work: &'static str,
    precision: PrecisionChoice,
    operations: Option<f64>,
    seconds: f64,
) -> Figures {
    let peak_memory_bytes = memory::peak_bytes();
    let peak = machine::operations_per_second(precision.precision());
    Figures {
        work,
        precision: Some(precision_name(precision.precision()).to_owned()),
        threads: threads::count(),
        gflops: operations.map(|count| count / seconds / 1e9),
        peak_share: operations.map(|count| count / seconds / peak),
        peak_gflops: Some(peak / 1e9),
        peak_memory_bytes,
        ..Figures::default()
    }
}

/// Figures of work that reads.
fn read(
    work: &'static str,
    precision: PrecisionChoice,
    bytes: Option<f64>,
    seconds: f64,
) -> Figures {
    // Before the buffer that bandwidth is measured with counts.
    let peak_memory_bytes = memory::peak_bytes();
    let peak = machine::bytes_per_second();
    Figures {
        work,
        precision: Some(precision_name(precision.precision()).to_owned()),
        threads: threads::count(),
        gigabytes_per_second: bytes.map(|bytes| bytes / seconds / 1e9),
        peak_share: bytes.map(|bytes| bytes / seconds / peak),
        peak_gigabytes_per_second: Some(peak / 1e9),
        peak_memory_bytes,
        ..Figures::default()
    }
}
