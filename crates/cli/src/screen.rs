//! The only place that writes: data to standard output, everything else to standard error.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    args::{Colour, Global},
    error::{Error, Result},
    text,
};

/// Escape sequences; only ever written to a terminal, or where asked for with `--color always`.
const RED: &str = "\x1b[1;31m";
const BLUE: &str = "\x1b[1;34m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// How often a bar moves without news.
const TICK: Duration = Duration::from_millis(120);

/// Standard output and standard error of this run.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Data as JSON lines.
    pub(crate) json: bool,
    /// More detail.
    pub(crate) verbose: bool,
    quiet: bool,
    /// Bars and spinners may be drawn.
    lively: bool,
    colour_out: bool,
    colour_err: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Screen {
    /// As the settings say.
    pub(crate) fn new(global: &Global) -> Self {
        let no_colour = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = |terminal: bool| match global.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !dumb && !no_colour("NO_COLOR"),
        };
        let err_is_terminal = io::stderr().is_terminal();
        Self {
            json: global.json,
            verbose: global.verbose,
            quiet: global.quiet,
            lively: err_is_terminal && !dumb && !global.quiet && !global.json,
            colour_out: colour(io::stdout().is_terminal()),
            colour_err: colour(err_is_terminal),
            bar: Mutex::default(),
        }
    }

    /// Before the settings are known.
    pub(crate) fn plain() -> Self {
        Self {
            json: false,
            verbose: false,
            quiet: false,
            lively: false,
            colour_out: false,
            colour_err: false,
            bar: Mutex::default(),
        }
    }

    /// Whether bars are drawn, so that lines about each step are not needed.
    pub(crate) fn is_lively(&self) -> bool {
        self.lively
    }

    /// Writes text to standard output at once, as it is.
    ///
    /// # Errors
    /// [`Error::Stdout`]; the reader may have gone.
    pub(crate) fn print(&self, text: &str) -> Result<()> {
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        let bar = self.bar();
        match &*bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
        .map_err(Error::Stdout)
    }

    /// Writes a line of text.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(crate) fn line(&self, line: &str) -> Result<()> {
        self.print(&format!("{}\n", text::clean(line)))
    }

    /// Writes a value as one line of JSON.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(crate) fn json<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        let json = serde_json::to_string(value).map_err(|error| Error::Stdout(error.into()))?;
        self.print(&(text::clean_json(json) + "\n"))
    }

    /// Text in bold, on a terminal.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.painted(BOLD, text)
    }

    /// Text that stands back, on a terminal.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.painted(DIM, text)
    }

    /// Cleans `text` and paints it; what it is put into must be printed with [`Self::print`].
    fn painted(&self, colour: &str, text: &str) -> String {
        let text = text::clean(text);
        if self.colour_out {
            format!("{colour}{text}{RESET}")
        } else {
            text.into_owned()
        }
    }

    /// A line on standard error that begins with a word in colour.
    pub(crate) fn error_line(&self, word: &str, rest: &str) {
        let colour = if word == "error:" { RED } else { BLUE };
        let space = if word.is_empty() || rest.is_empty() {
            ""
        } else {
            " "
        };
        let line = if self.colour_err && !word.is_empty() {
            format!("{colour}{word}{RESET}{space}{rest}\n")
        } else {
            format!("{word}{space}{rest}\n")
        };
        let write = || drop(io::stderr().lock().write_all(line.as_bytes()));
        match &*self.bar() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Something the person should know although it is no failure.
    pub(crate) fn note(&self, message: &str) {
        if !self.quiet {
            self.error_line("note:", &text::clean(message));
        }
    }

    /// Something that went wrong and does not end the command; said even when quiet.
    pub(crate) fn failure(&self, message: &str) {
        self.error_line("failed", &text::clean(message));
    }

    /// A line about what is done; only where nobody looks at a bar.
    pub(crate) fn detail(&self, message: &str) {
        if self.verbose && !self.quiet {
            self.error_line("", &text::clean(message));
        }
    }

    /// A line of progress where there is no terminal to draw a bar on.
    pub(crate) fn plain_progress(&self, message: &str) {
        if !self.lively && !self.quiet && !self.json {
            self.error_line("", &text::clean(message));
        }
    }

    /// What is being done now: a spinner on a terminal, a line with `--verbose`, else nothing.
    pub(crate) fn status(&self, message: &str) {
        if !self.lively {
            self.detail(message);
            return;
        }
        let mut bar = self.bar();
        let spinner = bar.get_or_insert_with(|| {
            let spinner = ProgressBar::new_spinner();
            spinner.enable_steady_tick(TICK);
            spinner
        });
        spinner.set_message(text::clean_line(message).into_owned());
    }

    /// Replaces what is drawn by a bar of `length`; `template` is indicatif's.
    pub(crate) fn show_bar(&self, length: u64, template: &str) {
        if !self.lively {
            return;
        }
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(length).with_style(style.progress_chars("━╸─"));
        bar.enable_steady_tick(TICK);
        if let Some(old) = self.bar().replace(bar) {
            old.finish_and_clear();
        }
    }

    /// Moves the bar, if there is one.
    pub(crate) fn move_bar(&self, position: u64, message: &str) {
        if let Some(bar) = &*self.bar() {
            bar.set_position(position);
            bar.set_message(text::clean_line(message).into_owned());
        }
    }

    /// Takes the bar or spinner away.
    pub(crate) fn hide_bar(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }

    /// Asks for a line of input.
    pub(crate) fn prompt(&self, prompt: &str) {
        self.hide_bar();
        let mut err = io::stderr().lock();
        drop(write!(err, "{prompt}").and_then(|()| err.flush()));
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
