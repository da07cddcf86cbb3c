//! What can go wrong, with a stable code and the next step to take.

use std::path::PathBuf;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model's files could not be brought here.
    #[error(transparent)]
    Hub(#[from] crate::hub::Error),
    /// A document could not be fetched.
    #[error(transparent)]
    Web(#[from] crate::web::Error),
    /// A model could not be loaded or run.
    #[error(transparent)]
    Model(colibri_models::Error),
    /// A generator that runs elsewhere could not answer.
    #[error(transparent)]
    Hosted(#[from] crate::hosted::Error),
    /// A document could not be read.
    #[error(transparent)]
    Document(#[from] colibri_document::Error),
    /// The index could not be read or written.
    #[error(transparent)]
    Index(#[from] colibri_index::Error),
    /// A file could not be read or written.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A picture given to the conversation cannot be decoded.
    #[error("cannot read the picture `{}`: {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file of turns is not one.
    #[error("`{}` is no conversation: {reason}", path.display())]
    Messages {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A path whose name is not Unicode cannot be kept in the catalogue.
    #[error("the name of `{}` is not valid Unicode; rename the file", path.display())]
    PathName {
        /// The file.
        path: PathBuf,
    },
    /// A model name is neither a folder nor a hub name.
    #[error("`{name}` is neither a folder with a checkpoint nor a hub name such as `{example}`")]
    ModelName {
        /// What was given.
        name: String,
        /// What it should look like.
        example: &'static str,
    },
    /// What was asked for needs a retriever, and there is none.
    #[error("searching by what pages look like needs a retriever, and none is available: {reason}")]
    NoRetriever {
        /// Why there is none.
        reason: String,
    },
    /// What was asked for needs a generator, and there is none.
    #[error("this needs a generator, and none is available: {reason}")]
    NoGenerator {
        /// Why there is none.
        reason: String,
    },
    /// The paths hold no document.
    #[error("there is no document in {paths}")]
    NothingToRead {
        /// The paths, quoted.
        paths: String,
    },
    /// A worker thread of ours ended without a result.
    #[error("a thread ended unexpectedly while {doing}")]
    Thread {
        /// What it was doing.
        doing: &'static str,
    },
    /// A model does not fit into the memory it may use.
    #[error(
        "`{model}` needs {} of memory in {precision}, more than the {} it may use",
        megabytes(*needed),
        megabytes(*budget)
    )]
    Memory {
        /// The model.
        model: String,
        /// What it may use.
        budget: u64,
        /// What it would use in this precision, for one page.
        needed: u64,
        /// The smallest precision it may be held in.
        precision: &'static str,
        /// What it would use in the smallest precision there is.
        least: u64,
    },
    /// The caller stopped the work.
    #[error("stopped")]
    Cancelled,
}

impl From<colibri_models::Error> for Error {
    fn from(error: colibri_models::Error) -> Self {
        let colibri_models::Error::Elsewhere(cause) = error else {
            return Self::Model(error);
        };
        match cause.downcast() {
            Ok(hosted) => Self::Hosted(*hosted),
            Err(cause) => Self::Model(colibri_models::Error::Elsewhere(cause)),
        }
    }
}

impl Error {
    /// A name that stays the same between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Hub(error) => error.code(),
            Self::Web(error) => error.code(),
            Self::Model(_) => "model",
            Self::Hosted(error) => error.code(),
            Self::Document(_) => "document",
            Self::Index(_) => "index",
            Self::Io { .. } => "io",
            Self::Picture { .. } => "picture",
            Self::Messages { .. } => "messages",
            Self::PathName { .. } => "path_name",
            Self::ModelName { .. } => "model_name",
            Self::NoRetriever { .. } => "no_retriever",
            Self::NoGenerator { .. } => "no_generator",
            Self::NothingToRead { .. } => "nothing_to_read",
            Self::Thread { .. } => "thread",
            Self::Memory { .. } => "memory",
            Self::Cancelled => "cancelled",
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hub(error) => error.hint(),
            Self::Web(error) => error.hint().map(str::to_owned),
            Self::Hosted(error) => error.hint(),
            Self::Index(error) => error.hint(),
            Self::NoRetriever { .. } => Some(
                "run `colibri models pull vidore/colSmol-256M` where there is a network, or name a folder with `--retriever`; `--mode text` needs none"
                    .to_owned(),
            ),
            Self::NoGenerator { .. } => Some(
                "run `colibri models pull HuggingFaceTB/SmolVLM-256M-Instruct` where there is a network, or name a folder with `--generator`; `--generator builtin` is a very small one that is here, `--generator none` quotes the pages instead"
                    .to_owned(),
            ),
            Self::NothingToRead { .. } => Some(
                "PDF, PNG, JPEG, WebP, TIFF, GIF and BMP files can be read, and videos with ffmpeg; hidden and ignored files are left out unless `--hidden` or `--no-ignore` is given"
                    .to_owned(),
            ),
            Self::Document(colibri_document::Error::NoVideoTool { .. }) => Some(
                "install ffmpeg (for example `apt install ffmpeg` or `brew install ffmpeg`), or give an animated GIF or WebP, or a folder of frames"
                    .to_owned(),
            ),
            Self::Messages { .. } => Some(
                "it should hold a list such as [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"path\": \"a.png\"}, {\"type\": \"text\", \"text\": \"What is it?\"}]}]"
                    .to_owned(),
            ),
            Self::Memory {
                needed,
                precision,
                least,
                ..
            } => Some(if *precision == "int4" {
                format!("`--memory {}` would do", megabytes(*needed))
            } else {
                format!(
                    "`--memory {}` would do, or `--memory {}` with `--precision int4`",
                    megabytes(*needed),
                    megabytes(*least)
                )
            }),
            Self::Document(colibri_document::Error::Encrypted { .. }) => {
                Some("give the password with `--password`".to_owned())
            }
            Self::Model(_)
            | Self::Document(_)
            | Self::Io { .. }
            | Self::Picture { .. }
            | Self::PathName { .. }
            | Self::ModelName { .. }
            | Self::Thread { .. }
            | Self::Cancelled => None,
        }
    }

    /// Whether the cause is what was asked for, and not the machine or the program.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Document(_)
            | Self::Web(_)
            | Self::Picture { .. }
            | Self::Messages { .. }
            | Self::PathName { .. }
            | Self::ModelName { .. }
            | Self::NothingToRead { .. }
            | Self::Memory { .. } => true,
            Self::Index(error) => {
                matches!(
                    error,
                    colibri_index::Error::NoIndex { .. } | colibri_index::Error::Filter { .. }
                )
            }
            Self::Hosted(error) => error.is_input(),
            Self::Hub(_)
            | Self::Model(_)
            | Self::Io { .. }
            | Self::NoRetriever { .. }
            | Self::NoGenerator { .. }
            | Self::Thread { .. }
            | Self::Cancelled => false,
        }
    }
}

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Rounded up, as it can be given on the command line.
fn megabytes(bytes: u64) -> String {
    format!("{}MB", bytes.div_ceil(1_000_000))
}
