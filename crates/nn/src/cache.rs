//! Keys and values of the tokens already seen, layer by layer.

use candle_core::Tensor;
use colibri_kernels::attention::{KvPrecision, KvStore};

use crate::Result;

/// What one attention layer remembers.
#[derive(Clone, Debug, Default)]
pub struct LayerCache {
    /// Where `kernels` calculates; made by the first tokens, which know the heads.
    pub(crate) store: Option<KvStore>,
    /// `(1, kv_heads, tokens, head_dim)` each, where candle calculates.
    pub(crate) dense: Option<(Tensor, Tensor)>,
    pub(crate) len: usize,
    /// Tokens to make room for at first.
    pub(crate) capacity: usize,
    /// In what form they are kept where `kernels` calculates.
    pub(crate) precision: KvPrecision,
}

impl LayerCache {
    /// Appends keys and values `(1, kv_heads, new, head_dim)` and returns all of them.
    pub(crate) fn append_dense(&mut self, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let new = k.dim(2)?;
        let all = match self.dense.take() {
            Some((keys, values)) => (
                Tensor::cat(&[&keys, &k], 2)?,
                Tensor::cat(&[&values, &v], 2)?,
            ),
            None => (k, v),
        };
        self.dense = Some(all.clone());
        self.len += new;
        Ok(all)
    }
}

/// The KV cache of one sequence.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
}

impl KvCache {
    /// An empty cache for a model of `num_layers` layers, with room for `capacity` tokens before it must grow.
    /// Elsewhere than on the CPU, keys and values stay in the type of the model.
    pub fn new(num_layers: usize, capacity: usize, precision: KvPrecision) -> Self {
        let layer = LayerCache {
            capacity,
            precision,
            ..LayerCache::default()
        };
        Self {
            layers: vec![layer; num_layers],
        }
    }

    /// Makes room for `capacity` tokens in all.
    pub fn reserve(&mut self, capacity: usize) {
        for layer in &mut self.layers {
            layer.capacity = capacity;
            if let Some(store) = &mut layer.store {
                store.reserve(capacity);
            }
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.len)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The layers, in order.
    pub fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    /// Forgets all tokens past the first `len`, so that another continuation of the same prefix can
    /// follow.
    ///
    /// # Errors
    /// When a tensor on the device cannot be cut.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        for layer in &mut self.layers {
            if layer.len <= len {
                continue;
            }
            if let Some(store) = &mut layer.store {
                store.truncate(len);
            }
            if let Some((k, v)) = layer.dense.take()
                && len > 0
            {
                layer.dense = Some((
                    k.narrow(2, 0, len)?.contiguous()?,
                    v.narrow(2, 0, len)?.contiguous()?,
                ));
            }
            layer.len = len;
        }
        Ok(())
    }

    /// Bytes held.
    pub fn num_bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| {
                let dense = layer.dense.as_ref().map_or(0, |(k, v)| {
                    (k.elem_count() + v.elem_count()) * k.dtype().size_in_bytes()
                });
                layer.store.as_ref().map_or(0, KvStore::num_bytes) + dense
            })
            .sum()
    }
}
