//! A small client of the Hugging Face hub over its standard cache.
