//! How documents are found and what they may cost.

use std::path::PathBuf;

use colibri_engine::document::{Limits, OpenOptions, WorkerCommand, walk::WalkOptions};

use crate::{
    WORKER,
    error::{Error, Result},
    text::parse_bytes,
};

/// How documents are read.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Reading documents")]
pub(crate) struct Reading {
    /// Password of encrypted PDFs
    #[arg(long, value_name = "TEXT")]
    pub(crate) password: Option<String>,
    /// Refuse documents with more pages [default: 10000]
    #[arg(long, value_name = "N")]
    max_pages: Option<usize>,
    /// Refuse pictures with more pixels, draw PDF pages with at most so many [default: 100000000]
    #[arg(long, value_name = "N")]
    max_pixels: Option<u64>,
    /// Refuse larger files, for example 200MiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    max_file_bytes: Option<u64>,
    /// Give a page up after so many seconds [default: 30]
    #[arg(long, value_name = "N")]
    max_seconds_per_page: Option<u64>,
    /// Give a document up after so many seconds [default: 3600]
    #[arg(long, value_name = "N")]
    max_seconds_per_file: Option<u64>,
}

impl Reading {
    /// What a document may cost.
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            max_pages: self.max_pages.unwrap_or(default.max_pages),
            max_pixels: self.max_pixels.unwrap_or(default.max_pixels),
            max_file_bytes: self.max_file_bytes.unwrap_or(default.max_file_bytes),
            max_seconds_per_page: self
                .max_seconds_per_page
                .unwrap_or(default.max_seconds_per_page),
            max_seconds_per_file: self
                .max_seconds_per_file
                .unwrap_or(default.max_seconds_per_file),
            ..default
        }
    }

    /// With these limits, PDFs in a process of their own.
    ///
    /// # Errors
    /// When this program does not find its own file.
    pub(crate) fn open_options(&self) -> Result<OpenOptions> {
        let program: PathBuf =
            std::env::current_exe().map_err(Error::file("find this program's own file"))?;
        Ok(OpenOptions {
            limits: self.limits(),
            password: self.password.clone(),
            worker: Some(WorkerCommand::new(program, [WORKER])),
        })
    }
}

/// Which files of folders are taken.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Choosing files")]
pub(crate) struct Walking {
    /// Only files that match, for example '*.pdf'
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// No files or folders that match
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Hidden files too
    #[arg(long)]
    hidden: bool,
    /// Files that .gitignore and the like leave out too
    #[arg(long)]
    no_ignore: bool,
    /// Follow links inside folders
    #[arg(long)]
    follow_links: bool,
}

impl Walking {
    /// As the engine has it.
    pub(crate) fn options(&self) -> WalkOptions {
        WalkOptions {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            hidden: self.hidden,
            no_ignore: self.no_ignore,
            follow_links: self.follow_links,
        }
    }
}
