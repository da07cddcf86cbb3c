//! Videos as a series of frames: which frames a model is shown, and the words around them.
//!
//! Two recipes. **SmolVLM2** samples by its `video_sampling` and tells the model when each frame was taken
//! (`video_processing_smolvlm.py` and `processing_smolvlm.py` of transformers 5.23.0); a frame is scaled to
//! `video_size.longest_edge` and squeezed to one tile. **SmolVLM** (the first) has no recipe in transformers;
//! its published example (`smolvlm_video_inference.py` of huggingface/smollm) takes one frame a second, at
//! most 50 evenly spaced, and shows them as uncut pictures without times.
//!
//! Limits: transformers scales frames with torchvision, which rounds otherwise than Pillow; here frames go
//! the way of pictures, as the image processor of the same class has it with splitting off.

use std::fmt::Write as _;

use image::RgbImage;

use super::{
    chat::Content,
    config::VideoSampling,
    error::Result,
    resample::{Filter, resize},
    tiles::to_longest_edge,
};

/// Frames of the first SmolVLM's example.
const MOST_FRAMES: usize = 50;
/// Seconds that SmolVLM2 leaves out at both ends of a long video.
const SKIPPED_SECONDS: f64 = 1.0;

/// How a model is shown a video.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VideoRecipe {
    /// SmolVLM2: sampled by rate, with the time of each frame.
    Timed(VideoSampling),
    /// SmolVLM: evenly spaced, nothing but frames.
    Plain {
        /// Greatest number of frames.
        max_frames: usize,
        /// Longer side to which frames may be made smaller beforehand, in pixels.
        longest_edge: u32,
    },
}

impl VideoRecipe {
    /// The recipe of a checkpoint by its picture settings.
    pub fn of(sampling: Option<VideoSampling>, longest_edge: u32) -> Self {
        match sampling {
            Some(sampling) => Self::Timed(sampling),
            None => Self::Plain {
                max_frames: MOST_FRAMES,
                longest_edge,
            },
        }
    }

    /// Which of `num_frames` frames at `fps` a second are shown, in ascending order.
    pub fn choose(&self, num_frames: usize, fps: f64) -> Vec<usize> {
        let Some(last) = num_frames.checked_sub(1) else {
            return Vec::new();
        };
        match self {
            Self::Timed(sampling) => {
                let duration = num_frames as f64 / fps;
                let most = f64::from(sampling.max_frames);
                // Python rounds halves to even.
                let wanted = (sampling.fps * duration)
                    .round_ties_even()
                    .min(most)
                    .max(1.0);
                let (mut start, mut end) = (0.0, last as f64);
                if duration - 2.0 * SKIPPED_SECONDS > most * sampling.fps {
                    start = (SKIPPED_SECONDS * fps).trunc();
                    end = (num_frames as f64 - SKIPPED_SECONDS * fps)
                        .trunc()
                        .min(last as f64);
                }
                if start >= end {
                    (start, end) = (0.0, last as f64);
                }
                let mut chosen = spaced(start, end, wanted as usize);
                chosen.dedup();
                chosen
            }
            Self::Plain { max_frames, .. } => {
                let step = (fps as usize).max(1);
                let seconds: Vec<usize> = (0..num_frames).step_by(step).collect();
                if seconds.len() <= *max_frames {
                    return seconds;
                }
                let places = spaced(0.0, (seconds.len() - 1) as f64, *max_frames);
                places.into_iter().map(|place| seconds[place]).collect()
            }
        }
    }

    /// What a turn holds for a video: frames taken at `seconds` of one that lasts `duration` seconds, and
    /// the words before, between and after them. As many [`Content::Frame`]s as `seconds`.
    pub fn content(&self, seconds: &[f64], duration: f64) -> Vec<Content> {
        let mut content = Vec::with_capacity(2 * seconds.len() + 2);
        if let Self::Plain { .. } = self {
            content.resize(seconds.len(), Content::Frame);
            return content;
        }
        let whole = duration.max(0.0) as u64;
        let (days, clock) = (whole / 86_400, whole % 86_400);
        let mut length = match days {
            0 => String::new(),
            1 => "1 day, ".to_owned(),
            days => format!("{days} days, "),
        };
        write!(
            length,
            "{}:{:02}:{:02}",
            clock / 3600,
            clock / 60 % 60,
            clock % 60
        )
        .expect("a string takes text");
        content.push(Content::Text(format!(
            "You are provided the following series of {} frames from a {length} [H:MM:SS] video.\n",
            in_words(seconds.len())
        )));
        for time in seconds {
            content.push(Content::Text(format!(
                "\nFrame from {}:",
                clock_time(*time)
            )));
            content.push(Content::Frame);
        }
        content.push(Content::Text("\n\n".to_owned()));
        content
    }

    /// A frame no larger than the model will look at it, so that many can be held. What the model then sees
    /// is the same: this is the first step of its own processing, and doing it again changes nothing.
    ///
    /// # Errors
    /// [`super::Error::EmptyImage`].
    pub fn shrink(&self, frame: RgbImage) -> Result<RgbImage> {
        let longest = match self {
            Self::Timed(sampling) => sampling.longest_edge,
            Self::Plain { longest_edge, .. } => *longest_edge,
        };
        if frame.width().max(frame.height()) <= longest {
            return Ok(frame);
        }
        let (width, height) = to_longest_edge(frame.width(), frame.height(), longest);
        resize(&frame, width, height, Filter::Lanczos)
    }
}

/// `MM:SS`, minutes beyond an hour too.
pub fn clock_time(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    format!("{:02}:{:02}", whole / 60, whole % 60)
}

/// numpy's `linspace(start, end, count, dtype=int)` for `start` ≤ `end`.
fn spaced(start: f64, end: f64, count: usize) -> Vec<usize> {
    if count < 2 {
        return vec![start as usize; count];
    }
    let step = (end - start) / (count - 1) as f64;
    let mut places: Vec<usize> = (0..count)
        .map(|at| (at as f64 * step + start).floor() as usize)
        .collect();
    places[count - 1] = end as usize;
    places
}

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];

/// A number in English words, as num2words has it: `sixty-four`, `one hundred and one`, `one thousand and
/// five`, `one thousand, two hundred`.
fn in_words(number: usize) -> String {
    match number {
        0..20 => SMALL[number].to_owned(),
        20..100 => {
            let tens = TENS[number / 10];
            match number % 10 {
                0 => tens.to_owned(),
                ones => format!("{tens}-{}", SMALL[ones]),
            }
        }
        100..1000 => {
            let hundreds = format!("{} hundred", SMALL[number / 100]);
            match number % 100 {
                0 => hundreds,
                rest => format!("{hundreds} and {}", in_words(rest)),
            }
        }
        1000..1_000_000 => {
            let thousands = format!("{} thousand", in_words(number / 1000));
            match number % 1000 {
                0 => thousands,
                rest @ 1..100 => format!("{thousands} and {}", in_words(rest)),
                rest => format!("{thousands}, {}", in_words(rest)),
            }
        }
        // No model takes as many frames.
        _ => number.to_string(),
    }
}
