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
//! Speed: a page takes five such passes of some 300 million multiplications. They are the kernels'
//! ([`colibri_nn::samples`]). For the horizontal pass 64 rows are interleaved first, so that both
//! passes are sums over rows.
//!
//! Limits: three channels only, whole images only (no `box`, no `reducing_gap`).

use std::f64::consts::PI;

use colibri_nn::samples::{FRACTION_BITS, Weights, transpose, weighted_sums};
use image::RgbImage;
use rayon::prelude::*;

use super::error::{Error, Result};

/// Rows that the horizontal pass takes at a time.
const ROWS: usize = 64;

/// Colour channels of a pixel.
const CHANNELS: usize = 3;

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
        let windows = windows(from_width as usize, width as usize, filter);
        horizontal(pixels, from_width as usize, &windows)
    };
    let down = |pixels: &[u8], width: u32| {
        let windows = windows(from_height as usize, height as usize, filter);
        vertical(pixels, width as usize * CHANNELS, &windows)
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

/// Rounds a normalised weight to 22 fractional bits, halves away from zero, as Pillow does.
fn fixed(weight: f64) -> i32 {
    let half = if weight < 0.0 { -0.5 } else { 0.5 };
    (weight * f64::from(1u32 << FRACTION_BITS) + half) as i32
}

/// The source samples that make one output sample.
#[derive(Debug)]
struct Window {
    /// First source sample.
    start: usize,
    weights: Weights,
}

/// The windows of one axis (`precompute_coeffs` and `normalize_coeffs_8bpc`).
fn windows(from: usize, to: usize, filter: Filter) -> Vec<Window> {
    fixed_weights(from, to, filter)
        .map(|(start, weights)| Window {
            start,
            weights: Weights::new(&weights),
        })
        .collect()
}

/// The first source sample and the weights of every output sample.
fn fixed_weights(
    from: usize,
    to: usize,
    filter: Filter,
) -> impl Iterator<Item = (usize, Vec<i32>)> {
    let scale = from as f64 / to as f64;
    let filter_scale = scale.max(1.0);
    let support = filter.support() * filter_scale;
    let step = 1.0 / filter_scale;
    (0..to).map(move |i| {
        let center = (i as f64 + 0.5) * scale;
        // The casts truncate; negative numbers become 0, as Pillow clamps them.
        let start = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |x: usize| filter.weight((x as f64 - center + 0.5) * step);
        let weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let scaled = |weight: f64| if sum == 0.0 { weight } else { weight / sum };
        (start, weights.into_iter().map(scaled).map(fixed).collect())
    })
}

/// Resizes every row. `source` is (row, column, channel) with rows of `width` pixels.
fn horizontal(source: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let row_bytes = width * CHANNELS;
    let out_row_bytes = windows.len() * CHANNELS;
    let rows = source.len() / row_bytes;
    let mut out = vec![0u8; rows * out_row_bytes];
    out.par_chunks_mut(ROWS * out_row_bytes)
        .zip(source.par_chunks(ROWS * row_bytes))
        .for_each_init(
            || (vec![0u8; row_bytes * ROWS], vec![0u8; out_row_bytes * ROWS]),
            |(block, mixed), (out, source)| {
                // Where there are fewer rows, the others keep whatever they held: nobody reads them.
                let rows = source.len() / row_bytes;
                transpose(source, row_bytes, [rows, row_bytes], block, ROWS);
                // The samples of a pixel's three channels and all rows lie side by side.
                let stride = CHANNELS * ROWS;
                for (window, mixed) in windows.iter().zip(mixed.chunks_exact_mut(stride)) {
                    weighted_sums(
                        &window.weights,
                        &block[window.start * stride..],
                        stride,
                        mixed,
                    );
                }
                transpose(mixed, ROWS, [out_row_bytes, rows], out, out_row_bytes);
            },
        );
    out
}

/// Resizes every column. `source` is rows of `row_bytes` samples.
fn vertical(source: &[u8], row_bytes: usize, windows: &[Window]) -> Vec<u8> {
    let mut out = vec![0u8; windows.len() * row_bytes];
    out.par_chunks_mut(row_bytes)
        .zip(windows.par_iter())
        .with_min_len(8)
        .for_each(|(out, window)| {
            let source = &source[window.start * row_bytes..];
            weighted_sums(&window.weights, source, row_bytes, out);
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
        let axis = |from: u32, to: u32| -> Vec<_> {
            fixed_weights(from as usize, to as usize, filter).collect()
        };
        let (across, down) = (axis(image.width(), width), axis(image.height(), height));
        let sum = |axis: &[(usize, Vec<i32>)], i: u32, at: &dyn Fn(u32) -> u8| {
            let (start, weights) = &axis[i as usize];
            let total: i64 = weights
                .iter()
                .zip(*start as u32..)
                .map(|(&weight, x)| i64::from(weight) * i64::from(at(x)))
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
