//! Pictures as data URLs, no larger than a service would look at.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{
    ExtendedColorType, ImageEncoder as _, RgbImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
    imageops::{self, FilterType},
};

use super::Error;

/// A page of type is small and sharp as PNG; what would be larger is a photograph or a scan and goes as
/// JPEG.
const MOST_PNG_BYTES: usize = 1 << 20;
/// Letters stay free of visible rings.
const JPEG_QUALITY: u8 = 90;

/// `data:image/…;base64,…`, with a longest side of at most `longest_edge`.
pub(super) fn data_url(image: &RgbImage, longest_edge: u32) -> Result<String, Error> {
    let smaller = scaled(image, longest_edge);
    let image = smaller.as_ref().unwrap_or(image);
    let (width, height) = image.dimensions();
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(image, width, height, ExtendedColorType::Rgb8)
        .map_err(|source| Error::Picture { source })?;
    let mut kind = "png";
    if bytes.len() > MOST_PNG_BYTES {
        bytes.clear();
        kind = "jpeg";
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
            .write_image(image, width, height, ExtendedColorType::Rgb8)
            .map_err(|source| Error::Picture { source })?;
    }
    let mut url = format!("data:image/{kind};base64,");
    STANDARD.encode_string(&bytes, &mut url);
    Ok(url)
}

/// The picture made smaller, if it is too large.
fn scaled(image: &RgbImage, longest_edge: u32) -> Option<RgbImage> {
    let (width, height) = image.dimensions();
    let longest = width.max(height);
    if longest <= longest_edge {
        return None;
    }
    let side = |side: u32| (u64::from(side) * u64::from(longest_edge) / u64::from(longest)).max(1);
    let (width, height) = (side(width) as u32, side(height) as u32);
    Some(imageops::resize(image, width, height, FilterType::Lanczos3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(url: &str, kind: &str) -> Vec<u8> {
        let head = format!("data:image/{kind};base64,");
        STANDARD.decode(url.strip_prefix(&head).unwrap()).unwrap()
    }

    #[test]
    fn a_small_picture_arrives_as_it_is() {
        let image = RgbImage::from_fn(30, 20, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let url = data_url(&image, 64).unwrap();
        let back = image::load_from_memory(&bytes(&url, "png")).unwrap();
        assert_eq!(back.to_rgb8(), image);
    }

    #[test]
    fn a_large_one_is_made_smaller_and_a_noisy_one_is_compressed() {
        let strip = RgbImage::new(4000, 2);
        let back = image::load_from_memory(&bytes(&data_url(&strip, 100).unwrap(), "png")).unwrap();
        assert_eq!((back.width(), back.height()), (100, 1));
        let mut state = 1u32;
        let noise = RgbImage::from_fn(800, 800, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            image::Rgb([(state >> 24) as u8, (state >> 16) as u8, (state >> 8) as u8])
        });
        let jpeg = bytes(&data_url(&noise, 1000).unwrap(), "jpeg");
        assert!(jpeg.len() < 800 * 800 * 3 && jpeg.starts_with(&[0xff, 0xd8]));
    }
}
