//! The whole program in one process: pages into an index, then questions about them.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use colibri_index::{Filter, Index, Mode};
use colibri_models::{generate::GenerateOptions, generators::Looking};

use super::{Figures, page};
use crate::{
    Result,
    answer::{AnswerOptions, Answering, Timings},
    checkpoints::{LoadedGenerator, Models},
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
    /// Tokens written in the last answer, whose steps are timed; the others end after one, which times them.
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

/// Tiles that went through a generator's tower since it was loaded.
fn looked_at(generator: &LoadedGenerator) -> u64 {
    let looking = generator.model.looking();
    looking.map_or(0, Looking::tiles_looked_at)
}

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
    // No handle on it is kept: where memory is limited it is given up for the retriever and comes back.
    let located = models.generator(&quiet)?.map(|generator| generator.located);
    seconds_load += loading.elapsed().as_secs_f64();
    let index = Index::open(&dir)?;
    // A question is asked as `colibri ask` asks it, in a conversation of its own: seconds until it is answered, and
    // how they were spent.
    let ask = |question: &str, max_new_tokens: usize| -> Result<(f64, Timings)> {
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
        let asked = answering.ask(question, &stop, &quiet, &mut |_| {})?;
        Ok((started.elapsed().as_secs_f64(), asked.done.timings_ms))
    };
    let (first, _) = ask(QUESTIONS[0], 1)?;
    // What was read of the page is forgotten; what was seen of it is kept in the index.
    let before = models.loaded().1.map(|loaded| {
        loaded.model.forget();
        (Arc::downgrade(&loaded.model), looked_at(&loaded))
    });
    let (second, _) = ask(QUESTIONS[1], 1)?;
    let tiles_indexed = models.loaded().1.map_or(0, |loaded| {
        // One that has come back since begins to count anew.
        let same = before
            .filter(|(model, _)| std::ptr::addr_eq(model.as_ptr(), Arc::as_ptr(&loaded.model)));
        looked_at(&loaded) - same.map_or(0, |(_, before)| before)
    });
    let (again, _) = ask(QUESTIONS[2], 1)?;
    let (_, timings) = ask(QUESTIONS[2], options.new_tokens.max(2))?;
    let (kept, writing) = models.loaded();
    let weight_bytes = kept.map_or(0, |loaded| loaded.model.num_bytes())
        + writing.map_or(0, |loaded| loaded.model.num_bytes());
    Ok(Figures {
        work: "pipeline",
        model: located.map(|located| located.name),
        precision: retriever.map(|model| model.model.settings().precision),
        threads: threads::count(),
        seconds_load: Some(seconds_load),
        seconds_index: Some(seconds_index),
        seconds_to_first_token: Some(first),
        seconds_to_first_token_indexed: Some(second),
        seconds_to_first_token_again: Some(again),
        tiles_indexed: Some(tiles_indexed),
        tokens_per_second: (timings.a_token > 0.0).then(|| 1000.0 / timings.a_token),
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

    /// A run with what it was allowed, and the sizes of retriever and generator.
    fn run(separate: bool, memory: impl FnOnce(&Models) -> Option<u64>) -> (Figures, Vec<u64>) {
        let scratch = tempfile::tempdir().unwrap();
        let cache = scratch.path().join("cache");
        let pair = TINY.write(scratch.path(), &cache, separate).unwrap();
        let config = ModelConfig {
            retriever: Choice::Found(Box::new(pair.retriever.unwrap())),
            generator: Choice::Found(Box::new(pair.generator.unwrap())),
            precision: PrecisionChoice::F32,
            ..ModelConfig::new(HubConfig::new(scratch.path().join("hub")), cache)
        };
        let options = PipelineOptions {
            pages: 2,
            new_tokens: 4,
        };
        let free = Models::new(config.clone());
        free.expect(options.pages, options.new_tokens);
        let models = Models::new(ModelConfig {
            memory: memory(&free),
            ..config
        });
        let figures = pipeline(scratch.path(), &models, options).unwrap();
        let weights = models.plans().into_iter().map(|plan| plan.weights_bytes);
        (figures, weights.collect())
    }

    #[test]
    fn a_pair_runs_and_the_second_answer_looks_at_nothing() {
        let (shared, separate) = (run(false, |_| None).0, run(true, |_| None).0);
        for figures in [&shared, &separate] {
            assert_eq!(figures.tiles_indexed, Some(0));
            assert!(figures.seconds_to_first_token_indexed.unwrap() > 0.0);
            assert!(figures.tokens_per_second.unwrap() > 0.0);
            assert!(figures.peak_memory_bytes > 0 || !cfg!(target_os = "linux"));
        }
        let (one, two) = (shared.weight_bytes.unwrap(), separate.weight_bytes.unwrap());
        assert!(one * 3 < two * 2, "{one} of {two}");
    }

    #[test]
    fn two_that_share_nothing_take_turns_where_they_do_not_fit_beside_each_other() {
        let (figures, weights) = run(true, |free| {
            let plans = free.plans_beforehand().unwrap();
            plans.iter().map(|plan| plan.total_bytes).max()
        });
        // The generator, which worked last, is held alone, and it had come back without looking at anything.
        let held = figures.weight_bytes.unwrap() as u64;
        assert!(held > 0 && held <= weights[1], "{held} of {weights:?}");
        assert_eq!(figures.tiles_indexed, Some(0));
    }
}
