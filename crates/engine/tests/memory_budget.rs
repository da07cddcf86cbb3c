//! A budget for memory decides precision, pages and what is held at a time, and what does not fit is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::Path, sync::atomic::AtomicBool};

use colibri_engine::{
    Error, KvPrecision,
    answer::{AnswerOptions, Answering},
    budget::ModelPlan,
    checkpoints::{Models, PrecisionChoice},
    generate::GenerateOptions,
    index::{Filter, Index, Mode},
    retrieve::Searcher,
};

mod support;

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        support::write_pair(folder.path());
        support::write_pages(&folder.path().join("pages"), 1);
        Self(folder)
    }

    fn models(&self, precision: PrecisionChoice, memory: Option<u64>) -> Models {
        support::models(self.0.path(), |config| {
            config.precision = precision;
            config.memory = memory;
        })
    }

    fn plans(&self, precision: PrecisionChoice, memory: Option<u64>) -> Vec<ModelPlan> {
        let models = self.models(precision, memory);
        models.expect(3, 100);
        models.plans_beforehand().unwrap()
    }

    /// Two answers of one conversation, so that the retriever is needed again after the generator.
    fn answers(&self, models: &Models, index: &str) -> Vec<String> {
        let dir = self.0.path().join(index);
        let stop = AtomicBool::new(false);
        let index = support::index(&dir, &self.0.path().join("pages"), models);
        let searcher = Searcher::open(&index, models, Mode::Visual, &|_| {}).unwrap();
        let options = AnswerOptions {
            pages: 1,
            generate: GenerateOptions {
                max_new_tokens: 12,
                ..GenerateOptions::default()
            },
            ..AnswerOptions::default()
        };
        let mut answering = Answering::new(&index, searcher, models, Filter::default(), options);
        [
            "What is shown on the page?",
            "And what stands in the corner?",
        ]
        .iter()
        .map(|question| {
            let asked = answering.ask(question, &stop, &|_| {}, &mut |_| {});
            let done = asked.unwrap().done;
            let memory = done.memory;
            assert!(
                memory.kv_bytes > 0 && memory.features_bytes > 0,
                "{memory:?}"
            );
            assert!(memory.vision_weights_bytes > 0 && memory.text_weights_bytes > 0);
            let both = memory.vision_weights_bytes + memory.text_weights_bytes;
            assert_eq!(memory.weights_bytes, both);
            done.answer
        })
        .collect()
    }
}

#[test]
fn the_best_precision_that_fits_is_taken_and_then_fewer_pages() {
    let world = World::new();
    let free = world.plans(PrecisionChoice::Auto, None);
    assert!(free.iter().all(|plan| plan.precision == "bf16"), "{free:?}");
    let smallest = world.plans(PrecisionChoice::Int4, None);
    for (role, wanted) in [(0, "retriever"), (1, "generator")] {
        assert_eq!(free[role].role, wanted);
        assert!(smallest[role].total_bytes < free[role].total_bytes);
    }
    // The retriever is the greater one here: with just enough for it in four bits there is room for the generator.
    let enough = smallest[0].total_bytes;
    assert!(enough > smallest[1].total_bytes);
    let plans = world.plans(PrecisionChoice::Auto, Some(enough));
    assert_eq!(plans[0].precision, "int4");
    assert!(plans.iter().all(|plan| plan.total_bytes <= enough));
    // Of what may be kept of prompts, those of the prompt at hand are in the total.
    let kept = plans[1].prefix_bytes - plans[1].kv_bytes;
    assert!(plans[1].total_bytes + kept <= enough);

    let models = world.models(PrecisionChoice::Auto, Some(enough - 1));
    let refused = models.plans_beforehand().unwrap_err();
    let Error::Memory { needed, least, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!((*needed, *least), (enough, enough));
    assert!(refused.is_input() && refused.hint().unwrap().contains("would do"));
}

#[test]
fn models_that_do_not_fit_beside_each_other_take_turns() {
    let world = World::new();
    let wanted = world.answers(&world.models(PrecisionChoice::F32, None), "free");
    let plans = world.plans(PrecisionChoice::F32, None);
    let alone = plans.iter().map(|plan| plan.total_bytes).max().unwrap();
    let models = world.models(PrecisionChoice::F32, Some(alone));
    assert_eq!(world.answers(&models, "limited"), wanted);
    // A retriever that may be given up tells everything that one tells that stays.
    let tokens = |memory| {
        let models = world.models(PrecisionChoice::F32, memory);
        let retriever = models.retriever(None, &|_| {}).unwrap().unwrap();
        retriever.model.query_tokens("What is shown?").unwrap()
    };
    assert!(!tokens(None).is_empty());
    assert_eq!(tokens(Some(alone)), tokens(None));
    // The one that worked last is there, the other is not.
    let used = models.used(0, 0);
    assert!(
        used.weights_bytes <= plans[1].weights_bytes,
        "{used:?} {plans:?}"
    );
}

#[test]
fn keys_and_values_in_bytes_are_counted_and_take_less() {
    let world = World::new();
    let run = |kv, index| {
        let models = support::models(world.0.path(), |config| {
            config.precision = PrecisionChoice::Bf16;
            config.kv = kv;
        });
        let answers = world.answers(&models, index);
        let generator = models.loaded().1.unwrap();
        let kept = generator.model.looking().unwrap().kept_bytes();
        (answers, kept as u64, models.plans()[1].kv_bytes)
    };
    let (auto_answers, auto_kept, auto_planned) = run(KvPrecision::Auto, "auto");
    let (answers, kept, planned) = run(KvPrecision::Int8, "bytes");
    assert_eq!(answers.len(), auto_answers.len());
    // A head of 16 values: 16 bytes and a scale for 32.
    assert_eq!(planned * 32, auto_planned * 20);
    // The whole of the two prompts of the conversation, no room for more tokens than were asked for.
    assert!(kept > 0 && kept < auto_kept, "{kept} of {auto_kept}");
}

#[test]
fn an_index_is_searched_in_the_precision_it_was_made_in() {
    let world = World::new();
    world.answers(&world.models(PrecisionChoice::Int8, None), "eight");
    let models = world.models(PrecisionChoice::Auto, None);
    let index = Index::open(world.0.path().join("eight")).unwrap();
    let searcher = Searcher::open(&index, &models, Mode::Visual, &|_| {}).unwrap();
    assert_eq!(models.plans()[0].precision, "int8");
    assert_eq!(
        searcher
            .search("anything", 1, &Filter::default())
            .unwrap()
            .hits
            .len(),
        1
    );
}

#[test]
fn every_architecture_has_a_budget() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/golden/checkpoints");
    let folder = tempfile::tempdir().unwrap();
    let pair = |memory| {
        support::models(folder.path(), |config| {
            config.retriever = support::named(&golden.join("colpali-merged"));
            config.generator = support::named(&golden.join("idefics2"));
            config.precision = PrecisionChoice::Auto;
            config.memory = memory;
        })
    };
    let refused = pair(Some(1_000_000)).plans_beforehand().unwrap_err();
    let Error::Memory { needed, least, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert!(needed == least && *needed > 1_000_000);
    let plans = pair(Some(1_000_000_000)).plans_beforehand().unwrap();
    for (plan, role) in plans.iter().zip(["retriever", "generator"]) {
        assert_eq!((plan.role, plan.precision), (role, "bf16"));
        assert!(plan.weights_bytes > 0 && plan.passing_bytes > 0);
    }
    assert!(plans[0].total_bytes >= *needed);
}
