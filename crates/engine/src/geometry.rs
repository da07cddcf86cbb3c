//! Where the rows of a page look, kept in the index beside them.
//!
//! Four numbers of 16 bits a row: left, top, right, bottom as fractions of the page times 65535. A row that
//! stands for text or for the overview of the whole page has none and is kept as zeros: pointing at
//! everything points at nothing.

use colibri_models::processor::TokenGeometry;

/// Bytes of one row's box.
const BOX_BYTES: usize = 8;
/// A box wider and higher than this share of the page is the overview's or none at all.
const WHOLE: f32 = 0.9;

/// A region of a page.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Region {
    /// Left, top, right, bottom in fractions of the page, from the top left.
    #[serde(rename = "box")]
    pub bounds: [f32; 4],
    /// The sum, over the words of the query that found it, of their similarity.
    pub score: f32,
}

/// The boxes of a page's rows, as the index keeps them.
pub(crate) fn pack(geometry: &[TokenGeometry]) -> Vec<u8> {
    geometry
        .iter()
        .flat_map(|token| {
            let bounds = token
                .page_box
                .map_or([0.0; 4], |b| [b.left, b.top, b.right, b.bottom]);
            bounds.map(|edge| (edge.clamp(0.0, 1.0) * 65535.0).round() as u16)
        })
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// The box of row `row`, if it looks at a part of the page.
pub(crate) fn unpack(packed: &[u8], row: usize) -> Option<[f32; 4]> {
    let bytes = packed.get(row * BOX_BYTES..(row + 1) * BOX_BYTES)?;
    let edge = |at: usize| f32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])) / 65535.0;
    let bounds = [edge(0), edge(2), edge(4), edge(6)];
    let (width, height) = (bounds[2] - bounds[0], bounds[3] - bounds[1]);
    (width > 0.0 && height > 0.0 && (width < WHOLE || height < WHOLE)).then_some(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use colibri_models::processor::{PageBox, TokenKind};

    #[test]
    fn boxes_survive_and_text_has_none() {
        let page_box = PageBox {
            left: 0.25,
            top: 0.5,
            right: 0.5,
            bottom: 1.0,
        };
        let tokens = [
            TokenGeometry {
                kind: TokenKind::Text,
                page_box: None,
            },
            TokenGeometry {
                kind: TokenKind::Text,
                page_box: Some(page_box),
            },
        ];
        let packed = pack(&tokens);
        assert_eq!(unpack(&packed, 0), None);
        let found = unpack(&packed, 1).unwrap();
        for (a, b) in found.iter().zip([0.25, 0.5, 0.5, 1.0]) {
            assert!((a - b).abs() < 1e-4);
        }
        assert_eq!(unpack(&packed, 2), None);
        assert_eq!(unpack(&packed[..12], 1), None);
    }
}
