//! Ctrl-C: the first asks the work at hand to end well, the second ends the program.
//!
//! Only work that looks at the flag is asked; during anything else Ctrl-C ends the program at once.

use std::{
    io::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::error::{Error, Result};

/// 128 and the number of SIGINT, as shells have it.
pub(crate) const EXIT_CODE: u8 = 130;

#[derive(Debug, Default)]
struct Flags {
    /// The work at hand is to end.
    stop: AtomicBool,
    /// The work at hand looks at `stop`.
    listening: AtomicBool,
}

/// Watches for Ctrl-C.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    flags: Arc<Flags>,
    watching: OnceLock<()>,
}

/// As long as it lives, the first Ctrl-C only sets the flag.
#[derive(Debug)]
pub(crate) struct Listening<'a> {
    flags: &'a Flags,
}

impl Listening<'_> {
    /// The flag.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.flags.stop
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn is_stopped(&self) -> bool {
        self.flags.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.flags.listening.store(false, Ordering::Relaxed);
    }
}

impl Interrupt {
    /// Begins work that looks at the flag.
    ///
    /// # Errors
    /// When the system does not let us watch.
    pub(crate) fn listen(&self) -> Result<Listening<'_>> {
        self.watch()?;
        self.flags.stop.store(false, Ordering::Relaxed);
        self.flags.listening.store(true, Ordering::Relaxed);
        Ok(Listening { flags: &self.flags })
    }

    /// Ends the program if Ctrl-C was pressed: for places where nothing else can be stopped.
    pub(crate) fn end_if_stopped(&self) {
        if self.flags.stop.load(Ordering::Relaxed) {
            end();
        }
    }

    fn watch(&self) -> Result<()> {
        if self.watching.get().is_some() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Signals)?;
        let flags = self.flags.clone();
        let thread = std::thread::Builder::new().name("interrupt".to_owned());
        thread
            .spawn(move || {
                runtime.block_on(async {
                    while tokio::signal::ctrl_c().await.is_ok() {
                        pressed(&flags);
                    }
                });
            })
            .map_err(Error::Signals)?;
        self.watching.get_or_init(|| ());
        Ok(())
    }
}

fn pressed(flags: &Flags) {
    let listening = flags.listening.load(Ordering::Relaxed);
    if !listening || flags.stop.swap(true, Ordering::Relaxed) {
        end();
    }
    drop(std::io::stderr().write_all(b"\nstopping; press Ctrl-C again to end at once\n"));
}

fn end() -> ! {
    std::process::exit(EXIT_CODE.into())
}
