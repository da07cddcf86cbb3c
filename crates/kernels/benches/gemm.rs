//! Rates of the kernels at the shapes of the models, beside this machine's peak measured in the same run.
//!
//! `cargo bench -p colibri-kernels`, or with a filter: `cargo bench -p colibri-kernels -- attention case=prefill`. On a machine
//! that is busy with other work: `RAYON_NUM_THREADS=1 cargo bench -p colibri-kernels -- --processor`.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;

use colibri_kernels::attention::{AttentionShape, Inner, Mask, attention_with};
use colibri_kernels::gemm::{
    Activation, PackedMatrix, Precision, Product, Write, matmul, matmul_gated, matmul_group,
};
use colibri_kernels::isa::Isa;
use colibri_kernels::peak::{Clock, bytes_per_second, operations_per_second};
use colibri_kernels::rows::{Rows, RowsMut};
use colibri_kernels::{activation, maxsim, norm, parallel};

/// Rows, shared dimension, output features.
const PRODUCTS: [(usize, usize, usize); 13] = [
    (1024, 768, 3072),
    (1024, 768, 768),
    (1024, 3072, 768),
    (17408, 768, 3072),
    (1139, 576, 1536),
    (1139, 576, 192),
    (1139, 12288, 576),
    (729, 1152, 4304),
    (24, 576, 1536),
    (1446, 2048, 8192),
    (1446, 8192, 2048),
    (347, 4096, 14336),
    (347, 14336, 4096),
];
/// The same with so few rows that memory decides; the last is a table larger than the caches.
const SKINNY: [(usize, usize, usize); 6] = [
    (1, 576, 1536),
    (24, 576, 1536),
    (1, 2048, 8192),
    (4, 2048, 8192),
    (8, 2048, 8192),
    (1, 576, 49280),
];

fn main() {
    let mut filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let case = filter
        .iter()
        .find_map(|word| word.strip_prefix("case="))
        .unwrap_or_default()
        .to_owned();
    filter.retain(|word| !word.contains('='));
    let wants = |name: &str| filter.is_empty() || filter.iter().any(|word| word == name);
    println!("{}, {} threads", isa(), parallel::num_threads());
    for (name, precision) in [
        ("f32", Precision::F32),
        ("bf16", Precision::Bf16),
        ("bf16-short", Precision::Bf16Short),
        ("int8", Precision::Int8),
        ("int4", Precision::Int4),
    ] {
        if wants("gemm") || wants(name) {
            products(name, precision, &case);
        }
    }
    if wants("mlp") {
        gated_mlps(&case);
    }
    if wants("skinny") {
        skinny();
    }
    if wants("token") {
        token();
    }
    if wants("attention") {
        attention(&case);
    }
    if wants("rows") {
        rows();
    }
    if wants("maxsim") {
        search();
    }
}

/// `isa=avx2` measures another path than the widest.
fn isa() -> Isa {
    let wanted = std::env::args().find_map(|word| word.strip_prefix("isa=").map(str::to_owned));
    let named = |isa: &Isa| wanted.as_deref() == Some(isa.name());
    Isa::available()
        .into_iter()
        .find(named)
        .unwrap_or_else(Isa::detect)
}

/// `--processor` measures the time the program gets, for machines that are busy with other work.
fn clock() -> Clock {
    if std::env::args().any(|word| word == "--processor") {
        Clock::Processor
    } else {
        Clock::Wall
    }
}

fn values(count: usize) -> Vec<f32> {
    let mut state = 88_172_645_463_325_252_u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn multiply(x: &[f32], m: usize, weights: &PackedMatrix, out: &mut [f32], activation: Activation) {
    let k = weights.in_features();
    let product = Product {
        activation,
        ..product(weights, m, out)
    };
    matmul(Rows::new(x, m, k), product);
}

/// A product and nothing else, over `rows` rows.
fn product<'a>(weights: &'a PackedMatrix, rows: usize, out: &'a mut [f32]) -> Product<'a> {
    let out = RowsMut::new(out, rows, weights.out_features());
    Product {
        weights,
        bias: None,
        activation: Activation::Identity,
        write: Write::Store,
        out,
    }
}

fn products(name: &str, precision: Precision, case: &str) {
    for (m, k, n) in PRODUCTS {
        if !format!("{m}×{k}×{n}").contains(case) {
            continue;
        }
        let (x, w) = (values(m * k), values(n * k));
        let weights = PackedMatrix::from_rows_with(isa(), precision, n, k, &w);
        let mut out = vec![0.0; m * n];
        for activation in [Activation::Identity, Activation::GeluTanh] {
            if activation == Activation::GeluTanh && n < 3072 {
                continue;
            }
            let (mut peak, mut rate) = (0.0_f64, 0.0_f64);
            let operations = 2.0 * (m * k * n) as f64;
            let tries = (2e10 / operations).clamp(3.0, 100.0) as usize;
            for _ in 0..4 {
                peak = peak.max(operations_per_second(isa(), precision, clock(), 3));
                let best = clock().best_of(tries, || {
                    multiply(black_box(&x), m, &weights, &mut out, activation);
                });
                rate = rate.max(operations / best.as_secs_f64());
            }
            println!(
                "{name:5} {m:6}×{k}×{n} {activation:?}: {:.0} of {:.0} Gop/s, {:.0} %",
                rate / 1e9,
                peak / 1e9,
                100.0 * rate / peak
            );
        }
    }
}

/// Rows, width, inner width of half-blocks with a gate: 256M, 2.2B and 8B.
const GATED: [(usize, usize, usize); 4] = [
    (1139, 576, 1536),
    (1446, 2048, 8192),
    (347, 4096, 14336),
    (1, 2048, 8192),
];

/// `down(silu(gate(x)) · up(x))`, taken through as a model does.
fn gated_mlps(case: &str) {
    for (m, k, n) in GATED {
        for precision in [Precision::Bf16, Precision::Bf16Short, Precision::Int8] {
            if !format!("{m}×{k}×{n} {precision:?}").contains(case) {
                continue;
            }
            let w = values(n * k);
            let pack = |n, k| PackedMatrix::from_rows_with(isa(), precision, n, k, &w);
            let (gate, up, down) = (pack(n, k), pack(n, k), pack(k, n));
            let (x, mut out) = (values(m * k), vec![0.0; m * k]);
            let mut run = || {
                parallel::for_each_block(m, u64::MAX, 0, [&mut out], |rows, [out]| {
                    let x = &x[rows.start * k..rows.end * k];
                    let rows = rows.len();
                    let (mut g, mut u) = (vec![0.0; rows * n], vec![0.0; rows * n]);
                    multiply(black_box(x), rows, &gate, &mut g, Activation::Identity);
                    multiply(x, rows, &up, &mut u, Activation::Identity);
                    activation::silu_mul(RowsMut::new(&mut g, rows, n), Rows::new(&u, rows, n));
                    multiply(&g, rows, &down, out, Activation::Identity);
                });
            };
            let mut fused_inner = vec![0.0; m * n];
            let mut fused_out = vec![0.0; m * k];
            let mut fused = || {
                let product = Product {
                    weights: &gate,
                    bias: None,
                    activation: Activation::Silu,
                    write: Write::Store,
                    out: RowsMut::new(&mut fused_inner, m, n),
                };
                matmul_gated(Rows::new(black_box(&x), m, k), product, (&up, None));
                multiply(&fused_inner, m, &down, &mut fused_out, Activation::Identity);
            };
            let operations = 6.0 * (m * k * n) as f64;
            let tries = (1e12 / operations).clamp(4.0, 50.0) as usize;
            let whole = clock().best_of(tries, &mut fused);
            let peak = operations_per_second(isa(), precision, clock(), 10);
            let best = clock().best_of(tries, &mut run);
            println!(
                "gated MLP {precision:?} {m}×{k}×{n}: by rows {:.2} ms, whole {:.2} ms; {:.0} of {:.0} Gop/s",
                best.as_secs_f64() * 1e3,
                whole.as_secs_f64() * 1e3,
                operations / whole.min(best).as_secs_f64() / 1e9,
                peak / 1e9
            );
        }
    }
}

fn skinny() {
    let peak = bytes_per_second(clock(), 10);
    println!("reading memory: {:.1} GB/s", peak / 1e9);
    for (m, k, n) in SKINNY {
        for precision in [
            Precision::F32,
            Precision::Bf16,
            Precision::Bf16Short,
            Precision::Int8,
            Precision::Int4,
        ] {
            let (x, w) = (values(m * k), values(n * k));
            // Several copies, so that the weights come from memory as they do in a model.
            let weights: Vec<_> = (0..(100_000_000 / (n * k)).clamp(1, 40))
                .map(|_| PackedMatrix::from_rows_with(isa(), precision, n, k, &w))
                .collect();
            let mut out = vec![0.0; m * n];
            let best = clock().best_of(10, || {
                for weights in &weights {
                    multiply(black_box(&x), m, weights, &mut out, Activation::Identity);
                }
            });
            let bytes: usize = weights.iter().map(PackedMatrix::num_bytes).sum();
            println!(
                "{precision:?} {m}×{k}×{n}: {:.1} µs, {:.1} GB/s",
                best.as_secs_f64() * 1e6 / weights.len() as f64,
                bytes as f64 / best.as_secs_f64() / 1e9
            );
        }
    }
}

/// All products of a token through the text model of 256M, one after another as a model takes them: 30 layers and the head.
fn token() {
    let (width, kv, inner, vocabulary) = (576, 192, 1536, 49_280);
    let peak = bytes_per_second(clock(), 10);
    println!("reading memory: {:.1} GB/s", peak / 1e9);
    for precision in [
        Precision::Bf16,
        Precision::Bf16Short,
        Precision::Int8,
        Precision::Int4,
    ] {
        let w = values(vocabulary * width);
        let pack =
            |n: usize, k: usize| PackedMatrix::from_rows_with(isa(), precision, n, k, &w[..n * k]);
        let layers: Vec<_> = (0..30)
            .map(|_| {
                let attention = [pack(width, width), pack(kv, width), pack(kv, width)];
                let mlp = [pack(inner, width), pack(inner, width)];
                (attention, pack(width, width), mlp, pack(width, inner))
            })
            .collect();
        let head = pack(vocabulary, width);
        let mut x = values(width);
        let [mut q, mut k, mut v] = [width, kv, kv].map(|n| vec![0.0; n]);
        let (mut wide, mut logits) = (vec![0.0; inner], vec![0.0; vocabulary]);
        let best = clock().best_of(50, || {
            for ([wq, wk, wv], wo, [gate, up], down) in &layers {
                matmul_group(
                    Rows::new(&x, 1, width),
                    &mut [
                        product(wq, 1, &mut q),
                        product(wk, 1, &mut k),
                        product(wv, 1, &mut v),
                    ],
                );
                multiply(&q, 1, wo, &mut x, Activation::Identity);
                let gated = Product {
                    activation: Activation::Silu,
                    ..product(gate, 1, &mut wide)
                };
                matmul_gated(Rows::new(&x, 1, width), gated, (up, None));
                multiply(&wide, 1, down, &mut x, Activation::Identity);
            }
            multiply(&x, 1, &head, &mut logits, Activation::Identity);
        });
        let of = |(attention, wo, mlp, down): &([_; 3], PackedMatrix, [_; 2], _)| {
            let all = attention.iter().chain(mlp).chain([wo, down]);
            all.map(PackedMatrix::num_bytes).sum::<usize>()
        };
        let bytes = layers.iter().map(of).sum::<usize>() + head.num_bytes();
        println!(
            "token {precision:?}: {:.2} ms, {:.1} GB/s",
            best.as_secs_f64() * 1e3,
            bytes as f64 / best.as_secs_f64() / 1e9
        );
    }
}

fn attention(case: &str) {
    let full = |heads, head_dim| AttentionShape {
        q_heads: heads,
        kv_heads: heads,
        head_dim,
        scale: (head_dim as f32).sqrt().recip(),
    };
    let grouped = AttentionShape {
        q_heads: 9,
        kv_heads: 3,
        ..full(9, 64)
    };
    let causal = Mask::Causal { offset: 0 };
    for (name, shape, batch, n_q, n_k, mask) in [
        ("SigLIP base", full(12, 64), 1, 1024, 1024, Mask::Full),
        (
            "SigLIP base, 17 tiles",
            full(12, 64),
            17,
            1024,
            1024,
            Mask::Full,
        ),
        ("SigLIP so400m", full(16, 72), 1, 729, 729, Mask::Full),
        ("prefill", grouped, 1, 1139, 1139, causal),
        ("decode", grouped, 1, 1, 1139, Mask::Full),
        ("decode, long", grouped, 1, 1, 16384, Mask::Full),
    ] {
        if !name.contains(case) {
            continue;
        }
        let width = shape.q_heads * shape.head_dim;
        let kv_width = shape.kv_heads * shape.head_dim;
        // Decode reads a cache of keys and one of values; elsewhere all three lie in one buffer.
        let (stride, kv_stride, k_at, v_at) = if n_q == 1 {
            (width, kv_width, 0, n_k * kv_width)
        } else {
            (
                width + 2 * kv_width,
                width + 2 * kv_width,
                width,
                width + kv_width,
            )
        };
        let (q, kv) = (
            values(batch * n_q * stride),
            values(2 * batch * n_k * kv_stride),
        );
        let mut out = vec![0.0; batch * n_q * width];
        let half = if matches!(mask, Mask::Causal { .. }) {
            0.5
        } else {
            1.0
        };
        let operations = half * 4.0 * (batch * n_q * n_k * width) as f64;
        for inner in [Inner::F32, Inner::Bf16] {
            let precision = if inner == Inner::F32 {
                Precision::F32
            } else {
                Precision::Bf16
            };
            let (mut peak, mut rate) = (0.0_f64, 0.0_f64);
            let tries = (1e10 / operations).clamp(3.0, 200.0) as usize;
            for _ in 0..4 {
                peak = peak.max(operations_per_second(isa(), precision, clock(), 3));
                let best = clock().best_of(tries, || {
                    attention_with(
                        isa(),
                        inner,
                        &shape,
                        batch,
                        Rows::strided(black_box(&q), batch * n_q, width, stride),
                        Rows::strided(&kv[k_at..], batch * n_k, kv_width, kv_stride),
                        Rows::strided(&kv[v_at..], batch * n_k, kv_width, kv_stride),
                        mask,
                        RowsMut::new(&mut out, batch * n_q, width),
                    );
                });
                rate = rate.max(operations / best.as_secs_f64());
            }
            println!(
                "attention {inner:?} {name}: {:.3} ms, {:.0} of {:.0} Gop/s, {:.0} %",
                operations / rate * 1e3,
                rate / 1e9,
                peak / 1e9,
                100.0 * rate / peak
            );
        }
    }
}

fn rows() {
    let (m, n) = (1024, 768);
    let x = values(m * n);
    let (weight, mut out, mut wide) = (values(n), values(m * n), values(m * 3072));
    let layer = clock().best_of(100, || {
        norm::layer_norm(
            Rows::new(&x, m, n),
            &weight,
            &weight,
            1e-6,
            RowsMut::new(&mut out, m, n),
        );
    });
    let rms = clock().best_of(100, || {
        norm::rms_norm(
            Rows::new(&x, m, n),
            &weight,
            1e-6,
            RowsMut::new(&mut out, m, n),
        );
    });
    let gelu = clock().best_of(100, || activation::gelu_tanh(black_box(&mut wide)));
    println!("{m}×{n}: layer norm {layer:?}, RMS norm {rms:?}; GELU of {m}×3072 {gelu:?}");
}

fn search() {
    let query = values(20 * 128);
    let page: Vec<half::f16> = values(1088 * 128)
        .into_iter()
        .map(half::f16::from_f32)
        .collect();
    let pages: Vec<Vec<half::f16>> = (0..500).map(|_| page.clone()).collect();
    let pages: Vec<&[half::f16]> = pages.iter().map(Vec::as_slice).collect();
    let best = clock().best_of(10, || {
        black_box(maxsim::maxsim_many(Rows::new(&query, 20, 128), &pages));
    });
    println!(
        "MaxSim, 20 query rows, 10 000 pages of 1088 × 128: {:.0} ms",
        best.as_secs_f64() * 20e3
    );
}
