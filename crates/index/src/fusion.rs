//! Joining a visual and a text ranking into one.
//!
//! Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) gives a page `1 / (60 + rank)` for each
//! list it is in. Taken literally it buries every page that one of the lists *cannot* contain: a scan
//! without a text layer is found by its picture only, so half of its score would be missing against any
//! page with text. Such a page therefore counts its rank in the list that can hold it for both; a page that
//! could have been in the other list and is not gets nothing for it.

use std::collections::HashMap;

use crate::record::PageId;

/// The constant of the paper: how little the very first ranks differ.
pub const RRF_K: f64 = 60.0;
/// A page of fewer words counts as one without a text layer: a slide or a chart whose only text is its
/// title cannot answer a question by its text.
pub const SPARSE_TEXT_WORDS: u32 = 16;

/// Which lists can contain a page at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// It has rows.
    pub visual: bool,
    /// It has a text layer worth the name.
    pub text: bool,
}

/// Fused scores of the pages of two rankings (best first), in no particular order.
///
/// `reach` says for a page which of the two could contain it.
pub fn reciprocal_rank(
    visual: &[PageId],
    text: &[PageId],
    reach: impl Fn(PageId) -> Reach,
) -> Vec<(PageId, f64)> {
    let mut scores = HashMap::<PageId, (f64, f64)>::new();
    for (rank, page) in visual.iter().enumerate() {
        scores.entry(*page).or_default().0 = 1.0 / (RRF_K + 1.0 + rank as f64);
    }
    for (rank, page) in text.iter().enumerate() {
        scores.entry(*page).or_default().1 = 1.0 / (RRF_K + 1.0 + rank as f64);
    }
    scores
        .into_iter()
        .map(|(page, (visual, text))| {
            let reach = reach(page);
            // A scan may still be found by its name: the better of the two then, never less.
            let visual_part = if reach.visual {
                visual
            } else {
                visual.max(text)
            };
            let text_part = if reach.text { text } else { text.max(visual) };
            (page, visual_part + text_part)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Reach = Reach {
        visual: true,
        text: true,
    };

    fn order(scores: Vec<(PageId, f64)>) -> Vec<i64> {
        let mut scores = scores;
        scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        scores.into_iter().map(|(page, _)| page.0).collect()
    }

    fn pages(ids: &[i64]) -> Vec<PageId> {
        ids.iter().copied().map(PageId).collect()
    }

    #[test]
    fn pages_in_both_lists_come_before_pages_in_one() {
        let fused = reciprocal_rank(&pages(&[1, 2, 3]), &pages(&[4, 3, 5]), |_| BOTH);
        assert_eq!(order(fused)[0], 3);
    }

    #[test]
    fn a_scan_that_looks_right_is_not_buried_by_pages_with_text() {
        // Page 1 has no text layer; 2, 3 and 4 are in both lists, further down in the visual one.
        let reach = |page: PageId| Reach {
            visual: true,
            text: page.0 != 1,
        };
        let fused = reciprocal_rank(&pages(&[1, 2, 3, 4]), &pages(&[3, 4, 2]), reach);
        assert_eq!(order(fused)[0], 1);
        let literal = reciprocal_rank(&pages(&[1, 2, 3, 4]), &pages(&[3, 4, 2]), |_| BOTH);
        assert_eq!(order(literal)[3], 1);
    }

    #[test]
    fn being_found_by_name_never_costs_a_scan() {
        let reach = |page: PageId| Reach {
            visual: true,
            text: page.0 != 1,
        };
        let score = |text: &[i64]| {
            let fused = reciprocal_rank(&pages(&[1, 2]), &pages(text), reach);
            fused.into_iter().find(|(page, _)| page.0 == 1).unwrap().1
        };
        assert!(score(&[2, 3, 4, 5, 1]) >= score(&[2, 3, 4, 5]));
    }
}
