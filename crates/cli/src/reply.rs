//! Text as it comes into being: tokens at once, then what the answer rests on.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use colibri_engine::{
    answer::{AnswerEvent, Citation, Done, Pace},
    chat::Chat,
    checkpoints::Models,
    document::{Limits, OpenOptions},
    generate::{Completion, Step, StopReason},
    memory::Used,
    picture::{self, RgbImage},
    processor::VideoRecipe,
    video::{self, Shown},
};
use serde::Serialize;

use crate::{
    context::Context,
    error::{Error, Result},
    interrupt::Listening,
    places,
    screen::Screen,
    text,
};

/// Shows the events of an answer. A reader that goes away stops the work.
pub(crate) struct AnswerPrinter<'a> {
    screen: &'a Screen,
    listening: &'a Listening<'a>,
    /// The last piece ended a line.
    at_line_start: bool,
    failed: Option<Error>,
}

impl<'a> AnswerPrinter<'a> {
    pub(crate) fn new(screen: &'a Screen, listening: &'a Listening<'a>) -> Self {
        Self {
            screen,
            listening,
            at_line_start: true,
            failed: None,
        }
    }

    /// Shows one event.
    pub(crate) fn on_event(&mut self, event: &AnswerEvent) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.show(event) {
            self.listening
                .stop()
                .store(true, std::sync::atomic::Ordering::Relaxed);
            self.failed = Some(error);
        }
    }

    /// What went wrong while showing.
    ///
    /// # Errors
    /// The first [`Error::Stdout`].
    pub(crate) fn finish(self) -> Result<()> {
        self.screen.hide_bar();
        self.failed.map_or(Ok(()), Err)
    }

    fn show(&mut self, event: &AnswerEvent) -> Result<()> {
        if let AnswerEvent::Status {
            stage: "note",
            message,
        } = event
        {
            self.screen.note(message);
        }
        if self.screen.json {
            return self.screen.json(event);
        }
        match event {
            AnswerEvent::Status { stage: "note", .. }
            | AnswerEvent::Citation(_)
            | AnswerEvent::Failed { .. } => {}
            AnswerEvent::Status { message, .. } => self.screen.status(message),
            AnswerEvent::Evidence { pages } => {
                for page in pages {
                    let name = places::shown(&page.document);
                    self.screen.detail(&format!(
                        "evidence {}: {name} p.{} ({:.4})",
                        page.rank, page.page, page.score
                    ));
                }
            }
            AnswerEvent::Token { text } => {
                self.screen.hide_bar();
                self.screen.print(&text::clean(text))?;
                self.at_line_start = text.ends_with('\n');
            }
            AnswerEvent::Done(done) => {
                self.screen.hide_bar();
                if !self.at_line_start {
                    self.screen.print("\n")?;
                }
                let labels: Vec<String> = done.citations.iter().map(label).collect();
                // Quotes already carry theirs.
                if labels.iter().any(|label| !done.answer.contains(label)) {
                    self.screen
                        .print(&(self.screen.dim(&labels.join(" ")) + "\n"))?;
                }
                tell_costs(self.screen, done);
            }
        }
        Ok(())
    }
}

/// `[report.pdf p.2]`, `[clip.mp4 p.2, 0:01]`
fn label(citation: &Citation) -> String {
    format!(
        "[{} {}]",
        text::clean_line(&places::name(&citation.document)),
        citation.place()
    )
}

fn tell_costs(screen: &Screen, done: &Done) {
    let t = &done.timings_ms;
    let pace = if t.a_token > 0.0 {
        format!(", then one every {:.1} ms", t.a_token)
    } else {
        String::new()
    };
    screen.detail(&format!(
        "found in {:.0} ms, prepared in {:.0} ms, first token after {:.0} ms{pace}, {:.0} ms in all",
        t.retrieve, t.prepare, t.first_token, t.total
    ));
    screen.detail(&format!(
        "answered by {}: {} tokens read, {} written; peak memory {}",
        done.generator,
        done.prompt_tokens,
        done.new_tokens,
        text::bytes(done.peak_memory_bytes)
    ));
    screen.detail(&text::used(&done.memory));
}

/// Reads a video a person names, as a generator is to be shown it.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn video(
    screen: &Screen,
    path: &Path,
    recipe: &VideoRecipe,
    open: &OpenOptions,
) -> Result<Shown> {
    let shown = video::show(path, recipe, open)?;
    screen.detail(&format!(
        "{} of a video of {:.1} s",
        text::count(shown.images.len(), "frame"),
        shown.duration
    ));
    Ok(shown)
}

/// Reads the pictures a person names.
///
/// # Errors
/// With the first that cannot be read.
pub(crate) fn pictures(paths: &[PathBuf], limits: &Limits) -> Result<Vec<RgbImage>> {
    Ok(paths
        .iter()
        .map(|path| picture::open(path, limits))
        .collect::<Result<_, _>>()?)
}

/// The last event of `generate --json`.
#[derive(Serialize)]
struct Generated<'a> {
    event: &'static str,
    text: &'a str,
    stop: StopReason,
    prompt_tokens: usize,
    new_tokens: usize,
    timings_ms: GeneratedTimings,
    peak_memory_bytes: u64,
    memory: Used,
}

#[derive(Serialize)]
struct GeneratedTimings {
    first_token: f64,
    a_token: f64,
    total: f64,
}

/// Lets a generator answer `words`, or the conversation as it stands, and shows what it writes.
///
/// # Errors
/// When the generator fails or nobody reads.
pub(crate) fn say(
    context: &Context,
    models: &Models,
    chat: &mut Chat,
    words: Option<&str>,
) -> Result<Completion> {
    let screen = &context.screen;
    let listening = context.interrupt.listen()?;
    let started = std::time::Instant::now();
    let milliseconds = || started.elapsed().as_secs_f64() * 1000.0;
    let (mut first_token, mut pace) = (None, Pace::default());
    let mut failed: Option<Error> = None;
    let mut at_line_start = true;
    let mut on_step = |step: Step<'_>| {
        pace.see(&step);
        let shown = match step {
            Step::Tile { done: 0, total } => status(
                screen,
                "look",
                format!("looking at {}", text::count(total, "tile")),
            ),
            Step::Tile { .. } | Step::Waiting => Ok(()),
            Step::Status(message) => status(screen, "read", message.to_owned()),
            Step::Note(message) => {
                screen.note(message);
                status(screen, "note", message.to_owned())
            }
            Step::Prefill { tokens } => status(screen, "read", format!("reading {tokens} tokens")),
            Step::Text(piece) => {
                first_token.get_or_insert_with(milliseconds);
                screen.hide_bar();
                at_line_start = piece.ends_with('\n');
                if screen.json {
                    screen.json(&AnswerEvent::Token {
                        text: piece.to_owned(),
                    })
                } else {
                    screen.print(&text::clean(piece))
                }
            }
        };
        if let Err(error) = shown {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if listening.is_stopped() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let said = match words {
        Some(words) => chat.say(words, &mut on_step),
        None => chat.answer(&mut on_step),
    };
    screen.hide_bar();
    if let Some(error) = failed {
        return Err(error);
    }
    let completion = said?;
    let total = milliseconds();
    let tokens = completion.prompt_tokens + completion.new_tokens;
    let used = models.used(tokens, chat.features_bytes());
    if screen.json {
        screen.json(&Generated {
            event: "done",
            text: completion.text.trim(),
            stop: completion.stop,
            prompt_tokens: completion.prompt_tokens,
            new_tokens: completion.new_tokens,
            timings_ms: GeneratedTimings {
                first_token: first_token.unwrap_or(total),
                a_token: pace.a_token(completion.new_tokens),
                total,
            },
            peak_memory_bytes: used.peak_bytes,
            memory: used,
        })?;
    } else if !at_line_start {
        screen.print("\n")?;
    }
    screen.detail(&format!(
        "{} tokens read, {} written, {total:.0} ms; peak memory {}",
        completion.prompt_tokens,
        completion.new_tokens,
        text::bytes(used.peak_bytes)
    ));
    screen.detail(&text::used(&used));
    Ok(completion)
}

fn status(screen: &Screen, stage: &'static str, message: String) -> Result<()> {
    if screen.json {
        return screen.json(&AnswerEvent::Status { stage, message });
    }
    screen.status(&message);
    Ok(())
}
