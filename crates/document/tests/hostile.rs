//! Files cut off and files with bytes changed: never a panic, and an answer either way.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a step that fails is a test that fails"
)]

mod support;

use std::io::Cursor;

use colibri_document::image_file::decode_image;
use colibri_document::{Document, Limits, OpenOptions, RenderSize};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use proptest::prelude::*;
use support::pdf::{PdfPage, pdf};

/// Small, so that a lie about a size costs little.
fn limits() -> Limits {
    Limits {
        max_pixels: 1 << 20,
        ..Limits::default()
    }
}

fn pictures() -> Vec<Vec<u8>> {
    let image = RgbaImage::from_fn(24, 17, |x, y| {
        Rgba([
            (x * 10) as u8,
            (y * 14) as u8,
            (x ^ y) as u8 * 7,
            255 - x as u8,
        ])
    });
    let colour = DynamicImage::ImageRgba8(image);
    let formats = [
        (ImageFormat::Png, colour.clone()),
        (ImageFormat::WebP, colour.clone()),
        (ImageFormat::Tiff, colour.clone()),
        (ImageFormat::Gif, colour.clone()),
        (ImageFormat::Bmp, colour.clone()),
        (ImageFormat::Jpeg, DynamicImage::ImageRgb8(colour.to_rgb8())),
        (
            ImageFormat::Png,
            DynamicImage::ImageLuma16(colour.to_luma16()),
        ),
    ];
    formats
        .into_iter()
        .map(|(format, image)| {
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).unwrap();
            bytes.into_inner()
        })
        .collect()
}

fn document() -> Vec<u8> {
    let mut page = PdfPage::text(&[("Some words", 72.0, 700.0), ("on a page", 72.0, 680.0)]);
    page.content
        .extend(b"q 10 0 0 10 50 50 cm 0 0 1 1 re W n 1 0 0 rg 0 0 5 5 re f Q ");
    page.content
        .extend(b"BI /W 2 /H 2 /BPC 8 /CS /G ID abcd EI");
    page.rotate = 90;
    pdf(&[page, PdfPage::new("BT /F1 9 Tf 3 Tr [(x) -500 (y)] TJ ET")])
}

/// Opens and reads everything, through whichever error there is.
fn read(bytes: &[u8]) {
    let options = OpenOptions {
        limits: limits(),
        ..OpenOptions::default()
    };
    let (_folder, path) = support::file(bytes);
    match Document::open(&path, &options) {
        Ok(mut document) => {
            for number in 1..=document.num_pages().min(3) {
                match document.page(number, &RenderSize { longest_edge: 64 }) {
                    Ok(page) => {
                        for word in &page.text.words {
                            let b: [f32; 4] = word.bbox.into();
                            assert!(b.iter().all(|v| (0.0..=1.0).contains(v)), "{word:?}");
                            assert!(!word.text.is_empty());
                            assert!(!word.text.contains(char::is_control));
                        }
                    }
                    Err(error) => assert!(!error.to_string().contains('\n')),
                }
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

#[test]
fn a_picture_cut_off_anywhere_is_an_error_or_a_picture() {
    for bytes in pictures() {
        assert!(decode_image(&bytes, &limits()).is_ok());
        for cut in 0..bytes.len() {
            let _ = decode_image(&bytes[..cut], &limits());
        }
    }
}

#[test]
fn a_pdf_cut_off_anywhere_is_an_error_or_a_document() {
    let bytes = document();
    for cut in (0..bytes.len()).step_by(3) {
        read(&bytes[..cut]);
    }
    read(&bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_picture_with_changed_bytes_is_an_error_or_a_picture(
        which in 0..7_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = pictures().swap_remove(which);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read(&bytes);
    }

    #[test]
    fn a_pdf_with_changed_bytes_is_an_error_or_a_document(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = document();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read(&bytes);
    }

    #[test]
    fn noise_after_a_magic_number_is_an_error_or_a_document(
        magic in 0..7_usize,
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let magic: &[u8] = [
            &b"\x89PNG\r\n\x1a\n"[..],
            b"\xff\xd8\xff\xe0",
            b"RIFF\x40\0\0\0WEBPVP8L",
            b"GIF89a",
            b"II\x2a\0\x08\0\0\0",
            b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
            b"%PDF-1.4\n",
        ][magic];
        read(&[magic, &noise].concat());
    }
}
