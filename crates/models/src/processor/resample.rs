//! Pillow's 8-bit resampler, bit for bit.
//!
//! The models were trained on pictures resized by Pillow (`Image.resize`), whose arithmetic is
//! fixed-point: weights in f64, normalised, rounded to 22 fractional bits; a pass over the rows and
//! one over the columns, each rounded and clamped to 8 bits. Every other resizer differs by up to
//! 43 levels at the edge of a letter, because it filters in another order or does not clamp between
//! the passes, so this does what `src/libImaging/Resample.c` of Pillow 13 does.
//!
//! The order of the passes shows in the result. Up to Pillow 12 it is always rows first; Pillow 13
//! begins with the columns where the height loses more than twice what the width loses. Of pages
//! that touches only tall ones (the overview of a page cut into one or two columns of four).
//!
//! Speed: a page takes five such passes of some 300 million multiplications. Sixteen samples are
//! computed side by side, each weight split into two 16-bit halves so that the compiler can use
//! 16-bit multipliers, which every x86-64 and AArch64 has (a 32-bit one would need SSE 4.1). For
//! the horizontal pass sixteen rows are interleaved first, so both passes share one inner loop.
//!
//! Limits: three channels only, whole images only (no `box`, no `reducing_gap`).

use std::f64::consts::PI;

use image::RgbImage;
use rayon::prelude::*;

use super::error::{Error, Result};

/// Samples computed side by side.
const LANES: usize = 16;

/// Colour channels of a pixel.
const CHANNELS: usize = 3;

/// Fractional bits of a weight (`PRECISION_BITS` in Pillow: 32 - 8 - 2).
const PRECISION_BITS: u32 = 22;

/// Bits in the lower half of a weight. The upper half of a weight of 1.0 is 2048 and Lanczos
/// weights stay below 2, so both halves fit 16 signed bits.
const LOW_BITS: u32 = 11;

/// A resampling filter, by Pillow's name. The numbers are those of `resample` in
/// `preprocessor_config.json` (`PIL.Image.Resampling`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// `1`: sinc windowed by sinc, three lobes.
    Lanczos,
    /// `2`: triangle.
    Bilinear,
    /// `3`: cubic with a = -0.5.
    Bicubic,
}

impl Filter {
    /// The filter with Pillow's number, or `None` for the ones that no model here uses.
    pub fn from_pillow(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Lanczos),
            2 => Some(Self::Bilinear),
            3 => Some(Self::Bicubic),
            _ => None,
        }
    }

    /// Half the width of the filter in source pixels, when not shrinking.
    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// The filter's value at distance `x`.
    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
            Self::Bilinear => {
                let x = x.abs();
                if x < 1.0 { 1.0 - x } else { 0.0 }
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// sin(πx)/(πx).
fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}

/// Resizes an image to `width`×`height` pixels, exactly as Pillow does.
///
/// # Errors
/// [`Error::EmptyImage`] where the image or the size asked for has no pixels.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage> {
    for (width, height) in [image.dimensions(), (width, height)] {
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { width, height });
        }
    }
    let (from_width, from_height) = image.dimensions();
    let across = |pixels: &[u8]| {
        let axis = Axis::new(from_width as usize, width as usize, filter);
        horizontal(pixels, from_width as usize, &axis)
    };
    let down = |pixels: &[u8], width: u32| {
        let axis = Axis::new(from_height as usize, height as usize, filter);
        vertical(pixels, width as usize * CHANNELS, &axis)
    };
    let source = image.as_raw();
    // A pass that changes nothing is left out.
    let pixels = match (width != from_width, height != from_height) {
        (false, false) => source.clone(),
        (true, false) => across(source),
        (false, true) => down(source, width),
        (true, true) if columns_first(image.dimensions(), (width, height)) => {
            across(&down(source, from_width))
        }
        (true, true) => down(&across(source), width),
    };
    // A buffer of another size than asked for cannot come out of the passes; were it to, it would
    // show as an image that has no pixels.
    RgbImage::from_raw(width, height, pixels).ok_or(Error::EmptyImage { width, height })
}

/// Whether the vertical pass comes first (`horizontal_first` in Pillow 13, negated).
fn columns_first((from_width, from_height): (u32, u32), (width, height): (u32, u32)) -> bool {
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let down = lost(from_height, height);
    down > 0 && down > lost(from_width, width) * 2
}

/// One weight in two halves: `high * 2^11 + low`, low in 0..2048.
#[derive(Debug, Clone, Copy)]
struct Tap {
    high: i16,
    low: i16,
}

impl Tap {
    /// Rounds a normalised weight to 22 fractional bits, halves away from zero, as Pillow does.
    fn new(weight: f64) -> Self {
        let half = if weight < 0.0 { -0.5 } else { 0.5 };
        let fixed = (weight * f64::from(1u32 << PRECISION_BITS) + half) as i32;
        Self {
            high: (fixed >> LOW_BITS) as i16,
            low: (fixed & ((1 << LOW_BITS) - 1)) as i16,
        }
    }
}

/// The source samples that make one output sample.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// First source sample.
    start: usize,
    /// First weight in [`Axis::taps`].
    first: usize,
    /// Number of samples and weights.
    len: usize,
}

/// Windows and weights of one axis (`precompute_coeffs` and `normalize_coeffs_8bpc`).
#[derive(Debug)]
struct Axis {
    windows: Vec<Window>,
    taps: Vec<Tap>,
}

impl Axis {
    fn new(from: usize, to: usize, filter: Filter) -> Self {
        let scale = from as f64 / to as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let step = 1.0 / filter_scale;
        let mut windows = Vec::with_capacity(to);
        let mut taps = Vec::new();
        let mut weights = Vec::new();
        for i in 0..to {
            let center = (i as f64 + 0.5) * scale;
            // The casts truncate; negative numbers become 0, as Pillow clamps them.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            weights.clear();
            weights.extend((start..end).map(|x| filter.weight((x as f64 - center + 0.5) * step)));
            let sum: f64 = weights.iter().sum();
            windows.push(Window {
                start,
                first: taps.len(),
                len: weights.len(),
            });
            let scaled = |&weight: &f64| if sum == 0.0 { weight } else { weight / sum };
            taps.extend(weights.iter().map(scaled).map(Tap::new));
        }
        Self { windows, taps }
    }

    fn taps(&self, window: Window) -> &[Tap] {
        &self.taps[window.first..window.first + window.len]
    }
}

/// Sixteen weighted sums: lane `i` is the sum over taps `t` of weight `t` times
/// `source[t * stride + i]`, rounded and clamped to 8 bits.
#[inline]
fn mix(taps: &[Tap], source: &[u8], stride: usize) -> [u8; LANES] {
    let mut high = [0i32; LANES];
    let mut low = [0i32; LANES];
    let mut at = 0;
    for tap in taps {
        let samples = &source[at..at + LANES];
        let (h, l) = (i32::from(tap.high), i32::from(tap.low));
        for i in 0..LANES {
            // Wrapping, so that the compiler may vectorise where overflow checks are on. The total
            // stays within 32 bits (Pillow computes it in an int), so partial wraps cancel.
            let sample = i32::from(samples[i]);
            high[i] = high[i].wrapping_add(h.wrapping_mul(sample));
            low[i] = low[i].wrapping_add(l.wrapping_mul(sample));
        }
        at += stride;
    }
    let mut out = [0u8; LANES];
    for i in 0..LANES {
        out[i] = finish(high[i], low[i]);
    }
    out
}

/// One weighted sum, for images narrower than [`LANES`] samples.
fn mix_one(taps: &[Tap], source: &[u8], stride: usize) -> u8 {
    let (mut high, mut low) = (0i32, 0i32);
    for (tap, &sample) in taps.iter().zip(source.iter().step_by(stride)) {
        high = high.wrapping_add(i32::from(tap.high).wrapping_mul(i32::from(sample)));
        low = low.wrapping_add(i32::from(tap.low).wrapping_mul(i32::from(sample)));
    }
    finish(high, low)
}

/// Joins the halves, rounds, drops the fractional bits and clamps (`clip8`).
#[inline]
fn finish(high: i32, low: i32) -> u8 {
    let sum = (high << LOW_BITS)
        .wrapping_add(low)
        .wrapping_add(1 << (PRECISION_BITS - 1));
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Resizes every row. `source` is (row, column, channel) with rows of `width` pixels.
fn horizontal(source: &[u8], width: usize, axis: &Axis) -> Vec<u8> {
    let row_bytes = width * CHANNELS;
    let out_row_bytes = axis.windows.len() * CHANNELS;
    let rows = source.len() / row_bytes;
    let mut out = vec![0u8; rows * out_row_bytes];
    out.par_chunks_mut(LANES * out_row_bytes)
        .zip(source.par_chunks(LANES * row_bytes))
        .for_each_init(
            || vec![0u8; row_bytes * LANES],
            |block, (out, source)| {
                interleave(source, row_bytes, block);
                let mut at = 0;
                for &window in &axis.windows {
                    let taps = axis.taps(window);
                    let from = window.start * CHANNELS * LANES;
                    for channel in 0..CHANNELS {
                        let samples = &block[from + channel * LANES..];
                        let mixed = mix(taps, samples, CHANNELS * LANES);
                        for (row, sample) in out.chunks_exact_mut(out_row_bytes).zip(mixed) {
                            row[at] = sample;
                        }
                        at += 1;
                    }
                }
            },
        );
    out
}

/// Writes sample `i` of row `r` to `block[i * LANES + r]`, for at most [`LANES`] rows. Lanes
/// without a row keep whatever they held: nobody reads them.
fn interleave(source: &[u8], row_bytes: usize, block: &mut [u8]) {
    // In squares of 16 × 16 samples, so that the scattered writes stay in the first-level cache.
    for (first, square) in (0..row_bytes)
        .step_by(LANES)
        .zip(block.chunks_mut(LANES * LANES))
    {
        for (r, row) in source.chunks_exact(row_bytes).enumerate() {
            let samples = &row[first..(first + LANES).min(row_bytes)];
            for (lanes, &sample) in square.chunks_exact_mut(LANES).zip(samples) {
                lanes[r] = sample;
            }
        }
    }
}

/// Resizes every column. `source` is rows of `row_bytes` samples.
fn vertical(source: &[u8], row_bytes: usize, axis: &Axis) -> Vec<u8> {
    let mut out = vec![0u8; axis.windows.len() * row_bytes];
    out.par_chunks_mut(row_bytes)
        .zip(axis.windows.par_iter())
        .with_min_len(8)
        .for_each(|(out, &window)| {
            let taps = axis.taps(window);
            let source = &source[window.start * row_bytes..];
            if row_bytes < LANES {
                for (i, sample) in out.iter_mut().enumerate() {
                    *sample = mix_one(taps, &source[i..], row_bytes);
                }
                return;
            }
            let last = row_bytes - LANES;
            for i in (0..last).step_by(LANES) {
                out[i..i + LANES].copy_from_slice(&mix(taps, &source[i..], row_bytes));
            }
            // The last sixteen overlap the ones before where the row is no multiple of sixteen.
            out[last..].copy_from_slice(&mix(taps, &source[last..], row_bytes));
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        let mut state = 7u32;
        RgbImage::from_fn(width, height, |_, _| {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            image::Rgb([next(), next(), next()])
        })
    }

    /// The definition, one sample at a time.
    fn plain(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
        let across = Axis::new(image.width() as usize, width as usize, filter);
        let down = Axis::new(image.height() as usize, height as usize, filter);
        let sum = |axis: &Axis, i: u32, at: &dyn Fn(u32) -> u8| {
            let window = axis.windows[i as usize];
            let taps = axis.taps(window).iter();
            let total: i64 = taps
                .zip(window.start as u32..)
                .map(|(tap, x)| {
                    ((i64::from(tap.high) << LOW_BITS) + i64::from(tap.low)) * i64::from(at(x))
                })
                .sum();
            ((total + (1 << 21)) >> 22).clamp(0, 255) as u8
        };
        let rgb = |value: &dyn Fn(usize) -> u8| image::Rgb([value(0), value(1), value(2)]);
        let rows = |image: &RgbImage| {
            RgbImage::from_fn(width, image.height(), |x, y| {
                rgb(&|c| sum(&across, x, &|x| image.get_pixel(x, y)[c]))
            })
        };
        let columns = |image: &RgbImage| {
            RgbImage::from_fn(image.width(), height, |x, y| {
                rgb(&|c| sum(&down, y, &|y| image.get_pixel(x, y)[c]))
            })
        };
        match (width == image.width(), height == image.height()) {
            (true, true) => image.clone(),
            (false, true) => rows(image),
            (true, false) => columns(image),
            (false, false) if columns_first(image.dimensions(), (width, height)) => {
                rows(&columns(image))
            }
            (false, false) => columns(&rows(image)),
        }
    }

    #[test]
    fn columns_go_first_where_the_height_loses_most() {
        assert!(columns_first((1024, 2048), (512, 512)));
        assert!(!columns_first((1536, 2048), (512, 512)));
        assert!(columns_first((100, 11), (300, 10)));
        assert!(!columns_first((100, 10), (300, 11)));
        assert!(!columns_first((10, 12), (9, 10)));
    }

    #[test]
    fn lanes_agree_with_the_definition() {
        let sizes = [1u32, 2, 5, 16, 17, 33, 50];
        for filter in [Filter::Lanczos, Filter::Bicubic, Filter::Bilinear] {
            for from in sizes {
                for to in sizes {
                    let image = picture(from, 51 - from);
                    let fast = resize(&image, to, from, filter).unwrap();
                    assert!(
                        fast == plain(&image, to, from, filter),
                        "{filter:?} {:?} to {to}×{from}",
                        image.dimensions()
                    );
                }
            }
        }
    }

    #[test]
    fn a_flat_image_stays_flat() {
        let image = RgbImage::from_pixel(40, 31, image::Rgb([255, 128, 3]));
        let resized = resize(&image, 77, 9, Filter::Lanczos).unwrap();
        assert!(resized.pixels().all(|pixel| pixel.0 == [255, 128, 3]));
    }

    #[test]
    fn the_same_size_copies() {
        let image = picture(19, 23);
        assert_eq!(resize(&image, 19, 23, Filter::Lanczos).unwrap(), image);
    }

    #[test]
    fn no_pixels_is_an_error() {
        let empty = RgbImage::new(0, 4);
        assert!(matches!(
            resize(&empty, 3, 3, Filter::Lanczos),
            Err(Error::EmptyImage {
                width: 0,
                height: 4
            })
        ));
        assert!(matches!(
            resize(&picture(3, 3), 3, 0, Filter::Lanczos),
            Err(Error::EmptyImage {
                width: 3,
                height: 0
            })
        ));
    }
}
