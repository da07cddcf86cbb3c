//! All weight files of one checkpoint as one table of tensors.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    file::WeightFile,
    hashes::{Hashes, Known, TensorHash},
    made_up::MadeUp,
};
use crate::{Error, Result};

/// The single file of a small checkpoint.
const SINGLE: &str = "model.safetensors";
/// The table of a sharded checkpoint.
const INDEX: &str = "model.safetensors.index.json";

#[derive(serde::Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The tensors of one checkpoint, in one file or several.
#[derive(Debug)]
pub struct WeightStore {
    files: Vec<WeightFile>,
    /// Tensor name → index into `files`.
    tensors: BTreeMap<String, usize>,
    /// In place of files: every tensor exists, in any shape.
    made_up: Option<MadeUp>,
}

impl WeightStore {
    /// Opens the weights in a folder: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// When there are none, or a file is damaged.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let single = folder.join(SINGLE);
        let index = folder.join(INDEX);
        if single.is_file() || !index.is_file() {
            return Self::open_files(&[single]);
        }
        let io = |source| Error::Io {
            path: index.clone(),
            source,
        };
        let text = fs_err::read(&index).map_err(io)?;
        let parsed: ShardIndex = serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: index.clone(),
            source,
        })?;
        let mut shards: Vec<&String> = parsed.weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        let mut paths = Vec::with_capacity(shards.len());
        for shard in shards {
            // A shard is a file of this folder: a name that leads elsewhere is an attack or a mistake.
            if shard.contains(['/', '\\', ':', '\0']) || shard == ".." || shard.is_empty() {
                return Err(Error::Header {
                    path: index,
                    reason: format!("`{shard}` is not the name of a file beside it"),
                });
            }
            paths.push(folder.join(shard));
        }
        let store = Self::open_files(&paths)?;
        for (name, shard) in &parsed.weight_map {
            if !store.contains(name) {
                return Err(Error::MissingTensor {
                    name: name.clone(),
                    files: vec![folder.join(shard)],
                });
            }
        }
        Ok(store)
    }

    /// Opens the given files as one checkpoint.
    ///
    /// # Errors
    /// When a file is damaged or two files define the same tensor.
    pub fn open_files(paths: &[PathBuf]) -> Result<Self> {
        let mut files = Vec::with_capacity(paths.len());
        let mut tensors: BTreeMap<String, usize> = BTreeMap::new();
        for path in paths {
            let file = WeightFile::open(path)?;
            for name in file.entries().keys() {
                if let Some(&first) = tensors.get(name) {
                    let first: &WeightFile = &files[first];
                    return Err(Error::DuplicateTensor {
                        name: name.clone(),
                        first: first.path().to_owned(),
                        second: path.clone(),
                    });
                }
                tensors.insert(name.clone(), files.len());
            }
            files.push(file);
        }
        Ok(Self {
            files,
            tensors,
            made_up: None,
        })
    }

    /// A store without files whose values are made up: it has every tensor that is asked for. For measuring.
    pub fn made_up(seed: u64) -> Self {
        Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
            made_up: Some(MadeUp { seed }),
        }
    }

    pub(crate) fn is_made_up(&self) -> bool {
        self.made_up.is_some()
    }

    /// Whether a tensor of this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.is_made_up() || self.tensors.contains_key(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if it exists.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let file = &self.files[*self.tensors.get(name)?];
        Some(&file.entries()[name].shape)
    }

    /// The files, in the order given.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files
            .iter()
            .map(|file| file.path().to_owned())
            .collect()
    }

    /// Bytes of values read so far, to be hashed or loaded.
    pub fn bytes_read(&self) -> u64 {
        self.files.iter().map(WeightFile::bytes_read).sum()
    }

    /// Number of values in all tensors.
    pub fn num_parameters(&self) -> u64 {
        self.files
            .iter()
            .flat_map(|file| file.entries().values())
            .map(|entry| entry.shape.iter().map(|&dim| dim as u64).product::<u64>())
            .sum()
    }

    /// Checks that a tensor exists with the given shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`].
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        if self.is_made_up() {
            return Ok(());
        }
        let file = self.file_of(name)?;
        let found = &file.entries()[name].shape;
        if found != shape {
            return Err(Error::TensorShape {
                path: file.path().to_owned(),
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: found.clone(),
            });
        }
        Ok(())
    }

    /// Reads elements `start .. start + out.len()` (row-major) as f32.
    ///
    /// # Errors
    /// When the tensor is missing or cannot be read.
    pub fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<()> {
        if let Some(source) = self.made_up {
            source.fill(name, start, out);
            return Ok(());
        }
        self.file_of(name)?.read(name, start, out)
    }

    /// Reads a whole tensor as f32 after checking its shape.
    ///
    /// # Errors
    /// When the tensor is missing, of another shape, or cannot be read.
    pub fn read_all(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.expect(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        self.read(name, 0, &mut values)?;
        Ok(values)
    }

    /// The hash of a tensor's values; equal for equal values, whatever their type in the file.
    pub(super) fn hash(&self, name: &str, hashes: &Hashes) -> Result<TensorHash> {
        Ok(self.known(name, hashes)?.0)
    }

    /// That hash, and the file it is of, which made-up tensors are not in.
    pub(super) fn known(
        &self,
        name: &str,
        hashes: &Hashes,
    ) -> Result<(TensorHash, Option<Arc<Known>>)> {
        if let Some(source) = self.made_up {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&source.seed.to_le_bytes());
            hasher.update(name.as_bytes());
            return Ok((*hasher.finalize().as_bytes(), None));
        }
        let file = self.file_of(name)?;
        let known = hashes.of(file)?;
        match known.tensors.get(name) {
            Some(&hash) => Ok((hash, Some(known))),
            None => Err(Error::TensorType {
                path: file.path().to_owned(),
                name: name.to_owned(),
                found: file.entries()[name].type_name.clone(),
            }),
        }
    }

    /// Bytes of a tensor in its file, if it exists.
    pub fn num_bytes(&self, name: &str) -> Option<u64> {
        let entry = &self.files[*self.tensors.get(name)?].entries()[name];
        let values: u64 = entry.shape.iter().map(|&dim| dim as u64).product();
        Some(values * entry.element_type.map_or(1, |kind| kind.num_bytes() as u64))
    }

    fn file_of(&self, name: &str) -> Result<&WeightFile> {
        match self.tensors.get(name) {
            Some(&index) => Ok(&self.files[index]),
            None => Err(Error::MissingTensor {
                name: name.to_owned(),
                files: self.paths(),
            }),
        }
    }
}
