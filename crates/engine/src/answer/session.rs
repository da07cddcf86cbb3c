//! Questions to an index, one after another, each answered from pages found for it.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use colibri_index::{Filter, Index, PageId};
use colibri_models::{
    generate::{Completion, Step, StopReason},
    generators::Request,
    processor::Message,
};
use image::RgbImage;

use super::{
    AnswerOptions,
    cite::cited,
    event::{AnswerEvent, Citation, Done, EvidencePage, Timings},
    prompt::{self, NOT_THERE},
    quote,
};
use crate::{
    Error, Result,
    checkpoints::{LoadedGenerator, Models, OnModelEvent},
    picture,
    retrieve::{PageHit, SearchResult, Searcher},
    words::content_words,
};

/// Turns of a conversation that are repeated to the generator; pictures of earlier turns are not.
const TURNS_KEPT: usize = 4;

/// A conversation with an index.
pub struct Answering<'a> {
    index: &'a Index,
    searcher: Searcher<'a>,
    models: &'a Models,
    filter: Filter,
    options: AnswerOptions,
    history: Vec<(String, String)>,
}

impl std::fmt::Debug for Answering<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answering")
            .field("searcher", &self.searcher)
            .finish_non_exhaustive()
    }
}

/// An answer and the pages it came from.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What was found.
    pub found: SearchResult,
    /// What was answered.
    pub done: Done,
}

impl<'a> Answering<'a> {
    /// Begins a conversation.
    pub fn new(
        index: &'a Index,
        searcher: Searcher<'a>,
        models: &'a Models,
        filter: Filter,
        options: AnswerOptions,
    ) -> Self {
        Self {
            index,
            searcher,
            models,
            filter,
            options,
            history: Vec::new(),
        }
    }

    /// Answers one question; `on_event` sees everything as it happens, `stop` ends the work.
    ///
    /// # Errors
    /// When the index cannot be read or a model fails. [`Error::Cancelled`] if stopped before an answer began.
    pub fn ask(
        &mut self,
        question: &str,
        stop: &AtomicBool,
        on_model: OnModelEvent<'_>,
        on_event: &mut dyn FnMut(AnswerEvent),
    ) -> Result<Asked> {
        let started = Instant::now();
        let status = |stage, message: String| AnswerEvent::Status { stage, message };
        on_event(status("retrieve", "looking for pages".to_owned()));
        let found =
            self.searcher
                .search(&self.query(question), self.options.pages, &self.filter)?;
        let mut timings = Timings {
            retrieve: milliseconds(started),
            ..Timings::default()
        };
        on_event(AnswerEvent::Evidence {
            pages: found.hits.iter().map(EvidencePage::from).collect(),
        });
        let texts = found
            .hits
            .iter()
            .map(|hit| self.text(hit.hit.page_id))
            .collect::<Result<Vec<_>>>()?;

        let generator = if found.hits.is_empty() {
            None
        } else {
            self.models.generator(on_model)?
        };
        let mut done = match generator {
            Some(generator) => self.generate(
                question,
                &found,
                &texts,
                &generator,
                stop,
                &mut timings,
                on_event,
            )?,
            None => quotes(question, &found, &texts, on_event),
        };
        for citation in &done.citations {
            on_event(AnswerEvent::Citation(citation.clone()));
        }
        timings.total = milliseconds(started);
        done.timings_ms = timings;
        done.peak_memory_bytes = crate::memory::peak_bytes();
        self.history
            .push((question.to_owned(), done.answer.clone()));
        on_event(AnswerEvent::Done(done.clone()));
        Ok(Asked { found, done })
    }

    /// What is searched for: a follow-up such as "and in 2021?" says too little alone, so the question
    /// before is searched with it.
    fn query(&self, question: &str) -> String {
        match self.history.last() {
            Some((before, _)) if content_words(question).len() < 3 => {
                format!("{before} {question}")
            }
            _ => question.to_owned(),
        }
    }

    fn text(&self, page: PageId) -> Result<String> {
        Ok(self.index.page(page)?.text)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call from one place, with what that place has at hand"
    )]
    fn generate(
        &self,
        question: &str,
        found: &SearchResult,
        texts: &[String],
        generator: &LoadedGenerator,
        stop: &AtomicBool,
        timings: &mut Timings,
        on_event: &mut dyn FnMut(AnswerEvent),
    ) -> Result<Done> {
        let prepared = Instant::now();
        let (pages, images) = self.draw(found, generator, on_event);
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let shown: Vec<String> = pages.iter().map(|&page| texts[page].clone()).collect();
        let given = if self.options.with_text {
            shown.as_slice()
        } else {
            &[]
        };
        let mut messages: Vec<Message> = Vec::new();
        let skip = self.history.len().saturating_sub(TURNS_KEPT);
        for (before, answer) in &self.history[skip..] {
            messages.push(prompt::question(before, 0, &[], None));
            messages.push(prompt::reply(answer));
        }
        let instructions = self.options.instructions.as_deref();
        messages.push(prompt::question(
            question,
            images.len(),
            given,
            instructions,
        ));
        timings.prepare = milliseconds(prepared);

        let reading = Instant::now();
        let status = |stage, message| AnswerEvent::Status { stage, message };
        let mut first: Option<f64> = None;
        let mut on_step = |step: Step<'_>| {
            match step {
                Step::Tile { done: 0, total } => on_event(AnswerEvent::Status {
                    stage: "look",
                    message: format!("looking at {total} tiles"),
                }),
                Step::Tile { .. } | Step::Waiting => {}
                Step::Status(message) => on_event(status("read", message.to_owned())),
                Step::Note(message) => on_event(status("note", message.to_owned())),
                Step::Prefill { tokens } => on_event(AnswerEvent::Status {
                    stage: "read",
                    message: format!("reading {tokens} tokens"),
                }),
                Step::Text(text) => {
                    first.get_or_insert_with(|| milliseconds(reading));
                    on_event(AnswerEvent::Token {
                        text: text.to_owned(),
                    });
                }
            }
            if stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let request = Request {
            messages: &messages,
            images: &images,
            options: &self.options.generate,
        };
        let Completion {
            text,
            prompt_tokens,
            new_tokens,
            stop,
            ..
        } = generator.model.generate(&request, &mut on_step)?;
        timings.first_token = first.unwrap_or_else(|| milliseconds(reading));
        if stop == StopReason::Cancelled && text.is_empty() {
            return Err(Error::Cancelled);
        }
        let answer = text.trim().to_owned();
        let citations = if answer.contains(NOT_THERE.trim_end_matches('.')) {
            Vec::new()
        } else {
            cited(question, &answer, &shown)
                .into_iter()
                .map(|page| citation(found, pages[page]))
                .collect()
        };
        Ok(Done {
            answer,
            citations,
            generator: generator.located.name.clone(),
            stop: Some(stop),
            prompt_tokens,
            new_tokens,
            timings_ms: Timings::default(),
            peak_memory_bytes: 0,
        })
    }

    /// The pages' pictures at the size the generator looks at, and which hits they belong to. A document
    /// that is no longer there is passed over.
    fn draw(
        &self,
        found: &SearchResult,
        generator: &LoadedGenerator,
        on_event: &mut dyn FnMut(AnswerEvent),
    ) -> (Vec<usize>, Vec<RgbImage>) {
        let (mut pages, mut images) = (Vec::new(), Vec::new());
        for (index, hit) in found.hits.iter().enumerate() {
            let path = Path::new(&hit.hit.document);
            match picture::page(
                path,
                hit.hit.page,
                generator.model.longest_edge(),
                &self.options.open,
            ) {
                Ok(image) => {
                    pages.push(index);
                    images.push(image);
                }
                Err(error) => on_event(AnswerEvent::Status {
                    stage: "note",
                    message: format!(
                        "page {} is left out: {}",
                        hit.hit.page,
                        crate::chain(&error)
                    ),
                }),
            }
        }
        (pages, images)
    }
}

fn citation(found: &SearchResult, page: usize) -> Citation {
    let hit = &found.hits[page].hit;
    Citation {
        document: hit.document.clone(),
        page: hit.page,
    }
}

/// The answer of quotes: each line with the page it stands on.
fn quotes(
    question: &str,
    found: &SearchResult,
    texts: &[String],
    on_event: &mut dyn FnMut(AnswerEvent),
) -> Done {
    let lines = quote::best_passages(question, texts);
    let mut citations: Vec<Citation> = Vec::new();
    let mut answer = String::new();
    let name = |citation: &Citation| {
        let path = Path::new(&citation.document);
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let mut say = |text: String, from: Option<Citation>| {
        on_event(AnswerEvent::Token { text: text.clone() });
        answer.push_str(&text);
        citations.extend(from.filter(|citation| !citations.contains(citation)));
    };
    // The best page was found by what it looks like, and there is nothing on it that could be quoted.
    let by_look = |hit: &PageHit| hit.hit.visual.is_some() && texts[0].trim().is_empty();
    let looked = found.hits.first().is_some_and(by_look);
    if looked {
        let page = citation(found, 0);
        let text = format!(
            "The page that fits best has no text to quote: {} p.{}\n",
            name(&page),
            page.page
        );
        say(text, Some(page));
    }
    for line in &lines {
        let page = citation(found, line.page);
        let text = format!("“{}” [{} p.{}]\n", line.text, name(&page), page.page);
        say(text, Some(page));
    }
    if lines.is_empty() && !looked {
        say(NOT_THERE.to_owned(), None);
    }
    Done {
        answer: answer.trim_end().to_owned(),
        citations,
        generator: "quotes".to_owned(),
        stop: None,
        prompt_tokens: 0,
        new_tokens: 0,
        timings_ms: Timings::default(),
        peak_memory_bytes: 0,
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
