//! Half-blocks: the two halves of a transformer layer, each one operation on the residual stream; and the first half
//! of a resampler's layer.

mod attention;
mod mlp;
mod resample;

pub use attention::{AttentionBlock, Visibility};
pub use colibri_kernels::attention::AttentionShape;
pub use colibri_kernels::parallel::{LARGE_BLOCK_ROWS, LARGE_BYTES, WIDE_BLOCK_ROWS, WIDE_BYTES};
pub use mlp::{Mlp, MlpBlock};
pub use resample::ResampleBlock;
