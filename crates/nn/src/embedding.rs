//! The token embedding table.

use candle_core::{Device, Tensor};

use crate::{Linear, Result, linear::Storage};

/// A table `(vocabulary, hidden)` whose rows are looked up by token id.
#[derive(Clone, Debug)]
pub struct Embedding {
    storage: Storage,
    vocabulary: usize,
    hidden: usize,
}

impl Embedding {
    pub(crate) fn new(storage: Storage, vocabulary: usize, hidden: usize) -> Self {
        Self {
            storage,
            vocabulary,
            hidden,
        }
    }

    /// Number of rows.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Values in a row.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// `ids` `(tokens,)` → `(tokens, hidden)`.
    ///
    /// # Errors
    /// When an id lies beyond the table.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            return Err(candle_core::Error::Msg(format!(
                "token id {id} lies beyond the vocabulary of {}",
                self.vocabulary
            ))
            .into());
        }
        match &self.storage {
            Storage::Packed(matrix) => {
                let mut rows = vec![0.0; ids.len() * self.hidden];
                for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(self.hidden)) {
                    matrix.unpack_row(id as usize, row);
                }
                Ok(Tensor::from_vec(
                    rows,
                    (ids.len(), self.hidden),
                    &Device::Cpu,
                )?)
            }
            Storage::Dense(table) => {
                let ids = Tensor::new(ids, table.device())?;
                Ok(table.index_select(&ids, 0)?)
            }
        }
    }

    /// The output head that shares this table (`tie_word_embeddings`).
    ///
    /// # Errors
    /// Never for a table that was loaded.
    pub fn tied_head(&self) -> Result<Linear> {
        Linear::tied(self.storage.clone())
    }
}
