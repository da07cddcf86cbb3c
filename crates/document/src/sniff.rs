//! What a file is, by its first bytes and never by its name.

use serde::{Deserialize, Serialize};

/// How many bytes from the start of a file [`sniff`] wants to see. PDF readers accept a header
/// within the first 1024 bytes (ISO 32000-1, annex H.3.4.1).
pub const SNIFF_BYTES: usize = 1024;

/// The kinds of file that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Portable Document Format.
    Pdf,
    /// Portable Network Graphics.
    Png,
    /// JPEG, baseline or progressive; RGB, grey, CMYK or YCCK.
    Jpeg,
    /// WebP; of an animation the first frame.
    WebP,
    /// TIFF and BigTIFF; every directory is a page.
    Tiff,
    /// GIF; of an animation the first frame.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// A container of video: MP4, QuickTime, Matroska, WebM, AVI, MPEG, FLV, ASF.
    Video,
}

impl Kind {
    /// The name used in messages: `PDF`, `PNG`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::Pdf => "PDF",
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Video => "video",
        }
    }

    /// The media type: `application/pdf`, `image/png`, …
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
            Self::Tiff => "image/tiff",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Video => "video/*",
        }
    }
}

/// Tells the kind of a file from its first [`SNIFF_BYTES`] bytes (or all of them, if fewer).
/// `None` where it is none of [`Kind`].
pub fn sniff(head: &[u8]) -> Option<Kind> {
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some(Kind::Png);
    }
    if head.starts_with(&[0xff, 0xd8, 0xff]) {
        return Some(Kind::Jpeg);
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some(Kind::WebP);
    }
    if head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a") {
        return Some(Kind::Gif);
    }
    // Classic TIFF is version 42, BigTIFF version 43.
    if head.starts_with(b"II\x2a\x00")
        || head.starts_with(b"MM\x00\x2a")
        || head.starts_with(b"II\x2b\x00")
        || head.starts_with(b"MM\x00\x2b")
    {
        return Some(Kind::Tiff);
    }
    if is_video(head) {
        return Some(Kind::Video);
    }
    if is_bmp(head) {
        return Some(Kind::Bmp);
    }
    has_pdf_header(head).then_some(Kind::Pdf)
}

/// Containers that hold video as a rule. An ISO file says by its brand what it is: still pictures (HEIF,
/// AVIF) and songs are none of ours.
fn is_video(head: &[u8]) -> bool {
    const NO_VIDEO: [&[u8; 4]; 9] = [
        b"heic", b"heix", b"heim", b"mif1", b"msf1", b"avif", b"M4A ", b"M4B ", b"crx ",
    ];
    let at = |from: usize, what: &[u8]| head.get(from..).is_some_and(|rest| rest.starts_with(what));
    let iso = at(4, b"ftyp") && head.len() >= 12 && !NO_VIDEO.iter().any(|brand| at(8, *brand));
    // MPEG's transport stream has a mark every 188 bytes.
    let transport = head.len() > 376 && [0, 188, 376].iter().all(|&place| head[place] == 0x47);
    let ebml = at(0, &[0x1a, 0x45, 0xdf, 0xa3])
        && [&b"matroska"[..], b"webm"].iter().any(|kind| {
            head.windows(kind.len())
                .take(64)
                .any(|bytes| bytes == *kind)
        });
    iso || transport
        || ebml
        || (at(0, b"RIFF") && at(8, b"AVI "))
        || at(4, b"moov")
        || at(0, b"FLV\x01")
        || at(0, &[0, 0, 1, 0xba])
        || at(0, &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11])
}

/// `BM` alone would claim many texts, so the two reserved words must be zero and the size of the
/// information header one that exists.
fn is_bmp(head: &[u8]) -> bool {
    head.starts_with(b"BM")
        && head.get(6..10) == Some(&[0; 4])
        && matches!(
            head.get(14..18),
            Some([12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])
        )
}

/// A PDF header at the start of the file or of a line: mail and printer job headers do stand
/// before it, but a text that merely speaks of `%PDF-` is not a PDF.
fn has_pdf_header(head: &[u8]) -> bool {
    const MARK: &[u8] = b"%PDF-";
    let head = &head[..head.len().min(SNIFF_BYTES)];
    head.windows(MARK.len() + 1)
        .enumerate()
        .any(|(at, window)| {
            let at_line_start = head[..at].iter().all(|b| !b.is_ascii_graphic())
                || matches!(head[at - 1], b'\n' | b'\r');
            window.starts_with(MARK) && window[MARK.len()].is_ascii_digit() && at_line_start
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known_by_its_magic_bytes() {
        let mut bmp = *b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0";
        assert_eq!(sniff(&bmp), Some(Kind::Bmp));
        bmp[14] = 41;
        assert_eq!(sniff(&bmp), None);
        assert_eq!(sniff(b"\x89PNG\r\n\x1a\n...."), Some(Kind::Png));
        assert_eq!(sniff(&[0xff, 0xd8, 0xff, 0xe0]), Some(Kind::Jpeg));
        assert_eq!(sniff(b"RIFF\x10\0\0\0WEBPVP8 "), Some(Kind::WebP));
        assert_eq!(sniff(b"RIFF\x10\0\0\0WAVEfmt "), None);
        assert_eq!(sniff(b"GIF89a"), Some(Kind::Gif));
        assert_eq!(sniff(b"MM\0\x2a\0\0\0\x08"), Some(Kind::Tiff));
        assert_eq!(sniff(b"II\x2b\0\x08\0\0\0"), Some(Kind::Tiff));
        assert_eq!(sniff(b"%PDF-1.7\n"), Some(Kind::Pdf));
        assert_eq!(sniff(b"\0\0\0\x20ftypisom"), Some(Kind::Video));
        assert_eq!(sniff(b"\0\0\0\x20ftypheic"), None);
        assert_eq!(
            sniff(b"\x1a\x45\xdf\xa3....\x42\x82\x84webm"),
            Some(Kind::Video)
        );
        assert_eq!(sniff(b"RIFF\x10\0\0\0AVI LIST"), Some(Kind::Video));
        let mut transport = vec![0; 400];
        assert_eq!(sniff(&transport), None);
        for place in [0, 188, 376] {
            transport[place] = 0x47;
        }
        assert_eq!(sniff(&transport), Some(Kind::Video));
    }

    #[test]
    fn a_pdf_header_may_follow_other_lines_but_not_other_words() {
        assert_eq!(sniff(b"\xef\xbb\xbf%PDF-1.4"), Some(Kind::Pdf));
        assert_eq!(sniff(b"@PJL JOB\r\n%PDF-1.4"), Some(Kind::Pdf));
        assert_eq!(sniff(b"the header is %PDF-1.4"), None);
        assert_eq!(sniff(b"%PDF-x"), None);
    }

    #[test]
    fn nothing_and_almost_nothing_are_no_kind() {
        for head in [
            &b""[..],
            b"B",
            b"BM",
            b"%PDF",
            b"RIFF",
            b"\x89PNG",
            b"\xff\xd8",
        ] {
            assert_eq!(sniff(head), None, "{head:?}");
        }
    }
}
