//! How many threads compute.
//!
//! Kernels and models share rayon's one pool; it is made at its first use and cannot be changed after.

/// Sets the number of threads; `false` if something has computed already.
pub fn set(number: usize) -> bool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(number)
        .build_global()
        .is_ok()
}

/// The number of threads.
pub fn count() -> usize {
    rayon::current_num_threads()
}
