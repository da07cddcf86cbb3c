//! The arguments: what all commands share, and what several do. What only one takes is beside it.

mod fetching;
mod generation;
mod global;
mod reading;
mod searching;

pub(crate) use fetching::Fetching;
pub(crate) use generation::Generation;
pub(crate) use global::{Colour, Global};
pub(crate) use reading::{Reading, Walking};
pub(crate) use searching::Searching;

use crate::commands::{
    ask, bench, chat, compact, completions, doctor, embed, generate, index, list, mcp, models,
    remove, search, serve, stats, verify,
};

/// What stands below the help of the program.
const AFTER_HELP: &str = "\
Environment:
  COLIBRI_INDEX      the index, as --index
  COLIBRI_RETRIEVER  the retriever, as --retriever
  COLIBRI_GENERATOR  the generator, as --generator
  COLIBRI_CONFIG     the configuration file, as --config
  COLIBRI_API_KEY    the key of the server, as --api-key
  HF_HOME            folder of the Hugging Face cache (HF_HUB_CACHE for its hub part alone)
  HF_HUB_OFFLINE     1 never asks the hub
  HF_ENDPOINT        another hub than https://huggingface.co
  HF_TOKEN           token for models that need one
  OPENAI_BASE_URL    address of the service that `--generator openai:MODEL` asks
                     [default: https://api.openai.com/v1]
  OPENAI_API_KEY     key for it; OPENAI_TIMEOUT: seconds of silence it is allowed
  NO_COLOR           anything: no colours

Configuration:
  ~/.config/colibri/config.toml may set any option by its long name, for example
    index = \"/data/papers\"
    generator = \"none\"
    include = [\"*.pdf\"]
  A flag goes before the environment, the environment before the file.

Exit codes: 0 done, 1 nothing found or bad input, 2 failure, 130 stopped by Ctrl-C.";

/// Ask questions of your own documents by looking at the pages.
///
/// PDFs, scans, slides and pictures are indexed as pages; the pages that fit a question are found, read,
/// and cited. Nothing leaves this machine, unless you choose a generator that runs elsewhere.
#[derive(Debug, clap::Parser)]
#[command(
    name = "colibri",
    version,
    after_help = AFTER_HELP,
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Add documents to the index, or refresh them
    Index(index::Args),
    /// Find pages
    Search(search::Args),
    /// Answer a question, with the pages it rests on
    Ask(ask::Args),
    /// Talk with the index or about pictures, several turns
    Chat(chat::Args),
    /// Serve the web app and the API
    Serve(serve::Args),
    /// Be the tools of an agent, over standard input and output (Model Context Protocol)
    Mcp(mcp::Args),
    /// List the documents in the index
    List(list::Args),
    /// Take documents out of the index
    Remove(remove::Args),
    /// Tell what the index holds
    Stats(stats::Args),
    /// Check everything in the index
    Verify(verify::Args),
    /// Give back the space of removed documents
    Compact(compact::Args),
    /// List, fetch and describe models
    #[command(subcommand)]
    Models(models::Args),
    /// Write the rows of pages or queries to a file
    Embed(embed::Args),
    /// Let the generator write, from a prompt and pictures
    Generate(generate::Args),
    /// Measure speed and memory on this machine
    Bench(bench::Args),
    /// Tell about this machine, the index and the models
    Doctor(doctor::Args),
    /// Write completions for a shell
    Completions(completions::Args),
}
