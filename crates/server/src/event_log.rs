//! A log of events that any number of readers follow, each at its own pace.
//!
//! The writer appends and goes on; it never waits for a reader. A reader asks for what comes after the last
//! number it has seen, which is also what a browser sends as `Last-Event-ID` when it comes back. The log
//! keeps a bounded number of events and bytes: a reader that is further behind than that is told how many
//! it missed.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::watch;

/// Comments sent while nothing happens, so that a peer that has gone is noticed and proxies stay calm.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Counts from 1 without gaps.
    pub(crate) number: u64,
    /// The name on the wire.
    pub(crate) name: &'static str,
    /// A JSON object.
    pub(crate) data: Arc<str>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The number of the newest entry.
    last: u64,
    closed: bool,
}

/// The log.
#[derive(Debug)]
pub(crate) struct EventLog {
    kept: Mutex<Kept>,
    changed: watch::Sender<u64>,
    most_entries: usize,
    most_bytes: usize,
}

/// What a reader is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next event.
    Entry(Entry),
    /// So many events are no longer kept.
    Missed(u64),
    /// There will be no more.
    End,
}

impl EventLog {
    /// A log that keeps the last `most_entries` events, and less where they have more than `most_bytes`.
    pub(crate) fn new(most_entries: usize, most_bytes: usize) -> Self {
        Self {
            kept: Mutex::default(),
            changed: watch::Sender::new(0),
            most_entries,
            most_bytes,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event; nothing after [`EventLog::close`].
    pub(crate) fn push<T: Serialize>(&self, name: &'static str, data: &T) {
        // Maps with other keys than strings are what JSON cannot hold, and no event has one.
        let data: Arc<str> = serde_json::to_string(data).unwrap_or_default().into();
        let mut kept = self.kept();
        if kept.closed {
            return;
        }
        kept.last += 1;
        kept.bytes += data.len();
        let number = kept.last;
        kept.entries.push_back(Entry { number, name, data });
        while kept.entries.len() > self.most_entries
            || (kept.bytes > self.most_bytes && kept.entries.len() > 1)
        {
            if let Some(old) = kept.entries.pop_front() {
                kept.bytes -= old.data.len();
            }
        }
        drop(kept);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Says that there will be no more events.
    pub(crate) fn close(&self) {
        self.kept().closed = true;
        self.changed.send_modify(|version| *version += 1);
    }

    /// The number of the newest event, 0 if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.kept().last
    }

    /// What comes after the event numbered `after`, if it is there already.
    fn look(&self, after: u64) -> Option<Next> {
        let kept = self.kept();
        let first = kept.last + 1 - kept.entries.len() as u64;
        if after + 1 < first {
            return Some(Next::Missed(first - after - 1));
        }
        match kept.entries.get((after + 1 - first) as usize) {
            Some(entry) => Some(Next::Entry(entry.clone())),
            None => kept.closed.then_some(Next::End),
        }
    }

    /// Waits until there will be no more events.
    pub(crate) async fn closed(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if self.kept().closed || changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits for what comes after the event numbered `after`.
    pub(crate) async fn next(&self, after: u64) -> Next {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(next) = self.look(after) {
                return next;
            }
            if changed.changed().await.is_err() {
                return Next::End;
            }
        }
    }
}

/// The events after `after` as a stream that ends with the log; `guard` lives as long as it.
pub(crate) fn follow<G: Send + 'static>(
    log: Arc<EventLog>,
    after: u64,
    guard: G,
) -> impl Stream<Item = Next> + Send {
    stream::unfold(Some((log, after, guard)), |state| async move {
        let (log, after, guard) = state?;
        let next = log.next(after).await;
        let state = match &next {
            Next::Entry(entry) => Some((log, entry.number, guard)),
            Next::Missed(number) => Some((log, after + number, guard)),
            Next::End => return None,
        };
        Some((next, state))
    })
}

/// The same as server-sent events.
pub(crate) fn respond<G: Send + 'static>(
    log: Arc<EventLog>,
    after: u64,
    guard: G,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = follow(log, after, guard).map(|next| {
        Ok(match next {
            Next::Entry(entry) => Event::default()
                .id(entry.number.to_string())
                .event(entry.name)
                .data(&*entry.data),
            Next::Missed(number) => Event::default()
                .event("missed")
                .data(format!("{{\"event\":\"missed\",\"events\":{number}}}")),
            Next::End => Event::default().comment("end"),
        })
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(next: Next) -> (u64, String) {
        match next {
            Next::Entry(entry) => (entry.number, entry.data.to_string()),
            Next::Missed(number) => (number, "missed".to_owned()),
            Next::End => (0, "end".to_owned()),
        }
    }

    #[tokio::test]
    async fn readers_go_on_where_they_were() {
        let log = EventLog::new(10, 1000);
        log.push("token", &1);
        log.push("token", &2);
        assert_eq!(entry(log.next(0).await), (1, "1".to_owned()));
        assert_eq!(entry(log.next(1).await), (2, "2".to_owned()));
        log.close();
        log.push("token", &3);
        assert_eq!(log.next(2).await, Next::End);
        assert_eq!(log.next(99).await, Next::End);
    }

    #[tokio::test]
    async fn a_reader_too_far_behind_is_told() {
        let log = EventLog::new(2, 1000);
        for number in 0..5 {
            log.push("token", &number);
        }
        assert_eq!(log.next(0).await, Next::Missed(3));
        assert_eq!(entry(log.next(3).await).0, 4);
        let narrow = EventLog::new(100, 10);
        for _ in 0..100 {
            narrow.push("token", &"12345");
        }
        assert_eq!(narrow.next(0).await, Next::Missed(99));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let log = Arc::new(EventLog::new(10, 1000));
        let waiting = tokio::spawn({
            let log = log.clone();
            async move { log.next(0).await }
        });
        tokio::task::yield_now().await;
        log.push("token", &"x");
        assert_eq!(entry(waiting.await.unwrap()).0, 1);
        let closed = tokio::spawn({
            let log = log.clone();
            async move { log.closed().await }
        });
        tokio::task::yield_now().await;
        assert!(!closed.is_finished());
        log.close();
        closed.await.unwrap();
    }
}
