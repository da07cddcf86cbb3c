//! A way to watch the stages of a forward pass, for comparison with reference tensors.

use candle_core::Tensor;

use crate::Result;

/// Is shown every intermediate result by name.
pub trait Trace {
    /// Stage `name` came out as `value`.
    ///
    /// # Errors
    /// When the watcher cannot copy the tensor.
    fn record(&mut self, name: &str, value: &Tensor) -> Result<()>;
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    fn record(&mut self, _name: &str, _value: &Tensor) -> Result<()> {
        Ok(())
    }
}
