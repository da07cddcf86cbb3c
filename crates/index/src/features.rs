//! What a model saw on a page, kept so that the page need not be looked at again.
//!
//! One file a page below `features/`, written beside its place and renamed, with a checksum over everything: a
//! file that is damaged, cut, foreign or misplaced is as good as none. What is inside is the caller's; the key says
//! which content, page and settings it belongs to. The folder is a cache: it never grows beyond its bound (those
//! used longest ago leave first, by the files' times), and everything works without it.

use std::{
    collections::HashSet,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use crate::error::{Error, Result};

/// The folder in an index.
pub(crate) const DIR: &str = "features";
/// How the files end.
const END: &str = "feat";
/// What a file begins with: the form and its version.
const MAGIC: &[u8; 8] = b"COLFEAT1";
/// Magic, content, page, settings, length of the payload.
const HEADER_BYTES: usize = 8 + 32 + 4 + 32 + 8;
/// The checksum behind the payload.
const CHECK_BYTES: usize = 32;
/// No page's features are larger: beyond it a file is not ours.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Which page features belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureKey {
    content: [u8; 32],
    page: u32,
    settings: [u8; 32],
}

impl FeatureKey {
    /// Page `page` (from 1) of the document with this content hash, as it looks under `settings`, which must name
    /// everything else that the features depend on.
    pub fn new(content_hash: &str, page: u32, settings: &str) -> Self {
        Self {
            content: content(content_hash),
            page,
            settings: *blake3::hash(settings.as_bytes()).as_bytes(),
        }
    }

    fn header(&self, payload: usize) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&self.content);
        header.extend_from_slice(&self.page.to_le_bytes());
        header.extend_from_slice(&self.settings);
        header.extend_from_slice(&(payload as u64).to_le_bytes());
        header
    }

    fn file_name(&self) -> String {
        let hash = blake3::hash(&self.header(0));
        format!("{}.{END}", &hash.to_hex()[..32])
    }
}

/// Content hashes of any length as bytes.
fn content(content_hash: &str) -> [u8; 32] {
    *blake3::hash(content_hash.as_bytes()).as_bytes()
}

/// The features of an index's pages.
#[derive(Clone, Debug)]
pub struct Features {
    dir: PathBuf,
    max_bytes: u64,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FeatureStats {
    /// Files, one a page and way of looking.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Features {
    /// Those of the index in `index`, at most `max_bytes` of them. Nothing is opened or made yet.
    pub fn new(index: &Path, max_bytes: u64) -> Self {
        Self {
            dir: index.join(DIR),
            max_bytes,
        }
    }

    /// What is kept of a page; `None` if nothing is, or nothing that can be trusted.
    pub fn get(&self, key: &FeatureKey) -> Option<Vec<u8>> {
        let path = self.dir.join(key.file_name());
        let (found, payload) = read(&path)?;
        if found != *key {
            return None;
        }
        // Only the order of leaving depends on it.
        if let Ok(file) = fs_err::OpenOptions::new().append(true).open(&path) {
            let _ = file.file().set_modified(SystemTime::now());
        }
        Some(payload)
    }

    /// Keeps `payload` for a page, and lets others go where there is no room. Nothing is kept that is larger than
    /// the bound.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn put(&self, key: &FeatureKey, payload: &[u8]) -> Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let bytes = (HEADER_BYTES + payload.len() + CHECK_BYTES) as u64;
        if bytes > self.max_bytes.min(MAX_FILE_BYTES) {
            return Ok(());
        }
        let failed = |source| Error::Io {
            path: self.dir.clone(),
            action: "write",
            source,
        };
        fs_err::create_dir_all(&self.dir).map_err(failed)?;
        self.make_room(bytes).map_err(failed)?;
        let header = key.header(payload.len());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        hasher.update(payload);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let partial = format!("{}-{number}.partial", std::process::id());
        let partial = self.dir.join(partial);
        let write = || -> std::io::Result<()> {
            let mut file = fs_err::File::create(&partial)?;
            file.write_all(&header)?;
            file.write_all(payload)?;
            file.write_all(hasher.finalize().as_bytes())?;
            drop(file);
            fs_err::rename(&partial, self.dir.join(key.file_name()))
        };
        write().map_err(|error| {
            let _ = fs_err::remove_file(&partial);
            failed(error)
        })
    }

    /// Removes the files used longest ago until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> std::io::Result<()> {
        let mut files = self.files()?;
        let mut held: u64 = files.iter().map(|file| file.bytes).sum();
        if held + bytes <= self.max_bytes {
            return Ok(());
        }
        files.sort_by_key(|file| file.used);
        for file in files {
            if held + bytes <= self.max_bytes {
                break;
            }
            // Another process may have been quicker.
            let _ = fs_err::remove_file(&file.path);
            held -= file.bytes;
        }
        Ok(())
    }

    /// How much is kept; nothing where there is no folder.
    pub fn stats(&self) -> FeatureStats {
        let files = self.files().unwrap_or_default();
        FeatureStats {
            pages: files.iter().filter(|file| file.is_whole).count() as u64,
            bytes: files.iter().map(|file| file.bytes).sum(),
        }
    }

    /// Files that cannot be trusted, though they are where features are kept.
    pub(crate) fn damaged(&self) -> Vec<PathBuf> {
        let files = self.files().unwrap_or_default();
        let damaged = files.into_iter().filter(|file| {
            file.is_whole
                && read(&file.path).is_none_or(|(key, _)| {
                    file.path.file_name() != Some(std::ffi::OsStr::new(&key.file_name()))
                })
        });
        damaged.map(|file| file.path).collect()
    }

    /// Removes everything that belongs to none of these contents: features of documents that left, of documents
    /// that were never completed, what a crash left half written, what is damaged.
    ///
    /// # Errors
    /// When the folder cannot be read or a file not removed.
    pub(crate) fn retain(&self, content_hashes: impl IntoIterator<Item = String>) -> Result<()> {
        let live: HashSet<[u8; 32]> = content_hashes
            .into_iter()
            .map(|hash| content(&hash))
            .collect();
        let failed = |source| Error::Io {
            path: self.dir.clone(),
            action: "compact",
            source,
        };
        for file in self.files().map_err(failed)? {
            let keep = file.is_whole
                && read(&file.path).is_some_and(|(key, _)| live.contains(&key.content));
            if !keep {
                fs_err::remove_file(&file.path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The files of the folder that are ours by their names.
    fn files(&self) -> std::io::Result<Vec<KeptFile>> {
        let entries = match fs_err::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let end = path.extension().and_then(|end| end.to_str());
            // A file that has just been removed by another process is none.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file() && matches!(end, Some(END | "partial")) {
                files.push(KeptFile {
                    is_whole: end == Some(END),
                    bytes: metadata.len(),
                    used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    path,
                });
            }
        }
        Ok(files)
    }
}

struct KeptFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    is_whole: bool,
}

/// A file's key and payload, if all of it is as it was written.
fn read(path: &Path) -> Option<(FeatureKey, Vec<u8>)> {
    let (key, payload) = read_key(path)?;
    let mut file = fs_err::File::open(path).ok()?;
    let mut bytes = Vec::new();
    let expected = HEADER_BYTES + payload + CHECK_BYTES;
    std::io::Read::by_ref(&mut file)
        .take(expected as u64 + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    if bytes.len() != expected {
        return None;
    }
    let (contents, check) = bytes.split_at(HEADER_BYTES + payload);
    if blake3::hash(contents).as_bytes() != check {
        return None;
    }
    bytes.truncate(HEADER_BYTES + payload);
    bytes.drain(..HEADER_BYTES);
    Some((key, bytes))
}

/// A file's key and the length of its payload, by its first bytes and its length alone.
fn read_key(path: &Path) -> Option<(FeatureKey, usize)> {
    let mut file = fs_err::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    if length > MAX_FILE_BYTES {
        return None;
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).ok()?;
    let rest = header.strip_prefix(MAGIC)?;
    let (content, rest) = rest.split_first_chunk::<32>()?;
    let (page, rest) = rest.split_first_chunk::<4>()?;
    let (settings, rest) = rest.split_first_chunk::<32>()?;
    let payload = u64::from_le_bytes(rest.try_into().ok()?);
    let expected = payload.checked_add((HEADER_BYTES + CHECK_BYTES) as u64)?;
    let key = FeatureKey {
        content: *content,
        page: u32::from_le_bytes(*page),
        settings: *settings,
    };
    (expected == length).then_some((key, payload as usize))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(content: &str, page: u32) -> FeatureKey {
        FeatureKey::new(content, page, "settings")
    }

    /// Bytes of a file with a payload of 100.
    const FILE: u64 = (HEADER_BYTES + 100 + CHECK_BYTES) as u64;

    fn age(features: &Features, key: &FeatureKey, seconds: u64) {
        let path = features.dir.join(key.file_name());
        let file = fs_err::OpenOptions::new().append(true).open(path).unwrap();
        let time = SystemTime::now() - Duration::from_secs(seconds);
        file.file().set_modified(time).unwrap();
    }

    #[test]
    fn what_is_put_comes_back_for_its_key_only() {
        let index = tempfile::tempdir().unwrap();
        let features = Features::new(index.path(), 1 << 20);
        assert_eq!(features.get(&key("a", 1)), None);
        features.put(&key("a", 1), b"seen").unwrap();
        assert_eq!(features.get(&key("a", 1)), Some(b"seen".to_vec()));
        assert_eq!(features.get(&key("a", 2)), None);
        assert_eq!(features.get(&key("b", 1)), None);
        assert_eq!(features.get(&FeatureKey::new("a", 1, "others")), None);
        features.put(&key("a", 1), b"again").unwrap();
        assert_eq!(features.get(&key("a", 1)), Some(b"again".to_vec()));
        assert_eq!(features.stats().pages, 1);
    }

    #[test]
    fn the_bound_holds_and_the_longest_unused_leaves() {
        let index = tempfile::tempdir().unwrap();
        let features = Features::new(index.path(), 3 * FILE);
        for page in 1..=3 {
            features.put(&key("a", page), &[page as u8; 100]).unwrap();
            age(&features, &key("a", page), 1000 - u64::from(page));
        }
        // Used now, so the second is the oldest.
        assert!(features.get(&key("a", 1)).is_some());
        features.put(&key("a", 4), &[4; 100]).unwrap();
        assert_eq!(features.stats().bytes, 3 * FILE);
        assert!(features.get(&key("a", 1)).is_some() && features.get(&key("a", 2)).is_none());
        features.put(&key("a", 5), &[5; 1000]).unwrap();
        assert!(
            features.get(&key("a", 5)).is_none(),
            "larger than the bound"
        );
        assert_eq!(features.stats().pages, 3);
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let index = tempfile::tempdir().unwrap();
        let features = Features::new(index.path(), 1 << 20);
        features.put(&key("a", 1), &[7; 20]).unwrap();
        let path = features.dir.join(key("a", 1).file_name());
        let good = fs_err::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs_err::write(&path, &bad).unwrap();
            assert_eq!(features.get(&key("a", 1)), None, "byte {at}");
            fs_err::write(&path, &good[..at]).unwrap();
            assert_eq!(features.get(&key("a", 1)), None, "cut at {at}");
            assert_eq!(features.damaged(), std::slice::from_ref(&path));
        }
        fs_err::write(&path, &good).unwrap();
        assert!(features.damaged().is_empty());
        // A whole file of another page, put in its place.
        features.put(&key("a", 2), &[9; 20]).unwrap();
        fs_err::copy(features.dir.join(key("a", 2).file_name()), &path).unwrap();
        assert_eq!(features.get(&key("a", 1)), None);
        assert_eq!(features.damaged(), std::slice::from_ref(&path));
    }

    #[test]
    fn what_belongs_to_no_document_is_removed_and_nothing_foreign() {
        let index = tempfile::tempdir().unwrap();
        let features = Features::new(index.path(), 1 << 20);
        for content in ["stays", "left"] {
            features.put(&key(content, 1), b"seen").unwrap();
        }
        fs_err::write(features.dir.join("17-0.partial"), "half").unwrap();
        fs_err::write(features.dir.join("notes.txt"), "a person's own").unwrap();
        features.retain(["stays".to_owned()]).unwrap();
        assert!(features.get(&key("stays", 1)).is_some());
        assert!(features.get(&key("left", 1)).is_none());
        assert!(!features.dir.join("17-0.partial").exists());
        assert!(features.dir.join("notes.txt").exists());
        Features::new(&index.path().join("none"), 0)
            .retain([])
            .unwrap();
    }
}
