//! Which instruction set the kernels use, decided once for the running machine.
//!
//! One portable binary serves all machines: nothing is decided at build time. The wide paths need exactly
//! the features listed at [`Isa`]; a machine that has only part of them uses the next narrower path.

use std::sync::OnceLock;

/// An instruction set that the kernels are written for, from the narrowest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust without intrinsics: every architecture runs it.
    Scalar,
    /// `x86_64` with AVX2, FMA and F16C, and AVX-VNNI where it is there.
    Avx2,
    /// `x86_64` with AVX-512 F, BW, VL, DQ, VNNI and BF16.
    Avx512,
}

impl Isa {
    /// The widest instruction set of the running machine. Looked up once.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            if has_avx512() {
                Self::Avx512
            } else if has_avx2() {
                Self::Avx2
            } else {
                Self::Scalar
            }
        })
    }

    /// Every instruction set that the running machine can execute, narrowest first.
    pub fn available() -> Vec<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512]
            .into_iter()
            .filter(|isa| isa.is_available())
            .collect()
    }

    /// Whether the running machine can execute this instruction set.
    pub fn is_available(self) -> bool {
        // Comparing with the detected set is not enough: a machine may in principle have AVX-512 without FMA.
        match self {
            Self::Scalar => true,
            Self::Avx2 => {
                Self::detect() == Self::Avx2 || (Self::detect() == Self::Avx512 && has_avx2())
            }
            Self::Avx512 => Self::detect() == Self::Avx512,
        }
    }

    /// The name shown to people: `scalar`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_set_is_the_last_of_the_available_ones() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Scalar));
        assert_eq!(available.last(), Some(&Isa::detect()));
        assert!(available.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
