//! Attention over a store gives the same bits as over the rows that were appended to it, however they were cut into
//! calls and whatever stood behind them before; over a store in bytes it is what the definition gives over the rows as
//! they are rounded.

use std::ops::Range;

use colibri_kernels::attention::{
    AttentionShape, Inner, KvPrecision, KvStore, Mask, attention_stored, attention_with,
};
use colibri_kernels::isa::Isa;
use colibri_kernels::rows::{Rows, RowsMut};
use colibri_kernels::scalar;
use proptest::prelude::*;

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

/// `n` rows.
fn rows(values: &[f32], n: usize) -> Rows<'_> {
    Rows::new(values, n, values.len() / n)
}

/// Appends rows in pieces, after something else stood behind the first `kept`: it must leave no trace, whatever it was.
fn append_in_pieces(store: &mut KvStore, k: Rows<'_>, v: Rows<'_>, kept: usize, cuts: &[usize]) {
    let n = k.num_rows();
    let nothing = vec![f32::NAN; n * k.num_cols()];
    let nothing = rows(&nothing, n);
    store.append(k.slice(0..kept), v.slice(0..kept));
    store.append(nothing, nothing);
    store.truncate(kept);
    let mut done = kept;
    for &cut in cuts {
        let end = (done + cut).min(n);
        store.append(k.slice(done..end), v.slice(done..end));
        done = end;
    }
    store.append(k.slice(done..n), v.slice(done..n));
}

/// Queries, and what they see of `n` keys.
fn views(n: usize, marks: &[bool]) -> [(Range<usize>, Mask<'_>); 6] {
    [
        (0..n, Mask::Causal { offset: 0 }),
        (n - 1..n, Mask::Causal { offset: n - 1 }),
        (
            0..n,
            Mask::Window {
                offset: 0,
                window: 9,
            },
        ),
        (
            n - 1..n,
            Mask::Window {
                offset: n - 1,
                window: n / 2 + 1,
            },
        ),
        (n / 2..n, Mask::Full),
        (0..1, Mask::Keys(marks)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equals_attention_over_rows(
        group in 1_usize..4,
        kv_heads in 1_usize..3,
        head_dim in prop_oneof![Just(64), Just(72), 1_usize..40, Just(128)],
        // So many that a single row is cut by keys and columns.
        n in prop_oneof![1_usize..150, 260_usize..400],
        cuts in prop::collection::vec(1_usize..70, 0..6),
        kept in 0_usize..100,
        bf16 in any::<bool>(),
        seed: u64,
    ) {
        let shape = AttentionShape { q_heads: group * kv_heads, kv_heads, head_dim, scale: 0.3 };
        let (q_width, kv_width) = (shape.q_heads * head_dim, kv_heads * head_dim);
        let q = values(n * q_width, seed);
        let (k, v) = (values(n * kv_width, seed ^ 1), values(n * kv_width, seed ^ 2));
        let (q, k, v) = (Rows::new(&q, n, q_width), Rows::new(&k, n, kv_width), Rows::new(&v, n, kv_width));
        let inner = if bf16 { Inner::Bf16 } else { Inner::F32 };
        let kept = kept % n;
        let marks: Vec<bool> = values(n, seed ^ 3).iter().map(|&value| value > -0.5).collect();
        for isa in Isa::available() {
            let mut store = KvStore::new_with(isa, inner, KvPrecision::Auto, kv_heads, head_dim, 0);
            append_in_pieces(&mut store, k, v, kept, &cuts);
            prop_assert_eq!(store.len(), n);

            for (rows, mask) in views(n, &marks) {
                let mut wanted = vec![f32::NAN; rows.len() * q_width];
                attention_with(
                    isa,
                    inner,
                    &shape,
                    1,
                    q.slice(rows.clone()),
                    k,
                    v,
                    mask,
                    RowsMut::new(&mut wanted, rows.len(), q_width),
                );
                let mut found = vec![f32::NAN; rows.len() * q_width];
                attention_stored(
                    &shape,
                    q.slice(rows.clone()),
                    &store,
                    mask,
                    RowsMut::new(&mut found, rows.len(), q_width),
                );
                prop_assert!(found == wanted, "{isa} {rows:?} {mask:?}");
            }
        }
    }
}

proptest! {
    // The definition takes its time.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn in_bytes_it_is_attention_over_rounded_rows(
        group in 1_usize..4,
        kv_heads in 1_usize..3,
        head_dim in prop_oneof![Just(64), Just(72), 1_usize..40, Just(128)],
        n in prop_oneof![1_usize..150, 260_usize..400],
        cuts in prop::collection::vec(1_usize..70, 0..6),
        kept in 0_usize..100,
        bf16 in any::<bool>(),
        seed: u64,
    ) {
        let shape = AttentionShape { q_heads: group * kv_heads, kv_heads, head_dim, scale: 0.3 };
        let (q_width, kv_width) = (shape.q_heads * head_dim, kv_heads * head_dim);
        let q = values(n * q_width, seed);
        let (k, v) = (values(n * kv_width, seed ^ 1), values(n * kv_width, seed ^ 2));
        // Each head of each token is rounded by itself.
        let rounded = |rows: &[f32]| -> Vec<f32> {
            let heads = rows.chunks_exact(head_dim).flat_map(|head| {
                let (bytes, scale) = scalar::quantise(head);
                bytes.into_iter().map(move |byte| f32::from(byte) * scale)
            });
            heads.collect()
        };
        let (k_rounded, v_rounded) = (rounded(&k), rounded(&v));
        let (q, k, v) = (Rows::new(&q, n, q_width), rows(&k, n), rows(&v, n));
        // Queries and weights are rounded to 8 bits of mantissa, keys and values no further.
        let (inner, tolerance) = if bf16 { (Inner::Bf16, 1e-2) } else { (Inner::F32, 3e-6) };
        let kept = kept % n;
        let marks: Vec<bool> = values(n, seed ^ 3).iter().map(|&value| value > -0.5).collect();
        for isa in Isa::available() {
            let new = || KvStore::new_with(isa, inner, KvPrecision::Int8, kv_heads, head_dim, 0);
            let mut at_once = new();
            at_once.append(k, v);
            let mut store = new();
            append_in_pieces(&mut store, k, v, kept, &cuts);

            for (queries, mask) in views(n, &marks) {
                let mut wanted = vec![0.0; queries.len() * q_width];
                scalar::attention(
                    &shape,
                    q.slice(queries.clone()),
                    rows(&k_rounded, n),
                    rows(&v_rounded, n),
                    mask,
                    RowsMut::new(&mut wanted, queries.len(), q_width),
                );
                let run = |store| {
                    let mut out = vec![f32::NAN; queries.len() * q_width];
                    attention_stored(
                        &shape,
                        q.slice(queries.clone()),
                        store,
                        mask,
                        RowsMut::new(&mut out, queries.len(), q_width),
                    );
                    out
                };
                let found = run(&store);
                prop_assert!(found == run(&at_once), "{isa} {queries:?} {mask:?}");
                for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                    prop_assert!(
                        (found - wanted).abs() <= tolerance,
                        "{isa} {queries:?} {mask:?} {at}: {found} {wanted}"
                    );
                }
                // A row alone, as a decode step sees it, has the same bits.
                if let Mask::Causal { offset: 0 } = mask {
                    let row = seed as usize % n;
                    let mut alone = vec![f32::NAN; q_width];
                    let mut before = store.clone();
                    before.truncate(row + 1);
                    attention_stored(
                        &shape,
                        q.slice(row..row + 1),
                        &before,
                        Mask::Causal { offset: row },
                        RowsMut::new(&mut alone, 1, q_width),
                    );
                    prop_assert!(alone == found[row * q_width..(row + 1) * q_width]);
                }
            }
        }
    }
}

/// A value beyond all numbers is told by what comes out, and a store in bytes is half the size.
#[test]
fn bytes_keep_what_is_not_finite_and_take_half_the_room() {
    let shape = AttentionShape {
        q_heads: 2,
        kv_heads: 1,
        head_dim: 64,
        scale: 0.1,
    };
    let mut k = values(300 * 64, 1);
    let (q, v) = (values(128, 3), values(300 * 64, 2));
    let run = |k: &[f32], kept| {
        let mut store = KvStore::new(Inner::Bf16, kept, 1, 64, 300);
        store.append(Rows::new(k, 300, 64), Rows::new(&v, 300, 64));
        let mut out = vec![0.0; 128];
        let rows = RowsMut::new(&mut out, 1, 128);
        attention_stored(&shape, Rows::new(&q, 1, 128), &store, Mask::Full, rows);
        (out, store.num_bytes())
    };
    let (auto, bytes) = (run(&k, KvPrecision::Auto).1, run(&k, KvPrecision::Int8).1);
    assert!(bytes * 100 < auto * 57, "{bytes} of {auto}");
    k[70] = f32::INFINITY;
    assert!(
        run(&k, KvPrecision::Int8)
            .0
            .iter()
            .all(|value| value.is_nan())
    );
}
