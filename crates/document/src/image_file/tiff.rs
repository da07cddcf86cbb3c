//! TIFF and BigTIFF: every directory is a page.
//!
//! Grey of 1 to 32 bits and floating point, RGB, RGBA with either kind of alpha, palette, CMYK and
//! YCbCr, in strips, tiles or planes. Limits: CIE L\*a\*b\* and CCITT Group 3 are refused.

use std::io::Cursor;

use ::tiff::decoder::{Decoder, DecodingResult, Limits as DecoderLimits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use super::{WORKING_BYTES, allocation_limit, check_size, colour};
use crate::error::ImageError;
use crate::limits::Limits;

type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

/// `PhotometricInterpretation` values (TIFF 6.0, page 37).
const BLACK_IS_ZERO: u16 = 1;
const RGB_PALETTE: u16 = 3;

/// The field type of 16-bit integers (TIFF 6.0, page 15).
const SHORT: u16 = 3;

/// `ExtraSamples` value of colours already multiplied with their alpha (TIFF 6.0, page 31).
const ASSOCIATED_ALPHA: u16 = 1;

fn open<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Reader<'a>, ImageError> {
    let mut bounds = DecoderLimits::default();
    bounds.decoding_buffer_size = to_usize(allocation_limit(limits) - WORKING_BYTES);
    bounds.intermediate_buffer_size = to_usize(allocation_limit(limits));
    bounds.ifd_value_size = WORKING_BYTES as usize;
    let reader = Decoder::new(Cursor::new(bytes)).map_err(ImageError::Tiff)?;
    Ok(reader.with_limits(bounds))
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Number of directories, counted no further than one beyond the limit. One that cannot be read
/// counts, so that reading it as a page says why, and ends the count.
pub(super) fn num_pages(bytes: &[u8], limits: &Limits) -> Result<usize, ImageError> {
    let mut reader = open(bytes, limits)?;
    let (width, height) = reader.dimensions().map_err(ImageError::Tiff)?;
    check_size(width, height, limits)?;
    let mut pages = 1;
    while reader.more_images() && pages <= limits.max_pages {
        pages += 1;
        if reader.next_image().is_err() {
            break;
        }
    }
    Ok(pages)
}

/// Decodes the directory `number`, counting from 1.
pub(super) fn decode(bytes: &[u8], number: usize, limits: &Limits) -> Result<RgbImage, ImageError> {
    let mut reader = open_at(bytes, number, limits)?;
    let photometric = reader
        .find_tag_unsigned::<u16>(Tag::PhotometricInterpretation)
        .map_err(ImageError::Tiff)?;
    if photometric != Some(RGB_PALETTE) {
        return convert(&mut reader, None, limits);
    }
    // The decoder refuses palettes, but reads the indices where the file calls them grey.
    let palette = Palette::read(&mut reader)?;
    let as_grey = reader
        .ifd_pointer()
        .and_then(|directory| with_photometric(bytes, directory.0, BLACK_IS_ZERO));
    let Some(as_grey) = as_grey else {
        return Err(unsupported("a palette", ", in an unusual layout"));
    };
    let mut reader = open_at(&as_grey, number, limits)?;
    convert(&mut reader, Some(&palette), limits)
}

/// A decoder at the directory `number`, counting from 1.
fn open_at<'a>(bytes: &'a [u8], number: usize, limits: &Limits) -> Result<Reader<'a>, ImageError> {
    let mut reader = open(bytes, limits)?;
    for _ in 1..number {
        reader.next_image().map_err(ImageError::Tiff)?;
    }
    Ok(reader)
}

/// Decodes the directory a decoder stands at; the samples are indices where there is a palette.
fn convert(
    reader: &mut Reader<'_>,
    palette: Option<&Palette>,
    limits: &Limits,
) -> Result<RgbImage, ImageError> {
    let (width, height) = reader.dimensions().map_err(ImageError::Tiff)?;
    check_size(width, height, limits)?;
    let model = reader.colortype().map_err(ImageError::Tiff)?;
    let samples = Samples::read(reader, model, palette.is_some(), (width, height))?;
    let extra = reader
        .find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)
        .ok()
        .flatten()
        .unwrap_or_default();
    let premultiplied = extra.first() == Some(&ASSOCIATED_ALPHA);
    let orientation = reader
        .find_tag_unsigned::<u16>(Tag::Orientation)
        .ok()
        .flatten()
        .and_then(|v| Orientation::from_exif(u8::try_from(v).ok()?))
        .unwrap_or(Orientation::NoTransforms);
    let mut out = RgbImage::new(width, height);
    for (to, at) in out.pixels_mut().zip(0..) {
        let pixel = samples.pixel(at);
        to.0 = match (model, pixel) {
            (ColorType::Gray(_), &[l, ..]) => palette.map_or([l; 3], |p| p.colour(l)),
            (ColorType::Multiband { .. }, &[l, a, ..]) => over(premultiplied, [l; 3], a),
            (ColorType::RGBA(_), &[r, g, b, a, ..]) => over(premultiplied, [r, g, b], a),
            (ColorType::RGB(_), &[r, g, b, ..]) => [r, g, b],
            (ColorType::CMYK(_) | ColorType::CMYKA(_), &[c, m, y, k, ..]) => {
                colour::cmyk([c, m, y, k])
            }
            (ColorType::YCbCr(_), &[y, cb, cr, ..]) => colour::ycbcr([y, cb, cr]),
            _ => return Err(unsupported(model, "")),
        };
    }
    let mut image = DynamicImage::ImageRgb8(out);
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

fn over(premultiplied: bool, colour: [u8; 3], alpha: u8) -> [u8; 3] {
    if premultiplied {
        colour.map(|c| c.saturating_add(255 - alpha))
    } else {
        colour::on_white(colour, alpha)
    }
}

fn unsupported(model: impl std::fmt::Debug, more: &str) -> ImageError {
    ImageError::TiffColours {
        found: format!("{model:?}{more}"),
    }
}

/// A copy of the file in which a directory's colours are read as `photometric`. `None` where the
/// directory is not laid out as TIFF 6.0 (page 14) or the BigTIFF design says.
fn with_photometric(bytes: &[u8], directory: u64, photometric: u16) -> Option<Vec<u8>> {
    let little = bytes.starts_with(b"II");
    let short = |at: usize| -> Option<u16> {
        let pair = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little {
            u16::from_le_bytes(pair)
        } else {
            u16::from_be_bytes(pair)
        })
    };
    let is_big = short(2)? == 43;
    // Bytes of the count of entries, of an entry, and of an entry before its value.
    let (count_bytes, entry_bytes, before_value) = if is_big { (8, 20, 12) } else { (2, 12, 8) };
    let start = usize::try_from(directory).ok()?.checked_add(count_bytes)?;
    // Entries are sorted by tag and at most one for each.
    let value = (0..=usize::from(u16::MAX))
        .map_while(|i| {
            let at = start.checked_add(i * entry_bytes)?;
            Some((short(at)?, short(at.checked_add(2)?)?, at + before_value))
        })
        .take_while(|(tag, _, _)| *tag <= Tag::PhotometricInterpretation.to_u16())
        .find(|(tag, kind, _)| *tag == Tag::PhotometricInterpretation.to_u16() && *kind == SHORT)
        .map(|(_, _, at)| at)?;
    let mut copy = bytes.to_vec();
    let new = if little {
        photometric.to_le_bytes()
    } else {
        photometric.to_be_bytes()
    };
    copy.get_mut(value..value + 2)?.copy_from_slice(&new);
    Some(copy)
}

/// The samples of a picture, eight bits each.
struct Samples {
    /// The samples of a pixel side by side.
    data: Vec<u8>,
    per_pixel: usize,
}

impl Samples {
    fn read(
        reader: &mut Reader<'_>,
        model: ColorType,
        is_index: bool,
        (width, height): (u32, u32),
    ) -> Result<Self, ImageError> {
        let per_pixel = usize::from(model.num_samples());
        let fits = match model {
            ColorType::Gray(bits) => !is_index || matches!(bits, 1 | 2 | 4 | 8),
            // Grey with one more sample is grey with alpha.
            ColorType::Multiband { num_samples, .. } => num_samples == 2 && !is_index,
            ColorType::RGB(_)
            | ColorType::RGBA(_)
            | ColorType::CMYK(_)
            | ColorType::CMYKA(_)
            | ColorType::YCbCr(_) => !is_index,
            ColorType::Palette(_) | ColorType::GrayA(_) | ColorType::Lab(_) | _ => false,
        };
        if !fits {
            return Err(unsupported(model, ""));
        }
        let mut raw = DecodingResult::U8(Vec::new());
        let layout = reader
            .read_image_to_buffer(&mut raw)
            .map_err(ImageError::Tiff)?;
        if raw.as_buffer(0).as_bytes().len() < layout.complete_len {
            return Err(ImageError::Tiff(TiffError::LimitsExceeded));
        }
        let planar = layout.planes > 1;
        let bits = model.bit_depth();
        let row = width as usize * if planar { 1 } else { per_pixel };
        let data = match raw {
            DecodingResult::U8(data) if bits == 8 => data,
            DecodingResult::U8(data) if matches!(bits, 1 | 2 | 4) => {
                unpacked(&data, bits, row, is_index)
            }
            DecodingResult::U16(data) if bits == 16 => data.into_iter().map(colour::high).collect(),
            DecodingResult::U32(data) => data.into_iter().map(|v| (v >> 24) as u8).collect(),
            DecodingResult::F32(data) => data.into_iter().map(unit).collect(),
            DecodingResult::F64(data) => data.into_iter().map(|v| unit(v as f32)).collect(),
            DecodingResult::U8(_)
            | DecodingResult::U16(_)
            | DecodingResult::U64(_)
            | DecodingResult::F16(_)
            | DecodingResult::I8(_)
            | DecodingResult::I16(_)
            | DecodingResult::I32(_)
            | DecodingResult::I64(_) => {
                return Err(unsupported(model, ", of an unusual sample type"));
            }
        };
        let pixels = width as usize * height as usize;
        if data.len() < pixels * per_pixel {
            return Err(unsupported(model, ", with samples missing"));
        }
        let data = if planar {
            interleaved(&data, per_pixel, pixels)
        } else {
            data
        };
        Ok(Self { data, per_pixel })
    }

    fn pixel(&self, at: usize) -> &[u8] {
        &self.data[at * self.per_pixel..][..self.per_pixel]
    }
}

/// Puts the samples of each pixel side by side, given one plane for each sample.
fn interleaved(planes: &[u8], per_pixel: usize, pixels: usize) -> Vec<u8> {
    let plane = planes.len() / per_pixel;
    (0..pixels)
        .flat_map(|at| (0..per_pixel).map(move |sample| planes[sample * plane + at]))
        .collect()
}

/// A sample between 0 and 1.
fn unit(v: f32) -> u8 {
    // Not a number becomes 0.
    (v * 255.0).round().clamp(0.0, 255.0) as u8
}

/// Samples of 1, 2 or 4 bits, rows starting on whole bytes, as bytes: spread over 0 to 255, or as
/// they are for a palette.
fn unpacked(packed: &[u8], bits: u8, row: usize, is_index: bool) -> Vec<u8> {
    let mask = (1_u8 << bits) - 1;
    let scale = if is_index { 1 } else { 255 / mask };
    let per_byte = usize::from(8 / bits);
    packed
        .chunks(row.div_ceil(per_byte).max(1))
        .flat_map(|bytes| {
            (0..row).map(move |at| {
                let byte = bytes.get(at / per_byte).copied().unwrap_or(0);
                let shift = 8 - bits as usize * (at % per_byte + 1);
                ((byte >> shift) & mask) * scale
            })
        })
        .collect()
}

/// A colour table.
struct Palette(Vec<[u8; 3]>);

impl Palette {
    /// The table: all reds, all greens, all blues, 16 bits each.
    fn read(reader: &mut Reader<'_>) -> Result<Self, ImageError> {
        let map = reader
            .get_tag_u16_vec(Tag::ColorMap)
            .map_err(ImageError::Tiff)?;
        let colours = map.len() / 3;
        Ok(Self(
            (0..colours)
                .map(|i| [0, 1, 2].map(|channel| colour::high(map[channel * colours + i])))
                .collect(),
        ))
    }

    fn colour(&self, index: u8) -> [u8; 3] {
        self.0.get(usize::from(index)).copied().unwrap_or([0; 3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_are_spread_and_indices_are_not() {
        assert_eq!(
            unpacked(&[0b1010_0000, 0b0100_0000], 1, 3, false),
            [255, 0, 255, 0, 255, 0]
        );
        assert_eq!(unpacked(&[0b0001_1011], 2, 4, false), [0, 85, 170, 255]);
        assert_eq!(unpacked(&[0x1f, 0x70], 4, 3, true), [1, 15, 7]);
    }

    #[test]
    fn floating_point_is_clamped() {
        assert_eq!(
            [-1.0, 0.5, 2.0, f32::NAN, f32::INFINITY].map(unit),
            [0, 128, 255, 0, 255]
        );
    }
}
