//! Pictures into tiles, exactly as transformers' `Idefics3ImageProcessorPil` does.
//!
//! 1. The longer side becomes `longest_edge` (up or down; up at most `most_enlarged` times, where a
//!    checkpoint of ours says so), the other one follows, made even, both at most 4096.
//! 2. With splitting, both sides grow to multiples of the tile side; the aspect ratio changes, and
//!    what is resized is the rounded result of step 1.
//! 3. The tiles are cut row by row, and the *step-2* picture, squeezed to one tile, follows them as
//!    the overview. A picture of a single tile has no overview. Without splitting the step-1
//!    picture is squeezed to one tile.
//! 4. Samples become `(x * rescale_factor - mean) / std` as f32.
//!
//! Tiles stay bytes until step 4, which is a table look-up for each sample: a page of 17 tiles is
//! 13 MB of bytes but 53 MB of floats, and byte-identical tiles can be looked at once.
//!
//! Two other families cut otherwise ([`Frames`]): PaliGemma's one square is step 3 alone, without an overview;
//! Idefics2's frames, each of a size of its own, are made in `native`.
//!
//! All size arithmetic is in f64 and truncates, as Python's does (`int(w / (w / h))` is not `h`).

use image::RgbImage;
use rayon::prelude::*;

use super::config::{Frames, PreprocessorConfig};
use super::error::{Error, Result};
use super::grid::CHANNELS;
pub use super::grid::{Frame, TileGrid, TileOptions, TilePlan, Tiles};
use super::native;
use super::resample::resize;

/// No side is longer than this after step 1 (`MAX_IMAGE_SIZE` in transformers).
const MAX_IMAGE_SIDE: u32 = 4096;

/// What `detail` may ask for before the limit above applies.
const MAX_DETAIL_EDGE: u32 = 1 << 16;

/// Greatest number of tiles of a picture: the shipped settings make 16, four times their detail
/// 256. A prompt of a thousand tiles has 64 000 tokens, more than any of the models takes.
const MAX_TILES: u64 = 1024;

/// Greatest number of pixels of the picture that is cut, so that a settings file with huge tiles
/// cannot ask for more than 400 MB.
const MAX_PIXELS: u64 = 1 << 27;

/// Cuts pictures by a checkpoint's settings.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    config: PreprocessorConfig,
    /// The f32 of each byte, by channel.
    table: Box<[[f32; 256]; CHANNELS]>,
}

impl ImageProcessor {
    /// A processor with these settings.
    pub fn new(config: PreprocessorConfig) -> Self {
        let table = Box::new(std::array::from_fn(|channel| {
            std::array::from_fn(|byte| normalized(&config, channel, byte as u8))
        }));
        Self { config, table }
    }

    /// The settings.
    pub fn config(&self) -> &PreprocessorConfig {
        &self.config
    }

    /// Longest side in pixels to which pictures are scaled.
    pub fn longest_edge(&self, options: &TileOptions) -> u32 {
        match self.config.frames {
            Frames::Tiles => {}
            Frames::Square => return self.config.longest_edge,
            Frames::Native { .. } => {
                return self.config.longest_edge * if self.splits(*options) { 2 } else { 1 };
            }
        }
        match options.detail {
            Some(detail) => detail
                .get()
                .saturating_mul(self.config.tile_side)
                .min(MAX_DETAIL_EDGE),
            None => self.config.longest_edge,
        }
    }

    /// That of a picture whose longer side has `longer` pixels.
    fn longest_edge_of(&self, longer: u32, options: TileOptions) -> u32 {
        let limit = match (options.detail, self.config.most_enlarged) {
            (None, Some(times)) => longer.saturating_mul(times),
            _ => u32::MAX,
        };
        self.longest_edge(&options).min(limit)
    }

    /// Whether a picture that is large enough is cut.
    fn splits(&self, options: TileOptions) -> bool {
        options.split.unwrap_or(self.config.do_image_splitting)
    }

    /// The sizes that a picture of `width`×`height` pixels goes through.
    ///
    /// # Errors
    /// [`Error::EmptyImage`], [`Error::TooManyTiles`].
    pub fn plan(&self, width: u32, height: u32, options: &TileOptions) -> Result<TilePlan> {
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { width, height });
        }
        let side = self.config.tile_side;
        if let Frames::Native { shortest_edge } = self.config.frames {
            let split = self.splits(*options);
            return native::plan(&self.config, shortest_edge, (width, height), split);
        }
        let longest_edge = self.longest_edge_of(width.max(height), *options);
        let resized = if self.config.do_resize && self.config.frames == Frames::Tiles {
            below_limit(to_longest_edge(width, height, longest_edge))
        } else {
            (width, height)
        };
        let single = TilePlan {
            resized,
            stretched: (side, side),
            grid: TileGrid {
                rows: 0,
                cols: 0,
                tile_side: side,
            },
        };
        if !self.splits(*options) || self.config.frames == Frames::Square {
            return Ok(single);
        }
        let (cols, rows) = tiles_across(resized, side);
        if (cols, rows) == (1, 1) {
            return Ok(single);
        }
        let found = cols.saturating_mul(rows);
        let limit = MAX_TILES.min(MAX_PIXELS / (u64::from(side) * u64::from(side)));
        if found > limit {
            return Err(Error::TooManyTiles {
                width,
                height,
                found,
                limit,
            });
        }
        let (cols, rows) = (cols as u32, rows as u32);
        Ok(TilePlan {
            resized,
            stretched: (cols * side, rows * side),
            grid: TileGrid {
                rows,
                cols,
                tile_side: side,
            },
        })
    }

    /// Cuts a picture.
    ///
    /// # Errors
    /// As [`ImageProcessor::plan`].
    pub fn cut(&self, image: &RgbImage, options: &TileOptions) -> Result<Tiles> {
        let plan = self.plan(image.width(), image.height(), options)?;
        if let Frames::Native { shortest_edge } = self.config.frames {
            return native::cut(&self.config, shortest_edge, image, plan);
        }
        let filter = self.config.resample;
        let side = plan.grid.tile_side;
        let to = |image: &RgbImage, (width, height)| resize(image, width, height, filter);
        // Step 1 is a copy where the size stays, so it is left out then.
        let first = if plan.resized == image.dimensions() {
            None
        } else {
            Some(to(image, plan.resized)?)
        };
        let second = to(first.as_ref().unwrap_or(image), plan.stretched)?;
        drop(first);
        if !plan.grid.is_split() {
            return Ok(Tiles {
                plan,
                frames: second.into_raw(),
                sizes: Vec::new(),
            });
        }
        let overview = to(&second, (side, side))?;
        let mut frames = vec![0; plan.grid.num_frames() * plan.grid.frame_bytes()];
        let (cols, width) = (plan.grid.cols as usize, second.width() as usize);
        let (side, pixels) = (side as usize, second.as_raw());
        let (tiles, last) =
            frames.split_at_mut(plan.grid.frame_bytes() * cols * plan.grid.rows as usize);
        tiles
            .par_chunks_exact_mut(plan.grid.frame_bytes())
            .enumerate()
            .for_each(|(at, tile)| {
                let first = (at / cols * side * width + at % cols * side) * CHANNELS;
                let rows = pixels[first..].chunks(width * CHANNELS);
                for (to, from) in tile.chunks_exact_mut(side * CHANNELS).zip(rows) {
                    to.copy_from_slice(&from[..side * CHANNELS]);
                }
            });
        last.copy_from_slice(overview.as_raw());
        Ok(Tiles {
            plan,
            frames,
            sizes: Vec::new(),
        })
    }

    /// Writes a tile (row, column, channel) as the network wants it: (channel, row, column) in f32.
    ///
    /// # Panics
    /// If `tile` and `out` differ in length.
    pub fn normalize_tile(&self, tile: &[u8], out: &mut [f32]) {
        assert_eq!(
            tile.len(),
            out.len(),
            "a tile and its floats must have one length"
        );
        let (pixels, _) = tile.as_chunks::<CHANNELS>();
        for ((plane, table), channel) in out
            .chunks_exact_mut(pixels.len().max(1))
            .zip(self.table.iter())
            .zip(0..CHANNELS)
        {
            for (value, pixel) in plane.iter_mut().zip(pixels) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }
}

/// Step 4 for one byte: the product in f64, rounded to f32, the rest in f32 (`rescale` and
/// `normalize` of transformers' `image_transforms.py`).
fn normalized(config: &PreprocessorConfig, channel: usize, byte: u8) -> f32 {
    let mut value = f32::from(byte);
    if config.do_rescale {
        value = (f64::from(byte) * config.rescale_factor) as f32;
    }
    if config.do_normalize {
        value = (value - config.image_mean[channel] as f32) / config.image_std[channel] as f32;
    }
    value
}

/// `_resize_output_size_rescale_to_max_len`.
pub(super) fn to_longest_edge(width: u32, height: u32, longest: u32) -> (u32, u32) {
    let aspect = f64::from(width) / f64::from(height);
    let even = |side: u32| side.saturating_add(side % 2);
    if width >= height {
        (longest, even((f64::from(longest) / aspect) as u32).max(1))
    } else {
        (even((f64::from(longest) * aspect) as u32).max(1), longest)
    }
}

/// `_resize_output_size_scale_below_upper_bound`.
fn below_limit((width, height): (u32, u32)) -> (u32, u32) {
    let aspect = f64::from(width) / f64::from(height);
    let limit = MAX_IMAGE_SIDE;
    if width >= height && width > limit {
        (limit, ((f64::from(limit) / aspect) as u32).max(1))
    } else if height > width && height > limit {
        (((f64::from(limit) * aspect) as u32).max(1), limit)
    } else {
        (width, height)
    }
}

/// Columns and rows of step 2 (`resize_for_vision_encoder`).
fn tiles_across((width, height): (u32, u32), side: u32) -> (u64, u64) {
    let (w, h, side) = (f64::from(width), f64::from(height), f64::from(side));
    let aspect = w / h;
    let ceil = |length: f64| (length / side).ceil();
    if width >= height {
        let cols = ceil(w);
        (cols as u64, ceil((cols * side / aspect).trunc()) as u64)
    } else {
        let rows = ceil(h);
        (ceil((rows * side * aspect).trunc()) as u64, rows as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn processor(longest_edge: u32, tile_side: u32) -> ImageProcessor {
        ImageProcessor::new(PreprocessorConfig {
            longest_edge,
            tile_side,
            ..PreprocessorConfig::default()
        })
    }

    fn frames(width: u32, height: u32) -> (u32, u32, usize) {
        let plan = processor(2048, 512)
            .plan(width, height, &TileOptions::default())
            .unwrap();
        (plan.grid.rows, plan.grid.cols, plan.grid.num_frames())
    }

    #[test]
    fn frames_of_common_sizes() {
        // MODELS section 4, made by running transformers with the 256M files.
        assert_eq!(frames(1700, 2200), (4, 4, 17));
        assert_eq!(frames(1240, 1754), (4, 3, 13));
        assert_eq!(frames(595, 842), (4, 3, 13));
        assert_eq!(frames(800, 600), (3, 4, 13));
        assert_eq!(frames(3000, 500), (1, 4, 5));
        assert_eq!(frames(512, 512), (4, 4, 17));
        assert_eq!(frames(100, 100), (4, 4, 17));
        assert_eq!(frames(2048, 2048), (4, 4, 17));
        assert_eq!(frames(20, 20), (4, 4, 17));
    }

    #[test]
    fn a_line_is_one_row() {
        let plan = processor(2048, 512)
            .plan(100_000, 1, &TileOptions::default())
            .unwrap();
        assert_eq!(plan.resized, (2048, 1));
        assert_eq!(plan.stretched, (2048, 512));
        let plan = processor(2048, 512)
            .plan(1, 100_000, &TileOptions::default())
            .unwrap();
        assert_eq!((plan.grid.rows, plan.grid.cols), (4, 1));
    }

    #[test]
    fn the_largest_side_is_4096() {
        let detail = |detail| TileOptions {
            detail: NonZeroU32::new(detail),
            split: None,
        };
        let plan = processor(2048, 512)
            .plan(1000, 500, &detail(u32::MAX))
            .unwrap();
        assert_eq!(plan.resized, (4096, 2048));
        assert_eq!((plan.grid.rows, plan.grid.cols), (4, 8));
        let plan = processor(2048, 512).plan(1000, 500, &detail(1)).unwrap();
        assert_eq!(plan.resized, (512, 256));
        assert_eq!(
            plan.grid,
            TileGrid {
                rows: 0,
                cols: 0,
                tile_side: 512
            }
        );
        assert_eq!(plan.stretched, (512, 512));
    }

    #[test]
    fn a_small_picture_is_enlarged_no_more_than_the_file_allows() {
        let processor = ImageProcessor::new(PreprocessorConfig {
            most_enlarged: Some(2),
            ..processor(1024, 256).config().clone()
        });
        let plan = |width, height, detail| {
            let options = TileOptions {
                detail: NonZeroU32::new(detail),
                split: None,
            };
            let plan = processor.plan(width, height, &options).unwrap();
            (plan.resized, plan.grid.rows, plan.grid.cols)
        };
        assert_eq!(plan(256, 256, 0), ((512, 512), 2, 2));
        assert_eq!(plan(256, 100, 0), ((512, 200), 1, 2));
        assert_eq!(plan(120, 60, 0), ((240, 120), 0, 0));
        assert_eq!(plan(512, 512, 0), ((1024, 1024), 4, 4));
        assert_eq!(plan(2000, 1000, 0), ((1024, 512), 2, 4));
        // What the caller asks for is what he gets.
        assert_eq!(plan(256, 256, 4), ((1024, 1024), 4, 4));
    }

    #[test]
    fn too_many_tiles_is_an_error() {
        let error = processor(65_536, 8)
            .plan(100, 100, &TileOptions::default())
            .unwrap_err();
        assert!(
            matches!(error, Error::TooManyTiles { found: 262_144, .. }),
            "{error}"
        );
        let config = PreprocessorConfig {
            do_resize: false,
            tile_side: 1,
            ..PreprocessorConfig::default()
        };
        let processor = ImageProcessor::new(config);
        let error = processor
            .plan(u32::MAX, u32::MAX, &TileOptions::default())
            .unwrap_err();
        assert!(matches!(error, Error::TooManyTiles { .. }), "{error}");
    }

    #[test]
    fn an_empty_image_is_an_error() {
        let error = processor(64, 16).cut(&RgbImage::new(0, 7), &TileOptions::default());
        assert!(matches!(
            error,
            Err(Error::EmptyImage {
                width: 0,
                height: 7
            })
        ));
    }

    #[test]
    fn tiles_are_the_stretched_picture_cut() {
        let image = RgbImage::from_fn(64, 48, |x, y| {
            image::Rgb([x as u8 * 3, y as u8 * 5, (x * y) as u8])
        });
        let tiles = processor(64, 16)
            .cut(&image, &TileOptions::default())
            .unwrap();
        // 64×48 is already its own step 1 and step 2.
        assert_eq!(tiles.plan.stretched, (64, 48));
        assert_eq!(tiles.num_frames(), 13);
        assert_eq!(tiles.frames().len(), 13);
        for (at, tile) in tiles.frames().take(12).enumerate() {
            let (row, col) = (at as u32 / 4, at as u32 % 4);
            let crop = image::imageops::crop_imm(&image, col * 16, row * 16, 16, 16).to_image();
            assert_eq!(tile.pixels, crop.as_raw(), "tile {at}");
        }
        let overview = resize(&image, 16, 16, super::super::resample::Filter::Lanczos).unwrap();
        assert_eq!(tiles.frames().last().unwrap().pixels, overview.as_raw());
    }

    #[test]
    fn without_splitting_one_tile_is_squeezed_from_step_one() {
        let image = RgbImage::from_fn(33, 90, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let options = TileOptions {
            split: Some(false),
            detail: None,
        };
        let tiles = processor(64, 16).cut(&image, &options).unwrap();
        assert_eq!(tiles.plan.resized, (24, 64));
        assert_eq!(tiles.num_frames(), 1);
        let lanczos = super::super::resample::Filter::Lanczos;
        let expected = resize(&resize(&image, 24, 64, lanczos).unwrap(), 16, 16, lanczos).unwrap();
        assert_eq!(tiles.as_bytes(), expected.as_raw());
    }

    #[test]
    fn floats_are_planar_and_exact() {
        let processor = processor(64, 16);
        let mut out = [9.0; 6];
        processor.normalize_tile(&[0, 128, 255, 255, 127, 1], &mut out);
        // numpy: (float32(x / 255) - float32(0.5)) / float32(0.5)
        assert_eq!(out[0], -1.0);
        assert_eq!(out[1], 1.0);
        assert_eq!(out[2].to_bits(), 0x3b80_8100, "{:x}", out[2].to_bits());
        assert_eq!(out[3].to_bits(), 0xbb80_8080, "{:x}", out[3].to_bits());
        assert_eq!(out[4], 1.0);
        assert_eq!(out[5].to_bits(), 0xbf7d_fdfe, "{:x}", out[5].to_bits());
        processor.normalize_tile(&[], &mut []);
    }
}
