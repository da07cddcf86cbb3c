//! One copy of every matrix, for all models of a process.
//!
//! A retriever of the ColSmol family is a generator's own base under an adapter, so two models that are loaded
//! beside each other hold most of their matrices twice. A pool recognises them by their values, whatever file,
//! type and name they come from, and hands out the one that is there.
//!
//! Whether two tensors are equal is decided tensor by tensor, by the hash of all their values; nothing is hashed
//! before a matrix of the same size begins with the same values, so a model that is alone costs nothing.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use colibri_kernels::gemm::PackedMatrix;

use super::{
    Precision,
    adapter::Factors,
    hashes::{self, Hashes, TensorHash},
    packed::{Origin, PackedFiles},
    store::WeightStore,
};
use crate::Result;

/// Values at the beginning of a tensor that tell whether hashing is worth while.
const SAMPLE: usize = 1024;

/// The matrices that the models of a process hold.
#[derive(Debug)]
pub struct TensorPool {
    hashes: Hashes,
    packed: Option<PackedFiles>,
    held: Mutex<HashMap<Kind, Vec<Held>>>,
}

/// Matrices that may be one: equal form, size and beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    precision: Precision,
    outputs: usize,
    inputs: usize,
    beginning: TensorHash,
}

#[derive(Clone, Debug)]
struct Held {
    matrix: Weak<PackedMatrix>,
    /// Where its values are, for their hash.
    store: Arc<WeightStore>,
    name: String,
}

/// What `share` was given, and whether somebody held it already.
pub(super) struct Shared {
    pub(super) matrix: Arc<PackedMatrix>,
    pub(super) is_new: bool,
}

impl TensorPool {
    /// An empty pool; hashes of weight files are kept below `hashes`, if given.
    pub fn new(hashes: Option<PathBuf>) -> Self {
        Self {
            hashes: Hashes::new(hashes),
            packed: None,
            held: Mutex::default(),
        }
    }

    /// The same, with packed matrices kept below `dir`: a matrix that was loaded once is mapped from there.
    #[must_use]
    pub fn keep_packed(mut self, dir: Option<PathBuf>) -> Self {
        self.packed = dir.map(PackedFiles::new);
        self
    }

    /// The matrix that tensor `name` of `store` makes, with the factors `merged` added to it: the one that is kept on
    /// the disk, or what `pack` makes.
    pub(super) fn packed(
        &self,
        store: &WeightStore,
        name: &str,
        merged: Option<&Factors>,
        precision: Precision,
        (outputs, inputs): (usize, usize),
        pack: &mut dyn FnMut() -> Result<PackedMatrix>,
    ) -> Result<PackedMatrix> {
        let Some(packed) = &self.packed else {
            return pack();
        };
        let (values, Some(known)) = store.known(name, &self.hashes)? else {
            return pack();
        };
        let origin = Origin {
            file: &known.file,
            values,
            merged: merged.map(Factors::hash),
            precision,
            outputs,
            inputs,
        };
        packed.load(&origin, pack)
    }

    /// A hash of the first values of a tensor of `count`, or of all of them where they are known anyway.
    fn beginning(&self, store: &WeightStore, name: &str, count: usize) -> Result<TensorHash> {
        if self.packed.is_some() {
            return self.hash(store, name);
        }
        beginning(store, name, count)
    }

    /// The hash of a tensor's values.
    ///
    /// # Errors
    /// When it is missing or its file cannot be read.
    pub fn hash(&self, store: &WeightStore, name: &str) -> Result<[u8; 32]> {
        store.hash(name, &self.hashes)
    }

    /// A hash of the names below `prefix` and the values of their tensors.
    pub(super) fn fingerprint(&self, store: &WeightStore, prefix: &str) -> Result<TensorHash> {
        let mut hasher = blake3::Hasher::new();
        if store.is_made_up() {
            hasher.update(&self.hash(store, prefix)?);
        }
        for name in store.names() {
            let below = name
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('.'));
            if let Some(rest) = below {
                hasher.update(&(rest.len() as u64).to_le_bytes());
                hasher.update(rest.as_bytes());
                hasher.update(&self.hash(store, name)?);
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// In what form a matrix is held that begins as tensor `name` of `store` does.
    pub(super) fn held(
        &self,
        store: &WeightStore,
        name: &str,
        (outputs, inputs): (usize, usize),
    ) -> Result<Option<Precision>> {
        if self.lock().is_empty() {
            return Ok(None);
        }
        let beginning = self.beginning(store, name, outputs * inputs)?;
        let is_held = |precision: &Precision| {
            let kind = Kind {
                precision: *precision,
                outputs,
                inputs,
                beginning,
            };
            let held = self.lock();
            let same = held.get(&kind).into_iter().flatten();
            same.into_iter().any(|held| held.matrix.strong_count() > 0)
        };
        let forms = [
            Precision::F32,
            Precision::Bf16,
            Precision::Bf16Short,
            Precision::Int8,
            Precision::Int4,
        ];
        Ok(forms.into_iter().find(is_held))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Vec<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The matrix that tensor `name` of `store` makes in `precision`: the one that is held, or what `pack` makes.
    pub(super) fn share(
        &self,
        store: &Arc<WeightStore>,
        name: &str,
        precision: Precision,
        (outputs, inputs): (usize, usize),
        pack: &mut dyn FnMut() -> Result<PackedMatrix>,
    ) -> Result<Shared> {
        let kind = Kind {
            precision,
            outputs,
            inputs,
            beginning: self.beginning(store, name, outputs * inputs)?,
        };
        let candidates = {
            let mut held = self.lock();
            let candidates = held.entry(kind).or_default();
            candidates.retain(|held| held.matrix.strong_count() > 0);
            candidates.clone()
        };
        for held in candidates {
            let Some(matrix) = held.matrix.upgrade() else {
                continue;
            };
            if self.hash(&held.store, &held.name)? == self.hash(store, name)? {
                return Ok(Shared {
                    matrix,
                    is_new: false,
                });
            }
        }
        let size = (outputs, inputs);
        let matrix = Arc::new(self.packed(store, name, None, precision, size, pack)?);
        let new = Held {
            matrix: Arc::downgrade(&matrix),
            store: Arc::clone(store),
            name: name.to_owned(),
        };
        let mut held = self.lock();
        held.entry(kind).or_default().push(new);
        Ok(Shared {
            matrix,
            is_new: true,
        })
    }
}

/// A hash of the first values of a tensor of `count`.
fn beginning(store: &WeightStore, name: &str, count: usize) -> Result<TensorHash> {
    let mut sample = vec![0.0_f32; SAMPLE.min(count)];
    store.read(name, 0, &mut sample)?;
    let mut hasher = blake3::Hasher::new();
    hashes::update(&mut hasher, &sample);
    Ok(*hasher.finalize().as_bytes())
}
