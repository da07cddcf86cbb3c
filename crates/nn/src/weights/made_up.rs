//! Weights that are made up, for measuring speed and memory where only sizes matter and nothing that large
//! should have to be downloaded or written.
//!
//! A value depends on the seed, the name of its tensor and its place in it alone, so that two stores of one
//! seed hold the same checkpoint and any part can be read at any time. Values are exactly bfloat16, as those of
//! the published checkpoints.

use half::bf16;

/// Half the width of the interval from which matrices are drawn: activations of layers of 500 to 8000 inputs
/// neither vanish nor overflow behind a norm.
const MATRIX_SCALE: f32 = 0.05;
/// The same for biases and the deviation of norms from one.
const VECTOR_SCALE: f32 = 0.02;

/// A source of made-up tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MadeUp {
    pub(crate) seed: u64,
}

impl MadeUp {
    /// Elements `start .. start + out.len()` of tensor `name`.
    pub(crate) fn fill(self, name: &str, start: usize, out: &mut [f32]) {
        let is_weight = name.ends_with("weight");
        let is_norm = is_weight && name.contains("norm");
        let (middle, scale) = match (is_norm, is_weight) {
            (true, _) => (1.0, VECTOR_SCALE),
            (false, true) => (0.0, MATRIX_SCALE),
            (false, false) => (0.0, VECTOR_SCALE),
        };
        let key = name
            .bytes()
            .fold(mixed(self.seed), |key, byte| mixed(key ^ u64::from(byte)));
        for (at, value) in (start as u64..).zip(out) {
            let random = mixed(key.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let uniform = (random >> 40) as f32 / (1_u32 << 23) as f32 - 1.0;
            *value = bf16::from_f32(middle + scale * uniform).to_f32();
        }
    }
}

/// The mixing steps of SplitMix64 (Steele, Lea, Flood 2014).
fn mixed(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_can_be_read_at_any_time() {
        let source = MadeUp { seed: 3 };
        let mut whole = [0.0; 40];
        source.fill("layers.0.q_proj.weight", 0, &mut whole);
        let mut part = [0.0; 7];
        source.fill("layers.0.q_proj.weight", 20, &mut part);
        assert_eq!(part, whole[20..27]);
        assert!(whole.iter().any(|&value| value > 0.01) && whole.iter().any(|&v| v < -0.01));
        let mut other = [0.0; 40];
        MadeUp { seed: 4 }.fill("layers.0.q_proj.weight", 0, &mut other);
        assert_ne!(whole, other);
        source.fill("layers.1.q_proj.weight", 0, &mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn norms_stand_around_one() {
        let mut values = [0.0; 100];
        MadeUp { seed: 1 }.fill("text_model.norm.weight", 0, &mut values);
        assert!(values.iter().all(|value| (value - 1.0).abs() <= 0.03));
    }
}
