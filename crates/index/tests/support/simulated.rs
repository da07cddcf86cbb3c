//! A file system that can lose power, and one that can be full.
//!
//! Files are real files in a real folder, so that segments can be mapped; beside them stands what would
//! survive a power cut: the bytes as of the last sync of the file, and the names as of the last sync of
//! the folder. Before every operation an image of the disk after a power cut is put aside, several times
//! with different fates for what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use colibri_index::{FileSystem, Storage, StorageFile};

use super::Numbers;

/// What becomes of operations that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They are lost.
    Lost,
    /// They all reach the disk: the process was killed, the machine runs on.
    Kept,
    /// Each of them reaches the disk, or does not, or does in part.
    Torn(u64),
}

/// A disk after a power cut.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) dir: PathBuf,
    /// What the test was doing: set by [`Disk::phase`].
    pub(crate) phase: usize,
    /// Which operation was about to run.
    pub(crate) operation: String,
    pub(crate) fate: Fate,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Truncate(u64),
}

#[derive(Clone, Debug, Default)]
struct FileState {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// The name is on the disk.
    name_synced: bool,
    /// The file was removed, and the folder not synced since.
    removed: bool,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, FileState>,
    images: Vec<Image>,
    phase: usize,
    /// Bytes that may still be written; `None` without limit.
    space: Option<u64>,
    /// Syncs do nothing: a disk that lies, to see that the tests would notice.
    lies: bool,
}

/// The simulated disk of one index.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    images_dir: Option<PathBuf>,
    state: Arc<Mutex<State>>,
}

impl Disk {
    /// A disk whose images go to `images_dir`.
    pub(crate) fn with_images(dir: &Path, images_dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            images_dir: Some(images_dir.to_owned()),
            state: Arc::default(),
        }
    }

    /// A disk with room for a number of bytes.
    pub(crate) fn with_space(dir: &Path, space: u64) -> Self {
        let disk = Self {
            dir: dir.to_owned(),
            images_dir: None,
            state: Arc::default(),
        };
        disk.set_space(Some(space));
        disk
    }

    pub(crate) fn set_space(&self, space: Option<u64>) {
        self.state.lock().unwrap().space = space;
    }

    /// From now on syncs do nothing.
    pub(crate) fn lie(&self) {
        self.state.lock().unwrap().lies = true;
    }

    /// Images from now on belong to step `phase` of the test.
    pub(crate) fn phase(&self, phase: usize) {
        self.state.lock().unwrap().phase = phase;
    }

    pub(crate) fn images(&self) -> Vec<Image> {
        self.state.lock().unwrap().images.clone()
    }

    /// Puts images of a power cut at this moment aside.
    pub(crate) fn cut_power(&self, operation: &str) {
        let Some(images_dir) = &self.images_dir else {
            return;
        };
        let mut state = self.state.lock().unwrap();
        let count = state.images.len() as u64;
        for fate in [
            Fate::Lost,
            Fate::Kept,
            Fate::Torn(count + 1),
            Fate::Torn(count + 1000),
        ] {
            let dir = images_dir.join(state.images.len().to_string());
            self.write_image(&state, &dir, fate);
            let image = Image {
                dir,
                phase: state.phase,
                operation: operation.to_owned(),
                fate,
            };
            state.images.push(image);
        }
    }

    fn write_image(&self, state: &State, target: &Path, fate: Fate) {
        fs_err::create_dir_all(target.join("segments")).unwrap();
        // The catalogue is SQLite's: a copy of its files is what a killed process leaves.
        for name in ["FORMAT", "catalog.sqlite", "catalog.sqlite-wal"] {
            if self.dir.join(name).exists() {
                fs_err::copy(self.dir.join(name), target.join(name)).unwrap();
            }
        }
        let mut numbers = Numbers::new(if let Fate::Torn(seed) = fate { seed } else { 0 });
        let mut reaches_disk = || match fate {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::Torn(_) => numbers.below(2) == 0,
        };
        for (path, file) in &state.files {
            if (!file.name_synced && !reaches_disk()) || (file.removed && reaches_disk()) {
                continue;
            }
            let mut bytes = file.synced.clone();
            for change in &file.unsynced {
                if !reaches_disk() {
                    continue;
                }
                let part = matches!(fate, Fate::Torn(_)) && !reaches_disk();
                apply(&mut bytes, change, part);
            }
            fs_err::write(
                target.join("segments").join(path.file_name().unwrap()),
                bytes,
            )
            .unwrap();
        }
    }

    fn before(&self, operation: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.cut_power(&format!("{operation} {name}"));
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change, in_part: bool) {
    match change {
        Change::Write {
            offset,
            bytes: written,
        } => {
            let len = if in_part {
                written.len() / 2
            } else {
                written.len()
            };
            let start = *offset as usize;
            let end = start + len;
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(&written[..len]);
        }
        Change::Truncate(len) => bytes.resize(*len as usize, 0),
    }
}

impl Storage for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        FileSystem.create_dir(path)
    }

    fn open(&self, path: &Path, new: bool) -> io::Result<Box<dyn StorageFile>> {
        self.before("open", path);
        let real = FileSystem.open(path, new)?;
        let mut state = self.state.lock().unwrap();
        state.files.entry(path.to_owned()).or_default();
        Ok(Box::new(File {
            disk: self.clone(),
            path: path.to_owned(),
            real,
        }))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.before("sync folder", path);
        let mut state = self.state.lock().unwrap();
        if !state.lies {
            state.files.retain(|_, file| !file.removed);
            for file in state.files.values_mut() {
                file.name_synced = true;
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        FileSystem.list(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.before("remove", path);
        FileSystem.remove(path)?;
        if let Some(file) = self.state.lock().unwrap().files.get_mut(path) {
            file.removed = true;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct File {
    disk: Disk,
    path: PathBuf,
    real: Box<dyn StorageFile>,
}

impl File {
    fn remember(&self, change: Change) {
        let mut state = self.disk.state.lock().unwrap();
        state
            .files
            .get_mut(&self.path)
            .expect("an open file")
            .unsynced
            .push(change);
    }
}

impl StorageFile for File {
    fn num_bytes(&self) -> io::Result<u64> {
        self.real.num_bytes()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.before("write", &self.path);
        let space = self.disk.state.lock().unwrap().space;
        let fits = space.map_or(bytes.len(), |space| bytes.len().min(space as usize));
        self.real.write_at(offset, &bytes[..fits])?;
        self.remember(Change::Write {
            offset,
            bytes: bytes[..fits].to_vec(),
        });
        if let Some(space) = space {
            self.disk.set_space(Some(space - fits as u64));
        }
        if fits < bytes.len() {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.disk.before("truncate", &self.path);
        self.real.truncate(len)?;
        self.remember(Change::Truncate(len));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.before("sync", &self.path);
        let mut state = self.disk.state.lock().unwrap();
        if !state.lies {
            let file = state.files.get_mut(&self.path).expect("an open file");
            let changes = std::mem::take(&mut file.unsynced);
            for change in &changes {
                apply(&mut file.synced, change, false);
            }
        }
        Ok(())
    }
}
