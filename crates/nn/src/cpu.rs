//! Bridges between candle tensors and slices on the CPU.

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, bail};
use std::cell::RefCell;

use crate::Result;

type Job<'a> = Box<dyn FnOnce(&mut [f32]) -> Result<()> + 'a>;

/// An operation that changes the contents of a contiguous f32 tensor.
struct InPlace<'a> {
    name: &'static str,
    job: RefCell<Option<Job<'a>>>,
    /// An error of ours cannot travel through candle's error type unharmed, so it waits here.
    error: RefCell<Option<crate::Error>>,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else {
            bail!("`{}` needs f32 values", self.name)
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("`{}` needs a contiguous tensor", self.name)
        };
        if let Some(job) = self.job.borrow_mut().take()
            && let Err(error) = job(&mut values[start..end])
        {
            *self.error.borrow_mut() = Some(error);
        }
        Ok(())
    }
}

/// Runs `job` on the values of `tensor`, which must be contiguous f32 on the CPU. The storage is changed
/// in place: every handle to it sees the new values.
pub(crate) fn in_place<'a>(
    tensor: &Tensor,
    name: &'static str,
    job: impl FnOnce(&mut [f32]) -> Result<()> + 'a,
) -> Result<()> {
    let op = InPlace {
        name,
        job: RefCell::new(Some(Box::new(job))),
        error: RefCell::new(None),
    };
    tensor.inplace_op1(&op)?;
    match op.error.into_inner() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Reads the values of a contiguous f32 tensor on the CPU without copying them.
pub(crate) fn with_values<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let candle_core::Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        return Err(candle_core::Error::Msg("f32 values on the CPU are needed".to_owned()).into());
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(candle_core::Error::Msg("a contiguous tensor is needed".to_owned()).into());
    };
    Ok(read(&values[start..end]))
}
