//! Which parts of a page speak to which word of a query: the whole of what late interaction computed, where
//! [`crate::Region`] keeps only its maxima.

use colibri_index::{Index, PageId, QueryRows};
use colibri_models::retrievers::Retriever;

use crate::{Error, Result, geometry::unpack};

/// The similarities of one page and one query, as a picture needs them.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct HeatMap {
    /// Left, top, right, bottom of each part of the page, in fractions of the page from the top left.
    pub boxes: Vec<[f32; 4]>,
    /// The tokens of the query in order, markers of the prompt left out.
    pub tokens: Vec<TokenHeat>,
}

/// One token of the query.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TokenHeat {
    /// Its text.
    pub text: String,
    /// The greatest similarity with a part of the page.
    pub best: f32,
    /// The part that has it, an index into [`HeatMap::boxes`].
    pub at: usize,
    /// Heat of each box: 0 at the least similarity on this page, 255 at the greatest.
    pub heat: Vec<u8>,
}

/// Compares every row of the page that looks at a part of it with every row of the query.
pub(crate) fn heat_map(
    index: &Index,
    page: PageId,
    retriever: &dyn Retriever,
    query: &str,
) -> Result<Option<HeatMap>> {
    let Some(packed) = index.page_geometry(page)? else {
        return Ok(None);
    };
    let page_rows = match index.rows(page) {
        Ok(rows) => rows,
        Err(colibri_index::Error::PageWithoutRows { .. }) => return Ok(None),
        Err(error) => return Err(Error::Index(error)),
    };
    let rows = retriever.embed_query(query)?;
    let tokens = retriever.query_tokens(query)?;
    let query_rows = QueryRows::new(rows.dim, rows.values)?;
    let dim = page_rows.dim();
    if dim == 0 || dim != query_rows.dim {
        return Ok(None);
    }
    let (mut boxes, mut values) = (Vec::new(), Vec::new());
    for (at, row) in page_rows.as_slice().chunks_exact(dim).enumerate() {
        if let Some(bounds) = unpack(&packed, at) {
            boxes.push(bounds);
            values.extend(row.iter().map(|value| value.to_f32()));
        }
    }
    if boxes.is_empty() {
        return Ok(None);
    }
    let rows = query_rows.values.chunks_exact(dim);
    let heats = if tokens.is_empty() {
        let numbered = |(at, row)| token_heat(format!("#{at}"), row, &values);
        (1..).zip(rows).map(numbered).collect()
    } else {
        let typed = tokens
            .into_iter()
            .zip(rows)
            .filter(|(token, _)| !token.special);
        typed
            .map(|(token, row)| token_heat(token.text, row, &values))
            .collect()
    };
    Ok(Some(HeatMap {
        boxes,
        tokens: heats,
    }))
}

fn token_heat(text: String, query_row: &[f32], page_rows: &[f32]) -> TokenHeat {
    let dot = |row: &[f32]| row.iter().zip(query_row).map(|(a, b)| a * b).sum::<f32>();
    let scores: Vec<f32> = page_rows.chunks_exact(query_row.len()).map(dot).collect();
    let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let (at, best) = scores
        .iter()
        .copied()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((0, 0.0));
    let span = (best - least).max(f32::MIN_POSITIVE);
    let heat = scores
        .iter()
        .map(|score| ((score - least) / span * 255.0).round() as u8)
        .collect();
    TokenHeat {
        text,
        best,
        at,
        heat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_runs_from_the_least_similar_part_to_the_most() {
        let found = token_heat("a".to_owned(), &[1.0, 0.0], &[0.0, 1.0, 0.5, 0.5, 1.0, 0.0]);
        assert_eq!((found.at, found.best), (2, 1.0));
        assert_eq!(found.heat, [0, 128, 255]);
    }

    #[test]
    fn a_page_that_is_the_same_everywhere_is_cold() {
        let found = token_heat("a".to_owned(), &[1.0], &[0.5, 0.5]);
        assert_eq!(found.heat, [0, 0]);
    }
}
