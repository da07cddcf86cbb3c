//! Visual tokens that outlive the look at a picture.
//!
//! The tower and the connector are most of what a page costs; what they give for a picture depends on the picture,
//! their weights and how the picture is cut, and on nothing that is asked about it. So it can be kept, and an
//! answer can begin from it. It is rounded here whether it is kept or not: an answer is then the same in both cases.
//! To f16 the rounding is below that of any network; to int8, in half the bytes, it is not, and has a receipt
//! (`docs/models.md`).

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::f16;

use crate::{Result, processor::TileGrid};

/// What the bytes begin with: the form and its version.
const MAGIC_F16: &[u8; 8] = b"CVISTOK1";
/// The same for int8: the scale of every token follows, then the values.
const MAGIC_INT8: &[u8; 8] = b"CVISTOK2";
/// Magic, rows, columns, tile side, width, number.
const HEADER_BYTES: usize = 8 + 5 * 4;
/// No picture has more tiles (see `processor::tiles`), no connector is wider.
const MAX_SIDE: u32 = 1 << 16;
/// The greatest value of a byte; -128 is not used.
const BYTE_MAX: f32 = 127.0;

/// In what form visual tokens are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenPrecision {
    /// Two bytes a value.
    #[default]
    F16,
    /// A byte a value and a scale for each token.
    Int8,
}

/// Row-major `(tokens, hidden)`.
#[derive(Clone, PartialEq)]
enum Values {
    F16(Arc<[f16]>),
    Int8 {
        values: Arc<[i8]>,
        /// `(tokens,)`
        scales: Arc<[f32]>,
    },
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::F16(values) => values.len(),
            Self::Int8 { values, .. } => values.len(),
        }
    }

    fn widen(&self, hidden: usize, out: &mut Vec<f32>) {
        match self {
            Self::F16(values) => out.extend(values.iter().map(|value| value.to_f32())),
            Self::Int8 { values, scales } => {
                for (row, &scale) in values.chunks_exact(hidden).zip(scales.iter()) {
                    out.extend(row.iter().map(|&value| f32::from(value) * scale));
                }
            }
        }
    }
}

/// The visual tokens of one picture.
#[derive(Clone, PartialEq)]
pub struct VisualTokens {
    grid: TileGrid,
    hidden: usize,
    values: Values,
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
    /// From a connector's output `(tokens, hidden)` for a picture cut as `grid`, in f16. Values beyond it become its
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
            values: Values::F16(values.iter().map(round).collect()),
        })
    }

    /// The same rounded to `precision`; what is rounded to it already stays.
    #[must_use]
    pub fn rounded(self, precision: TokenPrecision) -> Self {
        let (Values::F16(from), TokenPrecision::Int8) = (&self.values, precision) else {
            return self;
        };
        let (mut values, mut scales) = (Vec::with_capacity(from.len()), Vec::new());
        for row in from.chunks_exact(self.hidden.max(1)) {
            let greatest = row.iter().map(|value| value.to_f32().abs());
            let scale = greatest.fold(0.0, f32::max) / BYTE_MAX;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let round = |value: &f16| {
                (value.to_f32() * inverse)
                    .round()
                    .clamp(-BYTE_MAX, BYTE_MAX)
            };
            values.extend(row.iter().map(|value| round(value) as i8));
            scales.push(scale);
        }
        Self {
            values: Values::Int8 {
                values: values.into(),
                scales: scales.into(),
            },
            ..self
        }
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
        match &self.values {
            Values::F16(values) => size_of_val(&**values),
            Values::Int8 { values, scales } => size_of_val(&**values) + size_of_val(&**scales),
        }
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
            picture.values.widen(hidden, &mut values);
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
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.num_bytes());
        bytes.extend_from_slice(match &self.values {
            Values::F16(_) => MAGIC_F16,
            Values::Int8 { .. } => MAGIC_INT8,
        });
        for size in [
            self.grid.rows,
            self.grid.cols,
            self.grid.tile_side,
            self.hidden as u32,
            self.num_tokens() as u32,
        ] {
            bytes.extend_from_slice(&size.to_le_bytes());
        }
        match &self.values {
            Values::F16(values) => {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            Values::Int8 { values, scales } => {
                bytes.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        bytes
    }

    /// What [`Self::to_bytes`] wrote; `None` for anything else, and where a value is not finite.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (header, data) = bytes.split_at_checked(HEADER_BYTES)?;
        let (magic, sizes) = header.split_at(MAGIC_F16.len());
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
        if hidden == 0 {
            return None;
        }
        let values = if magic == MAGIC_F16 && data.len() == 2 * hidden * tokens {
            let values: Arc<[f16]> = data
                .chunks_exact(2)
                .map(|pair| f16::from_le_bytes([pair[0], pair[1]]))
                .collect();
            values.iter().all(|value| value.is_finite()).then_some(())?;
            Values::F16(values)
        } else if magic == MAGIC_INT8 && data.len() == (4 + hidden) * tokens {
            let (scales, values) = data.split_at(4 * tokens);
            let scales: Arc<[f32]> = scales
                .chunks_exact(4)
                .map(|scale| f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]))
                .collect();
            // No scale of ours is larger: values were in f16 before.
            let is_sound = |scale: &f32| (0.0..=f16::MAX.to_f32()).contains(scale);
            scales.iter().all(is_sound).then_some(())?;
            Values::Int8 {
                values: values.iter().map(|&byte| byte.cast_signed()).collect(),
                scales,
            }
        } else {
            return None;
        };
        Some(Self {
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
        let mut values = Vec::new();
        tokens.values.widen(2, &mut values);
        assert_eq!(values, [f16::MAX.to_f32(), f16::MIN.to_f32()]);
    }

    #[test]
    fn bytes_are_within_half_a_step_and_half_as_many() {
        let halves = tokens();
        let rounded = halves.clone().rounded(TokenPrecision::Int8);
        assert_eq!(rounded.clone().rounded(TokenPrecision::Int8), rounded);
        assert_eq!(
            VisualTokens::from_bytes(&rounded.to_bytes()),
            Some(rounded.clone())
        );
        assert!(rounded.fits(64, 4, 6) && rounded.hash() != halves.hash());
        assert!(rounded.num_bytes() < halves.num_bytes());
        let (mut found, mut wanted) = (Vec::new(), Vec::new());
        rounded.values.widen(6, &mut found);
        halves.values.widen(6, &mut wanted);
        for (found, wanted) in found.chunks(6).zip(wanted.chunks(6)) {
            let greatest = wanted
                .iter()
                .fold(0.0_f32, |most, value| most.max(value.abs()));
            for (found, wanted) in found.iter().zip(wanted) {
                assert!((found - wanted).abs() <= 0.501 * greatest / 127.0);
            }
        }
    }

    #[test]
    fn damaged_bytes_are_nothing() {
        damaged(tokens().to_bytes(), &f16::NAN.to_le_bytes());
        let mut int8 = tokens().rounded(TokenPrecision::Int8).to_bytes();
        damaged(int8.clone(), &[]);
        // A scale that is no number.
        int8[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(VisualTokens::from_bytes(&int8), None);
    }

    /// `bad_end` cannot stand at the end.
    fn damaged(good: Vec<u8>, bad_end: &[u8]) {
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
        if !bad_end.is_empty() {
            let mut bad = good;
            let end = bad.len() - bad_end.len();
            bad[end..].copy_from_slice(bad_end);
            assert_eq!(VisualTokens::from_bytes(&bad), None);
        }
    }
}
