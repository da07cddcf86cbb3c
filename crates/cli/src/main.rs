//! The `colibri` program: arguments in, lines out.
//!
//! Everything a person sees is made here; what happens is done by `colibri_engine`. Each command has a file
//! under `commands`, and all of them print through [`screen::Screen`] and fail through [`error::Error`].
//!
//! Exit codes: 0 done, 1 nothing found or bad input, 2 failure, 130 stopped by Ctrl-C.

mod args;
mod commands;
mod config;
mod context;
mod error;
mod interrupt;
mod places;
mod progress;
mod reply;
mod screen;
mod text;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};
use colibri_engine::{
    document::{video, worker},
    machine,
};

use crate::{
    args::Cli,
    context::Context,
    error::{Error, Result},
    screen::Screen,
};

/// The first argument with which this program starts itself to read one PDF, or a video.
const WORKER: &str = "pdf-worker";

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything was done.
    Done,
    /// Nothing was found, or some of the input could not be used; it has been said what.
    Incomplete,
    /// Ctrl-C.
    Interrupted,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Before anything else: a worker reads no settings, and its standard output carries pages.
    if arguments.get(1).is_some_and(|argument| argument == WORKER) {
        // Or become another program, within the same bounds.
        return match arguments.get(2) {
            Some(word) if word == "exec" => video::exec(&arguments[3..]),
            Some(_) | None => worker::serve(std::io::stdin(), std::io::stdout()),
        };
    }
    machine::return_large_blocks();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(Unparsed::Clap(error)) => {
            // Help and version are what was asked for; the rest is bad input.
            let code = u8::from(error.use_stderr());
            drop(error.print());
            return ExitCode::from(code);
        }
        Err(Unparsed::Config(error)) => {
            let screen = Screen::plain();
            return ExitCode::from(error::report(&error, &screen));
        }
    };
    let screen = Screen::new(&cli.global);
    let context = Context::new(cli.global, screen);
    match commands::run(&context, cli.command) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Incomplete) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(interrupt::EXIT_CODE),
        Err(error) => ExitCode::from(error::report(&error, &context.screen)),
    }
}

enum Unparsed {
    Clap(clap::Error),
    Config(Error),
}

/// Reads the arguments twice: once to learn which configuration file is meant, then with what it says as
/// defaults, so that a flag goes before the environment, and both before the file.
fn parse(arguments: &[OsString]) -> Result<Cli, Unparsed> {
    let command = Cli::command();
    let matches = command
        .clone()
        .try_get_matches_from(arguments)
        .map_err(Unparsed::Clap)?;
    let named = matches.get_one::<std::path::PathBuf>("config").cloned();
    let command = config::apply(command, named).map_err(Unparsed::Config)?;
    let matches = command
        .try_get_matches_from(arguments)
        .map_err(Unparsed::Clap)?;
    Cli::from_arg_matches(&matches).map_err(Unparsed::Clap)
}
