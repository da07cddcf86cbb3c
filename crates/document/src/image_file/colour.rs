//! Every colour model to RGB, with the rounding of Pillow's C code, so that a model sees the bytes
//! it saw in training.

use image::{DynamicImage, Luma, LumaA, Rgb, RgbImage, Rgba};

/// A decoded picture as RGB on white.
///
/// Sixteen bits are cut to eight by dropping the lower byte, as Pillow reads 16-bit RGB.
pub(crate) fn to_rgb(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma8(image) => map(
            image.width(),
            image.height(),
            image.pixels(),
            |Luma([l])| [*l; 3],
        ),
        DynamicImage::ImageLumaA8(image) => map(
            image.width(),
            image.height(),
            image.pixels(),
            |LumaA([l, a])| on_white([*l; 3], *a),
        ),
        DynamicImage::ImageRgba8(image) => map(
            image.width(),
            image.height(),
            image.pixels(),
            |Rgba([r, g, b, a])| on_white([*r, *g, *b], *a),
        ),
        DynamicImage::ImageLuma16(image) => map(
            image.width(),
            image.height(),
            image.pixels(),
            |Luma([l])| [high(*l); 3],
        ),
        DynamicImage::ImageLumaA16(image) => map(
            image.width(),
            image.height(),
            image.pixels(),
            |LumaA([l, a])| on_white([high(*l); 3], high(*a)),
        ),
        DynamicImage::ImageRgb16(image) => {
            map(image.width(), image.height(), image.pixels(), |Rgb(c)| {
                c.map(high)
            })
        }
        DynamicImage::ImageRgba16(image) => map(
            image.width(),
            image.height(),
            image.pixels(),
            |Rgba([r, g, b, a])| on_white([*r, *g, *b].map(high), high(*a)),
        ),
        // Floating point, which none of the formats decoded here produces, and what later
        // versions may add.
        other @ (DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) | _) => {
            let image = other.into_rgba8();
            map(
                image.width(),
                image.height(),
                image.pixels(),
                |Rgba([r, g, b, a])| on_white([*r, *g, *b], *a),
            )
        }
    }
}

fn map<'a, P: 'a>(
    width: u32,
    height: u32,
    pixels: impl Iterator<Item = &'a P>,
    rgb: impl Fn(&P) -> [u8; 3],
) -> RgbImage {
    let mut out = RgbImage::new(width, height);
    for (to, from) in out.pixels_mut().zip(pixels) {
        to.0 = rgb(from);
    }
    out
}

/// The upper byte.
pub(super) fn high(v: u16) -> u8 {
    (v >> 8) as u8
}

/// A colour of opacity `alpha` over white: `Image.alpha_composite` on an opaque white background
/// (Pillow, `AlphaComposite.c`), in its fixed-point arithmetic.
pub(super) fn on_white(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    // With an opaque background Pillow's coefficients are alpha and 255 - alpha, times 2^7.
    const BITS: u32 = 7;
    let (over, under) = (u32::from(alpha) << BITS, u32::from(255 - alpha) << BITS);
    colour.map(|c| {
        let sum = u32::from(c) * over + 255 * under + (0x80 << BITS);
        // Division by 255.
        ((((sum >> 8) + sum) >> 8) >> BITS) as u8
    })
}

/// CMYK, 255 being full ink, to RGB: `cmyk2rgb` in Pillow's `Convert.c`.
pub(super) fn cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let white = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * white + 128;
        (white - (((product >> 8) + product) >> 8)) as u8
    })
}

/// YCbCr of JFIF (ITU-R BT.601, full range) to RGB.
pub(super) fn ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
    .map(|v| v.round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compositing_rounds_as_pillow_does() {
        // Values of Pillow 13.0.0: Image.alpha_composite(white, Image.new("RGBA", (1, 1), c)).
        for (colour, alpha, expected) in [
            ([0, 0, 0], 0, [255, 255, 255]),
            ([0, 0, 0], 255, [0, 0, 0]),
            ([0, 0, 0], 128, [127, 127, 127]),
            ([10, 100, 200], 77, [181, 208, 238]),
            ([255, 1, 3], 1, [255, 254, 254]),
            ([37, 91, 173], 200, [84, 126, 191]),
        ] {
            assert_eq!(on_white(colour, alpha), expected, "{colour:?} {alpha}");
        }
    }

    #[test]
    fn inks_mix_as_in_pillow() {
        // Values of Pillow 13.0.0: Image.new("CMYK", (1, 1), c).convert("RGB").
        for (inks, expected) in [
            ([0, 0, 0, 0], [255, 255, 255]),
            ([0, 0, 0, 255], [0, 0, 0]),
            ([255, 0, 0, 0], [0, 255, 255]),
            ([10, 100, 200, 50], [197, 125, 44]),
            ([77, 3, 250, 133], [85, 121, 2]),
        ] {
            assert_eq!(cmyk(inks), expected, "{inks:?}");
        }
    }

    #[test]
    fn neutral_chroma_is_grey() {
        for y in [0, 77, 255] {
            assert_eq!(ycbcr([y, 128, 128]), [y; 3]);
        }
        assert_eq!(ycbcr([76, 85, 255]), [254, 0, 0]);
    }
}
