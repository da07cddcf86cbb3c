//! Half-blocks: the two halves of a transformer layer, each one operation on the residual stream.

mod attention;
mod mlp;

pub use attention::{AttentionBlock, Visibility};
pub use colibri_kernels::attention::AttentionShape;
pub use mlp::{Mlp, MlpBlock};
