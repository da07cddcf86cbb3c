//! Animated GIF and WebP: all frames in their order, composited on white.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::{gif::GifDecoder, webp::WebPDecoder};
use image::{AnimationDecoder, DynamicImage, Frames, ImageDecoder, RgbImage};

use crate::error::ImageError;
use crate::image_file::{allocation_limit, check_size, to_rgb};
use crate::limits::Limits;
use crate::pdf::panic_message;
use crate::sniff::Kind;

/// A frame without a delay stands as long as browsers let it: a tenth of a second.
const USUAL_SECONDS: f64 = 0.1;
/// More frames than this are counted as this many: nobody made them to be looked at.
const MOST_FRAMES: usize = 100_000;

/// Number of frames, and frames a second on average.
pub(super) fn count(bytes: &[u8], kind: Kind, limits: &Limits) -> Result<(usize, f64), ImageError> {
    contained(kind, || {
        let (mut number, mut seconds) = (0, 0.0);
        for frame in frames_of(bytes, kind, limits)?.take(MOST_FRAMES) {
            let frame = frame.map_err(|reason| ImageError::Decode { kind, reason })?;
            let (numerator, denominator) = frame.delay().numer_denom_ms();
            let span = f64::from(numerator) / f64::from(denominator.max(1)) / 1000.0;
            seconds += if span > 0.0 { span } else { USUAL_SECONDS };
            number += 1;
        }
        let fps = if seconds > 0.0 {
            f64::from(number) / seconds
        } else {
            1.0
        };
        Ok((number as usize, fps))
    })
}

/// Hands out the frames of `indices`, which ascend, until told that no more are wanted.
pub(super) fn frames(
    bytes: &[u8],
    kind: Kind,
    limits: &Limits,
    indices: &[usize],
    take: &mut dyn FnMut(usize, RgbImage) -> bool,
) -> Result<(), ImageError> {
    contained(kind, || {
        let mut wanted = indices.iter().copied().peekable();
        for (index, frame) in frames_of(bytes, kind, limits)?.enumerate() {
            if wanted.peek().is_none() {
                break;
            }
            let frame = frame.map_err(|reason| ImageError::Decode { kind, reason })?;
            if wanted.next_if_eq(&index).is_some() {
                let image = to_rgb(DynamicImage::ImageRgba8(frame.into_buffer()));
                if !take(index, image) {
                    break;
                }
            }
        }
        Ok(())
    })
}

fn frames_of<'a>(bytes: &'a [u8], kind: Kind, limits: &Limits) -> Result<Frames<'a>, ImageError> {
    let fail = |reason| ImageError::Decode { kind, reason };
    let mut bounds = image::Limits::no_limits();
    bounds.max_alloc = Some(allocation_limit(limits));
    if kind == Kind::Gif {
        let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(fail)?;
        check_size(decoder.dimensions().0, decoder.dimensions().1, limits)?;
        decoder.set_limits(bounds).map_err(fail)?;
        return Ok(decoder.into_frames());
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(fail)?;
    check_size(decoder.dimensions().0, decoder.dimensions().1, limits)?;
    decoder.set_limits(bounds).map_err(fail)?;
    if decoder.has_animation() {
        return Ok(decoder.into_frames());
    }
    let still = DynamicImage::from_decoder(decoder).map_err(fail)?;
    let frame = image::Frame::new(still.into_rgba8());
    Ok(Frames::new(Box::new(std::iter::once(Ok(frame)))))
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
