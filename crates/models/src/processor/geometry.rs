//! Where on the page each token of a document looks.
//!
//! A tile of S visual tokens is a square of √S × √S of them, row by row, and the tiles lie row by
//! row on the picture of step 2, which is the page stretched: a fraction of the one is the same
//! fraction of the other. So a box in fractions of the page needs neither size.

use std::cmp::Ordering;

use super::tiles::TileGrid;
use super::tokenizer::Tokenizer;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Words of the prompt, and the tokens of turns.
    Text,
    /// What stands around the tiles of an image: tags and line breaks.
    Tag,
    /// A visual token.
    Visual {
        /// The tile; the overview has the last number.
        tile: usize,
        /// Row inside the tile.
        row: usize,
        /// Column inside the tile.
        col: usize,
    },
}

/// A rectangle in fractions of the page's width and height, from the upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageBox {
    /// Left edge.
    pub left: f32,
    /// Upper edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Lower edge.
    pub bottom: f32,
}

/// What a token is, and where it looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenGeometry {
    /// What it is.
    pub kind: TokenKind,
    /// The part of the page that a visual token covers.
    pub page_box: Option<PageBox>,
}

/// The geometry of each of `ids`, a document cut as `grid` says, with `image_seq_len` visual tokens
/// a tile. Visual tokens beyond the tiles of the grid, and those of tiles that are no square, have
/// no box.
pub fn token_geometry(
    ids: &[u32],
    grid: TileGrid,
    image_seq_len: usize,
    tokenizer: &Tokenizer,
) -> Vec<TokenGeometry> {
    let image_id = tokenizer.image_id();
    let is_edge = |id: &u32| Some(*id) == tokenizer.fake_image_id();
    let first = ids.iter().position(is_edge).unwrap_or(ids.len());
    let last = ids.iter().rposition(is_edge).unwrap_or(0);
    let side = image_seq_len.isqrt().max(1);
    let mut visual = 0;
    let kind = |(at, &id): (usize, &u32)| {
        if id == image_id {
            let (tile, inside) = (visual / image_seq_len.max(1), visual % image_seq_len.max(1));
            visual += 1;
            TokenKind::Visual {
                tile,
                row: inside / side,
                col: inside % side,
            }
        } else if (first..=last).contains(&at) {
            TokenKind::Tag
        } else {
            TokenKind::Text
        }
    };
    let square = side * side == image_seq_len;
    let geometry = |kind| TokenGeometry {
        kind,
        page_box: match kind {
            TokenKind::Visual { tile, row, col } if square => page_box(grid, side, tile, row, col),
            TokenKind::Visual { .. } | TokenKind::Text | TokenKind::Tag => None,
        },
    };
    ids.iter().enumerate().map(kind).map(geometry).collect()
}

/// The part of the page under visual token (`row`, `col`) of a tile with `side` tokens on each
/// side; `None` where the grid has no such tile.
pub fn page_box(
    grid: TileGrid,
    side: usize,
    tile: usize,
    row: usize,
    col: usize,
) -> Option<PageBox> {
    let (rows, cols) = (grid.rows as usize, grid.cols as usize);
    let overview = rows * cols;
    let (first_row, first_col, rows, cols) = match tile.cmp(&overview) {
        Ordering::Less => (tile / cols, tile % cols, rows, cols),
        Ordering::Equal => (0, 0, 1, 1),
        Ordering::Greater => return None,
    };
    let fraction = |tile: usize, cell: usize, tiles: usize| {
        (tile * side + cell) as f32 / (tiles * side) as f32
    };
    Some(PageBox {
        left: fraction(first_col, col, cols),
        top: fraction(first_row, row, rows),
        right: fraction(first_col, col + 1, cols),
        bottom: fraction(first_row, row + 1, rows),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: TileGrid = TileGrid {
        rows: 2,
        cols: 4,
        tile_side: 512,
    };

    #[test]
    fn boxes_of_a_tile_and_of_the_overview() {
        let found = page_box(GRID, 8, 6, 0, 7).unwrap();
        let expected = PageBox {
            left: 23.0 / 32.0,
            top: 0.5,
            right: 24.0 / 32.0,
            bottom: 9.0 / 16.0,
        };
        assert_eq!(found, expected);
        let overview = page_box(GRID, 8, 8, 7, 0).unwrap();
        assert_eq!((overview.left, overview.right), (0.0, 0.125));
        assert_eq!((overview.top, overview.bottom), (0.875, 1.0));
        assert_eq!(page_box(GRID, 8, 9, 0, 0), None);
    }

    #[test]
    fn the_boxes_of_the_tiles_cover_the_page_once() {
        let mut area = 0.0;
        for tile in 0..8 {
            for cell in 0..64 {
                let cell = page_box(GRID, 8, tile, cell / 8, cell % 8).unwrap();
                area += (cell.right - cell.left) * (cell.bottom - cell.top);
            }
        }
        assert!((area - 1.0).abs() < 1e-5, "{area}");
    }
}
