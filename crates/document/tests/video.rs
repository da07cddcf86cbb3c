//! Videos: animated pictures and folders of frames, and files where ffmpeg is installed.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a step that fails is a test that fails"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use colibri_document::video::{Frame, Video, is_video};
use colibri_document::{Document, Error, Kind, Limits, OpenOptions, RenderSize};
use image::codecs::gif::GifEncoder;
use image::{Delay, Rgb, RgbImage, Rgba, RgbaImage};

fn open(path: impl AsRef<Path>) -> colibri_document::Result<Video> {
    Video::open(path, &OpenOptions::default())
}

fn read(video: &Video, indices: &[usize]) -> Vec<Frame> {
    let mut frames = Vec::new();
    video
        .read(indices, &mut |frame| {
            frames.push(frame);
            true
        })
        .unwrap();
    frames
}

/// Ten frames at five a second, each of one grey, the last transparent.
fn gif(path: &Path) {
    let mut encoder = GifEncoder::new(fs_err::File::create(path).unwrap());
    for at in 0..10_u8 {
        let alpha = if at == 9 { 0 } else { 255 };
        let image = RgbaImage::from_pixel(8, 6, Rgba([at * 20, at * 20, at * 20, alpha]));
        let delay = Delay::from_numer_denom_ms(200, 1);
        let frame = image::Frame::from_parts(image, 0, 0, delay);
        encoder.encode_frame(frame).unwrap();
    }
}

#[test]
fn an_animated_gif_is_a_video() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    gif(&path);
    let video = open(&path).unwrap();
    assert_eq!(video.num_frames(), 10);
    assert!((video.fps() - 5.0).abs() < 1e-6 && (video.duration() - 2.0).abs() < 1e-6);
    let frames = read(&video, &[0, 4, 7]);
    let greys: Vec<u8> = frames
        .iter()
        .map(|frame| frame.image.get_pixel(3, 3).0[0])
        .collect();
    assert_eq!(greys, [0, 80, 140]);
    assert!((frames[1].seconds - 0.8).abs() < 1e-6);
    assert_eq!(frames[1].index, 4);
    // A caller who has enough is asked no further.
    let mut seen = 0;
    video
        .read(&[1, 2, 3], &mut |_| {
            seen += 1;
            false
        })
        .unwrap();
    assert_eq!(seen, 1);
    // Cut in the middle of a frame.
    let bytes = fs_err::read(&path).unwrap();
    fs_err::write(&path, &bytes[..bytes.len() / 2 + 3]).unwrap();
    assert!(open(&path).is_err_and(|error| error.to_string().contains("a.gif")));
}

/// A chunk of a RIFF file.
fn chunk(name: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let mut out = [name, &length.to_le_bytes(), data].concat();
    out.resize(out.len().next_multiple_of(2), 0);
    out
}

/// Four frames at two a second, each of one grey: the container written by hand around stills, since the encoder at
/// hand makes no animations.
fn webp(path: &Path) {
    let mut body = b"WEBP".to_vec();
    let size = |side: u32| side.to_le_bytes()[..3].to_vec();
    let canvas = [vec![2, 0, 0, 0], size(7), size(5)].concat();
    body.extend(chunk(b"VP8X", &canvas));
    body.extend(chunk(b"ANIM", &[255, 255, 255, 255, 0, 0]));
    for at in 0..4_u8 {
        let mut still = std::io::Cursor::new(Vec::new());
        RgbImage::from_pixel(8, 6, Rgb([at * 50; 3]))
            .write_to(&mut still, image::ImageFormat::WebP)
            .unwrap();
        // Behind `RIFF`, its size and `WEBP` stands the still's one chunk.
        let still = still.into_inner()[12..].to_vec();
        let frame = [
            size(0),
            size(0),
            size(7),
            size(5),
            size(500),
            vec![2],
            still,
        ]
        .concat();
        body.extend(chunk(b"ANMF", &frame));
    }
    fs_err::write(path, chunk(b"RIFF", &body)).unwrap();
}

#[test]
fn an_animated_webp_is_a_video() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.webp");
    webp(&path);
    assert!(is_video(&path));
    let video = open(&path).unwrap();
    assert_eq!(video.num_frames(), 4);
    assert!((video.fps() - 2.0).abs() < 1e-6 && (video.duration() - 2.0).abs() < 1e-6);
    let frames = read(&video, &[0, 1, 3]);
    let greys: Vec<u8> = frames
        .iter()
        .map(|frame| frame.image.get_pixel(3, 3).0[0])
        .collect();
    assert_eq!(greys, [0, 50, 150]);
    assert!((frames[2].seconds - 1.5).abs() < 1e-6);
    let bytes = fs_err::read(&path).unwrap();
    fs_err::write(&path, &bytes[..bytes.len() - 30]).unwrap();
    assert!(open(&path).is_err_and(|error| error.to_string().contains("a.webp")));
}

#[test]
fn a_folder_of_pictures_is_a_video_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, grey) in [
        ("b.png", 20),
        ("a.png", 10),
        ("c.bmp", 30),
        (".hidden.png", 99),
    ] {
        let image = RgbImage::from_pixel(4, 4, Rgb([grey; 3]));
        image.save(folder.path().join(name)).unwrap();
    }
    fs_err::write(folder.path().join("notes.txt"), "no picture").unwrap();
    let video = open(folder.path()).unwrap();
    assert_eq!((video.num_frames(), video.duration()), (3, 3.0));
    let frames = read(&video, &[0, 1, 2, 3]);
    let greys: Vec<u8> = frames
        .iter()
        .map(|frame| frame.image.get_pixel(0, 0).0[0])
        .collect();
    assert_eq!(greys, [10, 20, 30]);
    assert!(is_video(folder.path()) && !is_video(&folder.path().join("a.png")));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(open(empty.path()), Err(Error::NoFrames { .. })));
    assert!(matches!(
        open(folder.path().join("a.png")),
        Err(Error::NotAVideo { .. })
    ));
    let limits = Limits {
        max_pixels: 15,
        ..Limits::default()
    };
    let options = OpenOptions {
        limits,
        ..OpenOptions::default()
    };
    let video = Video::open(folder.path(), &options).unwrap();
    assert!(video.read(&[0], &mut |_| true).is_err());
}

/// Whether ffmpeg is here; says so where it is not.
#[expect(
    clippy::print_stderr,
    reason = "a test that cannot run says so by name"
)]
fn has_ffmpeg(test: &str) -> bool {
    let quiet = |tool: &str| {
        let mut command = Command::new(tool);
        command
            .arg("-version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok()
    };
    let found = quiet("ffmpeg") && quiet("ffprobe");
    if !found {
        eprintln!("skipped: {test} (no ffmpeg)");
    }
    found
}

/// Thirty frames at ten a second; frame *n* has the grey 8*n*. Lossless, so that greys are exact.
fn clip(path: &Path) {
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i"])
        .arg("color=black:size=32x16:rate=10:duration=3,format=gray,geq=lum='8*N'")
        .args(["-c:v", "ffv1", "-pix_fmt", "gray", "-y"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
}

#[test]
fn a_file_is_read_by_ffmpeg_frame_for_frame() {
    if !has_ffmpeg("a_file_is_read_by_ffmpeg_frame_for_frame") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A name that a command line could take for something else.
    let path = folder.path().join("-a:b 'c'.mkv");
    clip(&path);
    let video = open(&path).unwrap();
    assert_eq!(video.num_frames(), 30);
    assert!((video.fps() - 10.0).abs() < 1e-3, "{}", video.fps());
    let frames = read(&video, &[0, 1, 13, 29]);
    let greys: Vec<u8> = frames
        .iter()
        .map(|frame| frame.image.get_pixel(5, 5).0[0])
        .collect();
    assert_eq!(greys, [0, 8, 104, 232]);
    assert!((frames[2].seconds - 1.3).abs() < 1e-3);

    // As a document: a page a second.
    let mut document = Document::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((document.kind(), document.num_pages()), (Kind::Video, 3));
    assert_eq!(document.seconds_per_page(), Some(1.0));
    let size = RenderSize::default();
    let greys =
        [1, 2, 3].map(|page| document.page(page, &size).unwrap().image.get_pixel(5, 5).0[0]);
    assert_eq!(greys, [0, 80, 160]);
    assert!(!document.page_text(2).unwrap().has_text());
    assert!(document.page(4, &size).is_err());

    // Cut off, and no video behind the first bytes.
    let bytes = fs_err::read(&path).unwrap();
    let cut = folder.path().join("cut.mkv");
    fs_err::write(&cut, &bytes[..300]).unwrap();
    let error = open(&cut).unwrap_err().to_string();
    assert!(error.contains("cut.mkv"), "{error}");
    let lie = folder.path().join("lie.mp4");
    fs_err::write(
        &lie,
        b"\0\0\0\x18ftypisom\0\0\x02\0isommp41 and then nothing of the kind",
    )
    .unwrap();
    let error = open(&lie).unwrap_err().to_string();
    assert!(error.contains("lie.mp4"), "{error}");
    // A playlist is not opened, whatever its name says.
    let list = folder.path().join("list.mp4");
    fs_err::write(&list, "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n").unwrap();
    assert!(matches!(open(&list), Err(Error::NotAVideo { .. })));
    let limits = Limits {
        max_pixels: 100,
        ..Limits::default()
    };
    let options = OpenOptions {
        limits,
        ..OpenOptions::default()
    };
    let error = Video::open(&path, &options)
        .unwrap()
        .read(&[0], &mut |_| true)
        .unwrap_err();
    assert!(error.to_string().contains("too many pixels"), "{error}");
}
