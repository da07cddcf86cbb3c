//! A child process with a deadline and a post-mortem.
//!
//! A watchdog thread kills the process when its deadline passes, which ends whatever read or write
//! the parent is blocked in. Another keeps the end of what it prints to standard error, where the
//! reason of its death is.

use std::io::{BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::WorkerCommand;
use crate::error::{Trouble, one_line};
use crate::limits::Limits;

/// How much of what a worker prints to standard error is kept: the reason it died is at the end.
const MESSAGE_BYTES: usize = 4096;

/// A child process with a deadline.
#[derive(Debug)]
pub(crate) struct Process {
    shared: Arc<Shared>,
    watchdog: Option<JoinHandle<()>>,
    /// The end of what the process printed to standard error.
    messages: Option<JoinHandle<Vec<u8>>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    child: Child,
    deadline: Option<Instant>,
    timed_out: bool,
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock; if it did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for deadlines and kills the child when one passes, until told that it is over.
    fn watch(&self) {
        let mut state = self.lock();
        while !state.over {
            let now = Instant::now();
            let wait = state.deadline.map(|d| d.saturating_duration_since(now));
            state = match wait {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(wait) if wait.is_zero() => {
                    state.deadline = None;
                    state.timed_out = true;
                    // An error means that it has ended already.
                    let _ = state.child.kill();
                    state
                }
                Some(wait) => {
                    self.changed
                        .wait_timeout(state, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

impl Process {
    /// Starts a worker, its pipes in hand.
    pub(crate) fn spawn(
        command: &WorkerCommand,
    ) -> std::io::Result<(Self, ChildStdin, BufReader<ChildStdout>)> {
        let mut start = Command::new(&command.program);
        start
            .args(&command.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Ctrl-C on a terminal is for the parent, which may want to finish the page.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut start, 0);
        let mut child = start.spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(mut errors)) = pipes else {
            return Err(std::io::Error::other("a pipe to it is missing"));
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                child,
                deadline: None,
                timed_out: false,
                over: false,
            }),
            changed: Condvar::new(),
        });
        // From here on dropping the process ends the child.
        let mut process = Self {
            shared: Arc::clone(&shared),
            watchdog: None,
            messages: None,
        };
        let watchdog = std::thread::Builder::new().name("pdf-watchdog".to_owned());
        process.watchdog = Some(watchdog.spawn(move || shared.watch())?);
        let messages = std::thread::Builder::new().name("pdf-messages".to_owned());
        process.messages = Some(messages.spawn(move || last_bytes(&mut errors))?);
        Ok((process, input, BufReader::with_capacity(1 << 16, output)))
    }

    /// Kills the process in so many seconds, unless the deadline is cleared before.
    pub(crate) fn set_deadline(&self, seconds: u64) {
        self.shared.lock().deadline = Instant::now().checked_add(Duration::from_secs(seconds));
        self.shared.changed.notify_all();
    }

    /// Lets the process be.
    pub(crate) fn clear_deadline(&self) {
        self.shared.lock().deadline = None;
    }

    /// Ends the process, if it has not ended, and says why it failed.
    pub(crate) fn post_mortem(&mut self, limits: &Limits) -> Trouble {
        let status = self.end();
        let messages = self.messages.take().and_then(|m| m.join().ok());
        let messages = String::from_utf8_lossy(&messages.unwrap_or_default()).into_owned();
        let timed_out = self.shared.lock().timed_out;
        if timed_out || status.is_some_and(used_up_processor_time) {
            return Trouble::TimedOut {
                seconds: limits.max_seconds_per_page,
            };
        }
        // What Rust's allocator prints before it aborts.
        if messages.contains("memory allocation of") {
            return Trouble::OutOfMemory {
                limit_bytes: limits.worker_memory_bytes,
            };
        }
        let status = status.map_or_else(|| "no exit status".to_owned(), |s| s.to_string());
        let last_line = messages.lines().rev().find(|l| !l.trim().is_empty());
        let how = match last_line {
            Some(line) => format!("{status}: {}", one_line(line)),
            None => status,
        };
        Trouble::Crashed { how }
    }

    /// How the process ended, once it has closed its output.
    pub(crate) fn exit(&mut self) -> Option<ExitStatus> {
        self.end()
    }

    /// Gives a process that is ending a moment to end by itself, so that its own exit status is
    /// seen and not the kill's; then kills it.
    fn end(&mut self) -> Option<ExitStatus> {
        let mut state = self.shared.lock();
        for _ in 0..50 {
            match state.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => break,
            }
        }
        let _ = state.child.kill();
        state.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.over = true;
            // Errors mean that it has ended already.
            let _ = state.child.kill();
            let _ = state.child.wait();
        }
        self.shared.changed.notify_all();
        if let Some(watchdog) = self.watchdog.take() {
            let _ = watchdog.join();
        }
        if let Some(messages) = self.messages.take() {
            let _ = messages.join();
        }
    }
}

#[cfg(unix)]
fn used_up_processor_time(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(rustix::process::Signal::XCPU.as_raw())
}

#[cfg(not(unix))]
fn used_up_processor_time(_: ExitStatus) -> bool {
    false
}

/// Reads to the end and keeps the last [`MESSAGE_BYTES`].
fn last_bytes(from: &mut impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; MESSAGE_BYTES];
    while let Ok(n) = from.read(&mut chunk) {
        if n == 0 {
            break;
        }
        kept.extend_from_slice(&chunk[..n]);
        let extra = kept.len().saturating_sub(MESSAGE_BYTES);
        kept.drain(..extra);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_messages_is_kept() {
        let long: Vec<u8> = (0..20_000_u32).map(|i| i as u8).collect();
        assert_eq!(
            last_bytes(&mut long.as_slice()),
            long[20_000 - MESSAGE_BYTES..]
        );
        assert_eq!(last_bytes(&mut &b"short"[..]), b"short");
    }
}
