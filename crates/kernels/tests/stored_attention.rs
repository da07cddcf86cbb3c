//! Attention over a store gives the same bits as over the rows that were appended to it, however they were cut into
//! calls and whatever stood behind them before.

use colibri_kernels::attention::{
    AttentionShape, Inner, KvStore, Mask, attention_stored, attention_with,
};
use colibri_kernels::isa::Isa;
use colibri_kernels::rows::{Rows, RowsMut};
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
            let mut store = KvStore::new_with(isa, inner, kv_heads, head_dim, 0);
            // Something else stood there before: it must leave no trace, whatever it was.
            let nothing = vec![f32::NAN; n * kv_width];
            let nothing = Rows::new(&nothing, n, kv_width);
            store.append(k.slice(0..kept), v.slice(0..kept));
            store.append(nothing, nothing);
            store.truncate(kept);
            let mut done = kept;
            for &cut in &cuts {
                let end = (done + cut).min(n);
                store.append(k.slice(done..end), v.slice(done..end));
                done = end;
            }
            store.append(k.slice(done..n), v.slice(done..n));
            prop_assert_eq!(store.len(), n);

            for (rows, mask) in [
                (0..n, Mask::Causal { offset: 0 }),
                (n - 1..n, Mask::Causal { offset: n - 1 }),
                (0..n, Mask::Window { offset: 0, window: 9 }),
                (n - 1..n, Mask::Window { offset: n - 1, window: n / 2 + 1 }),
                (n / 2..n, Mask::Full),
                (0..1, Mask::Keys(&marks)),
            ] {
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
