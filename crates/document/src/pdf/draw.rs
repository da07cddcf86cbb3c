//! Drawing a page onto white.

use hayro::hayro_interpret::{InterpreterSettings, TransformExt};
use hayro::kurbo::Affine;
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::vello_cpu::{Pixmap, RasterizerSettings, RenderContext, Resources, TargetInit};
use hayro::{RenderCache, RenderSettings, render_into};
use hayro_syntax::page::Page;
use image::RgbImage;

/// The rasteriser counts pixels in 16 bits; this leaves room for its rounding to tiles.
const LONGEST_EDGE: f64 = 65_000.0;

/// Pixels (width, height) of a page of `points`, its longer edge `longest_edge` unless that makes
/// more than `max_pixels`.
pub(super) fn pixel_size(points: (f32, f32), longest_edge: u32, max_pixels: u64) -> (u16, u16) {
    let (width, height) = (f64::from(points.0), f64::from(points.1));
    let mut scale = f64::from(longest_edge.max(1)).min(LONGEST_EDGE) / width.max(height);
    let pixels = (width * scale).max(1.0) * (height * scale).max(1.0);
    let allowed = max_pixels.max(1) as f64;
    if pixels > allowed {
        scale *= (allowed / pixels).sqrt();
        // Rounding both edges up could exceed the limit again by half a row.
        return (
            (width * scale).floor().max(1.0) as u16,
            (height * scale).floor().max(1.0) as u16,
        );
    }
    (
        (width * scale).round().max(1.0) as u16,
        (height * scale).round().max(1.0) as u16,
    )
}

/// Draws a page of `points` into `size` pixels, edge to edge.
pub(super) fn draw<'a>(
    page: &'a Page<'a>,
    cache: &RenderCache<'a>,
    points: (f32, f32),
    size: (u16, u16),
) -> RgbImage {
    let mut context = RenderContext::new(size.0, size.1);
    // Both edges are filled exactly, so that a fraction of the page is the same fraction of the
    // picture; rounding stretches a page by less than a pixel.
    let transform = Affine::scale_non_uniform(
        f64::from(size.0) / f64::from(points.0),
        f64::from(size.1) / f64::from(points.1),
    ) * page.initial_transform(true).to_kurbo();
    render_into(
        page,
        cache,
        &InterpreterSettings::default(),
        &RenderSettings::default(),
        &mut context,
        transform,
    );
    context.flush();
    let mut pixmap = Pixmap::new(size.0, size.1);
    context.render_with(
        &mut pixmap,
        &mut Resources::default(),
        RasterizerSettings {
            target_init: TargetInit::Clear(WHITE),
            ..RasterizerSettings::default()
        },
    );
    let mut image = RgbImage::new(u32::from(size.0), u32::from(size.1));
    for (to, from) in image.pixels_mut().zip(pixmap.data()) {
        // Premultiplied, so what is missing to opaque is white.
        let white = 255 - from.a;
        to.0 = [from.r, from.g, from.b].map(|v| v.saturating_add(white));
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_edge_is_what_was_asked_for() {
        assert_eq!(pixel_size((612.0, 792.0), 2048, 100_000_000), (1583, 2048));
        assert_eq!(pixel_size((792.0, 612.0), 512, 100_000_000), (512, 396));
        assert_eq!(pixel_size((14400.0, 1.0), 100, 100_000_000), (100, 1));
    }

    #[test]
    fn a_page_never_has_more_pixels_than_allowed() {
        for (points, edge, limit) in [
            ((14400.0, 14400.0), 50_000, 1_000_000),
            ((1.0, 14400.0), u32::MAX, 5_000),
            ((612.0, 792.0), 2048, 1),
        ] {
            let (width, height) = pixel_size(points, edge, limit);
            assert!(u64::from(width) * u64::from(height) <= limit.max(14_400));
            assert!(width > 0 && height > 0);
        }
    }
}
