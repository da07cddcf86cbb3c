//! Packed matrices kept on the disk: at the next start they are mapped instead of read and packed.
//!
//! One folder for each weight file, named by its path, with a note of what that file was; another file at the same path
//! empties it. In it one file for each matrix, named by everything it depends on: the values of the tensor (their
//! hash, which is computed once and believed while path, size and times of the weight file are the same), its shape,
//! the precision, the instruction set and the form of packing, and the factors of an adapter merged into it.
//!
//! Nothing found there is believed: sizes are checked against what is asked for, and the contents against a hash,
//! unless the file has been checked before and nobody has touched it since (size, times and number of the file, in a
//! small file beside it). What does not fit is packed anew and replaced. Files are written under another name and
//! renamed, so that nobody maps half of one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use colibri_kernels::gemm::{Foreign, PackedMatrix, Parts, packing};

use super::{
    Precision, disk,
    hashes::{Identity, TensorHash},
};
use crate::mmap::Mapped;

const MAGIC: &[u8; 8] = b"COLIPACK";
/// Where the panels begin: on a page.
const BODY: usize = 4096;
/// Bytes of a hash.
const HASH: usize = 32;
/// Name of the note about the weight file.
const SOURCE: &str = "source.json";
/// Endings of packed matrices and of what says that one has been checked.
const ENDING: &str = "packed";
const CHECKED: &str = "checked";

/// Matrices with fewer values are packed faster than their file is opened.
const LEAST_VALUES: usize = 1 << 12;

/// Packed matrices of all models below one folder.
#[derive(Debug)]
pub(super) struct PackedFiles {
    dir: PathBuf,
}

/// What a packed matrix is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// The weight file.
    pub(crate) file: &'a Identity,
    /// The values of the tensor.
    pub(crate) values: TensorHash,
    /// What was added to them.
    pub(crate) merged: Option<TensorHash>,
    pub(crate) precision: Precision,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

/// The folder as a whole, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptWeights {
    /// The weight file, as far as it is known.
    pub file: Option<PathBuf>,
    /// The folder of what was packed from it.
    pub folder: PathBuf,
    /// Bytes in it.
    pub bytes: u64,
}

#[derive(PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Source {
    file: PathBuf,
    identity: String,
}

/// Weight files from which packed matrices are kept below `dir`, sorted by path; a folder that does not exist has none.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn list_packed(dir: &Path) -> std::io::Result<Vec<KeptWeights>> {
    let mut kept = Vec::new();
    for folder in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        let bytes = entries(&folder)?
            .iter()
            .map(|path| fs_err::metadata(path).map_or(0, |metadata| metadata.len()))
            .sum();
        kept.push(KeptWeights {
            file: read_source(&folder).map(|source| source.file),
            folder,
            bytes,
        });
    }
    kept.sort_by(|a, b| (&a.file, &a.folder).cmp(&(&b.file, &b.folder)));
    Ok(kept)
}

/// Removes one of the folders that [`list_packed`] gave. Models that are loaded keep what they have mapped.
///
/// # Errors
/// When a file cannot be removed.
pub fn remove_packed(kept: &KeptWeights) -> std::io::Result<()> {
    for path in entries(&kept.folder)? {
        fs_err::remove_file(path)?;
    }
    fs_err::remove_dir(&kept.folder)
}

fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    match fs_err::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read_source(folder: &Path) -> Option<Source> {
    serde_json::from_slice(&fs_err::read(folder.join(SOURCE)).ok()?).ok()
}

impl PackedFiles {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The matrix made from `origin`: the one that is kept, or what `pack` makes, which is kept from then on. A folder
    /// that cannot be written costs time at the next start, and nothing else.
    pub(super) fn load<E>(
        &self,
        origin: &Origin<'_>,
        pack: impl FnOnce() -> Result<PackedMatrix, E>,
    ) -> Result<PackedMatrix, E> {
        if origin.outputs * origin.inputs < LEAST_VALUES {
            return pack();
        }
        let key = key(origin);
        let source = &origin.file.path;
        let folder = self
            .dir
            .join(disk::name_of(source.as_os_str().as_encoded_bytes()));
        let path = folder
            .join(disk::name_of(key.as_bytes()))
            .with_extension(ENDING);
        let key = blake3::hash(key.as_bytes()).into();
        if let Some(matrix) = read(&path, origin, key) {
            return Ok(matrix);
        }
        let matrix = pack()?;
        // Not marked as checked: whether it came to the disk whole is seen at the next start.
        let _ = prepare(&folder, origin.file).and_then(|()| write(&path, key, &matrix));
        Ok(matrix)
    }
}

/// Makes the folder, and empties it when it is about another file than the present one.
fn prepare(folder: &Path, file: &Identity) -> std::io::Result<()> {
    let source = Source {
        file: file.path.clone(),
        identity: file.text(),
    };
    if read_source(folder).as_ref() == Some(&source) {
        return Ok(());
    }
    fs_err::create_dir_all(folder)?;
    for path in entries(folder)? {
        fs_err::remove_file(path)?;
    }
    disk::replace(&folder.join(SOURCE), &[&serde_json::to_vec(&source)?])
}

/// Everything the packed words depend on.
fn key(origin: &Origin<'_>) -> String {
    let hex = |hash: TensorHash| blake3::Hash::from_bytes(hash).to_hex();
    format!(
        "{} {:?} {}x{} {} {}",
        packing(),
        origin.precision,
        origin.outputs,
        origin.inputs,
        hex(origin.values),
        origin.merged.map(hex).unwrap_or_default(),
    )
}

/// The header: magic, hash of the key, hash of the body, words of panels, scales, factors and escapes.
struct Header {
    key: TensorHash,
    body: TensorHash,
    panels: usize,
    scales: usize,
    factors: usize,
    escapes: usize,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BODY);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.body);
        for count in [self.panels, self.scales, self.factors, self.escapes] {
            bytes.extend_from_slice(&(count as u64).to_le_bytes());
        }
        bytes.resize(BODY, 0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_at_checked(MAGIC.len())?;
        let (key, rest) = rest.split_at_checked(HASH)?;
        let (body, rest) = rest.split_at_checked(HASH)?;
        let count = |at: usize| {
            let bytes = rest.get(8 * at..8 * at + 8)?.try_into().ok()?;
            usize::try_from(u64::from_le_bytes(bytes)).ok()
        };
        (magic == MAGIC).then_some(Self {
            key: key.try_into().ok()?,
            body: body.try_into().ok()?,
            panels: count(0)?,
            scales: count(1)?,
            factors: count(2)?,
            escapes: count(3)?,
        })
    }

    /// Words after the header.
    fn words(&self) -> Option<usize> {
        let scales = self.scales.checked_mul(2)?;
        let beside = self.factors.checked_add(self.escapes)?;
        self.panels.checked_add(scales)?.checked_add(beside)
    }
}

/// `None` unless the file is there, whole, and exactly what is asked for.
fn read(path: &Path, origin: &Origin<'_>, key: TensorHash) -> Option<PackedMatrix> {
    let file = fs_err::File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let len = usize::try_from(metadata.len()).ok()?;
    if !metadata.is_file() || len < BODY {
        return None;
    }
    let map = Mapped::new(&file, len)?;
    let (header, body) = map.as_ref().split_at_checked(BODY)?;
    let header = Header::decode(header)?;
    let fits = header.key == key && header.words()?.checked_mul(4)? == body.len();
    if !fits {
        return None;
    }
    let checked = path.with_extension(CHECKED);
    let state = state(&metadata);
    if fs_err::read_to_string(&checked).ok() != Some(state.clone()) {
        if *blake3::hash(body).as_bytes() != header.body {
            return None;
        }
        let _ = disk::replace(&checked, &[state.as_bytes()]);
    }
    let words: &[u32] = bytemuck::try_cast_slice(body).ok()?;
    let (_panels, words) = words.split_at(header.panels);
    let (scales, words) = words.split_at(header.scales);
    let (compensation, words) = words.split_at(header.scales);
    let (factors, escapes) = words.split_at(header.factors);
    let (scales, factors) = (
        bytemuck::cast_slice(scales).to_vec(),
        bytemuck::cast_slice(factors).to_vec(),
    );
    let (compensation, escapes) = (compensation.to_vec(), escapes.to_vec());
    let rest = Parts {
        panels: &[],
        scales: &scales,
        compensation: &compensation,
        factors: (!factors.is_empty()).then_some(&factors),
        escapes: (!escapes.is_empty()).then_some(&escapes),
    };
    let memory: Foreign = Arc::new(map);
    let shape = [origin.outputs, origin.inputs];
    PackedMatrix::from_parts(origin.precision, shape, (memory, BODY), &rest)
}

/// What changes when a file is written to.
fn state(metadata: &std::fs::Metadata) -> String {
    let modified = disk::modified_nanos(metadata);
    #[cfg(unix)]
    let more = {
        use std::os::unix::fs::MetadataExt;
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let more = ();
    format!("{} {modified} {more:?}", metadata.len())
}

fn write(path: &Path, key: TensorHash, matrix: &PackedMatrix) -> std::io::Result<()> {
    let parts = matrix.parts();
    let factors = parts.factors.unwrap_or_default();
    let escapes = parts.escapes.unwrap_or_default();
    let body: [&[u8]; 5] = [
        bytemuck::cast_slice(parts.panels),
        bytemuck::cast_slice(parts.scales),
        bytemuck::cast_slice(parts.compensation),
        bytemuck::cast_slice(factors),
        bytemuck::cast_slice(escapes),
    ];
    let mut hasher = blake3::Hasher::new();
    for part in body {
        hasher.update(part);
    }
    let header = Header {
        key,
        body: *hasher.finalize().as_bytes(),
        panels: parts.panels.len(),
        scales: parts.scales.len(),
        factors: factors.len(),
        escapes: escapes.len(),
    };
    disk::replace(
        path,
        &[
            &header.encode(),
            body[0],
            body[1],
            body[2],
            body[3],
            body[4],
        ],
    )
}
