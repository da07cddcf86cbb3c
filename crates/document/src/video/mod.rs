//! Videos: how many frames there are, and chosen ones as pictures.
//!
//! Three sources of frames. A video file is decoded by the system's `ffprobe` and `ffmpeg` (`tools`), since
//! no decoder of the common formats is written in safe Rust; where they are not installed the error says so.
//! An animated GIF or WebP is decoded here (`animation`), and a folder of pictures is a video of its files
//! in the order of their names, one a second.
//!
//! Frames are counted from 0 and taken to be evenly spaced, as transformers' loaders take them: frame *n*
//! stands at *n* / `fps` seconds.

mod animation;
mod tools;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fs_err::File;
use image::RgbImage;

use crate::document::OpenOptions;
use crate::error::{Error, Result, Trouble};
use crate::image_file::decode_image;
use crate::sniff::{Kind, SNIFF_BYTES, sniff};

pub use tools::exec;

/// A video that can be read from.
#[derive(Debug)]
pub struct Video {
    path: PathBuf,
    source: Source,
    num_frames: usize,
    fps: f64,
    options: OpenOptions,
}

#[derive(Debug)]
enum Source {
    /// Read by `ffmpeg`.
    File,
    /// The bytes of an animated GIF or WebP.
    Animation(Vec<u8>, Kind),
    /// Picture files.
    Folder(Vec<PathBuf>),
}

/// A frame of a video.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its number, from 0.
    pub index: usize,
    /// When it is shown, in seconds from the beginning.
    pub seconds: f64,
    /// The picture.
    pub image: RgbImage,
}

/// Takes a frame; `false` wants no more.
pub type OnFrame<'a> = &'a mut dyn FnMut(Frame) -> bool;

/// Whether `path` is something [`Video::open`] would read: a folder, a video file, a GIF or WebP.
pub fn is_video(path: &Path) -> bool {
    if path.is_dir() {
        return true;
    }
    let mut head = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(SNIFF_BYTES as u64).read_to_end(&mut head));
    read.is_ok() && matches!(sniff(&head), Some(Kind::Video | Kind::Gif | Kind::WebP))
}

impl Video {
    /// Opens a video file, an animated picture, or a folder of pictures, and counts its frames.
    ///
    /// # Errors
    /// Where it cannot be read, holds no frame, exceeds a limit, or `ffprobe` is needed and not there.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let metadata = fs_err::metadata(&path).map_err(Error::Io)?;
        let (source, num_frames, fps) = if metadata.is_dir() {
            let files = pictures_in(&path)?;
            let frames = files.len();
            (Source::Folder(files), frames, 1.0)
        } else if metadata.is_file() {
            let (bytes, limit) = (metadata.len(), options.limits.max_file_bytes);
            if bytes > limit {
                return Err(Error::FileTooLarge { path, bytes, limit });
            }
            open_file(&path, options)?
        } else {
            return Err(Error::NotAFile { path });
        };
        if num_frames == 0 {
            return Err(Error::NoFrames { path });
        }
        Ok(Self {
            path,
            source,
            num_frames,
            fps,
            options: options.clone(),
        })
    }

    /// Number of frames, at least 1.
    pub fn num_frames(&self) -> usize {
        self.num_frames
    }

    /// Frames a second, above 0.
    pub fn fps(&self) -> f64 {
        self.fps
    }

    /// Seconds that it lasts.
    pub fn duration(&self) -> f64 {
        self.num_frames as f64 / self.fps
    }

    /// Hands out the frames of `indices`, which ascend. A file that ends before it said it would gives
    /// fewer.
    ///
    /// # Errors
    /// Where a frame cannot be decoded, or none of them is there.
    pub fn read(&self, indices: &[usize], on_frame: OnFrame<'_>) -> Result<()> {
        let mut seen = 0;
        let mut count = |index: usize, image: RgbImage| {
            seen += 1;
            on_frame(Frame {
                index,
                seconds: index as f64 / self.fps,
                image,
            })
        };
        let picture = |path: &Path, reason| Error::Image {
            path: path.to_path_buf(),
            page: 1,
            reason,
        };
        let limits = &self.options.limits;
        match &self.source {
            Source::File => tools::frames(&self.path, &self.options, indices, &mut count)?,
            Source::Animation(bytes, kind) => {
                animation::frames(bytes, *kind, limits, indices, &mut count)
                    .map_err(|reason| picture(&self.path, reason))?;
            }
            Source::Folder(files) => {
                for &index in indices {
                    let Some(path) = files.get(index) else { break };
                    let image = read_picture(path, &self.options)?;
                    if !count(index, image) {
                        break;
                    }
                }
            }
        }
        if seen == 0 && !indices.is_empty() {
            return Err(Error::NoFrames {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    /// The picture that is shown at `seconds`, found without decoding what comes before: of a video file
    /// the first frame from there on.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn at(&self, seconds: f64, page: usize) -> Result<RgbImage> {
        let mut found = None;
        let mut take = |_: usize, image: RgbImage| {
            found = Some(image);
            false
        };
        match &self.source {
            Source::File => tools::frame_at(&self.path, &self.options, seconds, &mut take)?,
            Source::Animation(..) | Source::Folder(_) => {
                let index = (seconds * self.fps) as usize;
                self.read(&[index.min(self.num_frames - 1)], &mut |frame| {
                    take(frame.index, frame.image)
                })?;
            }
        }
        found.ok_or_else(|| Error::Page {
            path: self.path.clone(),
            page,
            reason: Trouble::BadAnswer {
                found: "no frame".to_owned(),
            },
        })
    }
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<(Source, usize, f64)> {
    let mut file = File::open(path).map_err(Error::Io)?;
    let mut bytes = Vec::new();
    file.by_ref()
        .take(SNIFF_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(Error::Io)?;
    match sniff(&bytes) {
        Some(Kind::Video) => {
            let probed = tools::probe(path, options)?;
            Ok((Source::File, probed.num_frames, probed.fps))
        }
        Some(kind @ (Kind::Gif | Kind::WebP)) => {
            let left = options
                .limits
                .max_file_bytes
                .saturating_sub(bytes.len() as u64);
            file.take(left).read_to_end(&mut bytes).map_err(Error::Io)?;
            let (frames, fps) =
                animation::count(&bytes, kind, &options.limits).map_err(|reason| Error::Image {
                    path: path.to_path_buf(),
                    page: 1,
                    reason,
                })?;
            Ok((Source::Animation(bytes, kind), frames, fps))
        }
        Some(_) | None => Err(Error::NotAVideo {
            path: path.to_path_buf(),
        }),
    }
}

/// The pictures in a folder by name; what is no picture, and hidden files, are passed over.
fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(Error::Io)? {
        let path = entry.map_err(Error::Io)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_hidden || !path.is_file() {
            continue;
        }
        let mut head = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(SNIFF_BYTES as u64).read_to_end(&mut head))
            .map_err(Error::Io)?;
        if !matches!(sniff(&head), None | Some(Kind::Pdf | Kind::Video)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_picture(path: &Path, options: &OpenOptions) -> Result<RgbImage> {
    let limit = options.limits.max_file_bytes;
    let bytes = fs_err::metadata(path).map_err(Error::Io)?.len();
    if bytes > limit {
        let path = path.to_path_buf();
        return Err(Error::FileTooLarge { path, bytes, limit });
    }
    let bytes = fs_err::read(path).map_err(Error::Io)?;
    decode_image(&bytes, &options.limits).map_err(|reason| Error::Image {
        path: path.to_path_buf(),
        page: 1,
        reason,
    })
}
