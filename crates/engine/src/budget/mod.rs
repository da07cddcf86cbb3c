//! `--memory`: what fits, decided before anything is loaded.
//!
//! A model alone has to fit, in the best precision for which it does; both at once need not: the one that is not at
//! work is then given up and read again when it is needed (`swap`). Of a question, as many pages are shown to the
//! generator as fit. What would not fit at all is refused with the smallest budget that would do.

mod swap;

use std::sync::Arc;

use colibri_models::{
    KvPrecision, Precision, TensorPool,
    footprint::{Footprint, Needs, Role},
    processor::TileOptions,
    registry,
};

use crate::{
    Error, Result,
    checkpoints::{BUILTIN, Located, PrecisionChoice},
    threads,
};

pub(crate) use swap::Swapped;

/// The program itself with its libraries and threads, by measurement.
const PROGRAM_BYTES: u64 = 21_000_000;
/// An index that is written: the catalogue, rows and words on their way.
const WRITING_BYTES: u64 = 24_000_000;
/// The process that reads PDFs while it draws an ordinary page, or a picture of eight megapixels while it is decoded.
const PDF_WORKER_BYTES: u64 = 52_000_000;
/// Words of a prompt besides its pages, in tokens.
const WORDS: u64 = 400;
/// A question to a retriever, in tokens.
const QUESTION: u64 = 64;
/// Pages that are drawn, wait and are looked at while an index is filled.
const PAGES_UNDER_WAY: u64 = 3;
/// Keys and values kept for questions that begin alike, where memory is not limited.
const PREFIX_BYTES: u64 = 1 << 30;
/// New tokens that are counted with at most: few answers are longer, and what they need is not taken beforehand.
const NEW_TOKENS: usize = 1024;

/// What models will be asked to do, as far as memory is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// Pages shown to the generator at a time.
    pub(crate) pages: usize,
    /// The longest answer.
    pub(crate) new_tokens: usize,
    /// Whether documents are read: drawn, looked at, written into an index.
    pub(crate) reads_documents: bool,
    /// Rows of an index, which a search reads where they lie.
    pub(crate) index_bytes: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            pages: 1,
            new_tokens: 512,
            reads_documents: true,
            index_bytes: 0,
        }
    }
}

/// How one model is going to be held.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ModelPlan {
    /// `retriever` or `generator`.
    pub role: &'static str,
    /// Its name.
    pub model: String,
    /// In which precision.
    pub precision: &'static str,
    /// Matrices, tables, norms, adapters.
    pub weights_bytes: u64,
    /// Of these, what a model that is loaded seems to hold already.
    pub shared_bytes: u64,
    /// Keys and values of the longest prompt with its answer.
    pub kv_bytes: u64,
    /// What passes through it while it works: pixels, activations.
    pub passing_bytes: u64,
    /// The program, the tokenizer, and where documents are read the process that reads PDFs.
    pub program_bytes: u64,
    /// Rows of the index that is searched.
    pub index_bytes: u64,
    /// The greatest resident size to be expected.
    pub total_bytes: u64,
    /// Pages shown at a time.
    pub pages: usize,
    /// Keys and values that may be held in all: those of the prompt at hand, and of earlier ones that begin alike.
    pub prefix_bytes: u64,
    /// Keys and values of one token.
    #[serde(skip)]
    pub(crate) kv_bytes_per_token: u64,
    #[serde(skip)]
    pub(crate) held_in: Precision,
}

impl ModelPlan {
    /// What is needed while this one and `other` are both held and take turns at working.
    pub(crate) fn beside(&self, other: &Self) -> u64 {
        self.program_bytes.max(other.program_bytes)
            + self.index_bytes.max(other.index_bytes)
            + self.weights_bytes
            + other.weights_bytes
            - self.shared_bytes.min(other.weights_bytes)
            + self.kv_bytes
            + other.kv_bytes
            + self.passing_bytes.max(other.passing_bytes)
    }

    /// What is left of a budget once `needed` is taken is for keys and values of prompts that were read.
    pub(crate) fn keep_prefixes(&mut self, budget: Option<u64>, needed: u64) {
        self.prefix_bytes = match budget {
            None => PREFIX_BYTES,
            Some(budget) => (budget.saturating_sub(needed) + self.kv_bytes).min(PREFIX_BYTES),
        };
    }
}

/// What is asked of a plan.
pub(crate) struct Asked<'a> {
    pub(crate) located: &'a Located,
    pub(crate) role: Role,
    pub(crate) choice: PrecisionChoice,
    /// In what an index holds the rows of this retriever.
    pub(crate) remembered: Option<Precision>,
    pub(crate) tiles: TileOptions,
    /// In what form keys and values are kept.
    pub(crate) kv: KvPrecision,
    pub(crate) budget: Option<u64>,
    pub(crate) work: Work,
    /// What other models hold.
    pub(crate) pool: &'a Arc<TensorPool>,
}

/// Decides how a model is held.
///
/// # Errors
/// [`Error::Memory`] where it does not fit, or when its files are damaged.
pub(crate) fn plan(asked: &Asked<'_>) -> Result<ModelPlan> {
    let precisions: &[Precision] = match (asked.choice, asked.remembered) {
        (PrecisionChoice::Auto, Some(remembered)) => &[remembered],
        (PrecisionChoice::Auto, None) if asked.budget.is_some() => {
            &[Precision::Bf16, Precision::Int8, Precision::Int4]
        }
        (choice, _) => &[choice.precision()],
    };
    let needs = Needs::of(
        &asked.located.checkpoint,
        asked.located.made_up,
        asked.role,
        &asked.tiles,
        threads::count(),
        asked.pool,
    )?;
    let with = |precision, pages| {
        let footprint = needs.in_precision(precision).keeping(asked.kv);
        with_pages(asked, precision, &footprint, pages)
    };
    let budget = asked.budget.unwrap_or(u64::MAX);
    let smallest = precisions.last().copied().unwrap_or(Precision::Int4);
    // The best precision that fits, and then in the smallest fewer pages.
    let in_full = precisions
        .iter()
        .map(|&precision| (precision, asked.work.pages));
    let fewer = (1..asked.work.pages).rev().map(|pages| (smallest, pages));
    for (precision, pages) in in_full.chain(fewer) {
        let mut plan = with(precision, pages);
        if plan.total_bytes <= budget {
            let needed = plan.total_bytes;
            plan.keep_prefixes(asked.budget, needed);
            return Ok(plan);
        }
    }
    Err(Error::Memory {
        model: asked.located.name.clone(),
        budget,
        needed: with(smallest, 1).total_bytes,
        precision: name(smallest),
        least: with(Precision::Int4, 1).total_bytes,
    })
}

fn with_pages(
    asked: &Asked<'_>,
    precision: Precision,
    footprint: &Footprint,
    pages: usize,
) -> ModelPlan {
    let work = asked.work;
    let (role, pages) = match asked.role {
        Role::Retriever => ("retriever", 1),
        Role::Generator => ("generator", pages),
    };
    let prompt = footprint.page_tokens * pages as u64 + WORDS;
    let (kv_bytes, passing_bytes, program_bytes) = match asked.role {
        // Prompts of a retriever are read once.
        Role::Retriever if work.reads_documents => (
            0,
            footprint.working(1, footprint.page_tokens, 0),
            WRITING_BYTES + PDF_WORKER_BYTES + footprint.drawn_page * PAGES_UNDER_WAY,
        ),
        Role::Retriever => (0, footprint.working(0, QUESTION, 0), 0),
        Role::Generator => {
            let kv = footprint.kv(prompt + work.new_tokens.min(NEW_TOKENS) as u64);
            let working = footprint.working(pages as u64, prompt, kv);
            // All pages are drawn before the first is looked at.
            let drawn = footprint.drawn_page * pages as u64;
            (
                kv,
                working.max(PDF_WORKER_BYTES + drawn).saturating_sub(kv),
                0,
            )
        }
    };
    let program_bytes =
        PROGRAM_BYTES + embedded_bytes(asked.located) + footprint.tokenizer + program_bytes;
    let weights = footprint.matrices + footprint.values;
    ModelPlan {
        role,
        model: asked.located.name.clone(),
        precision: name(precision),
        weights_bytes: weights,
        shared_bytes: footprint.shared,
        kv_bytes,
        passing_bytes,
        program_bytes,
        index_bytes: work.index_bytes,
        total_bytes: weights + kv_bytes + passing_bytes + program_bytes + work.index_bytes,
        pages,
        prefix_bytes: 0,
        kv_bytes_per_token: footprint.kv_per_token,
        held_in: precision,
    }
}

/// What the program carries of a checkpoint, which is read to see whether it is unpacked.
fn embedded_bytes(located: &Located) -> u64 {
    if located.name != BUILTIN {
        return 0;
    }
    let size = registry::weight_size(located.checkpoint.base_folder());
    size.map_or(0, |(_, bytes)| bytes)
}

/// The name of a precision, as it is given on the command line.
pub(crate) fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 | Precision::Bf16Short => "bf16",
        Precision::Int8 => "int8",
        Precision::Int4 => "int4",
    }
}

/// The precision of that name.
pub(crate) fn named(name: &str) -> Option<Precision> {
    let all = [
        Precision::F32,
        Precision::Bf16,
        Precision::Int8,
        Precision::Int4,
    ];
    all.into_iter()
        .find(|&precision| self::name(precision) == name)
}
