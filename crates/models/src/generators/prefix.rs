//! Keys and values of prompts that were read, for the next prompt that begins in the same way.
//!
//! Questions about one page, and the turns of one conversation, share everything up to the new words. A position
//! of a prompt is its id and, for a visual token, the picture it belongs to; what a layer holds at a position
//! depends on the positions up to it alone, and kernels give a row of a batch the same bits as the row alone, so
//! an answer is the same whether its prompt was read in one piece or two.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use colibri_nn::KvCache;

use crate::Result;

/// A prefix shorter than this is not worth keeping another one for.
const LEAST_TOKENS: usize = 16;

/// What stands at a position: an id and, for a visual token, the hash of its picture and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    id: u32,
    picture: Option<([u8; 32], u32)>,
}

/// Positions of a prompt whose `image` ids stand, in order, for the tokens of `pictures`: hash and number.
pub(super) fn positions(ids: &[u32], image: u32, pictures: &[([u8; 32], usize)]) -> Vec<Position> {
    let mut tokens = pictures
        .iter()
        .flat_map(|&(hash, count)| (0..count as u32).map(move |at| (hash, at)));
    ids.iter()
        .map(|&id| Position {
            id,
            picture: if id == image { tokens.next() } else { None },
        })
        .collect()
}

/// A written token.
pub(super) fn written(id: u32) -> Position {
    Position { id, picture: None }
}

/// What was read, and what the layers remember of it.
#[derive(Debug)]
pub(super) struct Prefix {
    pub(super) positions: Vec<Position>,
    pub(super) cache: KvCache,
}

/// The prefixes that are kept, the one used last at the end.
#[derive(Debug)]
pub(super) struct Prefixes {
    max_bytes: usize,
    kept: Mutex<VecDeque<Prefix>>,
}

impl Prefixes {
    /// Nothing yet; never more than `max_bytes` afterwards.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            kept: Mutex::default(),
        }
    }

    /// Takes out the kept prefix that has the most in common with a prompt, cut to that; at least the last
    /// position of the prompt is left to be read. Without one, makes room for `bytes` of a new cache.
    pub(super) fn take(&self, prompt: &[Position], bytes: usize) -> Result<Option<Prefix>> {
        let mut kept = self.lock();
        let common = |prefix: &Prefix| {
            let same = prefix
                .positions
                .iter()
                .zip(prompt)
                .take_while(|(kept, asked)| kept == asked)
                .count();
            same.min(prompt.len().saturating_sub(1))
        };
        let best = (0..kept.len())
            .map(|at| (common(&kept[at]), at))
            .max()
            .filter(|&(same, _)| same >= LEAST_TOKENS);
        let Some((same, at)) = best else {
            self.shrink(&mut kept, bytes);
            return Ok(None);
        };
        let Some(mut prefix) = kept.remove(at) else {
            return Ok(None);
        };
        drop(kept);
        prefix.cache.truncate(same)?;
        prefix.positions.truncate(same);
        Ok(Some(prefix))
    }

    /// Keeps a prefix, if it is not too large; others leave for it, the longest unused first.
    pub(super) fn keep(&self, mut prefix: Prefix) {
        prefix.positions.truncate(prefix.cache.len());
        let bytes = prefix.cache.num_bytes();
        if bytes > self.max_bytes || prefix.positions.len() < LEAST_TOKENS {
            return;
        }
        let mut kept = self.lock();
        self.shrink(&mut kept, bytes);
        kept.push_back(prefix);
    }

    /// Bytes kept.
    pub(super) fn num_bytes(&self) -> usize {
        self.lock()
            .iter()
            .map(|prefix| prefix.cache.num_bytes())
            .sum()
    }

    /// Keeps nothing any longer.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn shrink(&self, kept: &mut VecDeque<Prefix>, bytes: usize) {
        let held = |kept: &VecDeque<Prefix>| -> usize {
            kept.iter().map(|prefix| prefix.cache.num_bytes()).sum()
        };
        while !kept.is_empty() && held(kept).saturating_add(bytes) > self.max_bytes {
            kept.pop_front();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Prefix>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_its_id_and_its_picture() {
        let (a, b) = ([1; 32], [2; 32]);
        let one = positions(&[5, 9, 9, 6], 9, &[(a, 2)]);
        assert_eq!(one, positions(&[5, 9, 9, 6], 9, &[(a, 2)]));
        let other = positions(&[5, 9, 9, 6], 9, &[(b, 2)]);
        let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        assert_eq!(same, 1);
        let shifted = positions(&[5, 9, 9, 6], 9, &[(a, 1), (b, 1)]);
        assert_eq!(one[1], shifted[1]);
        assert_ne!(one[2], shifted[2]);
    }
}
