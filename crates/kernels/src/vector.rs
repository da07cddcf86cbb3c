//! Kernels over one row at a time, generic over the instruction set.
//!
//! Exponentials are computed as powers of two: the whole part of the exponent goes straight into the bits of
//! the result and a polynomial of degree 6 (minimax over [-1/2, 1/2], relative error 2e-9) takes the rest, so
//! that what remains is rounding: less than 2e-7 relative.

#![expect(
    clippy::inline_always,
    reason = "generic code has target features only where it is inlined into a function that has them"
)]

use std::f32::consts::LOG2_E;

use crate::simd::Simd;

/// Coefficients of `2^f` on [-1/2, 1/2] from degree 1 up; degree 0 is exactly 1, so that `exp(0)` is.
#[expect(
    clippy::approx_constant,
    reason = "the first coefficient is ln 2 to this precision by chance of rounding"
)]
const EXP2: [f32; 6] = [
    0.693_147_2,
    0.240_226_47,
    0.055_503_29,
    0.009_618_489,
    0.001_339_993_1,
    0.000_153_458_12,
];

/// Coefficients of `2^f` on [0, 1] for results that are rounded to bfloat16, degree 3 (minimax): relative error 8e-5, a
/// twentieth of the rounding.
const EXP2_BRIEF: [f32; 4] = [0.999_925_2, 0.695_833_56, 0.226_067_16, 0.078_024_52];

/// `2^x`: zero below [`Simd::MIN_EXPONENT`], infinity from 128, NaN for NaN.
#[inline(always)]
pub(crate) fn exp2_vector<S: Simd>(s: S, x: S::F) -> S::F {
    // The variable stands on the right: it is what `min` and `max` give back when it is NaN.
    let x = s.max(s.splat(S::MIN_EXPONENT), s.min(s.splat(128.0), x));
    let whole = s.round(x);
    exp2_parts(s, whole, s.sub(x, whole))
}

/// `2^x` like [`exp2_vector`], good enough for bfloat16.
#[inline(always)]
fn exp2_brief_vector<S: Simd>(s: S, x: S::F) -> S::F {
    let (rest, whole) = s.split_exponent(x);
    let mut value = s.splat(EXP2_BRIEF[3]);
    for coefficient in [EXP2_BRIEF[2], EXP2_BRIEF[1], EXP2_BRIEF[0]] {
        value = s.mul_add(value, rest, s.splat(coefficient));
    }
    s.scale_exponent(value, whole)
}

#[inline(always)]
fn exp2_parts<S: Simd>(s: S, whole: S::F, rest: S::F) -> S::F {
    let mut value = s.splat(EXP2[5]);
    for coefficient in [EXP2[4], EXP2[3], EXP2[2], EXP2[1], EXP2[0], 1.0] {
        value = s.mul_add(value, rest, s.splat(coefficient));
    }
    s.scale_exponent(value, whole)
}

/// `e^x`, relative error below 2e-7 where the result is a normal number below 2^127; below the range zero,
/// above it infinity, NaN for NaN.
#[inline(always)]
pub(crate) fn exp_vector<S: Simd>(s: S, x: S::F) -> S::F {
    // ln 2 in two parts, the first with few enough bits for its product with a whole number to be exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let least = s.splat(S::MIN_EXPONENT * std::f32::consts::LN_2);
    let x = s.max(least, s.min(s.splat(128.0 * std::f32::consts::LN_2), x));
    let whole = s.round(s.mul(x, s.splat(LOG2_E)));
    let rest = s.mul_add(whole, s.splat(-LN2_HIGH), x);
    let rest = s.mul_add(whole, s.splat(-LN2_LOW), rest);
    exp2_parts(s, whole, s.mul(rest, s.splat(LOG2_E)))
}

/// `x / (1 + 2^power)`, for powers that grow as `x` falls.
///
/// The power is held below the range in which the inverse would not be normal, and `x` above the point from
/// which the result is zero for all purposes (it is below 4e-36): negative infinity gives the limit.
#[inline(always)]
fn gated<S: Simd>(s: S, x: S::F, power: S::F) -> S::F {
    let exponential = exp2_vector(s, s.min(s.splat(125.0), power));
    let gate = s.reciprocal(s.add(exponential, s.splat(1.0)));
    s.mul(s.max(s.splat(-128.0), x), gate)
}

/// -2 · √(2/π) · log2(e), and the same times 0.044715.
const GELU_LINEAR: f32 = -2.302_208_2;
const GELU_CUBIC: f32 = -0.102_943_24;

/// `0.5 · x · (1 + tanh(u))` with `u = √(2/π) · (x + 0.044715 · x³)`, written as `x / (1 + exp(-2 u))`: the
/// same function without the cancellation at negative `x`.
#[inline(always)]
pub(crate) fn gelu_tanh_vector<S: Simd>(s: S, x: S::F) -> S::F {
    gated(s, x, gelu_power(s, x))
}

/// The same for results that are rounded to bfloat16: relative error 2e-4, a tenth of the rounding.
#[inline(always)]
pub(crate) fn gelu_tanh_brief_vector<S: Simd>(s: S, x: S::F) -> S::F {
    // Below -128 the result is zero for all purposes, and negative infinity gives the limit.
    let x = s.max(s.splat(-128.0), x);
    let exponential = exp2_brief_vector(s, gelu_power(s, x));
    let gate = s.reciprocal_brief(s.add(exponential, s.splat(1.0)));
    s.mul(x, gate)
}

#[inline(always)]
fn gelu_power<S: Simd>(s: S, x: S::F) -> S::F {
    let square = s.mul(x, x);
    s.mul(
        x,
        s.mul_add(square, s.splat(GELU_CUBIC), s.splat(GELU_LINEAR)),
    )
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn silu_vector<S: Simd>(s: S, x: S::F) -> S::F {
    gated(s, x, s.mul(x, s.splat(-LOG2_E)))
}

// The loops below are macros and not functions that take closures: a closure has no target features of its
// own, and one too long to be inlined would call every instruction as a function.

/// Replaces every value of a slice by an expression of it.
macro_rules! map {
    ($s:ident, $values:expr, |$value:ident| $op:expr) => {{
        let mut blocks = $values.chunks_exact_mut(S::LANES);
        for block in &mut blocks {
            let $value = $s.load(block);
            $s.store($op, block);
        }
        let rest = blocks.into_remainder();
        if !rest.is_empty() {
            let $value = $s.load_part(rest);
            $s.store_part($op, rest);
        }
    }};
}

/// Replaces every value of a slice by an expression of it and of the value beside it in another.
macro_rules! zip {
    ($s:ident, $values:expr, $others:expr, |$value:pat_param, $other:pat_param| $op:expr) => {{
        let mut blocks = $values.chunks_exact_mut(S::LANES);
        let mut others = $others.chunks_exact(S::LANES);
        for (block, other) in (&mut blocks).zip(&mut others) {
            let ($value, $other) = ($s.load(block), $s.load(other));
            $s.store($op, block);
        }
        let (rest, other) = (blocks.into_remainder(), others.remainder());
        if !rest.is_empty() {
            let ($value, $other) = ($s.load_part(rest), $s.load_part(other));
            $s.store_part($op, rest);
        }
    }};
}

/// Adds up an expression of every value and the sum so far. It sees zeros past the end.
macro_rules! sum {
    ($s:ident, $values:expr, |$value:ident, $sum:ident| $op:expr) => {{
        let mut sums = [$s.splat(0.0); 4];
        let mut blocks = $values.chunks_exact(4 * S::LANES);
        for block in &mut blocks {
            for (part, sum) in block.chunks_exact(S::LANES).zip(&mut sums) {
                let ($value, $sum) = ($s.load(part), *sum);
                *sum = $op;
            }
        }
        for (part, sum) in blocks.remainder().chunks(S::LANES).zip(&mut sums) {
            let $value = if part.len() == S::LANES {
                $s.load(part)
            } else {
                $s.load_part(part)
            };
            let $sum = *sum;
            *sum = $op;
        }
        $s.sum($s.add($s.add(sums[0], sums[1]), $s.add(sums[2], sums[3])))
    }};
}

#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, values: &mut [f32]) {
    map!(s, values, |value| exp_vector(s, value));
}

#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, values: &mut [f32]) {
    map!(s, values, |value| gelu_tanh_vector(s, value));
}

#[inline(always)]
pub(crate) fn silu_mul<S: Simd>(s: S, gate: &mut [f32], up: &[f32]) {
    zip!(s, gate, up, |gate, up| s.mul(silu_vector(s, gate), up));
}

/// `out = from · factor`.
#[inline(always)]
pub(crate) fn scale<S: Simd>(s: S, from: &[f32], factor: f32, out: &mut [f32]) {
    let factor = s.splat(factor);
    // The output is not read, which would wait for memory that is only written.
    for (from, out) in from.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        if from.len() == S::LANES && out.len() == S::LANES {
            s.store(s.mul(s.load(from), factor), out);
        } else {
            s.store_part(s.mul(s.load_part(from), factor), out);
        }
    }
}

#[inline(always)]
pub(crate) fn layer_norm<S: Simd>(
    s: S,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let count = x.len() as f32;
    let mean = sum!(s, x, |value, sum| s.add(value, sum)) / count;
    // The deviations are summed in a second pass: the difference of two large sums would lose them. For the same
    // reason what is left behind whole vectors goes one by one: zeros read past the end would deviate by the mean.
    let center = s.splat(mean);
    let (whole, rest) = x.split_at(x.len() - x.len() % S::LANES);
    let squares = sum!(s, whole, |value, sum| {
        let deviation = s.sub(value, center);
        s.mul_add(deviation, deviation, sum)
    });
    let rest: f32 = rest.iter().map(|value| (value - mean).powi(2)).sum();
    let variance = (squares + rest) / count;
    let inverse = s.splat(1.0 / (variance + eps).sqrt());
    let end = whole.len();
    for at in (0..end).step_by(S::LANES) {
        let next = at..at + S::LANES;
        let value = s.mul(s.sub(s.load(&x[next.clone()]), center), inverse);
        let (weight, bias) = (s.load(&weight[next.clone()]), s.load(&bias[next.clone()]));
        s.store(s.add(s.mul(value, weight), bias), &mut out[next]);
    }
    if end < x.len() {
        let value = s.mul(s.sub(s.load_part(&x[end..]), center), inverse);
        let (weight, bias) = (s.load_part(&weight[end..]), s.load_part(&bias[end..]));
        s.store_part(s.add(s.mul(value, weight), bias), &mut out[end..]);
    }
}

#[inline(always)]
pub(crate) fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares = sum!(s, x, |value, sum| s.mul_add(value, value, sum));
    let inverse = s.splat(1.0 / (squares / x.len() as f32 + eps).sqrt());
    out.copy_from_slice(x);
    zip!(s, out, weight, |value, weight| {
        s.mul(s.mul(value, inverse), weight)
    });
}

#[inline(always)]
pub(crate) fn l2_normalize<S: Simd>(s: S, x: &mut [f32]) {
    let squares = sum!(s, x, |value, sum| s.mul_add(value, value, sum));
    if squares != 0.0 {
        let norm = s.splat(squares.sqrt());
        map!(s, x, |value| s.div(value, norm));
    }
}

/// Turns `(low[i], high[i])` by the angle whose cosine and sine are given.
#[inline(always)]
pub(crate) fn rotate<S: Simd>(s: S, low: &mut [f32], high: &mut [f32], cos: &[f32], sin: &[f32]) {
    let len = low.len();
    let mut at = 0;
    while at < len {
        let end = (at + S::LANES).min(len);
        let (low, high) = (&mut low[at..end], &mut high[at..end]);
        if end - at == S::LANES {
            let (a, b) = (s.load(low), s.load(high));
            let (cos, sin) = (s.load(&cos[at..end]), s.load(&sin[at..end]));
            s.store(s.sub(s.mul(a, cos), s.mul(b, sin)), low);
            s.store(s.add(s.mul(b, cos), s.mul(a, sin)), high);
        } else {
            let (a, b) = (s.load_part(low), s.load_part(high));
            let (cos, sin) = (s.load_part(&cos[at..end]), s.load_part(&sin[at..end]));
            s.store_part(s.sub(s.mul(a, cos), s.mul(b, sin)), low);
            s.store_part(s.add(s.mul(b, cos), s.mul(a, sin)), high);
        }
        at = end;
    }
}

/// `values *= factors`; both are as long, a whole number of vectors.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(s: S, values: &mut [f32], factors: &[f32]) {
    zip!(s, values, factors, |value, factor| s.mul(value, factor));
}

/// Replaces scores by `2^(factor · (score - greatest))`, `factor` being positive, and returns the sum of the results.
/// A bias of negative infinity hides a key; when all are hidden everything becomes zero, the sum too.
///
/// The length is a whole number of vectors; both lengths agree.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, scores: &mut [f32], factor: f32, bias: Option<&[f32]>) -> f32 {
    // What rounding the greatest makes of it is the same for all, and falls out of the quotients.
    let shift = s.splat(-factor * hide_and_find_greatest(s, scores, bias));
    let factor = s.splat(factor);
    let mut sums = [s.splat(0.0); 4];
    for blocks in scores.chunks_mut(4 * S::LANES) {
        for (block, sum) in blocks.chunks_exact_mut(S::LANES).zip(&mut sums) {
            let value = exp2_vector(s, s.mul_add(s.load(block), factor, shift));
            *sum = s.add(*sum, value);
            s.store(value, block);
        }
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// Like [`softmax`], but writes the results rounded to bfloat16, two to a word, and leaves the scores. The sum
/// is that of the results before rounding.
#[inline(always)]
pub(crate) fn softmax_bf16<S: Simd>(
    s: S,
    scores: &mut [f32],
    factor: f32,
    bias: Option<&[f32]>,
    out: &mut [u32],
) -> f32 {
    let shift = s.splat(-factor * hide_and_find_greatest(s, scores, bias));
    let factor = s.splat(factor);
    let out: &mut [u16] = halves(out);
    let mut sums = [s.splat(0.0); 4];
    let whole = scores.len() - scores.len() % (4 * S::LANES);
    let (full, rest) = scores.split_at(whole);
    let (full_out, rest_out) = out.split_at_mut(whole);
    for (block, out) in full
        .chunks_exact(4 * S::LANES)
        .zip(full_out.chunks_exact_mut(4 * S::LANES))
    {
        for (vector, sum) in sums.iter_mut().enumerate() {
            let at = vector * S::LANES..(vector + 1) * S::LANES;
            let score = s.load(&block[at.clone()]);
            let value = exp2_brief_vector(s, s.mul_add(score, factor, shift));
            *sum = s.add(*sum, value);
            s.store_bf16(value, &mut out[at]);
        }
    }
    let rest = rest.chunks_exact(S::LANES);
    let vectors = rest.zip(rest_out.chunks_exact_mut(S::LANES));
    for ((block, out), sum) in vectors.zip(&mut sums) {
        let value = exp2_brief_vector(s, s.mul_add(s.load(block), factor, shift));
        *sum = s.add(*sum, value);
        s.store_bf16(value, out);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// Adds the bias to the scores and returns the greatest; zero when there is no visible key, so
/// that its difference to negative infinity is negative infinity and not NaN.
#[inline(always)]
fn hide_and_find_greatest<S: Simd>(s: S, scores: &mut [f32], bias: Option<&[f32]>) -> f32 {
    if let Some(bias) = bias {
        zip!(s, scores, bias, |score, bias| s.add(score, bias));
    }
    let mut greatest = [s.splat(f32::NEG_INFINITY); 4];
    let mut blocks = scores.chunks_exact(4 * S::LANES);
    for block in &mut blocks {
        for (vector, greatest) in greatest.iter_mut().enumerate() {
            let score = s.load(&block[vector * S::LANES..(vector + 1) * S::LANES]);
            *greatest = s.max(*greatest, score);
        }
    }
    let rest = blocks.remainder().chunks_exact(S::LANES);
    for (block, greatest) in rest.zip(&mut greatest) {
        *greatest = s.max(*greatest, s.load(block));
    }
    let pair = s.max(
        s.max(greatest[0], greatest[1]),
        s.max(greatest[2], greatest[3]),
    );
    let greatest = s.greatest(pair);
    if greatest == f32::NEG_INFINITY {
        0.0
    } else {
        greatest
    }
}

/// Widens binary16, given as bits.
#[inline(always)]
pub(crate) fn widen_f16<S: Simd>(s: S, from: &[u16], out: &mut [f32]) {
    let mut at = 0;
    while at + S::LANES <= from.len() {
        s.store(
            s.load_f16(&from[at..at + S::LANES]),
            &mut out[at..at + S::LANES],
        );
        at += S::LANES;
    }
    if at < from.len() {
        let mut last = [0; 16];
        last[..from.len() - at].copy_from_slice(&from[at..]);
        s.store_part(s.load_f16(&last), &mut out[at..]);
    }
}

/// Raises `best[lane]` to the greatest of `products[lane], products[lane + LANES], …`, passing over NaN.
///
/// The length of `products` is a whole number of vectors, `best` is one.
#[inline(always)]
pub(crate) fn raise<S: Simd>(s: S, products: &[f32], best: &mut [f32]) {
    let mut greatest = s.load(best);
    for block in products.chunks_exact(S::LANES) {
        greatest = s.max(s.load(block), greatest);
    }
    s.store(greatest, best);
}

pub(crate) fn halves(words: &mut [u32]) -> &mut [u16] {
    bytemuck::cast_slice_mut(words)
}
