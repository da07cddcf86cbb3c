//! What stands for an image in a prompt (`replace_image_token` of transformers' Idefics3 processor).
//!
//! One string serves all tokenizers: some have a token for each tag of a tile, to others a tag is
//! text. The line break behind the last row and the one before the overview meet, and the tokenizers
//! have one token for both, so the string must not be tokenised in parts.

use std::fmt::Write as _;

use super::escape::Marked;
use super::tiles::TileGrid;
use super::tokenizer::{FAKE_IMAGE_TOKEN, IMAGE_TOKEN, OVERVIEW_TAG};

/// The string for one image of `image_seq_len` tokens a tile.
pub fn image_text(grid: &TileGrid, image_seq_len: usize) -> String {
    let tile = FAKE_IMAGE_TOKEN.len() + 16 + IMAGE_TOKEN.len() * image_seq_len;
    let mut out = String::with_capacity(tile * (grid.num_frames() + 1));
    if grid.is_split() {
        for row in 1..=grid.rows {
            for col in 1..=grid.cols {
                out.push_str(FAKE_IMAGE_TOKEN);
                write!(out, "<row_{row}_col_{col}>").expect("writing to a string does not fail");
                push_repeated(&mut out, image_seq_len);
            }
            out.push('\n');
        }
        out.push('\n');
    }
    out.push_str(FAKE_IMAGE_TOKEN);
    out.push_str(OVERVIEW_TAG);
    push_repeated(&mut out, image_seq_len);
    out.push_str(FAKE_IMAGE_TOKEN);
    out
}

fn push_repeated(out: &mut String, image_seq_len: usize) {
    out.extend(std::iter::repeat_n(IMAGE_TOKEN, image_seq_len));
}

/// Puts the strings of the images, in order, where the template placed `<image>`. Places beyond the
/// last image stay as they are; callers have compared the numbers.
pub(super) fn expand(prompt: Marked, grids: &[TileGrid], image_seq_len: usize) -> Marked {
    let mut parts = prompt.text.split(IMAGE_TOKEN);
    let mut text = parts.next().unwrap_or_default().to_owned();
    let mut grids = grids.iter();
    for part in parts {
        match grids.next() {
            Some(grid) => text.push_str(&image_text(grid, image_seq_len)),
            None => text.push_str(IMAGE_TOKEN),
        }
        text.push_str(part);
    }
    Marked {
        text,
        mark: prompt.mark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: u32, cols: u32) -> TileGrid {
        TileGrid {
            rows,
            cols,
            tile_side: 8,
        }
    }

    #[test]
    fn a_single_tile_has_the_overview_tag() {
        let expected = "<fake_token_around_image><global-img><image><image>\
                        <fake_token_around_image>";
        assert_eq!(image_text(&grid(0, 0), 2), expected);
    }

    #[test]
    fn rows_end_in_line_breaks_and_the_overview_begins_with_one() {
        let expected = "<fake_token_around_image><row_1_col_1><image>\
             <fake_token_around_image><row_1_col_2><image>\n\
             <fake_token_around_image><row_2_col_1><image>\
             <fake_token_around_image><row_2_col_2><image>\n\n\
             <fake_token_around_image><global-img><image><fake_token_around_image>";
        assert_eq!(image_text(&grid(2, 2), 1), expected);
    }

    #[test]
    fn images_are_placed_in_order() {
        let prompt = Marked {
            text: "a<image>b<image>c".to_owned(),
            mark: '\u{10FFFF}',
        };
        let grids = [grid(0, 0), grid(1, 2)];
        let expected = format!(
            "a{}b{}c",
            image_text(&grids[0], 3),
            image_text(&grids[1], 3)
        );
        assert_eq!(expand(prompt, &grids, 3).text, expected);
    }
}
