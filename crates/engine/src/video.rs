//! Videos as a generator is shown them: frames chosen by its own recipe, with the words around them.

use std::path::Path;

use colibri_document::{OpenOptions, video::Video};
use colibri_models::processor::{Content, VideoRecipe};
use image::RgbImage;

use crate::Result;

/// What a turn holds for a video.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Frames and words, in order.
    pub content: Vec<Content>,
    /// The frames' pictures, no larger than they are looked at.
    pub images: Vec<RgbImage>,
    /// When each frame is shown, in seconds.
    pub seconds: Vec<f64>,
    /// Seconds that the video lasts.
    pub duration: f64,
}

/// Reads the frames of a video file, an animated GIF or WebP, or a folder of pictures.
///
/// # Errors
/// When it cannot be read, or is a video file and `ffmpeg` is not installed.
pub fn show(path: &Path, recipe: &VideoRecipe, options: &OpenOptions) -> Result<Shown> {
    let video = Video::open(path, options)?;
    let chosen = recipe.choose(video.num_frames(), video.fps());
    let (mut images, mut seconds) = (Vec::new(), Vec::new());
    let mut failed = None;
    video.read(&chosen, &mut |frame| match recipe.shrink(frame.image) {
        Ok(image) => {
            images.push(image);
            seconds.push(frame.seconds);
            true
        }
        Err(error) => {
            failed = Some(error);
            false
        }
    })?;
    if let Some(error) = failed {
        return Err(colibri_models::Error::from(error).into());
    }
    let duration = video.duration();
    Ok(Shown {
        content: recipe.content(&seconds, duration),
        images,
        seconds,
        duration,
    })
}
