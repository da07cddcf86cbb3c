//! A picture that was cut: the sizes it went through, its tiles, their pixels.

use std::{
    hash::{Hash, Hasher},
    num::NonZeroU32,
};

/// Bytes of a pixel.
pub(super) const CHANNELS: usize = 3;

/// How a picture is cut: rows and columns of tiles of `tile_side`×`tile_side` pixels, followed by
/// an overview; or no rows and columns at all, for a picture that is a single tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileGrid {
    /// Rows of tiles, 0 for a single tile.
    pub rows: u32,
    /// Columns of tiles, 0 for a single tile.
    pub cols: u32,
    /// Pixels on each side of a tile.
    pub tile_side: u32,
}

impl TileGrid {
    /// Whether the picture is cut (and has an overview).
    pub fn is_split(&self) -> bool {
        self.rows > 0 && self.cols > 0
    }

    /// Tiles, overview included.
    pub fn num_frames(&self) -> usize {
        self.rows as usize * self.cols as usize + 1
    }

    /// Bytes of one tile: (row, column, channel).
    pub fn frame_bytes(&self) -> usize {
        self.tile_side as usize * self.tile_side as usize * CHANNELS
    }
}

/// What a caller may change about the cutting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TileOptions {
    /// Longest edge in tiles, instead of the file's `size.longest_edge`. Cut to 4096 pixels.
    pub detail: Option<NonZeroU32>,
    /// Instead of the file's `do_image_splitting`.
    pub split: Option<bool>,
}

/// The sizes a picture goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TilePlan {
    /// Width and height after step 1.
    pub resized: (u32, u32),
    /// Width and height of the picture that is cut: after step 2, or of the single tile.
    pub stretched: (u32, u32),
    /// The tiles.
    pub grid: TileGrid,
}

/// A picture cut into tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiles {
    /// The sizes it went through.
    pub plan: TilePlan,
    /// (tile, row, column, channel): row by row, the overview last.
    pub(super) frames: Vec<u8>,
    /// Width and height of each frame, where they are not all `tile_side`×`tile_side`.
    pub(super) sizes: Vec<(u32, u32)>,
}

/// One picture for the vision tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// (row, column, channel).
    pub pixels: &'a [u8],
}

/// Of a few pixels all over the frame: what differs elsewhere alone is compared byte by byte, which takes a hundredth of
/// hashing all of it.
impl Hash for Frame<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        const SAMPLES: usize = 256;
        (self.width, self.height).hash(state);
        // Odd, beside the powers of two that widths are: samples fall into many columns.
        let step = (self.pixels.len() / SAMPLES) | 1;
        for pixel in self.pixels.iter().step_by(step) {
            state.write_u8(*pixel);
        }
    }
}

impl Tiles {
    /// How the picture was cut.
    pub fn grid(&self) -> TileGrid {
        self.plan.grid
    }

    /// Number of tiles, overview included.
    pub fn num_frames(&self) -> usize {
        self.plan.grid.num_frames()
    }

    /// All tiles: (tile, row, column, channel).
    pub fn as_bytes(&self) -> &[u8] {
        &self.frames
    }

    /// The tiles in order, the overview last.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        let side = self.plan.grid.tile_side;
        let mut rest = self.frames.as_slice();
        (0..self.num_frames()).map(move |index| {
            let (width, height) = self.sizes.get(index).copied().unwrap_or((side, side));
            let pixels;
            (pixels, rest) = rest.split_at(width as usize * height as usize * CHANNELS);
            Frame {
                width,
                height,
                pixels,
            }
        })
    }

    /// A picture whose frames have sizes (width, height) of their own.
    pub(super) fn of_sizes(plan: TilePlan, frames: Vec<u8>, sizes: Vec<(u32, u32)>) -> Self {
        Self {
            plan,
            frames,
            sizes,
        }
    }
}
