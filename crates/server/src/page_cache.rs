//! Drawn pages, so that looking at the hits of a second question draws nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use colibri_engine::picture::Format;

/// What a picture depends on: pages are never changed under their identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) page: i64,
    pub(crate) longest_edge: u32,
    pub(crate) format: Format,
}

#[derive(Debug, Default)]
struct Kept {
    pictures: HashMap<Key, (Bytes, u64)>,
    bytes: usize,
    clock: u64,
}

/// Pictures up to a number of bytes, least recently used out first.
#[derive(Debug)]
pub(crate) struct PageCache {
    kept: Mutex<Kept>,
    most_bytes: usize,
}

impl PageCache {
    /// A cache of at most `most_bytes`.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self {
            kept: Mutex::default(),
            most_bytes,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The picture, if it is kept.
    pub(crate) fn get(&self, key: Key) -> Option<Bytes> {
        let mut kept = self.kept();
        kept.clock += 1;
        let now = kept.clock;
        let (bytes, used) = kept.pictures.get_mut(&key)?;
        *used = now;
        Some(bytes.clone())
    }

    /// Keeps a picture.
    pub(crate) fn put(&self, key: Key, picture: Bytes) {
        let mut kept = self.kept();
        kept.clock += 1;
        let now = kept.clock;
        kept.bytes += picture.len();
        if let Some((old, _)) = kept.pictures.insert(key, (picture, now)) {
            kept.bytes -= old.len();
        }
        while kept.bytes > self.most_bytes {
            let oldest = kept.pictures.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            if let Some((gone, _)) = kept.pictures.remove(&oldest) {
                kept.bytes -= gone.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = PageCache::new(10);
        let key = |page| Key {
            page,
            longest_edge: 320,
            format: Format::WebP,
        };
        cache.put(key(1), Bytes::from_static(b"1234"));
        cache.put(key(2), Bytes::from_static(b"1234"));
        assert!(cache.get(key(1)).is_some());
        cache.put(key(3), Bytes::from_static(b"1234"));
        assert!(cache.get(key(2)).is_none());
        assert!(cache.get(key(1)).is_some() && cache.get(key(3)).is_some());
        cache.put(key(4), Bytes::from_static(b"more than ten bytes"));
        assert!(cache.get(key(4)).is_none());
    }
}
