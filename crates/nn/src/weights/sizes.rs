//! What a model's weights will take in memory, known before a value is read.
//!
//! A model is loaded from [`Weights::sizes_only`](super::Weights::sizes_only) as it is loaded at all: layers ask for
//! their tensors, which are checked against the headers of the files, but nothing is read or kept. So what is counted is what
//! will be held, for every architecture, and there is no second list of tensors that could go its own way.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Precision, adapter_precision, decoding_precision, matrix_bytes, table_precision};

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

impl Use {
    /// In what form it is held where large matrices are held in `precision`; `decodes` says whether it is read for every
    /// token. `None` for values.
    pub(crate) fn form(self, precision: Precision, decodes: bool) -> Option<Precision> {
        let form = match self {
            Self::Matrix => precision,
            Self::Table => table_precision(precision),
            Self::Factor => return Some(adapter_precision(precision)),
            Self::Values => return None,
        };
        Some(if decodes {
            decoding_precision(form)
        } else {
            form
        })
    }
}

/// One tensor as it would be held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) kind: Use,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    /// Whether it is read for every token of an answer.
    pub(crate) decodes: bool,
    /// In what form another model holds what seems to be the same matrix.
    pub(crate) held: Option<Precision>,
}

impl Size {
    fn form(self, precision: Precision) -> Option<Precision> {
        self.kind.form(precision, self.decodes)
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
    /// With the full names of those that the base checkpoint holds.
    tensors: Mutex<Vec<(Option<String>, Size)>>,
}

impl Sizes {
    fn tensors(&self) -> MutexGuard<'_, Vec<(Option<String>, Size)>> {
        self.tensors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down a tensor: one of the base checkpoint, by its full name, or one of an adapter.
    pub(crate) fn add(&self, name: Option<&str>, size: Size) {
        self.tensors().push((name.map(str::to_owned), size));
    }

    /// Full names of the tensors of the checkpoint that the model is made of, adapters left out.
    pub fn names(&self) -> BTreeSet<String> {
        let tensors = self.tensors();
        tensors
            .iter()
            .filter_map(|(name, _)| name.clone())
            .collect()
    }

    /// Bytes of matrices, tables and adapters where large matrices are held in `precision` and `kernels` calculates.
    pub fn matrix_bytes(&self, precision: Precision) -> u64 {
        let tensors = self.tensors();
        tensors
            .iter()
            .map(|(_, size)| size.matrix_bytes(precision))
            .sum()
    }

    /// Bytes of norms, biases and the like.
    pub fn value_bytes(&self) -> u64 {
        let tensors = self.tensors();
        let values = tensors.iter().filter(|(_, size)| size.kind == Use::Values);
        values
            .map(|(_, size)| (size_of::<f32>() * size.outputs * size.inputs) as u64)
            .sum()
    }

    /// Of these, what other models of the pool hold already, as far as the beginnings of the tensors tell.
    pub fn shared_bytes(&self, precision: Precision) -> u64 {
        let tensors = self.tensors();
        let shared = tensors
            .iter()
            .filter(|(_, size)| size.held.is_some() && size.held == size.form(precision));
        shared.map(|(_, size)| size.matrix_bytes(precision)).sum()
    }
}
