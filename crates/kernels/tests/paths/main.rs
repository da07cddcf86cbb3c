//! Every path the running machine has, forced one after another, against the plain definitions: odd sizes,
//! strides, slices that start anywhere, zeros, infinities and NaN. One file a kind of kernel.

mod attention;
mod products;
mod resample;
mod rounded;
mod rows;
mod search;
mod short;

/// Reproducible values in (-1, 1), different for each seed.
pub(crate) fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
