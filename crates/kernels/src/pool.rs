//! The threads behind [`crate::parallel`]: one pool for the program, made for regions of a few microseconds.
//!
//! A decode step is a few hundred regions of 10 to 100 µs with a little work between them. Waking a sleeping
//! thread takes as long as such a region, so a worker that has finished looks out for the next region for
//! [`SPINS`] rounds before it goes to sleep, and the caller never waits for a worker that has not begun: it
//! takes jobs itself and closes the region when none are left. Only one region runs at a time; a caller that
//! finds the pool taken (a nested region, a second thread) does its jobs alone, so that there are never
//! more busy threads than asked for.

#![expect(
    unsafe_code,
    reason = "workers call a closure that lives on the caller's stack"
)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Rounds of looking out for work before sleeping, some 50 µs.
const SPINS: usize = 20_000;
/// Rounds of waiting for the last job before giving the processor away.
const WAITING_SPINS: usize = 2_000;
/// Added to `entered` while no region is open.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A value on cache lines of its own (two: they are fetched in pairs): who looks out for it is not held up by what is written beside it.
#[repr(align(128))]
struct Apart<T>(T);

impl<T> std::ops::Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// What the caller and the workers share.
struct Pool {
    /// Whether a caller has the pool.
    taken: AtomicBool,
    /// Counts the regions opened, so that workers notice a new one.
    epoch: Apart<AtomicUsize>,
    /// Workers inside the open region, plus [`CLOSED`] when there is none.
    entered: Apart<AtomicUsize>,
    /// Workers that may enter: those numbered below.
    limit: AtomicUsize,
    next_job: Apart<AtomicUsize>,
    num_jobs: AtomicUsize,
    /// Written by the caller that has the pool while the region is closed and nobody is inside; read by
    /// workers that have entered.
    job: UnsafeCell<Option<Job<'static>>>,
    /// The first panic of a worker in this region.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Workers asleep.
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// The most workers asked for so far.
    wanted: AtomicUsize,
    /// Workers started.
    started: Mutex<usize>,
}

// SAFETY: `job` is the only field that is not `Sync` by itself. It is written only between a successful
// `take` and the opening of the region, when no worker is inside, and read only by workers inside; entering
// and leaving are ordered by `entered`. What it points to is `Sync`.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool {
    taken: AtomicBool::new(false),
    epoch: Apart(AtomicUsize::new(0)),
    entered: Apart(AtomicUsize::new(CLOSED)),
    limit: AtomicUsize::new(0),
    next_job: Apart(AtomicUsize::new(0)),
    num_jobs: AtomicUsize::new(0),
    job: UnsafeCell::new(None),
    panic: Mutex::new(None),
    asleep: AtomicUsize::new(0),
    sleep: Mutex::new(()),
    wake: Condvar::new(),
    wanted: AtomicUsize::new(0),
    started: Mutex::new(0),
};

/// Runs `job(0)`, …, `job(num_jobs - 1)` on the caller's thread and up to `threads - 1` others. Returns `false`,
/// without having run any, when the pool is taken.
pub(crate) fn try_run(threads: usize, num_jobs: usize, job: Job<'_>) -> bool {
    if POOL.taken.swap(true, Ordering::Acquire) {
        return false;
    }
    POOL.start_workers(threads - 1);
    // SAFETY: the pool is ours and the last region is closed with nobody inside, so nobody reads the cell. The
    // lifetime is stretched, but `Region::drop` lets nobody keep the reference beyond this function.
    unsafe {
        *POOL.job.get() = Some(std::mem::transmute::<Job<'_>, Job<'static>>(job));
    }
    POOL.limit.store(threads - 1, Ordering::Relaxed);
    POOL.next_job.store(0, Ordering::Relaxed);
    POOL.num_jobs.store(num_jobs, Ordering::Relaxed);
    let region = Region;
    // Not a store: a worker that comes late to the last region may be counting itself in and out.
    POOL.entered.fetch_and(!CLOSED, Ordering::AcqRel);
    POOL.epoch.fetch_add(1, Ordering::SeqCst);
    if POOL.asleep.load(Ordering::SeqCst) > 0 {
        // Taking the lock orders this with a worker that is about to sleep.
        drop(POOL.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        POOL.wake.notify_all();
    }
    POOL.work(job);
    drop(region);
    true
}

/// An open region; dropping it closes it, also when a job of the caller panics.
struct Region;

impl Drop for Region {
    fn drop(&mut self) {
        // Let no further worker take a job, should this be a panic.
        POOL.next_job.store(usize::MAX / 2, Ordering::Relaxed);
        let mut inside = POOL.entered.fetch_or(CLOSED, Ordering::AcqRel);
        let mut rounds = 0;
        while inside & !CLOSED != 0 {
            rounds += 1;
            if rounds < WAITING_SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
            inside = POOL.entered.load(Ordering::Acquire);
        }
        // SAFETY: the region is closed and the last worker has left.
        unsafe { *POOL.job.get() = None };
        let panic = POOL
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        POOL.taken.store(false, Ordering::Release);
        if let Some(panic) = panic
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl Pool {
    /// Takes jobs until none are left.
    fn work(&self, job: Job<'_>) {
        let num_jobs = self.num_jobs.load(Ordering::Relaxed);
        loop {
            let index = self.next_job.fetch_add(1, Ordering::Relaxed);
            if index >= num_jobs {
                return;
            }
            job(index);
        }
    }

    /// Makes sure that `count` workers exist. A thread that the system refuses is done without.
    fn start_workers(&'static self, count: usize) {
        if self.wanted.fetch_max(count, Ordering::Relaxed) >= count {
            return;
        }
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        while *started < count {
            let number = *started;
            let builder = std::thread::Builder::new().name(format!("kernels-{number}"));
            if builder.spawn(move || self.serve(number)).is_err() {
                break;
            }
            *started += 1;
        }
    }

    /// The life of a worker.
    fn serve(&self, number: usize) {
        let mut seen = self.epoch.load(Ordering::Acquire);
        // The region that started this worker may still be open.
        self.enter(number);
        loop {
            seen = self.wait_for_region(seen);
            self.enter(number);
        }
    }

    /// Waits until the number of regions is another than `seen` and returns it.
    fn wait_for_region(&self, seen: usize) -> usize {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let mut epoch = self.epoch.load(Ordering::SeqCst);
        while epoch == seen {
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
            epoch = self.epoch.load(Ordering::SeqCst);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        epoch
    }

    /// Takes part in the open region, if there is one.
    fn enter(&self, number: usize) {
        let before = self.entered.fetch_add(1, Ordering::AcqRel);
        // The limit is read inside: a region cannot change while somebody is in it.
        if before & CLOSED == 0 && number < self.limit.load(Ordering::Relaxed) {
            // SAFETY: this worker is inside an open region: the cell was written before it opened and is not
            // written again before this worker has left.
            if let Some(job) = unsafe { *self.job.get() } {
                let result = catch_unwind(AssertUnwindSafe(|| self.work(job)));
                if let Err(panic) = result {
                    let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(panic);
                }
            }
        }
        self.entered.fetch_sub(1, Ordering::AcqRel);
    }
}
