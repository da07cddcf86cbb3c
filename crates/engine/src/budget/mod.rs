//! `--memory`: what fits, decided before anything is loaded.
//!
//! A model alone has to fit, in the best precision for which it does; both at once need not: the one that is not at
//! work is then given up and read again when it is needed (`swap`). Of a question, as many pages are shown to the
//! generator as fit. What would not fit at all is refused with the smallest budget that would do.

mod swap;

use colibri_models::{
    Precision,
    footprint::{Footprint, Role},
    processor::TileOptions,
};

use crate::{
    Error, Result,
    checkpoints::{Located, PrecisionChoice},
    threads,
};

pub(crate) use swap::Swapped;

/// The program itself with its libraries and threads, by measurement.
const PROGRAM_BYTES: u64 = 14_000_000;
/// An index that is written: the catalogue, rows and words on their way.
const WRITING_BYTES: u64 = 10_000_000;
/// The process that reads PDFs, while it draws an ordinary page.
const PDF_WORKER_BYTES: u64 = 42_000_000;
/// Words of a prompt besides its pages, in tokens.
const WORDS: u64 = 400;
/// A page as drawn at the size retrievers look at.
const DRAWN_PAGE_BYTES: u64 = 9_500_000;
/// Pages that are drawn, wait and are looked at while an index is filled.
const PAGES_UNDER_WAY: u64 = 4;
/// Keys and values kept for questions that begin alike, where memory is not limited.
const PREFIX_BYTES: u64 = 1 << 30;
/// New tokens that are counted with at most: few answers are longer, and what they need is not taken beforehand.
const NEW_TOKENS: usize = 1024;

/// What a model will be asked to do, as far as memory is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) pages: usize,
    pub(crate) new_tokens: usize,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            pages: 1,
            new_tokens: 512,
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
    /// Keys and values of the longest prompt with its answer.
    pub kv_bytes: u64,
    /// What passes through it while it works: pixels, activations.
    pub passing_bytes: u64,
    /// The program, the tokenizer, and where documents are read the process that reads PDFs.
    pub program_bytes: u64,
    /// The greatest resident size to be expected.
    pub total_bytes: u64,
    /// Pages shown at a time.
    pub pages: usize,
    /// Keys and values kept for the next question that begins alike.
    pub prefix_bytes: u64,
    /// Keys and values of one token.
    #[serde(skip)]
    pub(crate) kv_bytes_per_token: u64,
    #[serde(skip)]
    pub(crate) held_in: Precision,
    /// Whether the figures say anything: the needs of this architecture are known.
    #[serde(skip)]
    pub(crate) is_known: bool,
}

impl ModelPlan {
    /// Whether this one can stay while `other` works, and the other way round.
    pub(crate) fn fits_beside(&self, other: &Self, budget: u64) -> bool {
        let working = |plan: &Self| plan.kv_bytes + plan.passing_bytes;
        let program = self.program_bytes.max(other.program_bytes);
        program + self.weights_bytes + other.weights_bytes + working(self).max(working(other))
            <= budget
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
    pub(crate) budget: Option<u64>,
    pub(crate) work: Work,
}

/// Decides how a model is held.
///
/// # Errors
/// [`Error::Memory`] where it does not fit, or when its files are damaged.
pub(crate) fn plan(asked: &Asked<'_>) -> Result<ModelPlan> {
    let precisions: Vec<Precision> = match (asked.choice, asked.remembered) {
        (PrecisionChoice::Auto, Some(remembered)) => vec![remembered],
        (PrecisionChoice::Auto, None) if asked.budget.is_some() => {
            vec![Precision::Bf16, Precision::Int8, Precision::Int4]
        }
        (choice, _) => vec![choice.precision()],
    };
    let budget = asked.budget.unwrap_or(u64::MAX);
    let mut last = None;
    for &precision in &precisions {
        let Some(footprint) = footprint(asked, precision)? else {
            return unknown(asked, precision);
        };
        let plan = with_pages(asked, precision, &footprint, asked.work.pages);
        if plan.total_bytes <= budget {
            return Ok(with_prefixes(plan, asked.budget));
        }
        last = Some((precision, footprint));
    }
    // Fewer pages in the last and smallest precision.
    if let Some((precision, footprint)) = &last {
        for pages in (1..asked.work.pages).rev() {
            let plan = with_pages(asked, *precision, footprint, pages);
            if plan.total_bytes <= budget {
                return Ok(with_prefixes(plan, asked.budget));
            }
        }
    }
    let in_precision = |precision| -> Result<u64> {
        let footprint = footprint(asked, precision)?.unwrap_or_default();
        Ok(with_pages(asked, precision, &footprint, 1).total_bytes)
    };
    let smallest = precisions.last().copied().unwrap_or(Precision::Int4);
    Err(Error::Memory {
        model: asked.located.name.clone(),
        budget,
        needed: in_precision(smallest)?,
        precision: name(smallest),
        least: in_precision(Precision::Int4)?,
    })
}

/// A model whose needs are not known beforehand is held as it was chosen, where memory is not limited.
fn unknown(asked: &Asked<'_>, precision: Precision) -> Result<ModelPlan> {
    if asked.budget.is_some() {
        return Err(Error::MemoryUnknown {
            model: asked.located.name.clone(),
        });
    }
    let plan = ModelPlan {
        is_known: false,
        ..with_pages(asked, precision, &Footprint::default(), 1)
    };
    Ok(with_prefixes(plan, None))
}

fn footprint(asked: &Asked<'_>, precision: Precision) -> Result<Option<Footprint>> {
    Ok(Footprint::of(
        &asked.located.checkpoint,
        asked.located.made_up.is_some(),
        asked.role,
        precision,
        &asked.tiles,
        threads::count(),
    )?)
}

fn with_pages(
    asked: &Asked<'_>,
    precision: Precision,
    footprint: &Footprint,
    pages: usize,
) -> ModelPlan {
    let (role, pages) = match asked.role {
        Role::Retriever => ("retriever", 1),
        Role::Generator => ("generator", pages),
    };
    let prompt = footprint.page_tokens * pages as u64 + WORDS;
    let (kv_bytes, program_bytes) = match asked.role {
        // Prompts of a retriever are read once.
        Role::Retriever => (
            0,
            PROGRAM_BYTES + WRITING_BYTES + PDF_WORKER_BYTES + DRAWN_PAGE_BYTES * PAGES_UNDER_WAY,
        ),
        Role::Generator => (
            footprint.kv(prompt + asked.work.new_tokens.min(NEW_TOKENS) as u64),
            PROGRAM_BYTES + DRAWN_PAGE_BYTES * pages as u64,
        ),
    };
    let program_bytes = program_bytes + footprint.tokenizer;
    let working = footprint.working(pages as u64, prompt, kv_bytes);
    let passing_bytes = working - kv_bytes.min(working);
    ModelPlan {
        role,
        model: asked.located.name.clone(),
        precision: name(precision),
        weights_bytes: footprint.weights,
        kv_bytes,
        passing_bytes,
        program_bytes,
        total_bytes: footprint.weights + kv_bytes + passing_bytes + program_bytes,
        pages,
        prefix_bytes: 0,
        kv_bytes_per_token: footprint.kv_per_token,
        held_in: precision,
        is_known: true,
    }
}

/// What a budget leaves is for keys and values of prompts that were read.
fn with_prefixes(mut plan: ModelPlan, budget: Option<u64>) -> ModelPlan {
    plan.prefix_bytes = match budget {
        None => PREFIX_BYTES,
        Some(budget) => (budget - plan.total_bytes).min(PREFIX_BYTES),
    };
    plan
}

/// The name of a precision, as it is given on the command line.
pub(crate) fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
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
