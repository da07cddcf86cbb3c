//! Pictures of their own shape, as Idefics2 takes them (transformers' `Idefics2ImageProcessorPil`), and the text that
//! stands for them.
//!
//! Where pictures are split, the four quarters come first and the whole picture last. Each of the five is then scaled
//! down until its longer side has at most `longest_edge` pixels and stretched until neither has fewer than
//! `shortest_edge`; it is never scaled up beyond that. Upstream pads the frames of a batch with zeros and masks them:
//! the tower here sees one frame at a time, so nothing is padded.

use image::{RgbImage, imageops::crop_imm};

use super::config::PreprocessorConfig;
use super::error::{Error, Result};
use super::escape::Marked;
use super::resample::resize;
use super::tiles::{TileGrid, TilePlan, Tiles};
use super::tokenizer::{FAKE_IMAGE_TOKEN, IMAGE_TOKEN};

/// The sizes of the whole picture. A picture without a pixel for each quarter is not split: upstream fails on it.
pub(super) fn plan(
    config: &PreprocessorConfig,
    shortest_edge: u32,
    size: (u32, u32),
    split: bool,
) -> Result<TilePlan> {
    let (width, height) = size;
    if width == 0 || height == 0 {
        return Err(Error::EmptyImage { width, height });
    }
    let resized = if config.do_resize {
        resized(size, shortest_edge, config.longest_edge)
    } else {
        size
    };
    let halves = if split && width.min(height) >= 2 {
        2
    } else {
        0
    };
    Ok(TilePlan {
        resized,
        stretched: resized,
        grid: TileGrid {
            rows: halves,
            cols: halves,
            tile_side: config.longest_edge,
        },
    })
}

/// Cuts and resizes the frames of a plan.
pub(super) fn cut(
    config: &PreprocessorConfig,
    shortest_edge: u32,
    image: &RgbImage,
    plan: TilePlan,
) -> Result<Tiles> {
    let (width, height) = image.dimensions();
    let (left, top) = (width / 2, height / 2);
    let mut frames = Vec::new();
    let mut sizes = Vec::new();
    let mut push = |frame: &RgbImage| -> Result<()> {
        let size = if config.do_resize {
            resized(frame.dimensions(), shortest_edge, config.longest_edge)
        } else {
            frame.dimensions()
        };
        frames.extend_from_slice(resize(frame, size.0, size.1, config.resample)?.as_raw());
        sizes.push(size);
        Ok(())
    };
    if plan.grid.is_split() {
        for (x, y, width, height) in [
            (0, 0, left, top),
            (left, 0, width - left, top),
            (0, top, left, height - top),
            (left, top, width - left, height - top),
        ] {
            push(&crop_imm(image, x, y, width, height).to_image())?;
        }
    }
    push(image)?;
    Ok(Tiles::of_sizes(plan, frames, sizes))
}

/// `get_resize_output_image_size`.
fn resized((width, height): (u32, u32), shortest: u32, longest: u32) -> (u32, u32) {
    let aspect = f64::from(width) / f64::from(height);
    let (width, height) = if width >= height && width > longest {
        (longest, (f64::from(longest) / aspect) as u32)
    } else if height > width && height > longest {
        ((f64::from(longest) * aspect) as u32, longest)
    } else {
        (width, height)
    };
    (width.max(shortest), height.max(shortest))
}

/// Puts the strings of the images, in order, where the template placed `<image>`: every frame between two fakes, of
/// which neighbours share one. With `space`, a word that follows directly gets a space before it: tokenizers that
/// transformers 5 writes begin a word so only at the very start of a text, the older ones behind every special token.
pub(super) fn expand(
    prompt: &Marked,
    grids: &[TileGrid],
    image_seq_len: usize,
    space: bool,
) -> Marked {
    let mut parts = prompt.text.split(IMAGE_TOKEN);
    let mut text = parts.next().unwrap_or_default().to_owned();
    let mut grids = grids.iter();
    for part in parts {
        match grids.next() {
            Some(grid) => {
                for _ in 0..grid.num_frames() {
                    text.push_str(FAKE_IMAGE_TOKEN);
                    text.extend(std::iter::repeat_n(IMAGE_TOKEN, image_seq_len));
                    text.push_str(FAKE_IMAGE_TOKEN);
                }
            }
            None => text.push_str(IMAGE_TOKEN),
        }
        text.push_str(part);
    }
    let text = text.replace(
        &format!("{FAKE_IMAGE_TOKEN}{FAKE_IMAGE_TOKEN}"),
        FAKE_IMAGE_TOKEN,
    );
    Marked {
        text: if space {
            spaced(&text, prompt.mark)
        } else {
            text
        },
        mark: prompt.mark,
    }
}

/// A space behind each fake that a character other than white space and `<` follows; the mark is no character.
fn spaced(text: &str, mark: char) -> String {
    let mut parts = text.split(FAKE_IMAGE_TOKEN);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(FAKE_IMAGE_TOKEN);
        let next = part.chars().find(|&char| char != mark);
        if next.is_some_and(|char| !char.is_whitespace() && char != '<') {
            out.push(' ');
        }
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_stay_between_the_bounds() {
        // `get_resize_output_image_size` of transformers 5.23.
        assert_eq!(resized((1700, 2200), 378, 980), (757, 980));
        assert_eq!(resized((2200, 1700), 378, 980), (980, 757));
        assert_eq!(resized((3000, 500), 378, 980), (980, 378));
        assert_eq!(resized((20, 20), 378, 980), (378, 378));
        assert_eq!(resized((640, 480), 378, 980), (640, 480));
    }

    #[test]
    fn frames_share_their_fakes_and_words_get_a_space() {
        let prompt = |text: &str| Marked {
            text: text.to_owned(),
            mark: '\u{10FFFF}',
        };
        let grid = |halves| TileGrid {
            rows: halves,
            cols: halves,
            tile_side: 980,
        };
        let fake = FAKE_IMAGE_TOKEN;
        let frame = format!("{IMAGE_TOKEN}{fake}");
        let found = expand(&prompt("a<image><image>b"), &[grid(0), grid(2)], 1, false);
        assert_eq!(found.text, format!("a{fake}{}b", frame.repeat(6)));
        let found = expand(&prompt("<image>\u{10FFFF}b"), &[grid(0)], 1, true);
        assert_eq!(found.text, format!("{fake}{frame} \u{10FFFF}b"));
        for text in ["<image> b", "<image>\u{10FFFF}<b", "<image>\nb", "<image>"] {
            let found = expand(&prompt(text), &[grid(0)], 1, true);
            assert_eq!(
                found.text,
                text.replace("<image>", &format!("{fake}{frame}"))
            );
        }
    }

    #[test]
    fn quarters_and_the_whole_cover_the_picture() {
        let image = RgbImage::from_fn(5, 7, |x, y| image::Rgb([x as u8, y as u8, 9]));
        let config = PreprocessorConfig {
            do_resize: false,
            ..PreprocessorConfig::native()
        };
        let plan = plan(&config, 378, (5, 7), true).unwrap();
        let tiles = cut(&config, 378, &image, plan).unwrap();
        let sizes: Vec<(u32, u32)> = tiles.frames().map(|f| (f.width, f.height)).collect();
        assert_eq!(sizes, [(2, 3), (3, 3), (2, 4), (3, 4), (5, 7)]);
        let third = tiles.frames().nth(2).unwrap().pixels;
        assert_eq!(third[..3], [0, 3, 9]);
        assert_eq!(tiles.frames().last().unwrap().pixels, image.as_raw());
    }
}
