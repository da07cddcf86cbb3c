//! Aligned memory: packed weights, and scratch that a thread keeps from one call to the next.
//!
//! Scratch is taken from and given back to a list of its thread, so that kernels do not fault in fresh pages
//! at every call; nested calls simply take another piece.

#![expect(
    unsafe_code,
    reason = "advice to the operating system about fresh memory"
)]

use std::cell::RefCell;

/// Words in a cache line.
pub(crate) const LINE: usize = 16;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

/// Words that start on a cache line.
#[derive(Clone, Default)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// `words` zeros, rounded up to whole lines.
    pub(crate) fn zeroed(words: usize) -> Self {
        let mut lines = Vec::with_capacity(words.div_ceil(LINE));
        advise_large_pages(&lines);
        lines.resize(words.div_ceil(LINE), Line([0; LINE]));
        Self { lines }
    }

    /// Makes room for `words` words in all.
    pub(crate) fn reserve(&mut self, words: usize) {
        self.lines
            .reserve_exact(words.div_ceil(LINE).saturating_sub(self.lines.len()));
    }

    /// Changes the length to `words`, rounded up to whole lines; new words are zero.
    pub(crate) fn resize(&mut self, words: usize) {
        self.lines.resize(words.div_ceil(LINE), Line([0; LINE]));
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    pub(crate) fn words(&self) -> &[u32] {
        bytemuck::cast_slice(&self.lines)
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

/// Asks for large pages under the whole capacity of `lines`: weights are read from end to end, and with
/// pages of 4 KiB the walks of the page table cost a good part of the bandwidth.
#[cfg(all(target_os = "linux", not(miri)))]
fn advise_large_pages(lines: &Vec<Line>) {
    const LARGE_PAGE: usize = 2 << 20;
    const PAGE: usize = 4096;
    let start = lines.as_ptr().addr();
    let end = start + lines.capacity() * size_of::<Line>();
    let aligned = start.next_multiple_of(PAGE);
    if end.saturating_sub(aligned) >= 2 * LARGE_PAGE {
        let pointer = lines
            .as_ptr()
            .cast_mut()
            .cast::<u8>()
            .wrapping_add(aligned - start);
        // SAFETY: the range lies inside one allocation of ours; the advice changes no contents. A kernel
        // that refuses it leaves small pages, so the result does not matter.
        unsafe {
            libc::madvise(
                pointer.cast(),
                (end - aligned) / PAGE * PAGE,
                libc::MADV_HUGEPAGE,
            )
        };
    }
}

#[cfg(any(not(target_os = "linux"), miri))]
fn advise_large_pages(_: &Vec<Line>) {}

/// Asks the allocator to give blocks of 6 MiB and more back to the system as soon as they are freed, for the whole
/// process. Left alone, glibc's keeps what is as large as the largest block freed so far (up to 32 MiB) for later: a
/// decoded picture then stays beside the weights that are read after it. Buffers that come and go with every tile
/// are smaller. Nothing happens where there is another allocator.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, bytes) in [
        (libc::M_MMAP_THRESHOLD, 6 << 20),
        (libc::M_TRIM_THRESHOLD, 1 << 20),
    ] {
        // SAFETY: these only change when memory is returned; where they are refused, everything stays as it is.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// Gives what was freed back to the system, for the whole process: after a model has gone and before another is read,
/// whose matrices fit the holes badly.
pub fn return_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: only free memory is touched.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Runs `work` with at least `words` words of scratch, whose contents are whatever the last user left.
pub(crate) fn with_scratch<R>(words: usize, work: impl FnOnce(&mut [u32]) -> R) -> R {
    thread_local! {
        static FREE: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.words().len() < words {
        buffer = Buffer::zeroed(words.next_power_of_two());
    }
    let result = work(&mut buffer.words_mut()[..words]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// Asks for `len` values from `from` on, which may be any address, to be brought into the cache.
#[cfg(target_arch = "x86_64")]
pub(crate) fn prefetch(from: *const f32, len: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for at in (0..len).step_by(LINE) {
        // SAFETY: a prefetch reads nothing; of an address that cannot be read it does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast()) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch(_: *const f32, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_large_enough() {
        // Miri takes minutes for millions.
        let many = if cfg!(miri) { 3 << 10 } else { 3 << 20 };
        for words in [0, 1, 17, many] {
            let buffer = Buffer::zeroed(words);
            assert!(buffer.words().len() >= words);
            assert_eq!(buffer.words().as_ptr().addr() % 64, 0);
            assert!(buffer.words().iter().all(|&word| word == 0));
        }
    }

    #[test]
    fn nested_scratch_is_separate() {
        with_scratch(10, |outer| {
            outer.fill(1);
            with_scratch(10, |inner| inner.fill(2));
            assert_eq!(outer, [1; 10]);
        });
    }
}
