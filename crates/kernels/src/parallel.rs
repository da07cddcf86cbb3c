//! Parallel regions. Every kernel that uses more than one thread goes through [`for_each`].
//!
//! A region is a number of independent jobs handed out one at a time, so that a thread held up by other
//! work on the machine takes fewer of them. Work that is too small to repay waking another thread stays on
//! the caller's.

#![expect(unsafe_code, reason = "threads write disjoint rows of one buffer")]

use std::ops::Range;

use crate::gemm::split;
use crate::pool;
use crate::rows::RowsMut;

/// Estimated duration below which a region stays on the caller's thread, in nanoseconds. Handing work to a
/// thread that is looking out for it takes one or two microseconds.
pub const MIN_PARALLEL_NANOS: u64 = 10_000;

/// Number of threads that take part in a region, the caller's included: as many as rayon is set to use.
pub fn num_threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `job(0)`, …, `job(num_jobs - 1)`, each exactly once, on several threads when the whole is estimated
/// to take longer than [`MIN_PARALLEL_NANOS`] on one.
///
/// A region inside another, or beside one of another thread, runs on its caller's thread alone.
///
/// # Panics
/// If a job does.
pub fn for_each(num_jobs: usize, estimated_nanos: u64, job: impl Fn(usize) + Sync) {
    if num_jobs > 1 && estimated_nanos >= MIN_PARALLEL_NANOS {
        let threads = num_threads().min(num_jobs);
        if threads > 1 && pool::try_run(threads, num_jobs, &job) {
            return;
        }
    }
    (0..num_jobs).for_each(job);
}

/// Rows in a block of [`for_each_block`], about: 96 rows of 3072 `f32` are 1.2 MB, so that what one step of a block
/// writes for the next stays in the second level of cache or just behind it.
const BLOCK_ROWS: usize = 96;
/// Weights of a half-block from which on they are read for twice as many rows at a time: the second level holds little of
/// them.
pub const WIDE_BYTES: usize = 8 << 20;
/// Rows in a block of such weights, about.
pub const WIDE_BLOCK_ROWS: usize = 2 * BLOCK_ROWS;
/// Rows in the least block: whole tiles on every path. Blocks are whole numbers of these.
const GRAIN_ROWS: usize = 12;
/// Weights of a half-block from which on they are not read anew for every few rows: what a third level of cache holds.
pub const LARGE_BYTES: usize = 24 << 20;
/// Rows in a block where weights are large, about: they bound the memory between two products.
pub const LARGE_BLOCK_ROWS: usize = 384;
/// Rows for each thread below which products are shared out by panels of weights and not by rows.
const MIN_ROWS_PER_THREAD: usize = 48;

/// Cuts `num_rows` rows into blocks and runs `job(rows, parts)` for each, `parts` being these rows of every buffer
/// (`num_rows` rows each, row-major). Several steps in a row (norm, product, activation, product) that treat rows
/// apart need no barrier between them this way, and their results stay in the cache of the thread.
///
/// Few rows are one block on the caller's thread, outside any region, so that the steps themselves may be. So is every
/// block where `weight_bytes`, the weights that all steps read, are more than the caches hold: each thread would read
/// all of them from memory for every block, and shared out they are read once for many more rows.
///
/// # Panics
/// If a buffer is not `num_rows` rows of equal length.
pub fn for_each_block<const N: usize>(
    num_rows: usize,
    estimated_nanos: u64,
    weight_bytes: usize,
    buffers: [&mut [f32]; N],
    job: impl Fn(Range<usize>, [&mut [f32]; N]) + Sync,
) {
    if num_rows == 0 {
        return;
    }
    let buffers = buffers.map(|buffer| {
        assert!(
            buffer.len().is_multiple_of(num_rows),
            "a buffer of {} values for {num_rows} rows is a bug",
            buffer.len()
        );
        (SharedMut::new(buffer.as_mut_ptr()), buffer.len() / num_rows)
    });
    let threads = num_threads();
    let is_large = weight_bytes >= LARGE_BYTES;
    let ranges: Vec<Range<usize>> =
        if num_rows < MIN_ROWS_PER_THREAD * threads || estimated_nanos < MIN_PARALLEL_NANOS {
            split(num_rows, 1).collect()
        } else if is_large {
            split(num_rows, num_rows.div_ceil(LARGE_BLOCK_ROWS)).collect()
        } else {
            let is_wide = weight_bytes >= WIDE_BYTES;
            let most = if is_wide { WIDE_BLOCK_ROWS } else { BLOCK_ROWS };
            falling(num_rows, threads, most)
        };
    let run = |index: usize| {
        let range = ranges[index].clone();
        let parts = buffers.map(|(data, width)| {
            // SAFETY: all buffers are borrowed mutably for the whole region and have `num_rows` rows of `width`
            // values; the ranges do not overlap and each belongs to exactly one job.
            unsafe {
                let start = data.get().add(range.start * width);
                std::slice::from_raw_parts_mut(start, range.len() * width)
            }
        });
        job(range, parts);
    };
    if is_large {
        (0..ranges.len()).for_each(run);
    } else {
        for_each(ranges.len(), estimated_nanos, run);
    }
}

/// Blocks of at most `most` rows that become smaller towards the end, so that threads which are not equally fast still end together.
fn falling(num_rows: usize, threads: usize, most: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < num_rows {
        let left = num_rows - start;
        let rows = (left / (2 * threads) / GRAIN_ROWS * GRAIN_ROWS).clamp(2 * GRAIN_ROWS, most);
        ranges.push(start..start + rows.min(left));
        start += rows.min(left);
    }
    ranges
}

/// A pointer into a buffer that several jobs write at different places.
pub(crate) struct SharedMut<T>(*mut T);

// Derived, both would ask the same of what it points to.
impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<T> {}

// SAFETY: the pointer is only a place; every use of it is an `unsafe` block that states why its target is
// not shared.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    pub(crate) fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// Runs `job(row, values)` for every row of `x`, in parallel under the same rule as [`for_each`].
pub(crate) fn for_each_row(
    mut x: RowsMut<'_>,
    estimated_nanos: u64,
    job: impl Fn(usize, &mut [f32]) + Sync,
) {
    let (num_rows, num_cols, stride) = (x.num_rows(), x.num_cols(), x.stride());
    let block = num_rows.div_ceil(4 * num_threads()).max(1);
    let data = SharedMut::new(x.as_mut_ptr());
    for_each(num_rows.div_ceil(block), estimated_nanos, |index| {
        for row in index * block..((index + 1) * block).min(num_rows) {
            // SAFETY: `x` is borrowed mutably for the whole region, its constructor checked that every row
            // lies inside the slice and that rows do not overlap, and each row belongs to exactly one job.
            let values =
                unsafe { std::slice::from_raw_parts_mut(data.get().add(row * stride), num_cols) };
            job(row, values);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_runs_once() {
        for nanos in [0, u64::MAX] {
            let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            for_each(counts.len(), nanos, |index| {
                counts[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 1)
            );
        }
    }

    #[test]
    fn blocks_cover_all_rows_of_all_buffers_once() {
        for (num_rows, weight_bytes) in [0, 1, 50, 97, 1000]
            .into_iter()
            .flat_map(|rows| [(rows, 0), (rows, WIDE_BYTES), (rows, LARGE_BYTES)])
        {
            let (mut narrow, mut wide) = (vec![0.0; num_rows], vec![0.0; 3 * num_rows]);
            let buffers = [narrow.as_mut_slice(), wide.as_mut_slice()];
            for_each_block(
                num_rows,
                u64::MAX,
                weight_bytes,
                buffers,
                |rows, [narrow, wide]| {
                    assert_eq!((narrow.len(), wide.len()), (rows.len(), 3 * rows.len()));
                    for (row, value) in rows.zip(narrow) {
                        *value += row as f32;
                    }
                    for value in wide {
                        *value += 1.0;
                    }
                },
            );
            assert!(
                narrow
                    .iter()
                    .enumerate()
                    .all(|(at, &value)| value == at as f32)
            );
            assert!(wide.iter().all(|&value| value == 1.0));
        }
    }

    #[test]
    fn many_short_regions_from_several_threads_lose_no_job() {
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        for_each(7, u64::MAX, |_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3 * 2000 * 7);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        for _ in 0..20 {
            let result = std::panic::catch_unwind(|| {
                for_each(64, u64::MAX, |index| assert_ne!(index, 40, "wanted"));
            });
            assert!(result.is_err());
            let count = AtomicUsize::new(0);
            for_each(64, u64::MAX, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 64);
        }
    }

    #[test]
    fn regions_may_be_nested() {
        let total = AtomicUsize::new(0);
        for_each(4, u64::MAX, |_| {
            for_each(5, u64::MAX, |_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.load(Ordering::Relaxed), 20);
    }
}
