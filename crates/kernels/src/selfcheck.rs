//! Every path of the running machine against the plain definitions, in a few milliseconds: for a person who
//! doubts a machine, an emulator or a compiler.
//!
//! The tests of this crate try thousands of shapes; this runs one awkward shape of each operation (odd sizes,
//! rests of vectors everywhere) where the program is used.

use half::{bf16, f16};

use crate::activation::{exp_with, gelu_tanh_with, silu_mul_with};
use crate::attention::{
    AttentionShape, Inner, KvPrecision, KvStore, Mask, attention_stored, attention_with,
};
use crate::gemm::{
    Activation, PackedMatrix, Precision, Product, Write, matmul, matmul_gated, widen,
};
use crate::isa::Isa;
use crate::maxsim::maxsim_f16_argmax_with;
use crate::norm::{l2_normalize_with, layer_norm_with, rms_norm_with};
use crate::resample::{Weights, weighted_sums_with};
use crate::rope::{RopeTable, rope_with};
use crate::rows::{Rows, RowsMut};
use crate::scalar;

/// How one operation of one instruction set compares with its definition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    /// The path.
    pub isa: Isa,
    /// The operation.
    pub operation: &'static str,
    /// The greatest absolute difference; NaN where the path gives NaN.
    pub error: f64,
    /// What rounding may explain.
    pub tolerance: f64,
}

impl Check {
    /// Whether the path is right.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Rows of the left operand: a full register tile and a rest on every path.
const ROWS: usize = 17;
/// Output features: a full panel and a rest.
const OUT: usize = 83;
/// The shared dimension: odd, so that pairs and fours of narrow values have a rest.
const INNER: usize = 131;

/// Runs every operation on every path of the running machine.
pub fn run() -> Vec<Check> {
    let mut checks = Vec::new();
    for isa in Isa::available() {
        let mut add = |operation, (error, tolerance)| {
            checks.push(Check {
                isa,
                operation,
                error,
                tolerance,
            });
        };
        add("product f32", product(isa, Precision::F32));
        add("product bf16", product(isa, Precision::Bf16));
        add(
            "product bf16 in twelve bits",
            product(isa, Precision::Bf16Short),
        );
        add("product int8", product(isa, Precision::Int8));
        add("product int4", product(isa, Precision::Int4));
        add("product rounded, GELU", rounded(isa));
        add("gated product bf16", gated(isa, Precision::Bf16));
        add("gated product int8", gated(isa, Precision::Int8));
        add("attention f32", attention(isa, Inner::F32, false, 3e-6));
        add("attention bf16", attention(isa, Inner::Bf16, false, 2e-2));
        add(
            "attention int8 keys",
            attention(isa, Inner::Bf16, true, 2e-2),
        );
        add("layer norm", norm(isa, true));
        add("RMS norm", norm(isa, false));
        add("L2 norm", l2_norm(isa));
        add("rotary positions", rope(isa));
        add("exponential", exponential(isa));
        add("GELU", gelu(isa));
        add("SiLU", silu(isa));
        add("MaxSim", maxsim(isa));
        add("resizing", resizing(isa));
    }
    checks
}

/// Whole numbers: equal or wrong.
fn resizing(isa: Isa) -> (f64, f64) {
    let weights = [-300_000, 2_500_000, 2_200_001, -205_697, 7];
    let samples: Vec<u8> = (0..5 * INNER).map(|at| (at * 97 % 256) as u8).collect();
    let mut out = [0; INNER];
    weighted_sums_with(isa, &Weights::new(&weights), &samples, INNER, &mut out);
    let wanted = |at: usize| {
        let rows = samples[at..].iter().step_by(INNER).zip(weights);
        let sum: i64 = rows.map(|(&s, w)| i64::from(s) * i64::from(w)).sum();
        ((sum + (1 << 21)) >> 22).clamp(0, 255) as f64
    };
    let errors = out
        .iter()
        .enumerate()
        .map(|(at, &found)| (f64::from(found) - wanted(at)).abs());
    (errors.fold(0.0, f64::max), 0.0)
}

/// Reproducible values in (-1, 1), different for each seed.
fn values(count: usize, seed: u64) -> Vec<f32> {
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

/// The greatest difference; a NaN that should not be one is the greatest of all.
fn greatest(found: &[f32], wanted: &[f32]) -> f64 {
    found.iter().zip(wanted).fold(0.0, |greatest, (f, w)| {
        let error = (f64::from(*f) - f64::from(*w)).abs();
        // Written so that a NaN, once met, stays.
        if greatest.is_nan() || error <= greatest {
            greatest
        } else {
            error
        }
    })
}

fn product(isa: Isa, precision: Precision) -> (f64, f64) {
    let (x, w) = (values(ROWS * INNER, 1), values(OUT * INNER, 2));
    let weights = PackedMatrix::from_rows_with(isa, precision, OUT, INNER, &w);
    let mut found = vec![f32::NAN; ROWS * OUT];
    matmul(
        Rows::new(&x, ROWS, INNER),
        Product {
            weights: &weights,
            bias: None,
            activation: Activation::Identity,
            write: Write::Store,
            out: RowsMut::new(&mut found, ROWS, OUT),
        },
    );
    let (x, w) = (narrow(precision, &x, false), narrow(precision, &w, true));
    let mut wanted = vec![0.0; ROWS * OUT];
    scalar::matmul(
        Rows::new(&x, ROWS, INNER),
        Rows::new(&w, OUT, INNER),
        RowsMut::new(&mut wanted, ROWS, OUT),
    );
    // Roundings of sums of `INNER` terms below one.
    (greatest(&found, &wanted), 1e-6 * INNER as f64)
}

/// A product that writes bfloat16, two to a word.
fn rounded(isa: Isa) -> (f64, f64) {
    const EVEN: usize = OUT - 1;
    let (x, w) = (values(ROWS * INNER, 21), values(EVEN * INNER, 22));
    let weights = PackedMatrix::from_rows_with(isa, Precision::Int8, EVEN, INNER, &w);
    let mut words = vec![f32::NAN; ROWS * EVEN / 2];
    matmul(
        Rows::new(&x, ROWS, INNER),
        Product {
            weights: &weights,
            bias: None,
            activation: Activation::GeluTanh,
            write: Write::Round,
            out: RowsMut::new(&mut words, ROWS, EVEN / 2),
        },
    );
    let found: Vec<f32> = words
        .iter()
        .flat_map(|word| widen(word.to_bits()).map(f32::from_bits))
        .collect();
    let (x, w) = (
        narrow(Precision::Int8, &x, false),
        narrow(Precision::Int8, &w, true),
    );
    let mut wanted = vec![0.0; ROWS * EVEN];
    scalar::matmul(
        Rows::new(&x, ROWS, INNER),
        Rows::new(&w, EVEN, INNER),
        RowsMut::new(&mut wanted, ROWS, EVEN),
    );
    for value in &mut wanted {
        *value = scalar::gelu_tanh(*value);
    }
    // Half of the last place of bfloat16 of results below 32, and a tenth more for the exponential.
    (greatest(&found, &wanted), 0.07)
}

fn gated(isa: Isa, precision: Precision) -> (f64, f64) {
    let (x, g, u) = (
        values(ROWS * INNER, 18),
        values(OUT * INNER, 19),
        values(OUT * INNER, 20),
    );
    let pack = |w| PackedMatrix::from_rows_with(isa, precision, OUT, INNER, w);
    let (gate, up) = (pack(&g), pack(&u));
    let mut found = vec![f32::NAN; ROWS * OUT];
    let product = Product {
        weights: &gate,
        bias: None,
        activation: Activation::Silu,
        write: Write::Store,
        out: RowsMut::new(&mut found, ROWS, OUT),
    };
    matmul_gated(Rows::new(&x, ROWS, INNER), product, (&up, None));
    let x = narrow(precision, &x, false);
    let times = |w: &[f32]| {
        let (w, mut out) = (narrow(precision, w, true), vec![0.0; ROWS * OUT]);
        scalar::matmul(
            Rows::new(&x, ROWS, INNER),
            Rows::new(&w, OUT, INNER),
            RowsMut::new(&mut out, ROWS, OUT),
        );
        out
    };
    let products = times(&g).into_iter().zip(times(&u));
    let wanted: Vec<f32> = products.map(|(g, u)| scalar::silu(g) * u).collect();
    // Roundings of both sums, each times the other, which stays below some twenty.
    (greatest(&found, &wanted), 2e-5 * INNER as f64)
}

/// Rows as a product of this precision sees them.
fn narrow(precision: Precision, values: &[f32], is_weights: bool) -> Vec<f32> {
    let rows = values.chunks_exact(INNER).flat_map(|row| match precision {
        Precision::F32 => row.to_vec(),
        Precision::Bf16 | Precision::Bf16Short => {
            row.iter().map(|v| bf16::from_f32(*v).to_f32()).collect()
        }
        Precision::Int8 | Precision::Int4 => {
            let (bytes, scale) = if precision == Precision::Int4 && is_weights {
                scalar::quantise_groups(row)
            } else {
                scalar::quantise(row)
            };
            bytes.iter().map(|&byte| f32::from(byte) * scale).collect()
        }
    });
    rows.collect()
}

/// Attention over rows, or where `in_bytes` over keys and values that are kept so.
fn attention(isa: Isa, inner: Inner, in_bytes: bool, tolerance: f64) -> (f64, f64) {
    const DIM: usize = 37;
    fn rows(values: &[f32]) -> Rows<'_> {
        Rows::new(values, values.len() / (2 * DIM), 2 * DIM)
    }
    let shape = AttentionShape {
        q_heads: 6,
        kv_heads: 2,
        head_dim: DIM,
        scale: 0.2,
    };
    let (n_q, n_k, offset) = (9, 75, 66);
    let (q_width, kv_width) = (6 * DIM, 2 * DIM);
    let q = values(n_q * q_width, 3);
    let (mut k, mut v) = (values(n_k * kv_width, 4), values(n_k * kv_width, 5));
    let (q, mask) = (Rows::new(&q, n_q, q_width), Mask::Causal { offset });
    let (mut found, mut wanted) = (vec![f32::NAN; n_q * q_width], vec![0.0; n_q * q_width]);
    let out = RowsMut::new(&mut found, n_q, q_width);
    if in_bytes {
        let mut store = KvStore::new_with(isa, inner, KvPrecision::Int8, 2, DIM, n_k);
        store.append(rows(&k), rows(&v));
        attention_stored(&shape, q, &store, mask, out);
        for head in k.chunks_exact_mut(DIM).chain(v.chunks_exact_mut(DIM)) {
            let (bytes, scale) = scalar::quantise(head);
            for (value, byte) in head.iter_mut().zip(bytes) {
                *value = f32::from(byte) * scale;
            }
        }
    } else {
        attention_with(isa, inner, &shape, 1, q, rows(&k), rows(&v), mask, out);
    }
    let out = RowsMut::new(&mut wanted, n_q, q_width);
    scalar::attention(&shape, q, rows(&k), rows(&v), mask, out);
    (greatest(&found, &wanted), tolerance)
}

fn norm(isa: Isa, is_layer: bool) -> (f64, f64) {
    let x = values(ROWS * INNER, 6);
    let (weight, bias) = (values(INNER, 7), values(INNER, 8));
    let (mut found, mut wanted) = (vec![f32::NAN; ROWS * INNER], vec![0.0; ROWS * INNER]);
    let rows = Rows::new(&x, ROWS, INNER);
    let out = RowsMut::new(&mut found, ROWS, INNER);
    if is_layer {
        layer_norm_with(isa, rows, &weight, &bias, 1e-5, out);
    } else {
        rms_norm_with(isa, rows, &weight, 1e-5, out);
    }
    for (row, out) in wanted.chunks_exact_mut(INNER).enumerate() {
        if is_layer {
            scalar::layer_norm(rows.row(row), &weight, &bias, 1e-5, out);
        } else {
            scalar::rms_norm(rows.row(row), &weight, 1e-5, out);
        }
    }
    (greatest(&found, &wanted), 3e-6)
}

fn l2_norm(isa: Isa) -> (f64, f64) {
    let mut found = values(ROWS * INNER, 9);
    let mut wanted = found.clone();
    l2_normalize_with(isa, RowsMut::new(&mut found, ROWS, INNER));
    wanted
        .chunks_exact_mut(INNER)
        .for_each(scalar::l2_normalize);
    (greatest(&found, &wanted), 1e-6)
}

fn rope(isa: Isa) -> (f64, f64) {
    let (heads, half, first) = (3, 19, 5);
    let width = heads * 2 * half;
    let inv_freq = values(half, 10);
    let table = RopeTable::new(&inv_freq, 32, 1.0);
    let x = values(ROWS * width, 11);
    let mut found = x.clone();
    let out = RowsMut::new(&mut found, ROWS, width);
    rope_with(isa, out, heads, 2 * half, first, &table);
    let mut wanted = x.clone();
    for (row, out) in wanted.chunks_exact_mut(width).enumerate() {
        for head in out.chunks_exact_mut(2 * half) {
            for at in 0..half {
                let angle = f64::from((first + row) as f32 * inv_freq[at]);
                let (low, high) = (f64::from(head[at]), f64::from(head[at + half]));
                head[at] = (low * angle.cos() - high * angle.sin()) as f32;
                head[at + half] = (high * angle.cos() + low * angle.sin()) as f32;
            }
        }
    }
    (greatest(&found, &wanted), 1e-6)
}

fn exponential(isa: Isa) -> (f64, f64) {
    let x: Vec<f32> = values(INNER, 12).iter().map(|value| 4.0 * value).collect();
    let wanted: Vec<f32> = x.iter().map(|&x| f64::from(x).exp() as f32).collect();
    let mut found = x;
    exp_with(isa, &mut found);
    (greatest(&found, &wanted), 2e-5)
}

fn gelu(isa: Isa) -> (f64, f64) {
    let x: Vec<f32> = values(INNER, 13).iter().map(|value| 8.0 * value).collect();
    let wanted: Vec<f32> = x.iter().map(|&x| scalar::gelu_tanh(x)).collect();
    let mut found = x;
    gelu_tanh_with(isa, &mut found);
    (greatest(&found, &wanted), 4e-6)
}

fn silu(isa: Isa) -> (f64, f64) {
    let x: Vec<f32> = values(INNER, 14).iter().map(|value| 8.0 * value).collect();
    let up = values(INNER, 15);
    let products = x.iter().zip(&up).map(|(&x, up)| scalar::silu(x) * up);
    let wanted: Vec<f32> = products.collect();
    let mut found = x;
    silu_mul_with(
        isa,
        RowsMut::new(&mut found, 1, INNER),
        Rows::new(&up, 1, INNER),
    );
    (greatest(&found, &wanted), 4e-6)
}

fn maxsim(isa: Isa) -> (f64, f64) {
    let query = values(9 * INNER, 16);
    let query = Rows::new(&query, 9, INNER);
    let page: Vec<f16> = values(OUT * INNER, 17)
        .into_iter()
        .map(f16::from_f32)
        .collect();
    let score = |best: Vec<(u32, f32)>| best.into_iter().map(|best| best.1).collect::<Vec<_>>();
    let found = score(maxsim_f16_argmax_with(isa, query, &page));
    let wanted = score(scalar::maxsim_argmax(query, &page));
    if found.len() != wanted.len() {
        return (f64::NAN, 0.0);
    }
    (greatest(&found, &wanted), 1e-5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_this_machine_is_right() {
        let checks = run();
        let wrong: Vec<&Check> = checks.iter().filter(|check| !check.passed()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(checks.len() % Isa::available().len(), 0);
    }

    #[test]
    fn a_wrong_path_does_not_pass() {
        let error = greatest(&[1.0, f32::NAN, 2.0], &[1.0, 1.0, 2.0]);
        assert!(error.is_nan());
        let check = Check {
            isa: Isa::Scalar,
            operation: "product f32",
            error,
            tolerance: 1.0,
        };
        assert!(!check.passed());
        assert!((greatest(&[1.0, 2.5], &[1.0, 2.0]) - 0.5).abs() < 1e-9);
    }
}
