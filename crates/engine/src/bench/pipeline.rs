//! The whole program in one process: pages into an index, then questions about them.

use std::{path::Path, sync::atomic::AtomicBool, time::Instant};

use colibri_index::{Filter, Index, Mode};
use colibri_models::{generate::GenerateOptions, generators::Looking};

use super::{Figures, page};
use crate::{
    Result,
    answer::{AnswerOptions, Answering},
    checkpoints::Models,
    ingest::{IngestOptions, ingest},
    memory, picture,
    retrieve::Searcher,
    threads,
};

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct PipelineOptions {
    /// Pages in the index, all of which are given to the generator.
    pub pages: usize,
    /// Tokens written in the last answer; the others end after one, which times it.
    pub new_tokens: usize,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            pages: 1,
            new_tokens: 100,
        }
    }
}

/// Questions that share nothing but the pages.
const QUESTIONS: [&str; 3] = [
    "Which method has the lowest latency?",
    "What does the second table compare?",
    "Who signed the report?",
];

/// Indexes made-up pages below `scratch` and answers from them.
///
/// # Errors
/// When a model cannot be loaded or run, or a file cannot be written.
pub fn pipeline(scratch: &Path, models: &Models, options: PipelineOptions) -> Result<Figures> {
    let quiet = |_| {};
    let folder = scratch.join("pages");
    fs_err::create_dir_all(&folder).map_err(|source| crate::Error::Io {
        path: folder.clone(),
        source,
    })?;
    for number in 0..options.pages.max(1) {
        let file = folder.join(format!("page-{number}.png"));
        picture::save_png(&page(number as u32), &file)?;
    }
    let loading = Instant::now();
    let retriever = models.retriever(None, &quiet)?;
    let mut seconds_load = loading.elapsed().as_secs_f64();
    let dir = scratch.join("index");
    let stop = AtomicBool::new(false);
    let indexing = Instant::now();
    ingest(
        &dir,
        std::slice::from_ref(&folder),
        retriever.as_ref(),
        &IngestOptions::default(),
        &stop,
        &mut |_| {},
    )?;
    let seconds_index = indexing.elapsed().as_secs_f64();
    let loading = Instant::now();
    let generator = models.generator(&quiet)?;
    seconds_load += loading.elapsed().as_secs_f64();
    let index = Index::open(&dir)?;
    // A question is asked as `colibri ask` asks it, in a conversation of its own.
    let ask = |question: &str, max_new_tokens: usize| -> Result<f64> {
        let searcher = Searcher::open(&index, models, Mode::Hybrid, &quiet)?;
        let answer_options = AnswerOptions {
            pages: options.pages.max(1),
            generate: GenerateOptions {
                max_new_tokens,
                ..GenerateOptions::default()
            },
            ..AnswerOptions::default()
        };
        let mut answering =
            Answering::new(&index, searcher, models, Filter::default(), answer_options);
        let started = Instant::now();
        answering.ask(question, &stop, &quiet, &mut |_| {})?;
        Ok(started.elapsed().as_secs_f64())
    };
    let model = generator.as_ref().map(|generator| &generator.model);
    let looked_at = || {
        let looking = model.and_then(|model| model.looking());
        looking.map_or(0, Looking::tiles_looked_at)
    };
    let first = ask(QUESTIONS[0], 1)?;
    // What was read of the page is forgotten; what was seen of it is kept in the index.
    if let Some(model) = model {
        model.forget();
    }
    let before = looked_at();
    let second = ask(QUESTIONS[1], 1)?;
    let tiles_indexed = looked_at() - before;
    let again = ask(QUESTIONS[2], 1)?;
    // The same question twice more: all of the prompt is known, so that what is longer is what is written.
    let new_tokens = options.new_tokens.max(2);
    let known = ask(QUESTIONS[2], 1)?;
    let written = ask(QUESTIONS[2], new_tokens)? - known;
    let weight_bytes = retriever
        .as_ref()
        .map_or(0, |model| model.model.num_bytes())
        + model.map_or(0, |model| model.num_bytes());
    Ok(Figures {
        work: "pipeline",
        model: generator.map(|model| model.located.name),
        precision: retriever.map(|model| model.model.settings().precision),
        threads: threads::count(),
        seconds_load: Some(seconds_load),
        seconds_index: Some(seconds_index),
        seconds_to_first_token: Some(first),
        seconds_to_first_token_indexed: Some(second),
        seconds_to_first_token_again: Some(again),
        tiles_indexed: Some(tiles_indexed),
        tokens_per_second: (written > 0.0).then(|| (new_tokens - 1) as f64 / written),
        weight_bytes: Some(weight_bytes),
        peak_memory_bytes: memory::peak_bytes(),
        ..Figures::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bench::shapes::TINY,
        checkpoints::{Choice, ModelConfig, PrecisionChoice},
        hub::HubConfig,
    };

    fn run(separate: bool) -> Figures {
        let scratch = tempfile::tempdir().unwrap();
        let cache = scratch.path().join("cache");
        let pair = TINY.write(scratch.path(), &cache, separate).unwrap();
        let models = Models::new(ModelConfig {
            retriever: Choice::Found(Box::new(pair.retriever.unwrap())),
            generator: Choice::Found(Box::new(pair.generator.unwrap())),
            precision: PrecisionChoice::F32,
            ..ModelConfig::new(HubConfig::new(scratch.path().join("hub")), cache)
        });
        let options = PipelineOptions {
            pages: 2,
            new_tokens: 4,
        };
        pipeline(scratch.path(), &models, options).unwrap()
    }

    #[test]
    fn a_pair_runs_and_the_second_answer_looks_at_nothing() {
        let (shared, separate) = (run(false), run(true));
        for figures in [&shared, &separate] {
            assert_eq!(figures.tiles_indexed, Some(0));
            assert!(figures.seconds_to_first_token_indexed.unwrap() > 0.0);
            assert!(figures.peak_memory_bytes > 0 || !cfg!(target_os = "linux"));
        }
        let (one, two) = (shared.weight_bytes.unwrap(), separate.weight_bytes.unwrap());
        assert!(one * 3 < two * 2, "{one} of {two}");
    }
}
