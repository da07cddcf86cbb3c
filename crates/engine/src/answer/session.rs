//! Questions to an index, one after another, each answered from pages found for it.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use colibri_index::{Filter, Index, PageId};
use colibri_models::{
    TokenPrecision, VisualTokens,
    generate::{Completion, Step, StopReason},
    generators::{Looking, Request},
    processor::Message,
};
use image::RgbImage;

use super::{
    AnswerOptions, charts,
    cite::cited,
    event::{AnswerEvent, Citation, Done, EvidencePage, Timings},
    pace::Pace,
    prompt::{self, NOT_THERE},
    quote,
};
use crate::{
    Error, Result,
    checkpoints::{LoadedGenerator, Models, OnModelEvent},
    ingest::content_hash,
    picture,
    retrieve::{PageHit, SearchResult, Searcher},
    seen::{self, Seen},
    words::content_words,
};

/// Turns of a conversation that are repeated to the generator; pages found in earlier turns are not.
const TURNS_KEPT: usize = 4;

/// A conversation with an index.
pub struct Answering<'a> {
    index: &'a Index,
    searcher: Searcher<'a>,
    models: &'a Models,
    filter: Filter,
    options: AnswerOptions,
    history: Vec<(String, String)>,
    /// Pages given to the generator in the last turn, in order: those that are found again come first again, so
    /// that what was read of them need not be read anew.
    shown: Vec<PageId>,
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
        models.expect(options.pages, options.generate.max_new_tokens);
        Self {
            index,
            searcher,
            models,
            filter,
            options,
            history: Vec::new(),
            shown: Vec::new(),
        }
    }

    /// Goes on with a conversation that was held elsewhere: questions and their answers, the oldest first.
    #[must_use]
    pub fn with_history(mut self, history: Vec<(String, String)>) -> Self {
        self.history = history;
        self
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
            match self.models.generator(on_model)? {
                // There is nothing to quote on the page, so it is read, however badly.
                None if quote::is_found_by_look(&found, &texts) => self.models.reader(on_model)?,
                other => other,
            }
        };
        let places = self.places(&found)?;
        let mut done = if let Some(generator) = generator {
            self.generate(
                question,
                &found,
                &places,
                &texts,
                &generator,
                stop,
                &mut timings,
                on_event,
            )?
        } else {
            let chart = self.chart(question, &found)?;
            quote::answer(question, &found, &places, &texts, chart, on_event)
        };
        for citation in &done.citations {
            on_event(AnswerEvent::Citation(citation.clone()));
        }
        timings.total = milliseconds(started);
        done.timings_ms = timings;
        let tokens = done.prompt_tokens + done.new_tokens;
        done.memory = self.models.used(tokens, done.memory.features_bytes);
        done.peak_memory_bytes = done.memory.peak_bytes;
        self.history
            .push((question.to_owned(), done.answer.clone()));
        on_event(AnswerEvent::Done(done.clone()));
        Ok(Asked { found, done })
    }

    /// Every hit as it is cited; of a page of a video with the seconds from its beginning.
    fn places(&self, found: &SearchResult) -> Result<Vec<Citation>> {
        let place = |PageHit { hit, .. }: &PageHit| -> Result<Citation> {
            let document = self.index.document(&hit.document)?;
            let step = document
                .and_then(|document| document.record.metadata.get("seconds_per_page")?.as_f64());
            Ok(Citation {
                document: hit.document.clone(),
                page: hit.page,
                // A float beyond the whole numbers becomes the nearest of them.
                seconds: step.map(|step| (step * f64::from(hit.page.saturating_sub(1))) as u64),
            })
        };
        found.hits.iter().map(place).collect()
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

    /// What a chart says on the first of the pages found that has one about the question, and which page that is.
    fn chart(&self, question: &str, found: &SearchResult) -> Result<Option<(usize, String)>> {
        for (page, hit) in found.hits.iter().enumerate() {
            let words = self.index.page_words(hit.hit.page_id)?;
            if let Some(text) = charts::read(question, &words) {
                return Ok(Some((page, text)));
            }
        }
        Ok(None)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call from one place, with what that place has at hand"
    )]
    fn generate(
        &mut self,
        question: &str,
        found: &SearchResult,
        places: &[Citation],
        texts: &[String],
        generator: &LoadedGenerator,
        stop: &AtomicBool,
        timings: &mut Timings,
        on_event: &mut dyn FnMut(AnswerEvent),
    ) -> Result<Done> {
        let prepared = Instant::now();
        let looking = generator.model.looking();
        let (pages, pictures) = self.pictures(found, generator, on_event)?;
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let shown: Vec<String> = pages.iter().map(|&page| texts[page].clone()).collect();
        let given = if self.options.with_text {
            shown.as_slice()
        } else {
            &[]
        };
        // The pages come first, before what was said: they are what two prompts have in common.
        let mut messages: Vec<Message> = Vec::new();
        let (mut num_pages, mut texts) = (pages.len(), given);
        let instructions = self.options.instructions.as_deref();
        let kept = if generator.is_weak() { 0 } else { TURNS_KEPT };
        let skip = self.history.len().saturating_sub(kept);
        for (before, answer) in &self.history[skip..] {
            let (pages, given) = (std::mem::take(&mut num_pages), std::mem::take(&mut texts));
            // As it was when it was asked, if it brought the pages.
            let instructions = instructions.filter(|_| pages > 0);
            messages.push(prompt::question(before, pages, given, instructions));
            messages.push(prompt::reply(answer));
        }
        messages.push(if generator.is_weak() {
            prompt::bare(question, num_pages)
        } else {
            prompt::question(question, num_pages, texts, instructions)
        });
        timings.prepare = milliseconds(prepared);

        let reading = Instant::now();
        let status = |stage, message| AnswerEvent::Status { stage, message };
        let mut first: Option<f64> = None;
        let mut pace = Pace::default();
        let mut on_step = |step: Step<'_>| {
            pace.see(&step);
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
                    // Models begin with the space that stands after `Assistant:`.
                    let begins = first.is_none();
                    first.get_or_insert_with(|| milliseconds(reading));
                    let text = if begins { text.trim_start() } else { text };
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
        let options = &self.options.generate;
        let mut features_bytes = 0;
        let answer = if let Some(looking) = looking {
            let mut on_tile = |done, total| on_step(Step::Tile { done, total }).is_continue();
            let precision = self.models.config().features.precision;
            look(looking, pictures, precision, &mut on_tile).and_then(|seen| {
                features_bytes = seen.iter().map(VisualTokens::num_bytes).sum::<usize>();
                looking.generate_seen(&messages, &seen, options, &mut on_step)
            })
        } else {
            let drawn = pictures.into_iter().filter_map(|picture| match picture {
                Picture::Drawn { image, .. } => Some(image),
                Picture::Seen(_) => None,
            });
            let images: Vec<RgbImage> = drawn.collect();
            let request = Request {
                messages: &messages,
                images: &images,
                options,
            };
            generator.model.generate(&request, &mut on_step)
        };
        let Completion {
            text,
            prompt_tokens,
            new_tokens,
            stop,
            ..
        } = match answer {
            Err(colibri_models::Error::Cancelled) => return Err(Error::Cancelled),
            other => other?,
        };
        self.shown = pages
            .iter()
            .map(|&page| found.hits[page].hit.page_id)
            .collect();
        timings.first_token = first.unwrap_or_else(|| milliseconds(reading));
        timings.a_token = pace.a_token(new_tokens);
        if stop == StopReason::Cancelled && text.is_empty() {
            return Err(Error::Cancelled);
        }
        let answer = text.trim().to_owned();
        let citations = if answer.contains(NOT_THERE.trim_end_matches('.')) {
            Vec::new()
        } else {
            cited(question, &answer, &shown)
                .into_iter()
                .map(|page| places[pages[page]].clone())
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
            memory: crate::memory::Used {
                features_bytes: features_bytes as u64,
                ..crate::memory::Used::default()
            },
        })
    }

    /// The pages as the generator gets them, and which hits they belong to, those of the last turn first: what was
    /// seen of them, where that is kept, otherwise pictures at the size it looks at. A document that has to be drawn
    /// and is no longer there is passed over.
    fn pictures(
        &self,
        found: &SearchResult,
        generator: &LoadedGenerator,
        on_event: &mut dyn FnMut(AnswerEvent),
    ) -> Result<(Vec<usize>, Vec<Picture>)> {
        // As many as memory allows; the best come first.
        let fit = if generator.is_weak() {
            1
        } else {
            self.models.most_pages()
        };
        let most = found.hits.len().min(fit);
        let mut order: Vec<usize> = (0..most).collect();
        order.sort_by_key(|&index| {
            let id = found.hits[index].hit.page_id;
            self.shown
                .iter()
                .position(|&shown| shown == id)
                .unwrap_or(usize::MAX)
        });
        let looking = generator.model.looking();
        let seen = looking.and_then(|looking| {
            let kept = self.models.config().features;
            Seen::new(self.index.dir(), kept, looking.look_key())
        });
        let (mut pages, mut pictures) = (Vec::new(), Vec::new());
        for index in order {
            let hit = &found.hits[index].hit;
            let content = match &seen {
                Some(_) => seen::content_hash(self.index, &hit.document)?,
                None => None,
            };
            let kept = match (&seen, &content, looking) {
                (Some(seen), Some(content), Some(looking)) => seen.load(content, hit.page, looking),
                _ => None,
            };
            if let Some(tokens) = kept {
                pages.push(index);
                pictures.push(Picture::Seen(tokens));
                continue;
            }
            let path = Path::new(&hit.document);
            let longest_edge = generator.model.longest_edge();
            match picture::page(path, hit.page, longest_edge, &self.options.open) {
                Ok(image) => {
                    pages.push(index);
                    // What is drawn is the file as it is now; it is kept only for the content that was indexed.
                    let same = content
                        .filter(|content| content_hash(path).is_ok_and(|now| now == *content));
                    let keep = seen.clone().zip(same).map(|(seen, content)| Keep {
                        seen,
                        content,
                        page: hit.page,
                    });
                    pictures.push(Picture::Drawn { image, keep });
                }
                Err(error) => on_event(AnswerEvent::Status {
                    stage: "note",
                    message: format!("page {} is left out: {}", hit.page, crate::chain(&error)),
                }),
            }
        }
        Ok((pages, pictures))
    }
}

/// A page as a generator gets it.
enum Picture {
    /// What was seen of it before.
    Seen(VisualTokens),
    /// Not looked at yet.
    Drawn { image: RgbImage, keep: Option<Keep> },
}

/// Where what is seen of a page is kept.
struct Keep {
    seen: Seen,
    content: String,
    page: u32,
}

/// Looks at the pages that have not been looked at. What is seen is rounded as it would be kept, so that an answer does
/// not depend on whether it was.
fn look(
    looking: &dyn Looking,
    pictures: Vec<Picture>,
    precision: TokenPrecision,
    on_tile: &mut dyn FnMut(usize, usize) -> bool,
) -> colibri_models::Result<Vec<VisualTokens>> {
    let seen = pictures.into_iter().map(|picture| match picture {
        Picture::Seen(tokens) => Ok(tokens),
        Picture::Drawn { image, keep } => {
            let tokens = looking.look(&image, on_tile)?.rounded(precision);
            if let Some(Keep {
                seen,
                content,
                page,
            }) = keep
            {
                seen.keep(&content, page, tokens.clone());
            }
            Ok(tokens)
        }
    });
    seen.collect()
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
