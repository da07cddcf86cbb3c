//! Vision language models: tower, connector and text model as one backbone.

pub mod idefics3;
mod merge;
pub mod paligemma;
