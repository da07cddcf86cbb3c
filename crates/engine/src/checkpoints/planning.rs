//! How models are going to be held, and where memory went: the part of [`Models`] that keeps to a budget.

use std::sync::{Arc, MutexGuard, PoisonError};

use colibri_models::{Precision, WeightBytes, footprint::Role, generators::Looking, machine};

use super::{
    Choice, Models,
    config::Located,
    loaded::{ModelEvent, OnModelEvent, Slot},
};
use crate::{
    Result,
    budget::{self, ModelPlan, Swapped, Work},
    hosted,
    memory::Used,
};

/// What is known of the memory of a run.
#[derive(Default)]
pub(super) struct Budget {
    pub(super) work: Work,
    pub(super) remembered: Option<Precision>,
    pub(super) retriever: Option<ModelPlan>,
    pub(super) generator: Option<ModelPlan>,
    /// The retriever, where it is to be given up while the generator works.
    pub(super) swapped: Option<Arc<Swapped>>,
}

impl Models {
    pub(super) fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a generator will be asked, so that memory is kept for it: pages shown at a time, and the longest answer.
    pub fn expect(&self, pages: usize, new_tokens: usize) {
        let work = &mut self.budget().work;
        work.pages = pages.max(1);
        work.new_tokens = new_tokens;
    }

    /// That no documents will be read: the retriever is asked questions alone, for which it needs far less.
    pub fn expect_questions_only(&self) {
        self.budget().work.reads_documents = false;
    }

    /// What an index has that is searched: bytes of its rows, which are read where they lie, and in what precision they
    /// were made. Where none is chosen, its retriever is held in the same.
    pub fn expect_index(&self, bytes: u64, precision: Option<&str>) {
        let mut budget = self.budget();
        budget.work.index_bytes = bytes;
        budget.remembered = precision.and_then(budget::named);
    }

    /// Pages that may be shown to the generator at a time, within the memory it may use.
    pub fn most_pages(&self) -> usize {
        let budget = self.budget();
        let limited = self.config.memory.and(budget.generator.as_ref());
        limited.map_or(usize::MAX, |plan| plan.pages)
    }

    /// Where memory went, when a generator has read and written `tokens`, and pages were shown to it as visual tokens of
    /// `features_bytes`.
    pub fn used(&self, tokens: usize, features_bytes: u64) -> Used {
        // One that is being loaded is not waited for.
        let retriever = Slot::loaded(&self.retriever);
        let retriever =
            retriever.map_or_else(WeightBytes::default, |loaded| loaded.model.weight_bytes());
        let generator = Slot::loaded(&self.generator);
        let (generator, prefix_bytes) = generator.map_or_else(Default::default, |loaded| {
            let looking = loaded.model.looking();
            let kept = looking.map_or(0, Looking::kept_bytes);
            (loaded.model.weight_bytes(), kept as u64)
        });
        let kv_bytes = self.budget().generator.as_ref().map_or(0, |plan| {
            plan.kv_bytes_per_token.saturating_mul(tokens as u64)
        });
        Used {
            features_bytes,
            kv_bytes,
            prefix_bytes,
            ..Used::now(retriever + generator)
        }
        .divided()
    }

    /// How the models that were loaded are held.
    pub fn plans(&self) -> Vec<ModelPlan> {
        let budget = self.budget();
        let both = [&budget.retriever, &budget.generator];
        both.into_iter().flatten().cloned().collect()
    }

    /// How the chosen models would be held, without loading any.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where one does not fit; when one that was named cannot be had.
    pub fn plans_beforehand(&self) -> Result<Vec<ModelPlan>> {
        let quiet = |_| {};
        let mut plans = Vec::new();
        if let Some(located) = self.locate_retriever(None, &quiet)? {
            plans.push(self.plan(&located, Role::Retriever, &quiet)?);
        }
        let is_hosted = matches!(&self.config.generator, Choice::Named(name) if name.starts_with(hosted::PREFIX));
        if !is_hosted && let Some(located) = self.locate_generator(&quiet)? {
            plans.push(self.plan(&located, Role::Generator, &quiet)?);
        }
        Ok(plans)
    }

    pub(super) fn plan(
        &self,
        located: &Located,
        role: Role,
        on_event: OnModelEvent<'_>,
    ) -> Result<ModelPlan> {
        let (work, remembered) = {
            let budget = self.budget();
            (budget.work, budget.remembered)
        };
        let plan = budget::plan(&budget::Asked {
            located,
            role,
            choice: self.config.precision,
            remembered: remembered.filter(|_| role == Role::Retriever),
            tiles: self.config.tiles,
            kv: self.config.kv,
            budget: self.config.memory,
            work,
            pool: &self.pool,
        })?;
        on_event(ModelEvent::Planned(plan.clone()));
        Ok(plan)
    }

    /// Settles a generator's plan beside the retriever that is held. Where the two do not fit beside each other, the
    /// retriever is given up; what is left is for prompts that were read.
    pub(super) fn make_room(&self, plan: &mut ModelPlan) {
        let mut budget = self.budget();
        let limit = self.config.memory;
        if let Some(retriever) = &budget.retriever {
            let both = plan.beside(retriever);
            if limit.is_none_or(|limit| both <= limit) {
                plan.keep_prefixes(limit, both);
            } else if let Some(swapped) = &budget.swapped {
                swapped.release();
                machine::return_freed_blocks();
                plan.shared_bytes = 0;
            }
        }
        budget.generator = Some(plan.clone());
    }
}
