//! Seconds a page and tokens a second, on a checkpoint folder:
//! `cargo bench -p colibri-models --bench page -- FOLDER f32|bf16|int8|int4 [RUNS]`.
//!
//! The folder may hold noise (`cargo run -p colibri-testkit --example random_checkpoint`): the time does not
//! depend on the values. A retriever embeds a page and a query; a generator reads a page and writes 64
//! tokens. The page is 1700 × 2200 pixels (US Letter at 200 dpi) with no two tiles alike.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on stops")]
#![expect(clippy::print_stdout, reason = "its result")]

use std::{ops::ControlFlow, path::PathBuf, time::Instant};

use colibri_models::{
    Placement, Precision,
    generate::{GenerateOptions, Step},
    generators::Request,
    processor::Message,
    registry::{Checkpoint, Kind, LoadOptions, inspect, load_generator, load_retriever},
};
use image::{Rgb, RgbImage};

fn page() -> RgbImage {
    RgbImage::from_fn(1700, 2200, |x, y| {
        let ink = (x * 7 + y * 13 + (x / 9) * (y / 17)) % 61 < 9;
        Rgb(if ink {
            [20, 20, (x % 40) as u8]
        } else {
            [255, 255, 255]
        })
    })
}

fn main() {
    let args: Vec<String> = std::env::args()
        .filter(|arg| arg != "--bench")
        .skip(1)
        .collect();
    let Some(folder) = args.first().map(PathBuf::from) else {
        println!("skipped: no checkpoint folder was given");
        return;
    };
    let precision = match args.get(1).map(String::as_str) {
        Some("f32") => Precision::F32,
        Some("int8") => Precision::Int8,
        Some("int4") => Precision::Int4,
        _ => Precision::Bf16,
    };
    let runs: usize = args.get(2).map_or(3, |text| text.parse().unwrap());
    let kind = inspect(&folder).unwrap();
    let checkpoint = Checkpoint { folder, base: None };
    let options = LoadOptions::new(Placement::cpu(precision));
    let started = Instant::now();
    if kind == Kind::Retriever {
        let model = load_retriever(&checkpoint, &options).unwrap();
        println!(
            "load {:.2} s, {} MB of weights",
            started.elapsed().as_secs_f64(),
            model.num_bytes() / 1_000_000
        );
        for _ in 0..runs {
            let started = Instant::now();
            let embedding = model.embed_page(&page(), &mut |_, _| true).unwrap();
            println!(
                "page {:.3} s, {} rows",
                started.elapsed().as_secs_f64(),
                embedding.rows.num_rows()
            );
            let started = Instant::now();
            let rows = model
                .embed_query("How does latency compare between methods?")
                .unwrap();
            println!(
                "query of {} tokens {:.1} ms",
                rows.num_rows(),
                started.elapsed().as_secs_f64() * 1e3
            );
        }
    } else {
        let model = load_generator(&checkpoint, &options).unwrap();
        println!(
            "load {:.2} s, {} MB of weights",
            started.elapsed().as_secs_f64(),
            model.num_bytes() / 1_000_000
        );
        let (messages, images) = ([Message::user(1, "What is shown?")], [page()]);
        // Noise writes ids that are no text, so the first token is timed by writing only one.
        let time = |max_new_tokens| {
            let options = GenerateOptions {
                max_new_tokens,
                ..GenerateOptions::default()
            };
            let request = Request {
                messages: &messages,
                images: &images,
                options: &options,
            };
            let started = Instant::now();
            let mut looked = 0.0;
            let mut on_step = |step: Step<'_>| {
                if matches!(step, Step::Prefill { .. }) {
                    looked = started.elapsed().as_secs_f64();
                }
                ControlFlow::Continue(())
            };
            let completion = model.generate(&request, &mut on_step).unwrap();
            (looked, started.elapsed().as_secs_f64(), completion)
        };
        for _ in 0..runs {
            let (looked, first, completion) = time(1);
            let (looked_again, total, long) = time(65);
            let decode = (total - looked_again) - (first - looked);
            println!(
                "tower {looked:.3} s, prefill of {} tokens {:.3} s, then {:.1} tokens/s",
                completion.prompt_tokens,
                first - looked,
                (long.ids.len() - 1) as f64 / decode,
            );
        }
    }
}
