//! Visual tokens that outlive the look at a picture.
//!
//! The tower and the connector are most of what a page costs; what they give for a picture depends on the picture,
//! their weights and how the picture is cut, and on nothing that is asked about it. So it can be kept, and an
//! answer can begin from it. It is rounded to f16 here whether it is kept or not: an answer is then the same in
//! both cases.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::f16;

use crate::{Result, processor::TileGrid};

/// What the bytes begin with: the form and its version.
const MAGIC: &[u8; 8] = b"CVISTOK1";
/// Magic, rows, columns, tile side, width, form.
const HEADER_BYTES: usize = 8 + 5 * 4;
/// No picture has more tiles (see `processor::tiles`), no connector is wider.
const MAX_SIDE: u32 = 1 << 16;

/// The visual tokens of one picture.
#[derive(Clone, PartialEq)]
pub struct VisualTokens {
    grid: TileGrid,
    hidden: usize,
    /// `(tiles * tokens_per_tile, hidden)`, row-major.
    values: Arc<[f16]>,
}

impl std::fmt::Debug for VisualTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VisualTokens")
            .field("grid", &self.grid)
            .field("hidden", &self.hidden)
            .field("tokens", &self.num_tokens())
            .finish_non_exhaustive()
    }
}

impl VisualTokens {
    /// From a connector's output `(tokens, hidden)` for a picture cut as `grid`. Values beyond f16 become its
    /// greatest.
    ///
    /// # Errors
    /// When the tensor cannot be read.
    pub fn new(grid: TileGrid, tokens: &Tensor) -> Result<Self> {
        let (_, hidden) = tokens.dims2()?;
        let values = tokens
            .to_dtype(DType::F32)?
            .to_device(&Device::Cpu)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let round = |value: &f32| f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
        Ok(Self {
            grid,
            hidden,
            values: values.iter().map(round).collect(),
        })
    }

    /// How the picture was cut.
    pub fn grid(&self) -> TileGrid {
        self.grid
    }

    /// Number of tokens.
    pub fn num_tokens(&self) -> usize {
        self.values.len() / self.hidden.max(1)
    }

    /// Bytes held.
    pub fn num_bytes(&self) -> usize {
        size_of_val(&*self.values)
    }

    /// Whether they are those of a picture cut into tiles of `tile_side` pixels, with `tokens_per_tile` tokens
    /// each, `hidden` wide.
    pub fn fits(&self, tile_side: usize, tokens_per_tile: usize, hidden: usize) -> bool {
        self.grid.tile_side as usize == tile_side
            && self.hidden == hidden
            && self.num_tokens() == self.grid.num_frames() * tokens_per_tile
    }

    /// Those of several pictures after each other, `(tokens, hidden)` in f32 on the CPU; `None` of no picture.
    pub(crate) fn all(pictures: &[Self]) -> Result<Option<Tensor>> {
        let Some(hidden) = pictures.first().map(|picture| picture.hidden) else {
            return Ok(None);
        };
        if pictures.iter().any(|picture| picture.hidden != hidden) {
            let reason = "visual tokens of different widths cannot stand in one prompt";
            return Err(candle_core::Error::Msg(reason.to_owned()).into());
        }
        let count = pictures.iter().map(|picture| picture.values.len()).sum();
        let mut values = Vec::with_capacity(count);
        for picture in pictures {
            values.extend(picture.values.iter().map(|value| value.to_f32()));
        }
        let shape = (count / hidden.max(1), hidden);
        Ok(Some(Tensor::from_vec(values, shape, &Device::Cpu)?))
    }

    /// A short name for the values.
    pub(crate) fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// For a file: little-endian, sizes first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 2 * self.values.len());
        bytes.extend_from_slice(MAGIC);
        for size in [
            self.grid.rows,
            self.grid.cols,
            self.grid.tile_side,
            self.hidden as u32,
            self.num_tokens() as u32,
        ] {
            bytes.extend_from_slice(&size.to_le_bytes());
        }
        for value in self.values.iter() {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// What [`Self::to_bytes`] wrote; `None` for anything else, and where a value is not finite.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (header, data) = bytes.split_at_checked(HEADER_BYTES)?;
        let sizes = header.strip_prefix(MAGIC)?;
        let mut sizes = sizes
            .chunks_exact(4)
            .map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
        let mut next = || sizes.next().filter(|&size| size < MAX_SIDE);
        let grid = TileGrid {
            rows: next()?,
            cols: next()?,
            tile_side: next()?,
        };
        let (hidden, tokens) = (next()? as usize, next()? as usize);
        if hidden == 0 || data.len() != 2 * hidden * tokens {
            return None;
        }
        let values: Arc<[f16]> = data
            .chunks_exact(2)
            .map(|pair| f16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        values
            .iter()
            .all(|value| value.is_finite())
            .then_some(Self {
                grid,
                hidden,
                values,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> VisualTokens {
        let grid = TileGrid {
            rows: 1,
            cols: 2,
            tile_side: 64,
        };
        let values: Vec<f32> = (0..3 * 4 * 6).map(|at| at as f32 * 0.37 - 9.0).collect();
        let tensor = Tensor::from_vec(values, (12, 6), &Device::Cpu).unwrap();
        VisualTokens::new(grid, &tensor).unwrap()
    }

    #[test]
    fn bytes_come_back() {
        let tokens = tokens();
        assert_eq!(
            VisualTokens::from_bytes(&tokens.to_bytes()),
            Some(tokens.clone())
        );
        assert!(tokens.fits(64, 4, 6) && !tokens.fits(64, 4, 5));
        assert!(!tokens.fits(64, 3, 6) && !tokens.fits(32, 4, 6));
    }

    #[test]
    fn rounding_twice_is_rounding_once() {
        let tokens = tokens();
        let tensor = VisualTokens::all(std::slice::from_ref(&tokens)).unwrap();
        let again = VisualTokens::new(tokens.grid(), &tensor.unwrap()).unwrap();
        assert_eq!(tokens, again);
        assert_eq!(tokens.hash(), again.hash());
    }

    #[test]
    fn values_beyond_the_type_stay_finite() {
        let tensor = Tensor::from_vec(vec![1e9_f32, -1e9], (1, 2), &Device::Cpu).unwrap();
        let grid = TileGrid {
            rows: 0,
            cols: 0,
            tile_side: 8,
        };
        let tokens = VisualTokens::new(grid, &tensor).unwrap();
        assert!(tokens.values.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn damaged_bytes_are_nothing() {
        let good = tokens().to_bytes();
        for len in 0..good.len() {
            assert_eq!(VisualTokens::from_bytes(&good[..len]), None);
        }
        for at in 0..HEADER_BYTES - 8 {
            let mut bad = good.clone();
            bad[8 + at] ^= 0xFF;
            // Another grid of the same number of values may pass here; it does not fit the model then.
            if let Some(found) = VisualTokens::from_bytes(&bad) {
                assert!(!found.fits(64, 4, 6), "byte {at}");
            }
        }
        let mut bad = good;
        let end = bad.len();
        bad[end - 2..].copy_from_slice(&f16::NAN.to_le_bytes());
        assert_eq!(VisualTokens::from_bytes(&bad), None);
    }
}
