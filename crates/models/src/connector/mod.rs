//! Connectors: patch features → visual tokens in the text model's space.

pub mod perceiver;
pub mod pixel_shuffle;
