//! Pictures of every kind and colour model, and those that lie.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a step that fails is a test that fails"
)]

mod support;

use std::io::Cursor;

use colibri_document::image_file::decode_image;
use colibri_document::{Error, ImageError, Kind, Limits, OpenOptions, RenderSize, sniff};
use image::{DynamicImage, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba};
use support::{open, open_with};
use tiff::encoder::{TiffEncoder, colortype};

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn decode(bytes: &[u8]) -> RgbImage {
    decode_image(bytes, &Limits::default()).unwrap()
}

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 40) as u8, (y * 40) as u8, 99])
    })
}

#[test]
fn lossless_kinds_come_back_as_they_were() {
    let image = gradient(6, 5);
    for (format, kind) in [
        (ImageFormat::Png, Kind::Png),
        (ImageFormat::WebP, Kind::WebP),
        (ImageFormat::Tiff, Kind::Tiff),
        (ImageFormat::Bmp, Kind::Bmp),
    ] {
        let bytes = encode(&DynamicImage::ImageRgb8(image.clone()), format);
        assert_eq!(sniff(&bytes), Some(kind));
        assert_eq!(decode(&bytes), image, "{kind:?}");
    }
}

#[test]
fn a_gif_and_a_jpeg_come_back_nearly_as_they_were() {
    let image = RgbImage::from_pixel(16, 16, Rgb([200, 30, 90]));
    for format in [ImageFormat::Gif, ImageFormat::Jpeg] {
        let decoded = decode(&encode(&DynamicImage::ImageRgb8(image.clone()), format));
        assert_eq!(decoded.dimensions(), (16, 16));
        for pixel in decoded.pixels() {
            for (a, b) in pixel.0.iter().zip([200, 30, 90]) {
                assert!(a.abs_diff(b) <= 4, "{format:?} {pixel:?}");
            }
        }
    }
}

#[test]
fn alpha_lies_on_white_as_in_pillow() {
    // Pillow 13.0.0: Image.alpha_composite over opaque white.
    let image = image::RgbaImage::from_pixel(1, 1, Rgba([10, 100, 200, 77]));
    let bytes = encode(&DynamicImage::ImageRgba8(image), ImageFormat::Png);
    assert_eq!(decode(&bytes).get_pixel(0, 0).0, [181, 208, 238]);
    let clear = image::GrayAlphaImage::from_pixel(1, 1, LumaA([0, 0]));
    let bytes = encode(&DynamicImage::ImageLumaA8(clear), ImageFormat::Png);
    assert_eq!(decode(&bytes).get_pixel(0, 0).0, [255; 3]);
}

#[test]
fn grey_and_sixteen_bits_become_eight_bit_rgb() {
    let grey = image::GrayImage::from_pixel(1, 1, Luma([77]));
    let bytes = encode(&DynamicImage::ImageLuma8(grey), ImageFormat::Png);
    assert_eq!(decode(&bytes).get_pixel(0, 0).0, [77; 3]);
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let deep = image::ImageBuffer::from_pixel(1, 1, Rgb([0x12ff_u16, 0x8000, 0xffff]));
        let bytes = encode(&DynamicImage::ImageRgb16(deep), format);
        assert_eq!(decode(&bytes).get_pixel(0, 0).0, [0x12, 0x80, 0xff]);
        let deep = image::ImageBuffer::from_pixel(1, 1, Luma([0xabcd_u16]));
        let bytes = encode(&DynamicImage::ImageLuma16(deep), format);
        assert_eq!(decode(&bytes).get_pixel(0, 0).0, [0xab; 3]);
    }
}

/// The CRC of PNG chunks (ISO/IEC 15948, annex D).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn chunk(name: [u8; 4], data: &[u8]) -> Vec<u8> {
    let named = [&name[..], data].concat();
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], &named, &crc(&named).to_be_bytes()].concat()
}

/// A PNG from its header fields and chunks.
fn png(width: u32, height: u32, depth: u8, colour: u8, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([depth, colour, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    out.extend(chunk(*b"IHDR", &header));
    for (name, data) in chunks {
        out.extend(chunk(**name, data));
    }
    out.extend(chunk(*b"IEND", b""));
    out
}

/// A zlib stream of stored bytes.
fn stored(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(data);
    out.extend((b << 16 | a).to_be_bytes());
    out
}

#[test]
fn a_palette_with_transparency_is_resolved() {
    let palette = [255, 0, 0, 0, 255, 0, 0, 0, 255];
    // Red opaque, green clear, blue half.
    let bytes = png(
        3,
        1,
        8,
        3,
        &[
            (b"PLTE", &palette),
            (b"tRNS", &[255, 0, 128]),
            (b"IDAT", &stored(&[0, 0, 1, 2])),
        ],
    );
    let decoded = decode(&bytes);
    assert_eq!(decoded.get_pixel(0, 0).0, [255, 0, 0]);
    assert_eq!(decoded.get_pixel(1, 0).0, [255, 255, 255]);
    assert_eq!(decoded.get_pixel(2, 0).0, [127, 127, 255]);
}

#[test]
fn one_bit_of_grey_is_black_and_white() {
    let bytes = png(4, 1, 1, 0, &[(b"IDAT", &stored(&[0, 0b1010_0000]))]);
    let levels: Vec<u8> = decode(&bytes).pixels().map(|p| p.0[0]).collect();
    assert_eq!(levels, [255, 0, 255, 0]);
}

#[test]
fn sizes_are_checked_before_anything_is_allocated() {
    let limits = Limits {
        max_pixels: 1000,
        ..Limits::default()
    };
    for (width, height) in [
        (1001, 1),
        (1, 1001),
        (60_000, 60_000),
        (u32::MAX >> 1, u32::MAX >> 1),
    ] {
        let bytes = png(width, height, 8, 2, &[(b"IDAT", &stored(&[0]))]);
        let error = decode_image(&bytes, &limits).unwrap_err();
        assert!(
            matches!(error, ImageError::TooLarge { limit: 1000, .. }),
            "{error}"
        );
        let options = OpenOptions {
            limits: limits.clone(),
            ..OpenOptions::default()
        };
        let error = open_with(&bytes, &options).unwrap_err();
        assert!(matches!(error, Error::Image { page: 1, .. }), "{error}");
    }
    // Within the limit, but the pixels are not there.
    let bytes = png(5000, 5000, 8, 2, &[(b"IDAT", &stored(&[0]))]);
    let error = decode_image(&bytes, &Limits::default()).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::Decode {
                kind: Kind::Png,
                ..
            }
        ),
        "{error}"
    );
    let empty = png(0, 5, 8, 2, &[(b"IDAT", &stored(&[]))]);
    assert!(decode_image(&empty, &Limits::default()).is_err());
}

#[test]
fn a_compression_bomb_is_bounded_by_the_size_in_the_header() {
    let bomb = support::pdf::zlib_of_one_byte(0, 400_000);
    let bytes = png(4, 4, 8, 2, &[(b"IDAT", &bomb)]);
    // 100 MB of zeros for a picture of 48 bytes: what is beyond is not kept.
    if let Ok(image) = decode_image(&bytes, &Limits::default()) {
        assert_eq!(image.dimensions(), (4, 4));
    }
}

#[test]
fn the_cameras_orientation_is_applied() {
    // Left black, right white; turned a quarter clockwise (6) black is at the top.
    let image = RgbImage::from_fn(32, 16, |x, _| Rgb(if x < 16 { [0; 3] } else { [255; 3] }));
    let jpeg = encode(&DynamicImage::ImageRgb8(image), ImageFormat::Jpeg);
    let with_orientation = |value: u8| {
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([value, 0, 0, 0, 0, 0, 0]);
        let mut out = jpeg[..2].to_vec();
        out.extend([0xff, 0xe1]);
        out.extend((exif.len() as u16 + 2).to_be_bytes());
        out.extend(exif);
        out.extend(&jpeg[2..]);
        decode(&out)
    };
    let turned = with_orientation(6);
    assert_eq!(turned.dimensions(), (16, 32));
    assert!(turned.get_pixel(8, 4).0[0] < 20 && turned.get_pixel(8, 28).0[0] > 235);
    let mirrored = with_orientation(2);
    assert!(mirrored.get_pixel(4, 8).0[0] > 235 && mirrored.get_pixel(28, 8).0[0] < 20);
    assert_eq!(with_orientation(1), decode(&jpeg));
}

#[test]
fn a_jpeg_that_was_cut_off_is_not_filled_with_grey() {
    let jpeg = encode(
        &DynamicImage::ImageRgb8(gradient(64, 64)),
        ImageFormat::Jpeg,
    );
    for cut in [jpeg.len() - 1, jpeg.len() - 40, jpeg.len() / 2] {
        let error = decode_image(&jpeg[..cut], &Limits::default()).unwrap_err();
        assert!(
            matches!(error, ImageError::CutOff { kind: Kind::Jpeg }),
            "{error}"
        );
    }
}

fn tiff_pages(shades: &[u8]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    for shade in shades {
        encoder
            .write_image::<colortype::Gray8>(3, 2, &[*shade; 6])
            .unwrap();
    }
    bytes.into_inner()
}

#[test]
fn every_directory_of_a_tiff_is_a_page() {
    let mut document = open(&tiff_pages(&[10, 20, 30])).unwrap();
    assert_eq!((document.kind(), document.num_pages()), (Kind::Tiff, 3));
    for number in [3, 1, 2] {
        let page = document.page(number, &RenderSize::default()).unwrap();
        assert_eq!((page.number, page.image.dimensions()), (number, (3, 2)));
        assert!(page.image.pixels().all(|p| p.0 == [10 * number as u8; 3]));
        assert!(!page.text.has_text());
    }
    let error = document.page(4, &RenderSize::default()).unwrap_err();
    assert!(
        matches!(error, Error::NoSuchPage { pages: 3, .. }),
        "{error}"
    );
    let mut options = OpenOptions::default();
    options.limits.max_pages = 2;
    let error = open_with(&tiff_pages(&[1, 2, 3]), &options).unwrap_err();
    assert!(
        matches!(error, Error::TooManyPages { limit: 2, .. }),
        "{error}"
    );
}

#[test]
fn a_tiff_whose_directories_go_in_a_circle_ends() {
    let mut bytes = tiff_pages(&[10]);
    // Point the directory's link to the next one back at itself.
    let first = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let entries = usize::from(u16::from_le_bytes(
        bytes[first..first + 2].try_into().unwrap(),
    ));
    let link = first + 2 + 12 * entries;
    bytes[link..link + 4].copy_from_slice(&(first as u32).to_le_bytes());
    // Refused or of a bounded number of pages.
    if let Ok(document) = open(&bytes) {
        assert!(document.num_pages() <= 2);
    }
}

#[test]
fn tiffs_in_other_colours_are_converted() {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    // Pillow 13.0.0: Image.new("CMYK", (1, 1), (10, 100, 200, 50)).convert("RGB").
    encoder
        .write_image::<colortype::CMYK8>(1, 1, &[10, 100, 200, 50])
        .unwrap();
    encoder
        .write_image::<colortype::Gray32Float>(2, 1, &[0.5, 1.0])
        .unwrap();
    encoder
        .write_image::<colortype::RGBA8>(1, 1, &[10, 100, 200, 77])
        .unwrap();
    let mut document = open(&bytes.into_inner()).unwrap();
    let mut page = |n| document.page(n, &RenderSize::default()).unwrap().image;
    assert_eq!(page(1).get_pixel(0, 0).0, [197, 125, 44]);
    assert_eq!(page(2).get_pixel(0, 0).0, [128; 3]);
    assert_eq!(page(3).get_pixel(0, 0).0, [181, 208, 238]);
}

/// A TIFF of one strip, from its entries `(tag, type, count, value)`.
fn tiff(entries: &[(u16, u16, u32, u32)], strip: &[u8], table: &[u16]) -> Vec<u8> {
    let mut out = b"II\x2a\0\x08\0\0\0".to_vec();
    let num = entries.len() + 2;
    let data = 8 + 2 + 12 * num as u32 + 4;
    let mut entries: Vec<_> = entries.to_vec();
    entries.push((273, 4, 1, data));
    entries.push((279, 4, 1, strip.len() as u32));
    entries.sort_by_key(|e| e.0);
    out.extend((num as u16).to_le_bytes());
    for (tag, kind, count, mut value) in entries {
        if tag == 320 {
            value = data + strip.len() as u32;
        }
        out.extend(tag.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    out.extend([0; 4]);
    out.extend(strip);
    for value in table {
        out.extend(value.to_le_bytes());
    }
    out
}

#[test]
fn palette_and_two_level_tiffs_are_read() {
    // Four colours of two bits: red, green, blue, white.
    let table = [
        0xffff, 0, 0, 0xffff, 0, 0xffff, 0, 0xffff, 0, 0, 0xffff, 0xffff,
    ];
    let bytes = tiff(
        &[
            (256, 3, 1, 4),
            (257, 3, 1, 1),
            (258, 3, 1, 2),
            (259, 3, 1, 1),
            (262, 3, 1, 3),
            (277, 3, 1, 1),
            (278, 3, 1, 1),
            (320, 3, 12, 0),
        ],
        &[0b0001_1011, 0],
        &table,
    );
    let colours: Vec<[u8; 3]> = decode(&bytes).pixels().map(|p| p.0).collect();
    assert_eq!(colours, [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3]]);
    // White is zero, as in facsimile.
    let bytes = tiff(
        &[
            (256, 3, 1, 3),
            (257, 3, 1, 2),
            (258, 3, 1, 1),
            (259, 3, 1, 1),
            (262, 3, 1, 0),
            (277, 3, 1, 1),
            (278, 3, 1, 2),
        ],
        &[0b1010_0000, 0b0100_0000],
        &[],
    );
    let levels: Vec<u8> = decode(&bytes).pixels().map(|p| p.0[0]).collect();
    assert_eq!(levels, [0, 255, 0, 255, 0, 255]);
}

#[test]
fn a_tiff_that_lies_about_its_size_is_refused() {
    let huge = tiff(
        &[
            (256, 4, 1, 1_000_000),
            (257, 4, 1, 1_000_000),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (277, 3, 1, 1),
            (278, 4, 1, 1_000_000),
        ],
        &[0; 4],
        &[],
    );
    let error = decode_image(&huge, &Limits::default()).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
}

#[test]
fn a_cmyk_jpeg_is_what_pillow_sees() {
    let Some(corpus) = support::corpus("a_cmyk_jpeg_is_what_pillow_sees") else {
        return;
    };
    let bytes = fs_err::read(corpus.join("img/baiona-map-cmyk.jpg")).unwrap();
    let image = decode(&bytes);
    // Pillow 13.0.0: Image.open(…).convert("RGB"), at five places; JPEG decoders differ by up to 4.
    let (width, height) = image.dimensions();
    for ((x, y), expected) in CMYK_PROBES {
        let found = image.get_pixel(width * x / 8, height * y / 8).0;
        for (a, b) in found.iter().zip(expected) {
            assert!(a.abs_diff(b) <= 4, "{x} {y}: {found:?} for {expected:?}");
        }
    }
}

const CMYK_PROBES: [((u32, u32), [u8; 3]); 6] = [
    ((1, 1), [255, 255, 255]),
    ((3, 2), [254, 254, 228]),
    ((4, 4), [253, 252, 236]),
    ((5, 6), [255, 255, 255]),
    ((7, 7), [255, 255, 255]),
    ((2, 5), [226, 223, 195]),
];
