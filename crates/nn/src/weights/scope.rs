//! Weights seen from one place in a model: `weights.pp("layers.0").pp("self_attn")`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use candle_core::{DType, Device, Tensor};
use colibri_kernels::gemm::PackedMatrix;

use super::{
    adapter::{Adapter, Factors},
    pool::TensorPool,
    sizes::{Size, Sizes, Use},
    store::WeightStore,
};
use crate::{Embedding, Error, Linear, Norm, Result, linear::Storage};

pub use colibri_kernels::gemm::Precision;

/// Where layers live and how they calculate.
#[derive(Clone, Debug)]
pub struct Placement {
    device: Device,
    /// Element type of dense tensors; `F32` wherever `kernels` calculates.
    dtype: DType,
    /// Form of the large matrices where `kernels` calculates; `None` where candle does.
    packed: Option<Precision>,
}

impl Placement {
    /// On the CPU through `kernels`, with large matrices held in `precision`.
    pub fn cpu(precision: Precision) -> Self {
        Self {
            device: Device::Cpu,
            dtype: DType::F32,
            packed: Some(precision),
        }
    }

    /// On any device through candle's operations, everything held in `dtype`.
    pub fn candle(device: Device, dtype: DType) -> Self {
        Self {
            device,
            dtype,
            packed: None,
        }
    }

    /// The device tensors are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of the residual stream.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether `kernels` calculates.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// What results depend on besides weights: the precision and, on the CPU, the instruction set.
    pub fn arithmetic(&self) -> String {
        let path = match self.packed {
            Some(_) => colibri_kernels::isa::Isa::detect().name(),
            None => "candle",
        };
        format!("{} {path}", self.precision_name())
    }

    /// Short name for logs and index settings: `f32`, `bf16`, `int8`, `int4`, `f16`.
    pub fn precision_name(&self) -> &'static str {
        match (self.packed, self.dtype) {
            (Some(Precision::Bf16), _) | (None, DType::BF16) => "bf16",
            (Some(Precision::Int8), _) => "int8",
            (Some(Precision::Int4), _) => "int4",
            (None, DType::F16) => "f16",
            _ => "f32",
        }
    }
}

/// A view of a checkpoint's tensors under a name prefix. Cheap to clone.
#[derive(Clone)]
pub struct Weights {
    store: Arc<WeightStore>,
    adapter: Option<Arc<Adapter>>,
    /// Where matrices are looked for before they are read.
    pool: Option<Arc<TensorPool>>,
    placement: Placement,
    prefix: String,
    /// Whether matrices here are read for every token of an answer.
    decodes: bool,
    /// Counts what is loaded, through this view and its relatives.
    loaded: Arc<Loaded>,
    /// In place of reading anything: where sizes are written down.
    sizes: Option<Arc<Sizes>>,
}

/// Bytes of matrices loaded so far.
#[derive(Debug, Default)]
struct Loaded {
    new: AtomicUsize,
    /// Of those that another model had loaded before.
    shared: AtomicUsize,
}

impl Weights {
    /// All tensors of `store`.
    pub fn new(store: Arc<WeightStore>, placement: Placement) -> Self {
        Self {
            store,
            adapter: None,
            pool: None,
            placement,
            prefix: String::new(),
            decodes: false,
            loaded: Arc::default(),
            sizes: None,
        }
    }

    /// The same, of which layers get their sizes alone: tensors are looked for and checked, none is read, and what
    /// would be held is written down in `sizes`. What is loaded from it cannot calculate.
    #[must_use]
    pub fn sizes_only(mut self, sizes: &Arc<Sizes>) -> Self {
        self.sizes = Some(Arc::clone(sizes));
        self
    }

    /// The same with an adapter over it.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Option<Arc<Adapter>>) -> Self {
        self.adapter = adapter;
        self
    }

    /// The same with matrices shared through `pool`, where `kernels` calculates.
    #[must_use]
    pub fn with_pool(mut self, pool: Option<Arc<TensorPool>>) -> Self {
        self.pool = pool;
        self
    }

    /// The view one name further down.
    #[must_use]
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        let mut scope = self.clone();
        scope.prefix = self.full(&name.to_string());
        scope
    }

    /// The same, of matrices that are read from memory for every token of an answer: they are held in whatever form is read
    /// fastest.
    #[must_use]
    pub fn decoding(&self) -> Self {
        Self {
            decodes: true,
            ..self.clone()
        }
    }

    /// In what form a tensor is held; `None` where candle calculates.
    fn form(&self, kind: Use) -> Option<Precision> {
        kind.form(self.placement.packed?, self.decodes)
    }

    /// A tensor as it would be held.
    fn size(&self, kind: Use, outputs: usize, inputs: usize) -> Size {
        Size {
            kind,
            outputs,
            inputs,
            decodes: self.decodes,
            held: None,
        }
    }

    /// A hash of the names and values of all tensors here; `None` without a pool, which knows hashes.
    ///
    /// # Errors
    /// When weights cannot be read.
    pub fn fingerprint(&self) -> Result<Option<[u8; 32]>> {
        let Some(pool) = &self.pool else {
            return Ok(None);
        };
        pool.fingerprint(&self.store, &self.prefix).map(Some)
    }

    /// Where layers are placed.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Whether tensor `name` exists here.
    pub fn contains(&self, name: &str) -> bool {
        self.store.contains(&self.full(name))
    }

    /// Full names of all tensors of the checkpoint, sorted, whatever the prefix of this view.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.store.names()
    }

    /// Bytes of the matrices that were loaded through this view and those derived from it; those that were shared
    /// count where they were loaded first.
    pub fn loaded_bytes(&self) -> usize {
        self.loaded.new.load(Ordering::Relaxed)
    }

    /// Bytes of the matrices that were not loaded because another model holds them.
    pub fn shared_bytes(&self) -> usize {
        self.loaded.shared.load(Ordering::Relaxed)
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }

    /// The values of tensor `name` as f32, row-major.
    ///
    /// # Errors
    /// When it is missing or of another shape.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let name = self.full(name);
        if let Some(sizes) = &self.sizes {
            self.store.expect(&name, shape)?;
            let count = shape.iter().product();
            sizes.add(Some(&name), self.size(Use::Values, 1, count));
            return Ok(vec![0.0; count]);
        }
        self.store.read_all(&name, shape)
    }

    /// Tensor `name` on the placement's device and in its type.
    ///
    /// # Errors
    /// When it is missing or of another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = Tensor::from_vec(self.values(name, shape)?, shape, &Device::Cpu)?;
        Ok(tensor
            .to_dtype(self.placement.dtype)?
            .to_device(&self.placement.device)?)
    }

    /// A linear layer `inputs → outputs` from `{name}.weight` `(outputs, inputs)` and, if asked for,
    /// `{name}.bias` `(outputs,)`, with the adapter's factors for it where there are any.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        self.linear_shaped(name, &[outputs, inputs], bias)
    }

    /// Like [`Weights::linear`] for a weight of shape `(outputs, …)` whose trailing dimensions are the
    /// inputs, in order: a convolution whose stride is its kernel is such a layer over patches.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn linear_shaped(&self, name: &str, shape: &[usize], bias: bool) -> Result<Linear> {
        let outputs = shape[0];
        let inputs: usize = shape[1..].iter().product();
        let module = self.full(name);
        if let Some(sizes) = &self.sizes {
            let weight = format!("{module}.weight");
            self.store.expect(&weight, shape)?;
            self.outline(sizes, &weight, self.size(Use::Matrix, outputs, inputs))?;
            let adapter = self.adapter.as_deref();
            let rank = adapter.map_or(Ok(None), |adapter| adapter.rank_beside(&module))?;
            if let Some(rank) = rank {
                sizes.add(None, self.size(Use::Factor, rank, inputs));
                sizes.add(None, self.size(Use::Factor, outputs, rank));
            }
            if bias {
                self.values(&format!("{name}.bias"), &[outputs])?;
            }
            return Linear::new(nothing(outputs, inputs)?, None, None, &self.placement);
        }
        let factors = match &self.adapter {
            Some(adapter) => adapter
                .factors(&module, inputs, outputs)?
                .map(|f| (adapter.merged(), f)),
            None => None,
        };
        let weight = format!("{module}.weight");
        self.store.expect(&weight, shape)?;
        // Merged, the matrix is no longer the tensor in the file.
        let merged = match &factors {
            Some((true, factors)) => Some(factors),
            _ => None,
        };
        let form = self.form(Use::Matrix);
        let storage = self.shared(
            form,
            &weight,
            merged,
            (outputs, inputs),
            &mut |first, rows| {
                self.store.read(&weight, first * inputs, rows)?;
                if let Some(factors) = merged {
                    factors.add_to(first, inputs, rows);
                }
                Ok(())
            },
        )?;
        let bias = if bias {
            Some(self.store.read_all(&format!("{module}.bias"), &[outputs])?)
        } else {
            None
        };
        let lora = match &factors {
            Some((false, factors)) => {
                let form = self.form(Use::Factor);
                let a = self.storage(form, factors.rank, inputs, &mut |first, rows| {
                    let from = first * inputs;
                    rows.copy_from_slice(&factors.a[from..from + rows.len()]);
                    Ok(())
                })?;
                let b = self.storage(form, outputs, factors.rank, &mut |first, rows| {
                    let from = first * factors.rank;
                    rows.copy_from_slice(&factors.b[from..from + rows.len()]);
                    Ok(())
                })?;
                Some((a, b))
            }
            _ => None,
        };
        Linear::new(storage, bias, lora, &self.placement)
    }

    /// Writes down a matrix or table, and in what form another model holds what seems to be the same.
    fn outline(&self, sizes: &Sizes, tensor: &str, size: Size) -> Result<()> {
        let held = match &self.pool {
            Some(pool) => pool.held(&self.store, tensor, (size.outputs, size.inputs))?,
            None => None,
        };
        sizes.add(Some(tensor), Size { held, ..size });
        Ok(())
    }

    /// The matrix that is tensor `tensor`, with the factors `merged` added, in a form (candle's, if `None`): shared if there is a pool and it is as in
    /// the file, read otherwise.
    fn shared(
        &self,
        form: Option<Precision>,
        tensor: &str,
        merged: Option<&Factors>,
        size @ (outputs, inputs): (usize, usize),
        fill: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<Storage> {
        let (Some(pool), Some(precision)) = (&self.pool, form) else {
            return self.storage(form, outputs, inputs, fill);
        };
        let store = &self.store;
        let mut pack = || pack(precision, outputs, inputs, fill);
        if merged.is_some() {
            let matrix = pool.packed(store, tensor, merged, precision, size, &mut pack)?;
            self.loaded
                .new
                .fetch_add(matrix.num_bytes(), Ordering::Relaxed);
            return Ok(Storage::Packed(Arc::new(matrix)));
        }
        let shared = pool.share(store, tensor, precision, size, &mut pack)?;
        let counter = if shared.is_new {
            &self.loaded.new
        } else {
            &self.loaded.shared
        };
        counter.fetch_add(shared.matrix.num_bytes(), Ordering::Relaxed);
        Ok(Storage::Packed(shared.matrix))
    }

    /// Reads a matrix block by block into a form, candle's if `None`; `fill(first_row, rows)`.
    fn storage(
        &self,
        form: Option<Precision>,
        outputs: usize,
        inputs: usize,
        fill: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<Storage> {
        if let Some(precision) = form {
            let packed = pack(precision, outputs, inputs, fill)?;
            self.loaded
                .new
                .fetch_add(packed.num_bytes(), Ordering::Relaxed);
            return Ok(Storage::Packed(Arc::new(packed)));
        }
        let mut values = vec![0.0; outputs * inputs];
        fill(0, &mut values)?;
        let tensor = Tensor::from_vec(values, (outputs, inputs), &Device::Cpu)?
            .to_dtype(self.placement.dtype)?
            .to_device(&self.placement.device)?;
        let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
        self.loaded.new.fetch_add(bytes, Ordering::Relaxed);
        Ok(Storage::Dense(tensor))
    }

    /// A token embedding table `{name}.weight` `(vocabulary, hidden)`.
    ///
    /// # Errors
    /// When it is missing or of another shape.
    pub fn embedding(&self, name: &str, vocabulary: usize, hidden: usize) -> Result<Embedding> {
        let weight = format!("{}.weight", self.full(name));
        self.store.expect(&weight, &[vocabulary, hidden])?;
        if let Some(sizes) = &self.sizes {
            self.outline(sizes, &weight, self.size(Use::Table, vocabulary, hidden))?;
            return Ok(Embedding::new(
                nothing(vocabulary, hidden)?,
                vocabulary,
                hidden,
            ));
        }
        let form = self.form(Use::Table);
        let size = (vocabulary, hidden);
        let storage = self.shared(form, &weight, None, size, &mut |first, rows| {
            self.store.read(&weight, first * hidden, rows)
        })?;
        Ok(Embedding::new(storage, vocabulary, hidden))
    }

    /// Layer normalisation with `{name}.weight` and `{name}.bias`, both `(hidden,)`.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn layer_norm(&self, name: &str, hidden: usize, eps: f64) -> Result<Norm> {
        let scope = self.pp(name);
        let weight = scope.values("weight", &[hidden])?;
        let bias = scope.values("bias", &[hidden])?;
        Norm::layer(weight, bias, eps, &self.placement)
    }

    /// Root-mean-square normalisation with `{name}.weight` `(hidden,)`.
    ///
    /// # Errors
    /// When the tensor is missing or of another shape.
    pub fn rms_norm(&self, name: &str, hidden: usize, eps: f64) -> Result<Norm> {
        Norm::rms(
            self.pp(name).values("weight", &[hidden])?,
            eps,
            &self.placement,
        )
    }

    /// Root-mean-square normalisation as Gemma writes it: the file holds `weight - 1`.
    ///
    /// # Errors
    /// When the tensor is missing or of another shape.
    pub fn rms_norm_from_one(&self, name: &str, hidden: usize, eps: f64) -> Result<Norm> {
        let mut weight = self.pp(name).values("weight", &[hidden])?;
        for value in &mut weight {
            *value += 1.0;
        }
        Norm::rms(weight, eps, &self.placement)
    }
}

/// A matrix without memory: one zero, seen everywhere.
fn nothing(outputs: usize, inputs: usize) -> Result<Storage> {
    let zero = Tensor::zeros((1, 1), DType::F32, &Device::Cpu)?;
    Ok(Storage::Dense(zero.broadcast_as((outputs, inputs))?))
}

fn pack(
    precision: Precision,
    outputs: usize,
    inputs: usize,
    fill: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<PackedMatrix> {
    PackedMatrix::pack::<Error>(precision, outputs, inputs, |rows, buffer| {
        fill(rows.start, buffer)
    })
}
