//! The thread that answers: it takes questions in turn and owns the generator meanwhile.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Instant,
};

use colibri_engine::{
    self as engine,
    answer::{AnswerEvent, AnswerOptions, Answering, Done, Pace, Timings},
    checkpoints::ModelEvent,
    generate::{Step, StopReason},
    generators::Request,
    index::Index,
};
use serde_json::Value;

use super::{Ask, Conversation, Question, Work};
use crate::{
    App, Error, Result,
    activity::{About, in_words},
    api::names::with_pages,
};

/// The thread that answers.
pub(crate) fn run(app: &Arc<App>) {
    while let Some(ask) = app.asks.queue.pop() {
        *app.asks.running() = Some(ask.clone());
        app.asks.tell_places();
        // A reader that left while its question waited is not coming back to an empty log.
        if ask.is_abandoned() && app.asks.num_waiting() > 0 {
            ask.stop();
        }
        app.metrics.asks.fetch_add(1, Relaxed);
        let work = ask
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let answered = match work {
            Some(work) if !ask.stop.load(Relaxed) => {
                catch_unwind(AssertUnwindSafe(|| answer(app, &ask, work))).unwrap_or(Err(
                    Error::Thread {
                        doing: "the answer",
                    },
                ))
            }
            _ => Err(engine::Error::Cancelled.into()),
        };
        if let Err(error) = answered {
            if matches!(error, Error::Engine(engine::Error::Cancelled)) {
                app.metrics.asks_stopped.fetch_add(1, Relaxed);
            } else {
                app.activity
                    .note(About::Trouble, &engine::chain(&error), None);
            }
            ask.log.push("failed", &error.event());
        }
        *app.asks.running() = None;
        ask.end();
    }
}

fn answer(app: &Arc<App>, ask: &Arc<Ask>, work: Work) -> Result<()> {
    let on_model = |event: ModelEvent| {
        app.on_model(&event);
        if let Some(message) = in_words(&event) {
            let stage = if matches!(event, ModelEvent::Fallback { .. }) {
                "note"
            } else {
                "model"
            };
            ask.tell(None, &AnswerEvent::Status { stage, message });
        }
    };
    let started = Instant::now();
    let done = match work {
        Work::Corpus(question) => corpus(app, ask, question, &on_model)?,
        Work::Chat(conversation) => chat(app, ask, &conversation, &on_model)?,
    };
    if done.stop == Some(StopReason::Cancelled) {
        app.metrics.asks_stopped.fetch_add(1, Relaxed);
    }
    let message = format!("answered by {}", done.generator);
    app.activity
        .note(About::Ask, &message, Some(started.elapsed()));
    Ok(())
}

fn corpus(
    app: &Arc<App>,
    ask: &Arc<Ask>,
    question: Question,
    on_model: &(dyn Fn(ModelEvent) + Sync),
) -> Result<Done> {
    app.activity.note(About::Ask, &question.text, None);
    let index = app.index()?;
    let searcher = app.searcher(&index, question.mode, on_model)?;
    let options = AnswerOptions {
        pages: question.pages,
        with_text: question.with_text,
        instructions: question.instructions,
        generate: question.generate,
        open: app.config().open.clone(),
    };
    let mut answering = Answering::new(&index, searcher, &app.models, question.filter, options)
        .with_history(question.history);
    let asked = answering.ask(&question.text, &ask.stop, on_model, &mut |event| {
        match &event {
            AnswerEvent::Token { .. } => {
                app.metrics.tokens.fetch_add(1, Relaxed);
            }
            AnswerEvent::Evidence { pages } => {
                let message = format!("{} pages found", pages.len());
                app.activity.note(About::Search, &message, None);
            }
            AnswerEvent::Status { stage, message } if *stage != "note" => {
                app.activity.note(About::Ask, message, None);
            }
            AnswerEvent::Status { .. }
            | AnswerEvent::Citation(_)
            | AnswerEvent::Done(_)
            | AnswerEvent::Failed { .. } => {}
        }
        ask.tell(Some(&index), &event);
    })?;
    Ok(asked.done)
}

fn chat(
    app: &Arc<App>,
    ask: &Arc<Ask>,
    conversation: &Conversation,
    on_model: &(dyn Fn(ModelEvent) + Sync),
) -> Result<Done> {
    let started = Instant::now();
    let Some(generator) = app.models.generator(on_model)? else {
        return Err(engine::Error::NoGenerator {
            reason: "this server answers with quotes".to_owned(),
        }
        .into());
    };
    let reading = Instant::now();
    let mut first: Option<f64> = None;
    let mut pace = Pace::default();
    let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
    let mut on_step = |step: Step<'_>| {
        pace.see(&step);
        if let Step::Text(text) = step {
            first.get_or_insert_with(|| milliseconds(reading));
            app.metrics.tokens.fetch_add(1, Relaxed);
            let text = text.to_owned();
            ask.tell(None, &AnswerEvent::Token { text });
        }
        if ask.stop.load(Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let request = Request {
        messages: &conversation.messages,
        images: &conversation.images,
        options: &conversation.generate,
    };
    let completion = generator
        .model
        .generate(&request, &mut on_step)
        .map_err(engine::Error::from)?;
    let memory = app
        .models
        .used(completion.prompt_tokens + completion.ids.len(), 0);
    let done = Done {
        answer: completion.text.trim().to_owned(),
        citations: Vec::new(),
        generator: generator.located.name.clone(),
        stop: Some(completion.stop),
        prompt_tokens: completion.prompt_tokens,
        new_tokens: completion.ids.len(),
        timings_ms: Timings {
            retrieve: 0.0,
            prepare: 0.0,
            first_token: first.unwrap_or_else(|| milliseconds(reading)),
            a_token: pace.a_token(completion.new_tokens),
            total: milliseconds(started),
        },
        peak_memory_bytes: memory.peak_bytes,
        memory,
    };
    ask.tell(None, &AnswerEvent::Done(done.clone()));
    Ok(done)
}

/// The name of an event and its object, with the identities of pages beside their numbers.
pub(super) fn on_the_wire(index: Option<&Index>, event: &AnswerEvent) -> (&'static str, Value) {
    let mut data = serde_json::to_value(event).unwrap_or_default();
    let name = match event {
        AnswerEvent::Status { .. } => "status",
        AnswerEvent::Evidence { .. } => {
            with_pages(index, &mut data["pages"]);
            "evidence"
        }
        AnswerEvent::Token { .. } => "token",
        AnswerEvent::Citation(_) => {
            let mut one = Value::Array(vec![data]);
            with_pages(index, &mut one);
            data = one[0].take();
            "citation"
        }
        AnswerEvent::Done(_) => {
            with_pages(index, &mut data["citations"]);
            "done"
        }
        AnswerEvent::Failed { .. } => "failed",
    };
    (name, data)
}
