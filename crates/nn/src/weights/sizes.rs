//! What a model's weights will take in memory, known before a value is read.
//!
//! A model is loaded from [`Weights::sizes_only`](super::Weights::sizes_only) as it is loaded at all: layers ask for
//! their tensors, which are checked against the headers of the files, but nothing is read or kept. So what is counted is what
//! will be held, for every architecture, and there is no second list of tensors that could go its own way.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Precision, adapter_precision, matrix_bytes, table_precision};

/// What a tensor is for, on which depends in what form it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A large matrix of a linear layer.
    Matrix,
    /// A table of embeddings.
    Table,
    /// A factor of an adapter that is kept beside its matrix.
    Factor,
    /// Norms, biases, positions: held in f32.
    Values,
}

/// One tensor as it would be held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) kind: Use,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    /// In what form another model holds what seems to be the same matrix.
    pub(crate) held: Option<Precision>,
}

impl Size {
    /// In what form it is held where large matrices are held in `precision`; `None` for values.
    fn form(self, precision: Precision) -> Option<Precision> {
        match self.kind {
            Use::Matrix => Some(precision),
            Use::Table => Some(table_precision(precision)),
            Use::Factor => Some(adapter_precision(precision)),
            Use::Values => None,
        }
    }

    fn matrix_bytes(self, precision: Precision) -> u64 {
        let form = self.form(precision);
        form.map_or(0, |form| {
            matrix_bytes(form, self.outputs, self.inputs) as u64
        })
    }
}

/// The tensors of a model.
#[derive(Debug, Default)]
pub struct Sizes {
    tensors: Mutex<Vec<Size>>,
    /// Full names of those that the base checkpoint holds.
    names: Mutex<BTreeSet<String>>,
}

impl Sizes {
    fn tensors(&self) -> MutexGuard<'_, Vec<Size>> {
        self.tensors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, size: Size) {
        self.tensors().push(size);
    }

    /// Writes down that tensor `name` of the checkpoint is one of the model's.
    pub(crate) fn uses(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned());
    }

    /// Full names of the tensors of the checkpoint that the model is made of, adapters left out.
    pub fn names(&self) -> BTreeSet<String> {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Bytes of matrices, tables and adapters where large matrices are held in `precision` and `kernels` calculates.
    pub fn matrix_bytes(&self, precision: Precision) -> u64 {
        let tensors = self.tensors();
        tensors
            .iter()
            .map(|size| size.matrix_bytes(precision))
            .sum()
    }

    /// Bytes of norms, biases and the like.
    pub fn value_bytes(&self) -> u64 {
        let tensors = self.tensors();
        let values = tensors.iter().filter(|size| size.kind == Use::Values);
        values
            .map(|size| (size_of::<f32>() * size.outputs * size.inputs) as u64)
            .sum()
    }

    /// Of these, what other models of the pool hold already, as far as the beginnings of the tensors tell.
    pub fn shared_bytes(&self, precision: Precision) -> u64 {
        let tensors = self.tensors();
        let shared = tensors
            .iter()
            .filter(|size| size.held.is_some() && size.held == size.form(precision));
        shared.map(|size| size.matrix_bytes(precision)).sum()
    }
}
