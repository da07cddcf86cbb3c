//! How pages are found.

use colibri_engine::index::{Filter, Mode};

use crate::error::Result;

/// By what pages are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ModeArg {
    /// By what they look like
    Visual,
    /// By the words on them
    Text,
    /// By both
    Hybrid,
}

/// Options of commands that search.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Searching {
    /// By what pages are found
    #[arg(long, value_enum, default_value_t = ModeArg::Hybrid, hide_possible_values = true, value_name = "visual|text|hybrid")]
    mode: ModeArg,
    /// Only documents for which this holds, for example year>=2023 or 'name~*.pdf'
    #[arg(long = "where", value_name = "EXPR")]
    filter: Vec<String>,
}

impl Searching {
    /// By what.
    pub(crate) fn mode(&self) -> Mode {
        match self.mode {
            ModeArg::Visual => Mode::Visual,
            ModeArg::Text => Mode::Text,
            ModeArg::Hybrid => Mode::Hybrid,
        }
    }

    /// Among which documents.
    ///
    /// # Errors
    /// When an expression cannot be understood.
    pub(crate) fn filter(&self) -> Result<Filter> {
        Ok(Filter::parse_all(&self.filter)?)
    }
}
