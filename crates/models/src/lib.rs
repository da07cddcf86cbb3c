//! Retrievers and generators of the Idefics3 family: processors, networks, generation.

pub mod processor;
