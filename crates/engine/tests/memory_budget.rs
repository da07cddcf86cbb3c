//! A budget for memory decides precision, pages and what is held at a time, and what does not fit is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::AtomicBool;

use colibri_engine::{
    Error,
    answer::{AnswerOptions, Answering},
    budget::ModelPlan,
    checkpoints::{Choice, ModelConfig, Models, PrecisionChoice},
    generate::GenerateOptions,
    hosted::HostedConfig,
    hub::HubConfig,
    index::{Filter, Index, Mode},
    ingest::{IngestOptions, ingest},
    picture::{RgbImage, save_png},
    processor::TileOptions,
    retrieve::Searcher,
};
use colibri_testkit::random::{Role, TINY, write_checkpoint};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_checkpoint(&folder.path().join("retriever"), &TINY, Role::Retriever);
        write_checkpoint(&folder.path().join("generator"), &TINY, Role::Generator);
        let page = RgbImage::from_fn(120, 160, |x, y| image::Rgb([(x * 2) as u8, y as u8, 9]));
        save_png(&page, &folder.path().join("page.png")).unwrap();
        Self(folder)
    }

    fn models(&self, precision: PrecisionChoice, memory: Option<u64>) -> Models {
        let named =
            |name: &str| Choice::Named(self.0.path().join(name).to_str().unwrap().to_owned());
        let mut hub = HubConfig::new(self.0.path().join("hub"));
        hub.offline = true;
        Models::new(ModelConfig {
            hub,
            hosted: HostedConfig::default(),
            builtin_dir: self.0.path().join("cache"),
            retriever: named("retriever"),
            generator: named("generator"),
            precision,
            prompt_version: None,
            tiles: TileOptions::default(),
            feature_bytes: 0,
            memory,
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
        let retriever = models.retriever(None, &|_| {}).unwrap();
        ingest(
            &dir,
            &[self.0.path().join("page.png")],
            retriever.as_ref(),
            &IngestOptions::default(),
            &stop,
            &mut |_| {},
        )
        .unwrap();
        let index = Index::open(&dir).unwrap();
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
            assert!(done.memory.kv_bytes > 0 && done.memory.weights_bytes > 0);
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
    assert!(plans[1].total_bytes + plans[1].prefix_bytes <= enough);

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
    // The one that worked last is there, the other is not.
    let used = models.used(0, 0);
    assert!(
        used.weights_bytes <= plans[1].weights_bytes,
        "{used:?} {plans:?}"
    );
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
