//! Pictures from bytes, as `PIL` and transformers' `convert_to_rgb` would hand them to a model:
//! RGB, eight bits, alpha composited on white, the camera's orientation applied.
//!
//! PNG, JPEG, WebP, GIF and BMP go through the `image` crate, TIFF through the `tiff` crate
//! (`tiff`), which knows more colour models and several pages. Sizes are checked against
//! [`Limits`] from the header, before anything is allocated for pixels. JPEG differs from
//! libjpeg-turbo by up to 4 levels where chroma is subsampled.
//!
//! Limits: colour profiles are not applied; of animations only the first frame is seen.

mod colour;
pub(crate) use colour::to_rgb;
mod tiff;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use crate::error::ImageError;
use crate::limits::Limits;
use crate::pdf::panic_message;
use crate::sniff::{Kind, sniff};

/// Bytes per pixel the decoders may allocate in all: 16-bit RGBA.
const MAX_BYTES_PER_PIXEL: u64 = 8;

/// What a decoder may allocate beside pixels: tables, metadata, a strip.
const WORKING_BYTES: u64 = 64 << 20;

/// Decodes the first page of a picture.
///
/// # Errors
/// Where the bytes are no picture, exceed a limit, or cannot be decoded.
pub fn decode_image(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    decode_page(bytes, 1, limits)
}

/// Decodes page `number` of a picture, counting from 1; only a TIFF has more than one.
///
/// # Errors
/// As [`decode_image`], and where there is no such page.
pub(crate) fn decode_page(
    bytes: &[u8],
    number: usize,
    limits: &Limits,
) -> Result<RgbImage, ImageError> {
    let kind = picture_kind(bytes)?;
    contained(kind, || match format(kind) {
        None => tiff::decode(bytes, number, limits),
        Some(format) => decode_single(bytes, kind, format, limits),
    })
}

/// Number of pages; looks at headers only, at most one directory beyond
/// [`Limits::max_pages`].
///
/// # Errors
/// Where the header cannot be read or announces too large a picture.
pub(crate) fn num_pages(bytes: &[u8], limits: &Limits) -> Result<usize, ImageError> {
    let kind = picture_kind(bytes)?;
    contained(kind, || match format(kind) {
        None => tiff::num_pages(bytes, limits),
        Some(format) => {
            decoder(bytes, kind, format, limits)?;
            Ok(1)
        }
    })
}

fn picture_kind(bytes: &[u8]) -> Result<Kind, ImageError> {
    match sniff(bytes) {
        None if bytes.is_empty() => Err(ImageError::Empty),
        None | Some(Kind::Pdf | Kind::Video) => Err(ImageError::Unsupported),
        Some(kind @ (Kind::Png | Kind::Jpeg | Kind::WebP | Kind::Tiff | Kind::Gif | Kind::Bmp)) => {
            Ok(kind)
        }
    }
}

/// The `image` crate's format; `None` for those it does not decode here.
fn format(kind: Kind) -> Option<ImageFormat> {
    match kind {
        Kind::Png => Some(ImageFormat::Png),
        Kind::Jpeg => Some(ImageFormat::Jpeg),
        Kind::WebP => Some(ImageFormat::WebP),
        Kind::Gif => Some(ImageFormat::Gif),
        Kind::Bmp => Some(ImageFormat::Bmp),
        Kind::Tiff | Kind::Pdf | Kind::Video => None,
    }
}

/// Turns a decoder's panic into an error.
fn contained<T>(kind: Kind, work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        Err(ImageError::Panicked {
            kind,
            message: panic_message(payload.as_ref()),
        })
    })
}

/// Checks a header's size.
pub(crate) fn check_size(width: u32, height: u32, limits: &Limits) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        let limit = limits.max_pixels;
        return Err(ImageError::TooLarge {
            width,
            height,
            limit,
        });
    }
    Ok(())
}

/// What a decoder may allocate.
pub(crate) fn allocation_limit(limits: &Limits) -> u64 {
    limits
        .max_pixels
        .saturating_mul(MAX_BYTES_PER_PIXEL)
        .saturating_add(WORKING_BYTES)
}

fn decoder<'a>(
    bytes: &'a [u8],
    kind: Kind,
    format: ImageFormat,
    limits: &Limits,
) -> Result<impl ImageDecoder + 'a, ImageError> {
    let decode = |reason| ImageError::Decode { kind, reason };
    if kind == Kind::Jpeg && !jpeg_is_whole(bytes) {
        return Err(ImageError::CutOff { kind });
    }
    // The PNG decoder allocates a row before its size can be asked for.
    if let (Kind::Png, Some(&[w0, w1, w2, w3, h0, h1, h2, h3])) = (kind, bytes.get(16..24)) {
        let (width, height) = ([w0, w1, w2, w3], [h0, h1, h2, h3]);
        check_size(
            u32::from_be_bytes(width),
            u32::from_be_bytes(height),
            limits,
        )?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut bounds = image::Limits::no_limits();
    bounds.max_alloc = Some(allocation_limit(limits));
    reader.limits(bounds);
    let decoder = reader.into_decoder().map_err(decode)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    Ok(decoder)
}

fn decode_single(
    bytes: &[u8],
    kind: Kind,
    format: ImageFormat,
    limits: &Limits,
) -> Result<RgbImage, ImageError> {
    let mut decoder = decoder(bytes, kind, format, limits)?;
    // Metadata that cannot be read turn nothing.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder)
        .map_err(|reason| ImageError::Decode { kind, reason })?;
    let mut image = DynamicImage::ImageRgb8(colour::to_rgb(image));
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Whether an end-of-image marker follows the last start of a scan. The decoder fills in grey what
/// is missing, so a file that was cut off would pass for a picture.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|w| w == [0xff, marker]);
    match (last(0xda), last(0xd9)) {
        (Some(scan), Some(end)) => end > scan,
        (None | Some(_), None) => false,
        // Without a scan there is no picture; the decoder says so better.
        (None, Some(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_picture_says_so() {
        let limits = Limits::default();
        let error = |bytes: &[u8]| decode_image(bytes, &limits).unwrap_err().to_string();
        assert_eq!(error(b""), "the picture is empty");
        assert!(error(b"%PDF-1.4\n").starts_with("not a picture"));
        assert!(error(b"\x89PNG\r\n\x1a\n").starts_with("not a readable PNG"));
        assert!(error(b"\xff\xd8\xff\xe0").starts_with("the JPEG data are cut off"));
    }

    #[test]
    fn a_thumbnail_does_not_make_a_jpeg_whole() {
        let thumbnail = b"\xff\xda..\xff\xd9";
        let whole = [&b"\xff\xd8"[..], thumbnail, b"\xff\xda....\xff\xd9"].concat();
        assert!(jpeg_is_whole(&whole));
        assert!(!jpeg_is_whole(&whole[..whole.len() - 1]));
        assert!(jpeg_is_whole(&[&whole[..], b"trailer"].concat()));
    }
}
