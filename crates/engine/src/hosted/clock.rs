//! Time as a value, so that tests of what happens when a server is silent or busy do not wait.

use std::{future::Future, pin::Pin, time::Duration};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The next look at whether the caller wants to go on.
    Tick,
    /// The next attempt.
    Attempt(Duration),
    /// The moment at which a server that says nothing is given up.
    Silence(Duration),
    /// The moment at which an answer has taken too long altogether.
    Whole(Duration),
}

/// How often the caller is asked whether to go on while a server says nothing.
const TICK: Duration = Duration::from_millis(100);

/// Something that ends.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Waits.
pub trait Clock: Send + Sync {
    /// Ends when `what` is due, counted from now.
    fn wait(&self, what: Wait) -> Waiting<'_>;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wait(&self, what: Wait) -> Waiting<'_> {
        let span = match what {
            Wait::Tick => TICK,
            Wait::Attempt(span) | Wait::Silence(span) | Wait::Whole(span) => span,
        };
        Box::pin(tokio::time::sleep(span))
    }
}
