//! Questions: a fair queue, one thread that answers, and a log of events for each.
//!
//! ```text
//! mod    the queue, readers, stopping
//! work   what can be asked
//! run    the thread that answers
//! ```
//!
//! A question goes on as long as somebody reads its answer. When the last reader has gone it is stopped at
//! once if anybody else waits, and after a short grace otherwise, within which a reader that lost its
//! connection may come back.

mod run;
mod work;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use colibri_engine::{self as engine, answer::AnswerEvent, index::Index};
use serde_json::json;

pub(crate) use run::run;
pub(crate) use work::{Conversation, Question, Work};

use crate::{
    App, Bounds, Error, Result, event_log::EventLog, fair_queue::FairQueue, state::random_name,
};

/// Finished answers kept for readers that come back.
const KEPT_ANSWERS: usize = 64;
/// Events of one answer: a token each, and some more.
const KEPT_EVENTS: usize = 20_000;
const KEPT_BYTES: usize = 4 << 20;

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
        let (name, data) = run::on_the_wire(index, event);
        self.log.push(name, &data);
    }

    fn end(&self) {
        self.ended.store(true, Relaxed);
        self.log.close();
    }
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

    /// Whether a question is being answered.
    pub(crate) fn is_answering(&self) -> bool {
        self.running().is_some()
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
            tokio::select! {
                () = ask.log.closed() => {}
                () = tokio::time::sleep(grace) => {
                    if ask.is_abandoned() {
                        ask.stop();
                    }
                }
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
