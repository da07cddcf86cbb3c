//! How long it takes to write, reopen and search an index of made-up pages.
//!
//! `cargo bench -p colibri-index --bench search -- --pages 10000 --rows 1088 --dim 128 --query-rows 20`
//!
//! Rows are random; the pages' scores are compared with a plain computation over a sample, so that the
//! figures are those of an exact search. `--max-reopen-ms N` makes a slower reopening a failure.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::PathBuf;
use std::time::Instant;

use colibri_index::{
    DocumentRecord, Filter, Index, Mode, MultiVector, PageRecord, Query, QueryRows, Settings,
    Writer,
};

type Failure = Box<dyn std::error::Error>;

/// Pages a document.
const DOCUMENT_PAGES: usize = 100;
const WORDS: &[&str] = &[
    "latency",
    "retrieval",
    "passage",
    "figure",
    "colour",
    "budget",
    "water",
    "engine",
    "train",
    "market",
    "bridge",
    "winter",
    "protein",
    "signal",
    "harbour",
    "orchestra",
    "granite",
    "vaccine",
    "ledger",
    "satellite",
];

struct Options {
    pages: usize,
    rows: usize,
    dim: usize,
    query_rows: usize,
    searches: usize,
    dir: Option<PathBuf>,
    max_reopen_ms: Option<f64>,
}

fn options() -> Result<Options, Failure> {
    let mut options = Options {
        pages: 10_000,
        rows: 16,
        dim: 128,
        query_rows: 20,
        searches: 10,
        dir: None,
        max_reopen_ms: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        // Cargo itself passes this one.
        if flag == "--bench" {
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("`{flag}` needs a value"))?;
        match flag.as_str() {
            "--pages" => options.pages = value.parse()?,
            "--rows" => options.rows = value.parse()?,
            "--dim" => options.dim = value.parse()?,
            "--query-rows" => options.query_rows = value.parse()?,
            "--searches" => options.searches = value.parse()?,
            "--dir" => options.dir = Some(value.into()),
            "--max-reopen-ms" => options.max_reopen_ms = Some(value.parse()?),
            other => return Err(format!("unknown flag `{other}`").into()),
        }
    }
    Ok(options)
}

/// xorshift: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| (self.next() % 2049) as f32 / 1024.0 - 1.0)
            .collect()
    }
}

fn page_rows(page: usize, options: &Options) -> Vec<f32> {
    Numbers(page as u64 * 0x9e37_79b9 + 1).values(options.rows * options.dim)
}

fn write(writer: &mut Writer, options: &Options) -> Result<(), Failure> {
    for first in (0..options.pages).step_by(DOCUMENT_PAGES) {
        let mut pending = writer.begin_document(&DocumentRecord {
            path: format!("/synthetic/{:05}.pdf", first / DOCUMENT_PAGES),
            content_hash: format!("{first:064x}"),
            ..DocumentRecord::default()
        })?;
        for page in first..(first + DOCUMENT_PAGES).min(options.pages) {
            let mut numbers = Numbers(page as u64 + 1);
            let text: Vec<&str> = (0..200)
                .map(|_| WORDS[numbers.next() as usize % WORDS.len()])
                .collect();
            pending.append_page(&PageRecord {
                number: (page - first) as u32 + 1,
                width: 612.0,
                height: 792.0,
                text: format!("{} page{page}", text.join(" ")),
                rows: Some(MultiVector::from_f32(
                    options.dim,
                    &page_rows(page, options),
                )?),
                ..PageRecord::default()
            })?;
        }
        pending.commit()?;
    }
    Ok(())
}

fn maxsim(query: &[f32], rows: &[f32], dim: usize) -> f32 {
    query
        .chunks_exact(dim)
        .map(|query| {
            rows.chunks_exact(dim)
                .map(|row| {
                    let rounded = row.iter().map(|value| half::f16::from_f32(*value).to_f32());
                    query.iter().zip(rounded).map(|(a, b)| a * b).sum::<f32>()
                })
                .fold(f32::NEG_INFINITY, f32::max)
        })
        .sum()
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn main() -> Result<(), Failure> {
    let options = options()?;
    let temporary = tempfile::tempdir()?;
    let dir = options
        .dir
        .clone()
        .unwrap_or_else(|| temporary.path().join("index"));
    if !Index::exists(&dir) {
        let settings = Settings {
            retriever: Some("synthetic".to_owned()),
            dim: Some(options.dim),
            ..Settings::default()
        };
        let mut writer = Index::create(&dir, &settings)?;
        let start = Instant::now();
        write(&mut writer, &options)?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "write        {:9.1} pages/s",
            options.pages as f64 / seconds
        );
    }

    let start = Instant::now();
    let index = Index::open(&dir)?;
    let reopened = milliseconds(start);
    println!("reopen       {reopened:9.2} ms");
    let start = Instant::now();
    let stats = index.stats()?;
    println!(
        "stats        {:9.2} ms: {} pages, {} rows, {:.0} bytes a page",
        milliseconds(start),
        stats.pages,
        stats.rows,
        stats.bytes_per_page
    );

    let query = Numbers(99).values(options.query_rows * options.dim);
    let start = Instant::now();
    let mut found = index.search_visual(&query, options.dim, 10, &Filter::default())?;
    println!(
        "first visual {:9.2} ms (catalogue and maps read)",
        milliseconds(start)
    );
    let mut best = f64::INFINITY;
    for _ in 0..options.searches {
        let start = Instant::now();
        found = index.search_visual(&query, options.dim, 10, &Filter::default())?;
        best = best.min(milliseconds(start));
    }
    let bytes = stats.rows as f64 * options.dim as f64 * 2.0;
    println!(
        "visual       {best:9.2} ms best of {}, {:.1} GB/s",
        options.searches,
        bytes / best / 1e6
    );

    let question = "Which engine crossed the harbour bridge in winter?";
    let mut best = f64::INFINITY;
    for _ in 0..options.searches {
        let start = Instant::now();
        index.search_text(question, 10, &Filter::default())?;
        best = best.min(milliseconds(start));
    }
    println!("text         {best:9.2} ms (matches nearly every page)");
    let rows = QueryRows::new(options.dim, query.clone())?;
    let hybrid = Query {
        text: question.to_owned(),
        rows: Some(rows),
        mode: Mode::Hybrid,
        k: 10,
        ..Query::default()
    };
    let start = Instant::now();
    index.search(&hybrid)?;
    println!("hybrid       {:9.2} ms", milliseconds(start));
    let narrow = Filter::parse("path~*/0000?.pdf")?;
    let start = Instant::now();
    index.search_visual(&query, options.dim, 10, &narrow)?;
    println!("filtered     {:9.2} ms", milliseconds(start));

    // Exactness: the tenth best score separates the found pages from every other one.
    let threshold = found.last().map_or(f32::NEG_INFINITY, |last| last.score);
    let step = (options.pages / 1000).max(1);
    for page in (0..options.pages).step_by(step) {
        let score = maxsim(&query, &page_rows(page, &options), options.dim);
        let path = format!("/synthetic/{:05}.pdf", page / DOCUMENT_PAGES);
        let id = index
            .page_id(&path, (page % DOCUMENT_PAGES) as u32 + 1)?
            .ok_or("a page is missing")?;
        let tolerance = score.abs() * 1e-4;
        match found.iter().find(|found| found.page == id) {
            Some(found) if (found.score - score).abs() <= tolerance => {}
            None if score <= threshold + tolerance => {}
            other => return Err(format!("page {page}: {other:?}, but its score is {score}").into()),
        }
    }
    println!(
        "exact        yes, over {} pages",
        options.pages.div_ceil(step)
    );
    match options.max_reopen_ms {
        Some(limit) if reopened > limit => Err(format!("reopening took {reopened:.1} ms").into()),
        _ => Ok(()),
    }
}
