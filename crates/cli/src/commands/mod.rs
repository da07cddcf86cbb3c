//! The commands, one file each.

pub(crate) mod ask;
pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod compact;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod generate;
pub(crate) mod index;
pub(crate) mod list;
pub(crate) mod mcp;
pub(crate) mod models;
pub(crate) mod remove;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod stats;
pub(crate) mod verify;

use colibri_engine::answer::AnswerEvent;

use crate::{
    Outcome,
    args::Command,
    context::Context,
    error::{Error, Result, one_line},
};

/// Does what was asked for.
///
/// # Errors
/// Any [`Error`]; with `--json`, commands that write events have written it as their last one.
pub(crate) fn run(context: &Context, command: Command) -> Result<Outcome> {
    let writes_events = matches!(
        command,
        Command::Index(_)
            | Command::Ask(_)
            | Command::Chat(_)
            | Command::Generate(_)
            | Command::Models(models::Args::Pull(_))
    );
    let done = match command {
        Command::Index(args) => index::run(context, &args),
        Command::Search(args) => search::run(context, &args),
        Command::Ask(args) => ask::run(context, &args),
        Command::Chat(args) => chat::run(context, &args),
        Command::Serve(args) => serve::run(context, &args),
        Command::Mcp(args) => mcp::run(context, &args),
        Command::List(args) => list::run(context, &args),
        Command::Remove(args) => remove::run(context, &args),
        Command::Stats(args) => stats::run(context, &args),
        Command::Verify(args) => verify::run(context, &args),
        Command::Compact(args) => compact::run(context, &args),
        Command::Models(args) => models::run(context, &args),
        Command::Embed(args) => embed::run(context, &args),
        Command::Generate(args) => generate::run(context, &args),
        Command::Bench(args) => bench::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
    };
    if let Err(error) = &done
        && writes_events
    {
        write_failed(context, error);
    }
    context.screen.hide_bar();
    done
}

/// The event that ends a stream of events when it does not end well.
fn write_failed(context: &Context, error: &Error) {
    if context.screen.json && !matches!(error, Error::Stdout(_)) {
        let event = AnswerEvent::Failed {
            error: one_line(error),
            code: error.code(),
            hint: error.hint(),
        };
        drop(context.screen.json(&event));
    }
}
