//! PDFs in this process: where words stand, what is read and what is not, and what is refused.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a step that fails is a test that fails"
)]

mod support;

use colibri_document::{BBox, Document, Error, Limits, OpenOptions, Page, RenderSize, TextLayer};
use support::pdf::{PdfPage, Writer, pdf, pdf_with_info};
use support::{file, open, open_with};

const SIZE: RenderSize = RenderSize { longest_edge: 800 };

fn first_page(bytes: &[u8]) -> Page {
    open(bytes).unwrap().page(1, &SIZE).unwrap()
}

/// The box around everything that is not white, in fractions of the page.
fn ink(page: &Page) -> BBox {
    let (width, height) = page.image.dimensions();
    let mut around: Option<BBox> = None;
    for (x, y, pixel) in page.image.enumerate_pixels() {
        if pixel.0.iter().any(|v| *v < 128) {
            let (w, h) = (width as f32, height as f32);
            let here = BBox::from([
                x as f32 / w,
                y as f32 / h,
                (x + 1) as f32 / w,
                (y + 1) as f32 / h,
            ]);
            around = Some(around.map_or(here, |a| a.union(here)));
        }
    }
    around.expect("the page is blank")
}

#[test]
fn words_stand_where_their_ink_is_whatever_the_rotation() {
    for (rotate, expected) in [
        (0, (612.0, 792.0)),
        (90, (792.0, 612.0)),
        (180, (612.0, 792.0)),
        (270, (792.0, 612.0)),
        (-90, (792.0, 612.0)),
    ] {
        let mut page = PdfPage::text(&[("Hamburgefonts", 100.0, 650.0)]);
        page.rotate = rotate;
        let page = first_page(&pdf(&[page]));
        assert_eq!((page.width_points, page.height_points), expected);
        assert_eq!(page.text.plain(), "Hamburgefonts");
        let (ink, word) = (ink(&page), page.text.words[0].bbox);
        // Half a pixel of antialiasing each way.
        let slack = 1.0 / 800.0;
        assert!(
            ink.x0 >= word.x0 - slack
                && ink.y0 >= word.y0 - slack
                && ink.x1 <= word.x1 + slack
                && ink.y1 <= word.y1 + slack,
            "{rotate}: ink {ink:?} word {word:?}"
        );
        // The box is not much larger than the ink.
        assert!(word.area() < 2.0 * ink.area(), "{rotate}");
    }
}

#[test]
fn rotation_turns_clockwise() {
    // At the top left, then at the top right, the bottom right, the bottom left.
    for (rotate, right, below) in [
        (0, false, false),
        (90, true, false),
        (180, true, true),
        (270, false, true),
    ] {
        let mut page = PdfPage::text(&[("corner", 20.0, 770.0)]);
        page.rotate = rotate;
        let ink = ink(&first_page(&pdf(&[page])));
        assert_eq!((ink.x0 > 0.5, ink.y0 > 0.5), (right, below), "{rotate}");
    }
}

#[test]
fn the_crop_box_is_the_page() {
    let mut page = PdfPage::text(&[("inside", 210.0, 410.0), ("outside", 20.0, 700.0)]);
    page.crop = Some([200.0, 400.0, 300.0, 450.0]);
    let page = first_page(&pdf(&[page]));
    assert_eq!((page.width_points, page.height_points), (100.0, 50.0));
    assert_eq!(page.image.dimensions(), (800, 400));
    assert_eq!(page.text.plain(), "inside");
    let b = page.text.words[0].bbox;
    assert!(
        (b.x0 - 0.1).abs() < 0.01 && (b.y1 - 0.85).abs() < 0.02,
        "{b:?}"
    );
    // Rotated as well.
    let mut turned = PdfPage::text(&[("inside", 210.0, 410.0)]);
    turned.crop = Some([200.0, 400.0, 300.0, 450.0]);
    turned.rotate = 90;
    let turned = first_page(&pdf(&[turned]));
    assert_eq!((turned.width_points, turned.height_points), (50.0, 100.0));
    let (ink, word) = (ink(&turned), turned.text.words[0].bbox);
    assert!(ink.overlap(word) > 0.95 * ink.area(), "{ink:?} {word:?}");
}

#[test]
fn the_page_fills_its_picture() {
    // Every corner of a page of an odd size is painted.
    let mut page = PdfPage::new("0 0 0 rg 0 0 333.3 777.7 re f");
    page.media = [0.0, 0.0, 333.3, 777.7];
    let page = first_page(&pdf(&[page]));
    assert_eq!(page.image.dimensions(), (343, 800));
    for (x, y) in [(0, 0), (342, 0), (0, 799), (342, 799)] {
        assert!(page.image.get_pixel(x, y).0[0] < 60, "{x} {y}");
    }
}

#[test]
fn invisible_text_is_read_and_not_seen() {
    let page = PdfPage::new("BT /F1 12 Tf 3 Tr 72 700 Td (what the scan says) Tj ET");
    let page = first_page(&pdf(&[page]));
    assert_eq!(page.text.plain(), "what the scan says");
    assert!(page.image.pixels().all(|p| p.0 == [255; 3]));
}

#[test]
fn bold_by_overprinting_is_read_once() {
    let content = "BT /F1 12 Tf 72 700 Td (Bold) Tj ET BT /F1 12 Tf 72.3 700 Td (Bold) Tj ET \
                   BT /F1 12 Tf 2 Tr 72 650 Td (outlined) Tj ET";
    assert_eq!(
        first_page(&pdf(&[PdfPage::new(content)])).text.plain(),
        "Bold\n\noutlined"
    );
}

#[test]
fn gaps_in_a_line_are_spaces_and_kerning_is_not() {
    let content = "BT /F1 12 Tf 72 700 Td [(ker) 40 (ning) -300 (and) -300 (gaps)] TJ ET";
    assert_eq!(
        first_page(&pdf(&[PdfPage::new(content)])).text.plain(),
        "kerning and gaps"
    );
}

#[test]
fn actual_text_stands_for_its_glyphs() {
    let content = "BT /F1 12 Tf 72 700 Td (e) Tj /Span << /ActualText (ffi) >> BDC (xy) Tj EMC \
                   (cient) Tj ET";
    assert_eq!(
        first_page(&pdf(&[PdfPage::new(content)])).text.plain(),
        "efficient"
    );
}

#[test]
fn a_font_without_meanings_gives_no_text() {
    // A composite font without a ToUnicode map: glyph numbers and nothing else.
    let font = "<< /Type /Font /Subtype /Type0 /BaseFont /Nothing /Encoding /Identity-H \
                /DescendantFonts [<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Nothing \
                /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>] >>";
    let mut page = PdfPage::new("BT /F2 12 Tf 72 700 Td <000100020003> Tj ET");
    page.second_font = Some(font.to_owned());
    let page = first_page(&pdf(&[page]));
    assert_eq!(page.text.layer, TextLayer::Unreadable);
    assert!(!page.text.has_text());
}

#[test]
fn a_page_without_text_has_none() {
    let page = first_page(&pdf(&[PdfPage::new("10 10 100 100 re f")]));
    assert_eq!(page.text.layer, TextLayer::None);
    assert_eq!(page.text.plain(), "");
}

#[test]
fn the_number_of_glyphs_is_bounded() {
    let mut options = OpenOptions::default();
    options.limits.max_glyphs_per_page = 4;
    let bytes = pdf(&[PdfPage::text(&[("abcdefgh", 72.0, 700.0)])]);
    let text = open_with(&bytes, &options).unwrap().page_text(1).unwrap();
    assert_eq!(text.layer, TextLayer::Truncated);
    assert_eq!(text.plain(), "abcd");
}

#[test]
fn the_title_is_decoded_and_tidied() {
    let pages = [PdfPage::new("")];
    let title = |info: &[u8]| {
        let document = open(&pdf_with_info(&pages, Some(info))).unwrap();
        document.title().map(str::to_owned)
    };
    assert_eq!(
        title(b"<< /Title (An  annual\\nreport) >>").as_deref(),
        Some("An annual report")
    );
    assert_eq!(
        title(b"<< /Title <FEFF00DC00620065> >>").as_deref(),
        Some("\u{dc}be")
    );
    assert_eq!(title(b"<< /Title (  ) >>"), None);
    assert_eq!(open(&pdf(&pages)).unwrap().title(), None);
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn encrypted_files_open_with_their_password_only() {
    for name in ["aes256.pdf", "rc4.pdf"] {
        let path = fixture(name);
        let mut options = OpenOptions::default();
        let error = Document::open(&path, &options).unwrap_err();
        assert!(matches!(error, Error::Encrypted { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            format!("`{path}` is encrypted: pass --password")
        );
        options.password = Some("sesame".to_owned());
        let error = Document::open(&path, &options).unwrap_err();
        assert!(matches!(error, Error::WrongPassword { .. }), "{error}");
        options.password = Some("colibri".to_owned());
        let mut document = Document::open(&path, &options).unwrap();
        assert_eq!(
            document.page(1, &SIZE).unwrap().text.plain(),
            "A secret garden"
        );
    }
}

#[test]
fn a_file_that_only_forbids_opens_without_being_asked() {
    // An owner password restricts printing and copying; reading needs none.
    for password in [None, Some("anything".to_owned())] {
        let options = OpenOptions {
            password,
            ..OpenOptions::default()
        };
        let mut document = Document::open(fixture("owner-only.pdf"), &options).unwrap();
        assert_eq!(document.page_text(1).unwrap().plain(), "A secret garden");
    }
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let whole = pdf(&[PdfPage::text(&[("text", 72.0, 700.0)])]);
    for (name, bytes) in [
        ("a header and nothing else", &whole[..20]),
        (
            "a header and noise",
            &b"%PDF-1.7\n\x80\x81 garbage \xff\xfe 1 0 obj << /"[..],
        ),
        ("cut before the page tree", &whole[..60]),
    ] {
        let (_folder, path) = file(bytes);
        let error = Document::open(&path, &OpenOptions::default()).unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(error, Error::CorruptPdf { .. }),
            "{name}: {message}"
        );
        assert!(message.contains(&path.display().to_string()) && !message.contains('\n'));
    }
}

#[test]
fn a_pdf_without_pages_is_refused() {
    let error = open(&pdf(&[])).unwrap_err();
    assert!(
        matches!(error, Error::NoPages { .. } | Error::CorruptPdf { .. }),
        "{error}"
    );
}

#[test]
fn pages_of_absurd_sizes_are_drawn_small_or_refused() {
    let mut options = OpenOptions::default();
    options.limits.max_pixels = 1_000_000;
    let size = RenderSize {
        longest_edge: 60_000,
    };
    for media in [
        [0.0, 0.0, 14_400.0, 14_400.0],
        [0.0, 0.0, 1e9, 1e9],
        [0.0, 0.0, 1e9, 1.0],
        [0.0, 0.0, 0.001, 0.001],
        [100.0, 100.0, 0.0, 0.0],
        [-1e30, -1e30, 1e30, 1e30],
    ] {
        let mut page = PdfPage::text(&[("text", 72.0, 700.0)]);
        page.media = media;
        let mut document = open_with(&pdf(&[page]), &options).unwrap();
        match document.page(1, &size) {
            Ok(page) => {
                let (width, height) = page.image.dimensions();
                assert!(
                    u64::from(width) * u64::from(height) <= 1_000_000,
                    "{media:?}"
                );
            }
            Err(error) => assert!(error.concerns_one_page(), "{media:?}: {error}"),
        }
    }
}

#[test]
fn limits_on_bytes_and_pages_are_kept() {
    let bytes = pdf(&[PdfPage::new(""), PdfPage::new("")]);
    let refused = |limits: Limits| {
        let options = OpenOptions {
            limits,
            ..OpenOptions::default()
        };
        open_with(&bytes, &options).unwrap_err()
    };
    let error = refused(Limits {
        max_file_bytes: 100,
        ..Limits::default()
    });
    assert!(
        matches!(error, Error::FileTooLarge { limit: 100, .. }),
        "{error}"
    );
    let error = refused(Limits {
        max_pages: 1,
        ..Limits::default()
    });
    assert!(
        matches!(
            error,
            Error::TooManyPages {
                pages: 2,
                limit: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_page_tree_in_a_circle_ends() {
    let mut writer = Writer::default();
    writer.add("<< /Type /Catalog /Pages 2 0 R >>");
    writer.add("<< /Type /Pages /Kids [2 0 R 3 0 R 3 0 R 2 0 R] /Count 4 >>");
    writer.add("<< /Type /Pages /Parent 2 0 R /Kids [2 0 R 3 0 R] /Count 2 >>");
    assert!(open(&writer.finish("/Root 1 0 R")).is_err());
}

#[test]
fn documents_move_between_threads() {
    fn moves<T: Send>(value: T) -> T {
        value
    }
    let mut document = moves(open(&pdf(&[PdfPage::text(&[("moved", 72.0, 700.0)])])).unwrap());
    let text = std::thread::spawn(move || document.page_text(1).unwrap().plain());
    assert_eq!(text.join().unwrap(), "moved");
}

#[test]
fn what_is_no_document_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions::default();
    let error = Document::open(folder.path(), &options).unwrap_err();
    assert!(matches!(error, Error::NotAFile { .. }), "{error}");
    let missing = folder.path().join("missing.pdf");
    let error = Document::open(&missing, &options).unwrap_err();
    assert!(error.to_string().contains("missing.pdf"), "{error}");
    assert!(matches!(open(b"").unwrap_err(), Error::Empty { .. }));
    let error = open(b"just a text that was named report.pdf").unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}
