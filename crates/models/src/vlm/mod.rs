//! Vision language models: tower, connector and text model as one backbone.

pub(crate) mod config_file;
pub mod idefics3;
mod merge;
pub mod paligemma;
