//! Vision towers: tiles → patch features.

pub mod siglip;
