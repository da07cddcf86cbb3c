//! `x += o_proj(attention(norm(x)))`.

use std::sync::Arc;

use candle_core::{D, DType, Tensor};
use colibri_kernels::{
    attention::{
        AttentionShape, KvStore, Mask, attention_rounded, attention_stored, attention_with,
    },
    gemm::{Activation, Write},
    isa::Isa,
    parallel,
    rope::rope,
    rows::{Rows, RowsMut},
};

use crate::{
    LayerCache, Linear, Norm, Result, Rope, Scratch, cpu,
    linear::{Target, project},
};

/// Which tokens a token sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// All of its own sequence.
    Full,
    /// Itself and those before it.
    Causal,
    /// Itself and the last before it, so many in all.
    Window(usize),
}

/// The attention half of a transformer layer.
#[derive(Debug)]
pub struct AttentionBlock {
    /// Applied to the residual stream before the projections.
    pub norm: Norm,
    /// `hidden → q_heads * head_dim`.
    pub q_proj: Linear,
    /// `hidden → kv_heads * head_dim`.
    pub k_proj: Linear,
    /// `hidden → kv_heads * head_dim`.
    pub v_proj: Linear,
    /// `q_heads * head_dim → hidden`.
    pub o_proj: Linear,
    /// Heads and scale.
    pub shape: AttentionShape,
    /// Rotation of queries and keys, where positions are not in the embeddings.
    pub rope: Option<Arc<Rope>>,
    /// Who sees whom.
    pub visibility: Visibility,
}

impl AttentionBlock {
    /// `x` `(batch, seq, hidden)` → the same shape. On the CPU the storage of `x` is changed in place,
    /// so the caller gives up `x`. With a cache (batch 1 only), the new tokens follow those it holds.
    ///
    /// # Errors
    /// When shapes do not fit or the sequence outgrows the position table.
    pub fn forward(&self, x: Tensor, cache: Option<&mut LayerCache>) -> Result<Tensor> {
        let (batch, seq, _) = x.dims3()?;
        let first = cache.as_ref().map_or(0, |cache| cache.len);
        if let Some(rope) = &self.rope {
            rope.check(first + seq)?;
        }
        if cache.is_some() && batch != 1 {
            return Err(candle_core::Error::Msg("a cache serves one sequence".to_owned()).into());
        }
        if !self.q_proj.is_packed() {
            return self.forward_dense(&x, cache, first);
        }
        cpu::in_place(&x, "attention half-block", |values| {
            self.forward_slices(values, batch, seq, cache);
            Ok(())
        })?;
        Ok(x)
    }

    fn forward_slices(
        &self,
        x: &mut [f32],
        batch: usize,
        seq: usize,
        cache: Option<&mut LayerCache>,
    ) {
        let rows = batch * seq;
        let hidden = self.q_proj.inputs();
        let (q_width, kv_width) = (self.q_proj.outputs(), self.k_proj.outputs());
        // What attention would round is written rounded: half as much goes out of the caches and comes back.
        let is_rounded = cache.is_none() && self.may_round();
        let write = if is_rounded {
            Write::Round
        } else {
            Write::Store
        };
        let [in_q, in_kv] = [q_width, kv_width].map(|width| write.width(width));
        let mut q = Scratch::take(rows * in_q);
        let mut k = Scratch::take(rows * in_kv);
        let mut v = Scratch::take(rows * in_kv);
        let weights = hidden * (q_width + 2 * kv_width);
        parallel::for_each_block(
            rows,
            nanos(rows, weights),
            [&self.q_proj, &self.k_proj, &self.v_proj]
                .map(Linear::num_bytes)
                .iter()
                .sum(),
            [&mut q, &mut k, &mut v],
            |rows, [q, k, v]| {
                let mut normed = Scratch::take(rows.len() * hidden);
                self.norm.apply(
                    Rows::new(x, batch * seq, hidden).slice(rows.clone()),
                    RowsMut::new(&mut normed, rows.len(), hidden),
                );
                self.project_qkv(&normed, rows.len(), write, [q, k, v]);
            },
        );
        let mut out = Scratch::take(rows * q_width);
        let attended = RowsMut::new(&mut out, rows, q_width);
        if let Some(cache) = cache {
            let first = cache.len;
            self.rotate(&mut q, &mut k, seq, first);
            let store = cache.store.get_or_insert_with(|| {
                let AttentionShape {
                    kv_heads, head_dim, ..
                } = self.shape;
                let (inner, kept) = (self.q_proj.inner(), cache.precision);
                KvStore::new(inner, kept, kv_heads, head_dim, cache.capacity)
            });
            store.append(Rows::new(&k, seq, kv_width), Rows::new(&v, seq, kv_width));
            cache.len = store.len();
            attention_stored(
                &self.shape,
                Rows::new(&q, seq, q_width),
                store,
                self.mask(first),
                attended,
            );
        } else if is_rounded {
            let q = Rows::new(&q, rows, in_q);
            let [k, v] = [&k, &v].map(|of| Rows::new(of, rows, in_kv));
            attention_rounded(
                Isa::detect(),
                &self.shape,
                batch,
                [q, k, v],
                self.mask(0),
                attended,
            );
        } else {
            for (q, k) in q
                .chunks_exact_mut(seq * q_width)
                .zip(k.chunks_exact_mut(seq * kv_width))
            {
                self.rotate(q, k, seq, 0);
            }
            attention_with(
                Isa::detect(),
                self.q_proj.inner(),
                &self.shape,
                batch,
                Rows::new(&q, rows, q_width),
                Rows::new(&k, rows, kv_width),
                Rows::new(&v, rows, kv_width),
                self.mask(0),
                attended,
            );
        }
        let out = Rows::new(&out, rows, q_width);
        parallel::for_each_block(
            rows,
            nanos(rows, q_width * hidden),
            self.o_proj.num_bytes(),
            [x],
            |rows, [x]| {
                project(
                    out.slice(rows),
                    vec![Target {
                        linear: &self.o_proj,
                        out: x,
                        activation: Activation::Identity,
                        write: Write::Add,
                    }],
                );
            },
        );
    }

    /// Who sees whom when `first` tokens stand before these.
    fn mask(&self, first: usize) -> Mask<'static> {
        match self.visibility {
            Visibility::Full => Mask::Full,
            Visibility::Causal => Mask::Causal { offset: first },
            Visibility::Window(window) => Mask::Window {
                offset: first,
                window,
            },
        }
    }

    /// Whether queries, keys and values go to attention as they come out of their products, and may be rounded there.
    fn may_round(&self) -> bool {
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj];
        self.rope.is_none()
            && self.shape.head_dim.is_multiple_of(2)
            && projections.iter().all(|linear| linear.takes_rounded())
    }

    fn project_qkv(&self, normed: &[f32], rows: usize, write: Write, [q, k, v]: [&mut [f32]; 3]) {
        let target = |linear, out| Target {
            linear,
            out,
            activation: Activation::Identity,
            write,
        };
        project(
            Rows::new(normed, rows, self.q_proj.inputs()),
            vec![
                target(&self.q_proj, q),
                target(&self.k_proj, k),
                target(&self.v_proj, v),
            ],
        );
    }

    fn rotate(&self, q: &mut [f32], k: &mut [f32], seq: usize, first: usize) {
        let Some(table) = self.rope.as_ref().map(|rope| rope.table()) else {
            return;
        };
        let AttentionShape {
            q_heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        rope(
            RowsMut::new(q, seq, q_heads * head_dim),
            q_heads,
            head_dim,
            first,
            table,
        );
        rope(
            RowsMut::new(k, seq, kv_heads * head_dim),
            kv_heads,
            head_dim,
            first,
            table,
        );
    }

    /// The same with candle's operations, for the devices that `kernels` does not serve.
    fn forward_dense(
        &self,
        x: &Tensor,
        cache: Option<&mut LayerCache>,
        first: usize,
    ) -> Result<Tensor> {
        let (batch, seq, _) = x.dims3()?;
        let AttentionShape {
            q_heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let normed = self.norm.forward(x)?;
        let heads = |linear: &Linear, count: usize| -> Result<Tensor> {
            let projected = linear.forward_dense(&normed)?; // (batch, seq, count * head_dim)
            Ok(projected
                .reshape((batch, seq, count, head_dim))?
                .transpose(1, 2)?
                .contiguous()?)
        };
        let mut q = heads(&self.q_proj, q_heads)?; // (batch, q_heads, seq, head_dim)
        let mut k = heads(&self.k_proj, kv_heads)?; // (batch, kv_heads, seq, head_dim)
        let mut v = heads(&self.v_proj, kv_heads)?;
        if let Some(rope) = &self.rope {
            q = rope.forward_dense(&q, first)?;
            k = rope.forward_dense(&k, first)?;
        }
        if let Some(cache) = cache {
            (k, v) = cache.append_dense(k, v)?;
        }
        let total = k.dim(2)?;
        let window = match self.visibility {
            Visibility::Full => None,
            Visibility::Causal => Some(usize::MAX),
            Visibility::Window(window) => Some(window),
        };
        let mask = match window {
            None => None,
            Some(window) => {
                let mask: Vec<f32> = (0..seq)
                    .flat_map(|row| {
                        (0..total).map(move |key| {
                            if key > first + row || first + row - key >= window {
                                f32::NEG_INFINITY
                            } else {
                                0.0
                            }
                        })
                    })
                    .collect();
                Some(Tensor::from_vec(mask, (seq, total), x.device())?)
            }
        };
        let out = attend_dense(&self.shape, &q, &k, &v, mask.as_ref())?;
        Ok((x + self.o_proj.forward_dense(&out)?)?)
    }
}

/// Attention with candle's operations: queries `(batch, q_heads, seq, head_dim)`, keys and values
/// `(batch, kv_heads, total, head_dim)` → `(batch, seq, q_heads * head_dim)`. The mask `(seq, total)` is added to
/// the scores.
pub(super) fn attend_dense(
    shape: &AttentionShape,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let &AttentionShape {
        q_heads,
        kv_heads,
        head_dim,
        scale,
    } = shape;
    let (batch, _, seq, _) = q.dims4()?;
    let total = k.dim(2)?;
    let repeat = |t: &Tensor| -> Result<Tensor> {
        let groups = q_heads / kv_heads;
        let spread = t
            .unsqueeze(2)?
            .expand((batch, kv_heads, groups, total, head_dim))?;
        Ok(spread.reshape((batch, q_heads, total, head_dim))?)
    };
    // (batch, q_heads, seq, total)
    let mut scores = (q.matmul(&repeat(k)?.t()?)? * f64::from(scale))?.to_dtype(DType::F32)?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    let shifted = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
        .exp()?;
    let weights = shifted
        .broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?
        .to_dtype(q.dtype())?;
    let out = weights.matmul(&repeat(v)?)?.transpose(1, 2)?;
    Ok(out.reshape((batch, seq, q_heads * head_dim))?)
}

/// Roughly how long products of `rows` rows with so many weights take on one thread.
fn nanos(rows: usize, weights: usize) -> u64 {
    (rows * weights) as u64 / 100
}
