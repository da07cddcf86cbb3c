//! Scratch memory that is reused from one half-block to the next.
//!
//! A tower layer needs tens of megabytes of intermediate values. Asking the system for them anew at
//! every operation costs a page fault for each 4 KiB; a thread keeps its few largest buffers instead.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// Buffers kept per thread; a half-block uses at most this many at a time.
const MAX_KEPT: usize = 8;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of f32 whose contents are unspecified until written.
#[derive(Debug)]
pub struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// Takes a buffer of `len` values from this thread's store.
    pub fn take(len: usize) -> Self {
        let mut buffer = FREE.with_borrow_mut(|free| {
            let best = free
                .iter()
                .enumerate()
                .filter(|(_, b)| b.len() >= len)
                .min_by_key(|(_, b)| b.len());
            match best.map(|(index, _)| index) {
                Some(index) => free.swap_remove(index),
                None => free.pop().unwrap_or_default(),
            }
        });
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        Self { buffer, len }
    }

    /// Gives this thread's kept buffers back to the system.
    pub fn release() {
        FREE.with_borrow_mut(Vec::clear);
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that is ending has no store any more: the buffer is then simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            free.push(buffer);
            if free.len() > MAX_KEPT {
                free.sort_unstable_by_key(Vec::len);
                free.remove(0);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_reused() {
        Scratch::release();
        let address = {
            let mut first = Scratch::take(1000);
            first[999] = 1.0;
            first.as_ptr()
        };
        let second = Scratch::take(500);
        assert_eq!(second.len(), 500);
        assert_eq!(second.as_ptr(), address);
        assert_eq!(Scratch::take(2000).len(), 2000);
    }
}
