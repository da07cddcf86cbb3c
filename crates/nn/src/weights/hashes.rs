//! What a tensor's values are, in 32 bytes.
//!
//! BLAKE3 over the values in a canonical form: two bytes a value (the upper half of its f32) where every value is
//! exactly a bfloat16, four otherwise. So a bfloat16 file and its f32 or f16 copy give equal hashes, and a
//! published bfloat16 file is hashed as it lies on the disk. Bits count: 0 and -0 differ.
//!
//! Gigabytes are hashed once: results are kept on the disk, in one file for each weight file, and believed while
//! path, size and times of that file are the same.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use colibri_kernels::parallel;
use half::f16;

use super::{
    disk,
    file::WeightFile,
    header::{ElementType, Entry},
};
use crate::{Error, Result};

/// The hash of a tensor's values.
pub(crate) type TensorHash = [u8; 32];

/// Form of the files in the folder; another one is hashed anew.
const VERSION: u32 = 1;

/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// The hashes of all tensors of the weight files met so far.
#[derive(Debug)]
pub(crate) struct Hashes {
    dir: Option<PathBuf>,
    known: Mutex<HashMap<Identity, Arc<Known>>>,
}

/// A weight file whose tensors have been hashed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) file: Identity,
    pub(super) tensors: BTreeMap<String, TensorHash>,
}

/// What is looked at to tell whether a file is still the one that was hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(super) struct Identity {
    pub(super) path: PathBuf,
    bytes: u64,
    modified_nanos: u64,
    /// Last change of the file's own record, which a program cannot set back (Unix); 0 elsewhere.
    changed_nanos: i64,
}

impl Identity {
    /// Everything besides the path.
    pub(super) fn text(&self) -> String {
        format!(
            "{} {} {}",
            self.bytes, self.modified_nanos, self.changed_nanos
        )
    }
}

/// What is kept on the disk.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    version: u32,
    file: Identity,
    tensors: BTreeMap<String, String>,
}

impl Hashes {
    /// Kept below `dir`, or in memory only.
    pub(crate) fn new(dir: Option<PathBuf>) -> Self {
        Self {
            dir,
            known: Mutex::default(),
        }
    }

    /// The hashes of all tensors of `file` that can be read.
    pub(super) fn of(&self, file: &WeightFile) -> Result<Arc<Known>> {
        let identity = identity(file)?;
        if let Some(known) = self.lock().get(&identity) {
            return Ok(Arc::clone(known));
        }
        let kept = self.dir.as_ref().map(|dir| place(dir, file.path()));
        let read = kept
            .as_ref()
            .and_then(|path| read_kept(path, &identity, file.entries()));
        let tensors = if let Some(hashes) = read {
            hashes
        } else {
            let hashes = hash_file(file)?;
            if let Some(path) = &kept {
                // A folder that cannot be written costs time at the next start, and nothing else.
                let _ = write_kept(path, &identity, &hashes);
            }
            hashes
        };
        let known = Arc::new(Known {
            file: identity.clone(),
            tensors,
        });
        self.lock().insert(identity, Arc::clone(&known));
        Ok(known)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds values, as they lie in a file, to what is hashed.
pub(super) fn update(hasher: &mut blake3::Hasher, values: &[f32]) {
    let mut bytes = Vec::new();
    for values in values.chunks(CHUNK_BYTES / size_of::<f32>()) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        hasher.update(&bytes);
    }
}

/// Of the file that is open, whatever has taken its path since.
fn identity(file: &WeightFile) -> Result<Identity> {
    let io = |source| Error::Io {
        path: file.path().to_owned(),
        source,
    };
    let path = fs_err::canonicalize(file.path()).map_err(io)?;
    let metadata = file.metadata()?;
    #[cfg(unix)]
    let changed_nanos = {
        use std::os::unix::fs::MetadataExt;
        metadata
            .ctime()
            .wrapping_mul(1_000_000_000)
            .wrapping_add(metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let changed_nanos = 0;
    Ok(Identity {
        bytes: metadata.len(),
        path,
        modified_nanos: disk::modified_nanos(&metadata) as u64,
        changed_nanos,
    })
}

fn place(dir: &Path, file: &Path) -> PathBuf {
    let name = disk::name_of(file.as_os_str().as_encoded_bytes());
    dir.join(name).with_extension("json")
}

/// `None` unless the file is there, whole, of this form and about exactly these tensors.
fn read_kept(
    path: &Path,
    identity: &Identity,
    entries: &BTreeMap<String, Entry>,
) -> Option<BTreeMap<String, TensorHash>> {
    let kept: Kept = serde_json::from_slice(&fs_err::read(path).ok()?).ok()?;
    if kept.version != VERSION || kept.file != *identity {
        return None;
    }
    let mut hashes = BTreeMap::new();
    for (name, entry) in entries {
        if entry.element_type.is_some() {
            let hash = blake3::Hash::from_hex(kept.tensors.get(name)?).ok()?;
            hashes.insert(name.clone(), *hash.as_bytes());
        }
    }
    Some(hashes)
}

fn write_kept(
    path: &Path,
    identity: &Identity,
    hashes: &BTreeMap<String, TensorHash>,
) -> std::io::Result<()> {
    let hex = |hash: &TensorHash| blake3::Hash::from_bytes(*hash).to_hex().to_string();
    let kept = Kept {
        version: VERSION,
        file: identity.clone(),
        tensors: hashes
            .iter()
            .map(|(name, hash)| (name.clone(), hex(hash)))
            .collect(),
    };
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    disk::replace(path, &[&serde_json::to_vec(&kept)?])
}

fn hash_file(file: &WeightFile) -> Result<BTreeMap<String, TensorHash>> {
    let readable: Vec<(&String, &Entry, ElementType)> = file
        .entries()
        .iter()
        .filter_map(|(name, entry)| Some((name, entry, entry.element_type?)))
        .collect();
    let results: Mutex<Vec<(String, Result<TensorHash>)>> = Mutex::default();
    parallel::for_each(readable.len(), u64::MAX, |at| {
        let (name, entry, element_type) = readable[at];
        let hash = hash_tensor(file, entry, element_type);
        results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.clone(), hash));
    });
    results
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_iter()
        .map(|(name, hash)| Ok((name, hash?)))
        .collect()
}

fn hash_tensor(file: &WeightFile, entry: &Entry, element_type: ElementType) -> Result<TensorHash> {
    let count = entry.shape.iter().product::<usize>();
    match element_type {
        ElementType::Bf16 => {
            let mut hasher = narrow_hasher();
            for_each_chunk(file, entry, 2 * count, &mut |bytes| {
                hasher.update(bytes);
                true
            })?;
            Ok(*hasher.finalize().as_bytes())
        }
        ElementType::F32 => hash_wide(file, entry, 4 * count, &|bytes, out| {
            out.extend_from_slice(bytes);
        }),
        ElementType::F16 => hash_wide(file, entry, 2 * count, &|bytes, out| {
            for pair in bytes.chunks_exact(2) {
                let value = f16::from_le_bytes([pair[0], pair[1]]).to_f32();
                out.extend_from_slice(&value.to_le_bytes());
            }
        }),
    }
}

/// First as if every value were a bfloat16, and in full once one is not, mostly the first.
fn hash_wide(
    file: &WeightFile,
    entry: &Entry,
    num_bytes: usize,
    widen: &dyn Fn(&[u8], &mut Vec<u8>),
) -> Result<TensorHash> {
    let mut hasher = narrow_hasher();
    let (mut wide, mut halves) = (Vec::new(), Vec::new());
    let narrow = for_each_chunk(file, entry, num_bytes, &mut |bytes| {
        wide.clear();
        halves.clear();
        widen(bytes, &mut wide);
        for value in wide.chunks_exact(4) {
            if value[0] != 0 || value[1] != 0 {
                return false;
            }
            halves.extend_from_slice(&value[2..]);
        }
        hasher.update(&halves);
        true
    })?;
    if !narrow {
        hasher = blake3::Hasher::new();
        hasher.update(b"f32");
        for_each_chunk(file, entry, num_bytes, &mut |bytes| {
            wide.clear();
            widen(bytes, &mut wide);
            hasher.update(&wide);
            true
        })?;
    }
    Ok(*hasher.finalize().as_bytes())
}

fn narrow_hasher() -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"bf16");
    hasher
}

/// Reads a tensor's bytes piece by piece until `each` says stop; whether it was read to the end.
fn for_each_chunk(
    file: &WeightFile,
    entry: &Entry,
    num_bytes: usize,
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<bool> {
    let mut buffer = vec![0; CHUNK_BYTES.min(num_bytes)];
    let mut done = 0;
    while done < num_bytes {
        let len = CHUNK_BYTES.min(num_bytes - done);
        file.read_bytes(entry.offset + done as u64, &mut buffer[..len])?;
        if !each(&buffer[..len]) {
            return Ok(false);
        }
        done += len;
    }
    Ok(true)
}
