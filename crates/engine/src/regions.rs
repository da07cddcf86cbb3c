//! Which parts of a page made it a hit: late interaction knows.
//!
//! For each row of the query the row of the page with the greatest dot product is the one that counted
//! (MaxSim); the boxes of those rows are the regions.

use colibri_index::{Index, PageId, QueryRows};

use crate::{
    Result,
    geometry::{Region, unpack},
};

/// Regions given for a page at most.
const MOST: usize = 5;

/// The regions of a page for a query, the strongest first.
pub(crate) fn regions(index: &Index, page: PageId, query: &QueryRows) -> Result<Vec<Region>> {
    let Some(boxes) = index.page_geometry(page)? else {
        return Ok(Vec::new());
    };
    let rows = index.rows(page)?;
    let dim = rows.dim();
    if dim == 0 || dim != query.dim {
        return Ok(Vec::new());
    }
    let mut found: Vec<Region> = Vec::new();
    for (row, score) in query.best_of(dim, rows.as_slice())? {
        let Some(bounds) = unpack(&boxes, row as usize) else {
            continue;
        };
        match found.iter_mut().find(|region| region.bounds == bounds) {
            Some(region) => region.score += score,
            None => found.push(Region { bounds, score }),
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(MOST);
    Ok(found)
}
