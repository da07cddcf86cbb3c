//! Keys and values of the tokens already seen, layer by layer.

use candle_core::Tensor;

use crate::Result;

/// What one attention layer remembers.
#[derive(Clone, Debug, Default)]
pub struct LayerCache {
    /// `(tokens, kv_heads * head_dim)` each, on the CPU: appended to in place.
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
    /// `(1, kv_heads, tokens, head_dim)` each, where candle calculates.
    pub(crate) dense: Option<(Tensor, Tensor)>,
    pub(crate) len: usize,
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
    /// An empty cache for a model of `num_layers` layers whose keys have `width = kv_heads * head_dim`
    /// values a token, with room for `capacity` tokens before it must grow.
    pub fn new(num_layers: usize, width: usize, capacity: usize) -> Self {
        let layer = || LayerCache {
            keys: Vec::with_capacity(capacity * width),
            values: Vec::with_capacity(capacity * width),
            dense: None,
            len: 0,
        };
        Self {
            layers: (0..num_layers).map(|_| layer()).collect(),
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
            let width = layer.keys.len() / layer.len;
            layer.keys.truncate(len * width);
            layer.values.truncate(len * width);
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
                (layer.keys.capacity() + layer.values.capacity()) * 4 + dense
            })
            .sum()
    }
}
