//! What this machine can do: the rates that measurements of kernels are compared with.
//!
//! Machines are noisy and shared, so a rate means something only beside the peak measured in the same run. On a
//! machine that is busy with other work, [`Clock::Processor`] with one thread still gives a usable figure.

#![expect(
    unsafe_code,
    reason = "a tile over operands that never leave the first level of cache"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::gemm::Precision;
use crate::isa::Isa;
use crate::memory::Buffer;
use crate::micro::Tile;
use crate::parallel;
use crate::simd::{Kernels, MAX_PANEL_WIDTH, MAX_TILE_ROWS};

/// Steps of the tile that is timed, so many that its start and end do not count.
const STEPS: usize = 20_000;

/// Operations (two for each product) a second that the inner tile of `precision` reaches on all threads with
/// operands in the first level of cache: the best of `tries` short runs.
///
/// # Panics
/// If the running machine does not have the instruction set.
pub fn operations_per_second(isa: Isa, precision: Precision, clock: Clock, tries: usize) -> f64 {
    let kernels = Kernels::of(isa);
    let rows = kernels.tile_rows;
    let tile = Kernels::tile(
        precision.tiles(kernels),
        rows,
        kernels.panel_width / kernels.lanes,
    );
    let values_per_word = 4 / precision.words(4);
    let repeats = 10;
    let best = clock.best_of(tries, || {
        parallel::for_each(parallel::num_threads(), u64::MAX, |_| {
            let operand = Buffer::zeroed(STEPS);
            let mut sums = Buffer::zeroed(MAX_TILE_ROWS * MAX_PANEL_WIDTH);
            for _ in 0..repeats {
                // SAFETY: all rows are the same `STEPS` words, every step of the panel is the same line, and
                // the sums have room for the largest tile.
                unsafe {
                    tile(&Tile {
                        words: STEPS,
                        left: black_box(operand.words().as_ptr()),
                        left_stride: 0,
                        right: operand.words().as_ptr(),
                        right_stride: 0,
                        sums: sums.words_mut().as_mut_ptr(),
                        sums_stride: MAX_PANEL_WIDTH,
                        accumulate: false,
                        ahead: 0,
                    });
                }
            }
            black_box(sums.words());
        });
    });
    let products = rows * kernels.panel_width * STEPS * values_per_word * repeats;
    2.0 * (products * parallel::num_threads()) as f64 / best.as_secs_f64()
}

/// Bytes a second that all threads together read from a buffer much larger than the caches.
pub fn bytes_per_second(clock: Clock, tries: usize) -> f64 {
    const WORDS: usize = 64 << 20;
    let buffer = Buffer::zeroed(WORDS);
    let parts: Vec<&[u32]> = buffer.words().chunks(1 << 16).collect();
    let best = clock.best_of(tries, || {
        parallel::for_each(parts.len(), u64::MAX, |part| {
            black_box(parts[part].iter().fold(0, |all, word| all | word));
        });
    });
    (4 * WORDS) as f64 / best.as_secs_f64()
}

/// What `best_of` reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// Time that passes.
    #[default]
    Wall,
    /// Time that the processors spend on this program, divided by the number of threads: leaves out what other
    /// programs take. Where the system does not tell, the same as `Wall`.
    Processor,
}

impl Clock {
    /// The shortest of `tries` runs of `work`.
    pub fn best_of(self, tries: usize, mut work: impl FnMut()) -> Duration {
        let time = |_| {
            let start = self.now();
            work();
            self.now().saturating_sub(start)
        };
        let best = (0..tries.max(1)).map(time).min().unwrap_or_default();
        best.max(Duration::from_nanos(1))
    }

    fn now(self) -> Duration {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        match self {
            Self::Processor => match processor_time() {
                Some(time) => time / parallel::num_threads() as u32,
                None => START.elapsed(),
            },
            Self::Wall => START.elapsed(),
        }
    }
}

#[cfg(target_os = "linux")]
fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a place for one timespec.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    (status == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(not(target_os = "linux"))]
fn processor_time() -> Option<Duration> {
    None
}
