//! What the program tells when something fails: the one place where errors become words and exit codes.

use std::{io, path::PathBuf};

use colibri_engine as engine;

use crate::{interrupt, screen::Screen, text};

/// The result of this crate's operations.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The work itself failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The server could not begin or go on.
    #[error(transparent)]
    Server(Box<colibri_server::Error>),
    /// `serve` for others without a key.
    #[error("others can reach `{host}`, and no key was given")]
    KeyNeeded {
        /// The address.
        host: std::net::IpAddr,
    },
    /// `--api-key` with nothing in it.
    #[error("the key is empty")]
    EmptyKey,
    /// Standard output was closed or cannot be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// Standard input cannot be read.
    #[error("cannot read standard input")]
    Stdin(#[source] io::Error),
    /// A file or folder could not be used; the system's message names it.
    #[error("cannot {doing}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// What the system said, with the path.
        #[source]
        source: io::Error,
    },
    /// A file that was named cannot be read; the system's message names it.
    #[error("cannot {doing}")]
    Input {
        /// What was tried.
        doing: &'static str,
        /// What the system said, with the path.
        #[source]
        source: io::Error,
    },
    /// The user's folders are unknown.
    #[error("the home folder of this user is unknown")]
    NoHome,
    /// `index` without paths.
    #[error("no file or folder was named")]
    NoPaths,
    /// `search` without a question.
    #[error("no question was asked")]
    NoQuery,
    /// `remove` without a document.
    #[error("no document was named")]
    NothingToRemove,
    /// An empty question.
    #[error("the question is empty")]
    EmptyQuestion,
    /// A line of a file of queries is not one.
    #[error("line {line} of `{path}` is not a query: {reason}")]
    QueryLine {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// Why not.
        reason: String,
    },
    /// The configuration file cannot be understood.
    #[error("cannot read the configuration `{}`: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Where and what, in one line.
        reason: String,
    },
    /// The configuration file names an option that there is not.
    #[error("`{key}` in the configuration `{}` is not an option", path.display())]
    ConfigKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The configuration file gives an option a value it cannot have.
    #[error("`{key}` in the configuration `{}` must be {expected}, not {found}", path.display())]
    ConfigValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// `--retriever openai:…`: chat completions give no rows.
    #[error("`{name}` can answer, but not find pages")]
    RemoteRetriever {
        /// What was given.
        name: String,
    },
    /// `none` was given for a model without which nothing can be done.
    #[error("this needs a {role}, and `none` was asked for")]
    ModelRefused {
        /// `retriever` or `generator`.
        role: &'static str,
    },
    /// A model that is to be described is not on this machine.
    #[error("`{name}` is neither a folder nor in the cache `{}`", cache.display())]
    NotCached {
        /// What was given.
        name: String,
        /// The folder of the cache.
        cache: PathBuf,
    },
    /// The file rows are written to has another ending than those known.
    #[error("`{}` ends neither in `.safetensors` nor in `.npy`", path.display())]
    RowsFormat {
        /// The file.
        path: PathBuf,
    },
    /// A `.npy` file holds one array.
    #[error("`{}` can hold the rows of one page or query, not of {inputs}", path.display())]
    OneArray {
        /// The file.
        path: PathBuf,
        /// How many there are.
        inputs: usize,
    },
    /// Rows could not be put into a safetensors file.
    #[error("cannot write `{}`", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the format refuses.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// No program could be started to show a picture.
    #[error("cannot open `{}` with `{program}`", path.display())]
    Viewer {
        /// The picture.
        path: PathBuf,
        /// The program.
        program: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Ctrl-C cannot be watched for.
    #[error("cannot watch for Ctrl-C")]
    Signals(#[source] io::Error),
}

impl From<colibri_server::Error> for Error {
    fn from(error: colibri_server::Error) -> Self {
        Self::Server(Box::new(error))
    }
}

impl From<engine::index::Error> for Error {
    fn from(error: engine::index::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<engine::document::Error> for Error {
    fn from(error: engine::document::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<engine::hub::Error> for Error {
    fn from(error: engine::hub::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl Error {
    /// A failed file operation of `fs_err`, whose message names the path.
    pub(crate) fn file(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { doing, source }
    }

    /// The same for a file that a person named.
    pub(crate) fn input(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Input { doing, source }
    }

    /// What to do next.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Engine(engine::Error::Index(engine::index::Error::NoIndex { .. })) => {
                "run `colibri index PATH…` first, or name another folder with `--index`"
            }
            Self::Engine(engine::Error::Cancelled) => {
                "what is finished is kept; run the same command again to go on"
            }
            Self::Engine(error) => return error.hint(),
            Self::Server(error) => return error.hint(),
            Self::KeyNeeded { .. } => {
                "set COLIBRI_API_KEY to a long secret, or let everybody in with `--no-api-key`"
            }
            Self::EmptyKey => "give a long secret, for example from `openssl rand -hex 16`",
            Self::NoHome => "set HOME, or name the folders with `--index` and `--config`",
            Self::NoPaths => "name what to index, for example `colibri index ~/papers`",
            Self::NoQuery => {
                "ask, for example `colibri search \"total of the invoice\"`, or give `--queries FILE`"
            }
            Self::NothingToRemove => "name documents or folders, or choose them with `--where`",
            Self::EmptyQuestion => {
                "put the question in quotes: `colibri ask \"Who signed the letter?\"`"
            }
            Self::QueryLine { .. } => {
                "write one question a line, or a JSON object with `query` a line"
            }
            Self::ConfigKey { .. } => {
                "keys are the long names of options without the dashes, as `colibri COMMAND --help` lists them"
            }
            Self::RemoteRetriever { .. } => {
                "name it with `--generator`; as retriever, a folder or a hub model such as `vidore/colSmol-256M`, or `none`"
            }
            Self::ModelRefused { role } => {
                return Some(format!(
                    "leave `--{role}` out, or name a folder or a hub model with it"
                ));
            }
            Self::NotCached { .. } => {
                "fetch it with `colibri models pull NAME`; `colibri models list` shows what is there"
            }
            Self::RowsFormat { .. } => "name a file such as `rows.safetensors` or `rows.npy`",
            Self::OneArray { .. } => "name a `.safetensors` file, which holds many",
            Self::Viewer { .. } => "save the pages with `--save-pages DIR` and open them yourself",
            Self::Stdout(_)
            | Self::Stdin(_)
            | Self::File { .. }
            | Self::Input { .. }
            | Self::ConfigFile { .. }
            | Self::ConfigValue { .. }
            | Self::Safetensors { .. }
            | Self::Signals(_) => return None,
        };
        Some(hint.to_owned())
    }

    /// A name that stays the same between versions.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.code(),
            Self::Server(error) => error.code(),
            Self::KeyNeeded { .. } | Self::EmptyKey => "api_key",
            Self::Stdout(_) => "stdout",
            Self::Stdin(_) => "stdin",
            Self::File { .. } | Self::Input { .. } => "io",
            Self::NoHome => "no_home",
            Self::NoPaths => "no_paths",
            Self::NoQuery | Self::EmptyQuestion => "no_question",
            Self::NothingToRemove => "no_document",
            Self::QueryLine { .. } => "query_line",
            Self::ConfigFile { .. } | Self::ConfigKey { .. } | Self::ConfigValue { .. } => "config",
            Self::RemoteRetriever { .. } => "remote_model",
            Self::ModelRefused { .. } => "model_refused",
            Self::NotCached { .. } => "not_cached",
            Self::RowsFormat { .. } | Self::OneArray { .. } => "rows_format",
            Self::Safetensors { .. } => "safetensors",
            Self::Viewer { .. } => "viewer",
            Self::Signals(_) => "signals",
        }
    }

    /// 1 where what was asked for is at fault, 2 where the machine or the program is, 0 where nobody reads
    /// any more.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Engine(engine::Error::Cancelled) => interrupt::EXIT_CODE,
            Self::Engine(engine::Error::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                1
            }
            Self::Engine(error) if error.is_input() => 1,
            Self::Input { .. }
            | Self::KeyNeeded { .. }
            | Self::EmptyKey
            | Self::NoPaths
            | Self::NoQuery
            | Self::NothingToRemove
            | Self::EmptyQuestion
            | Self::QueryLine { .. }
            | Self::ConfigFile { .. }
            | Self::ConfigKey { .. }
            | Self::ConfigValue { .. }
            | Self::RemoteRetriever { .. }
            | Self::ModelRefused { .. }
            | Self::NotCached { .. }
            | Self::RowsFormat { .. }
            | Self::OneArray { .. } => 1,
            Self::Engine(_)
            | Self::Server(_)
            | Self::Stdout(_)
            | Self::Stdin(_)
            | Self::File { .. }
            | Self::NoHome
            | Self::Safetensors { .. }
            | Self::Viewer { .. }
            | Self::Signals(_) => 2,
        }
    }
}

/// Tells a failure on standard error: what, why, and what to do; hands back the exit code.
pub(crate) fn report(error: &Error, screen: &Screen) -> u8 {
    let code = error.exit_code();
    if code == 0 {
        return code;
    }
    screen.hide_bar();
    let mut told = error.to_string();
    screen.error_line("error:", &text::clean(&told));
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        // Some messages already hold their cause.
        if !told.contains(&next) {
            screen.error_line("  because:", &text::clean(&next));
            told = next;
        }
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        screen.error_line("", "");
        screen.error_line("hint:", &text::clean(&hint));
    }
    code
}

/// An error with its causes on one line.
pub(crate) fn one_line(error: &Error) -> String {
    text::clean_line(&engine::chain(error)).into_owned()
}
