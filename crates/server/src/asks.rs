//! Questions: a fair queue, one thread that answers, and a log of events for each.
//!
//! A question goes on as long as somebody reads its answer. When the last reader has gone it is stopped at
//! once if anybody else waits, and after a short grace otherwise, within which a reader that lost its
//! connection may come back.

use std::{
    collections::{HashMap, VecDeque},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use colibri_engine::{
    self as engine,
    answer::{AnswerEvent, AnswerOptions, Answering, Done, Timings},
    checkpoints::ModelEvent,
    generate::{GenerateOptions, Step, StopReason},
    generators::Request,
    index::{Filter, Index, Mode},
    memory,
    picture::RgbImage,
    processor::Message,
};
use serde_json::{Value, json};

use crate::{
    App, Bounds, Error, Result,
    activity::{About, in_words},
    api::names::with_pages,
    event_log::EventLog,
    fair_queue::FairQueue,
    state::random_name,
};

/// Finished answers kept for readers that come back.
const KEPT_ANSWERS: usize = 64;
/// Events of one answer: a token each, and some more.
const KEPT_EVENTS: usize = 20_000;
const KEPT_BYTES: usize = 4 << 20;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Work {
    /// A question to the index.
    Corpus(Question),
    /// A conversation with the generator alone.
    Chat(Conversation),
}

/// A question to the index.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) pages: usize,
    pub(crate) mode: Mode,
    pub(crate) filter: Filter,
    pub(crate) history: Vec<(String, String)>,
    pub(crate) instructions: Option<String>,
    pub(crate) with_text: bool,
    pub(crate) generate: GenerateOptions,
}

/// A conversation with the generator alone.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) messages: Vec<Message>,
    pub(crate) images: Vec<RgbImage>,
    pub(crate) generate: GenerateOptions,
}

/// One question on its way.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Its name; whoever knows it may read the answer.
    pub(crate) id: String,
    /// Its events.
    pub(crate) log: Arc<EventLog>,
    work: Mutex<Option<Work>>,
    stop: AtomicBool,
    ended: AtomicBool,
    readers: AtomicUsize,
    /// The place in the queue that was last told.
    told: AtomicUsize,
}

impl Ask {
    /// Stops it.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn is_abandoned(&self) -> bool {
        self.readers.load(Relaxed) == 0
    }

    fn tell(&self, index: Option<&Index>, event: &AnswerEvent) {
        let (name, data) = on_the_wire(index, event);
        self.log.push(name, &data);
    }

    fn end(&self) {
        self.ended.store(true, Relaxed);
        self.log.close();
    }
}

/// The name of an event and its object, with the identities of pages beside their numbers.
fn on_the_wire(index: Option<&Index>, event: &AnswerEvent) -> (&'static str, Value) {
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

/// All questions.
#[derive(Debug)]
pub(crate) struct Asks {
    queue: FairQueue<Arc<Ask>>,
    known: Mutex<Known>,
    running: Mutex<Option<Arc<Ask>>>,
    grace: Duration,
}

#[derive(Debug, Default)]
struct Known {
    asks: HashMap<String, Arc<Ask>>,
    order: VecDeque<String>,
}

/// A reader of an answer: while there is one, the question goes on.
#[derive(Debug)]
pub(crate) struct Reader {
    app: Arc<App>,
    ask: Arc<Ask>,
}

impl Reader {
    pub(crate) fn new(app: &Arc<App>, ask: &Arc<Ask>) -> Self {
        ask.readers.fetch_add(1, Relaxed);
        Self {
            app: app.clone(),
            ask: ask.clone(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let was_last = self.ask.readers.fetch_sub(1, Relaxed) == 1;
        if was_last && !self.ask.ended.load(Relaxed) {
            self.app.asks.abandoned(&self.ask);
        }
    }
}

impl Asks {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            queue: FairQueue::new(bounds.waiting_asks),
            known: Mutex::default(),
            running: Mutex::default(),
            grace: bounds.grace,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<Arc<Ask>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Questions that wait.
    pub(crate) fn num_waiting(&self) -> usize {
        self.queue.len()
    }

    /// A question by its name.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Ask>> {
        let found = self.known().asks.get(id).cloned();
        found.ok_or_else(|| Error::no("answer by this name; it may be too long ago"))
    }

    /// Puts a question into the queue, with its first reader.
    pub(crate) fn put(
        &self,
        app: &Arc<App>,
        client: &str,
        work: Work,
    ) -> Result<(Arc<Ask>, Reader)> {
        let ask = Arc::new(Ask {
            id: random_name(),
            log: EventLog::new(KEPT_EVENTS, KEPT_BYTES).into(),
            work: Mutex::new(Some(work)),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            readers: AtomicUsize::new(0),
            told: AtomicUsize::new(usize::MAX),
        });
        ask.log.push(
            "status",
            &json!({"event": "status", "stage": "begin", "message": "the question is here", "ask": ask.id}),
        );
        let reader = Reader::new(app, &ask);
        self.queue
            .push(client, ask.clone())
            .map_err(|_| Error::Busy { what: "questions" })?;
        let mut known = self.known();
        known.asks.insert(ask.id.clone(), ask.clone());
        known.order.push_back(ask.id.clone());
        while known.order.len() > KEPT_ANSWERS {
            let oldest = known.order.front().cloned().unwrap_or_default();
            let going = known.asks.get(&oldest);
            if going.is_some_and(|ask| !ask.ended.load(Relaxed)) {
                break;
            }
            known.asks.remove(&oldest);
            known.order.pop_front();
        }
        drop(known);
        // Nobody waits for an answer that nobody reads.
        if let Some(running) = &*self.running()
            && running.is_abandoned()
        {
            running.stop();
        }
        self.tell_places();
        Ok((ask, reader))
    }

    /// The last reader of `ask` has gone.
    fn abandoned(&self, ask: &Arc<Ask>) {
        if self.queue.len() > 0 || self.grace.is_zero() {
            return self.cancel(ask);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return self.cancel(ask);
        };
        let (ask, grace) = (ask.clone(), self.grace);
        runtime.spawn(async move {
            tokio::time::sleep(grace).await;
            if ask.is_abandoned() {
                ask.stop();
            }
        });
    }

    /// Stops a question, waiting or running.
    pub(crate) fn cancel(&self, ask: &Arc<Ask>) {
        ask.stop();
        if self.queue.order().iter().any(|one| Arc::ptr_eq(one, ask)) {
            self.queue.remove(|waiting| Arc::ptr_eq(waiting, ask));
            ask.tell(None, &AnswerEvent::failed(&engine::Error::Cancelled));
            ask.end();
            self.tell_places();
        }
    }

    /// Tells everybody who waits how many come before, where that has changed.
    fn tell_places(&self) {
        let before = usize::from(self.running().is_some());
        for (place, ask) in self.queue.order().iter().enumerate() {
            let place = place + before;
            if place > 0 && ask.told.swap(place, Relaxed) != place {
                let noun = if place == 1 { "question" } else { "questions" };
                let message = format!("{place} {noun} before this one");
                ask.log.push(
                    "status",
                    &json!({"event": "status", "stage": "queue", "message": message, "position": place}),
                );
            }
        }
    }

    /// Ends everything.
    pub(crate) fn stop(&self) {
        for ask in self.queue.order() {
            ask.stop();
            ask.tell(None, &AnswerEvent::failed(&engine::Error::Cancelled));
            ask.end();
        }
        self.queue.close();
        if let Some(running) = &*self.running() {
            running.stop();
        }
    }
}

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
            ask.log.push(
                "failed",
                &json!({
                    "event": "failed", "error": engine::chain(&error), "code": error.code(),
                    "hint": error.hint(),
                }),
            );
        }
        ask.end();
        *app.asks.running() = None;
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
    let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
    let mut on_step = |step: Step<'_>| {
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
            total: milliseconds(started),
        },
        peak_memory_bytes: memory::peak_bytes(),
        memory: app
            .models
            .used(completion.prompt_tokens + completion.ids.len(), 0),
    };
    ask.tell(None, &AnswerEvent::Done(done.clone()));
    Ok(done)
}
