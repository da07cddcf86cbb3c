//! Searching: by rows, by text, and both together.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, params};

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::fusion::{Reach, SPARSE_TEXT_WORDS, reciprocal_rank};
use crate::index::Index;
use crate::record::{DocumentId, PageId};
use crate::search_text;
use crate::snippet::snippet;
use crate::stores::{QueryRows, Record};

/// Weight of a word in a document's title or file name, where one on the page weighs 1: enough to prefer
/// the document that is named, too little to prefer its wrong pages.
const NAMES_WEIGHT: f64 = 0.3;
/// Fusion looks this far down each list at least.
const FUSION_DEPTH: usize = 200;

/// How pages are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By what they look like: MaxSim of the rows.
    Visual,
    /// By their text layer: BM25.
    Text,
    /// By both, fused by reciprocal rank.
    #[default]
    Hybrid,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The question as it was typed.
    pub text: String,
    /// The rows of the question, needed for [`Mode::Visual`]; without them [`Mode::Hybrid`] is text only.
    pub rows: Option<QueryRows>,
    /// How to look.
    pub mode: Mode,
    /// How many pages to find.
    pub k: usize,
    /// Which documents to look at.
    pub filter: Filter,
}

/// A found page.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Hit {
    /// From 1.
    pub rank: u32,
    /// What the ranking is by: MaxSim, BM25 or the fused score; greater is better.
    pub score: f32,
    /// The path of the document.
    pub document: String,
    /// Its identity.
    pub document_id: DocumentId,
    /// The page's number, from 1.
    pub page: u32,
    /// Its identity.
    pub page_id: PageId,
    /// The part of its text that answers best; empty without a text layer.
    pub text: String,
    /// MaxSim, if the page is among those found by their rows.
    pub visual: Option<f32>,
    /// BM25, if the page is among those found by their text.
    pub text_score: Option<f32>,
}

/// A page and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PageScore {
    /// The page.
    pub page: PageId,
    /// Greater is better.
    pub score: f32,
}

/// The documents a filter lets through, or all.
type Allowed = Option<HashSet<DocumentId>>;

impl Index {
    /// The `k` pages that fit the query best; equal scores by path and page number.
    ///
    /// # Errors
    /// [`Error::QueryWithoutRows`], [`Error::DimMismatch`], or if the index cannot be read.
    pub fn search(&self, query: &Query) -> Result<Vec<Hit>> {
        if query.mode == Mode::Visual && query.rows.is_none() {
            return Err(Error::QueryWithoutRows);
        }
        self.read(|connection| self.search_in(connection, query))
    }

    /// The `k` pages with the greatest MaxSim of `rows` (`(row, dim)`), among all that pass the filter.
    ///
    /// # Errors
    /// If the rows are ragged, not finite or of another dimension, or the index cannot be read.
    pub fn search_visual(
        &self,
        rows: &[f32],
        dim: usize,
        k: usize,
        filter: &Filter,
    ) -> Result<Vec<PageScore>> {
        let rows = QueryRows::new(dim, rows.to_vec())?;
        self.read(|connection| {
            let allowed = self.allowed(connection, filter)?;
            self.visual(connection, &rows, k, &allowed)
        })
    }

    /// The `k` pages whose text fits the question best by BM25, among all that pass the filter.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn search_text(&self, question: &str, k: usize, filter: &Filter) -> Result<Vec<PageScore>> {
        self.read(|connection| {
            let allowed = self.allowed(connection, filter)?;
            self.text(connection, question, k, &allowed)
        })
    }

    fn search_in(&self, connection: &Connection, query: &Query) -> Result<Vec<Hit>> {
        let allowed = self.allowed(connection, &query.filter)?;
        let depth = match query.mode {
            Mode::Hybrid => FUSION_DEPTH.max(query.k.saturating_mul(4)),
            Mode::Visual | Mode::Text => query.k,
        };
        let visual = match &query.rows {
            Some(rows) if query.mode != Mode::Text => {
                self.visual(connection, rows, depth, &allowed)?
            }
            _ => Vec::new(),
        };
        let text = match query.mode {
            Mode::Visual => Vec::new(),
            Mode::Text | Mode::Hybrid => self.text(connection, &query.text, depth, &allowed)?,
        };
        let ranked = match query.mode {
            Mode::Visual => visual.clone(),
            Mode::Text => text.clone(),
            Mode::Hybrid => self.fused(connection, &visual, &text, query.k)?,
        };
        let terms = search_text::terms(&query.text);
        let visual: HashMap<PageId, f32> = visual
            .iter()
            .map(|found| (found.page, found.score))
            .collect();
        let text: HashMap<PageId, f32> =
            text.iter().map(|found| (found.page, found.score)).collect();
        let mut hits = Vec::with_capacity(ranked.len().min(query.k));
        for PageScore { page, score } in ranked.into_iter().take(query.k) {
            let info = self.catalog.page(connection, page)?.ok_or_else(|| {
                self.catalog
                    .damaged("the document", format!("page {}", page.0), "missing")
            })?;
            hits.push(Hit {
                rank: hits.len() as u32 + 1,
                score,
                document: info.document,
                document_id: info.document_id,
                page: info.number,
                page_id: page,
                text: snippet(&info.text, &terms),
                visual: visual.get(&page).copied(),
                text_score: text.get(&page).copied(),
            });
        }
        Ok(hits)
    }

    fn visual(
        &self,
        connection: &Connection,
        rows: &QueryRows,
        k: usize,
        allowed: &Allowed,
    ) -> Result<Vec<PageScore>> {
        let snapshot = self.snapshot(connection)?;
        let records: Vec<Record> = snapshot
            .candidates
            .iter()
            .filter(|candidate| {
                allowed
                    .as_ref()
                    .is_none_or(|allowed| allowed.contains(&candidate.document))
            })
            .map(|candidate| candidate.record)
            .collect();
        let found = self.store.search(&rows.values, rows.dim, &records, k)?;
        Ok(found
            .into_iter()
            .map(|(at, score)| PageScore {
                page: records[at].page,
                score,
            })
            .collect())
    }

    fn text(
        &self,
        connection: &Connection,
        question: &str,
        k: usize,
        allowed: &Allowed,
    ) -> Result<Vec<PageScore>> {
        let Some(expression) = search_text::query(question) else {
            return Ok(Vec::new());
        };
        let failed = || self.catalog.failed("search the text in");
        let mut statement = connection
            .prepare_cached(
                "SELECT pages.id, document_id, -bm25(page_search, 1.0, ?2) AS score
                 FROM page_search JOIN pages ON pages.id = page_search.rowid
                 JOIN documents ON documents.id = document_id
                 WHERE page_search MATCH ?1 ORDER BY score DESC, path, number",
            )
            .map_err(failed())?;
        let mut rows = statement
            .query(params![expression, NAMES_WEIGHT])
            .map_err(failed())?;
        let mut found = Vec::new();
        while found.len() < k {
            let Some(row) = rows.next().map_err(failed())? else {
                break;
            };
            let document = DocumentId(row.get(1).map_err(failed())?);
            if allowed
                .as_ref()
                .is_none_or(|allowed| allowed.contains(&document))
            {
                let score = row.get::<_, f64>(2).map_err(failed())? as f32;
                found.push(PageScore {
                    page: PageId(row.get(0).map_err(failed())?),
                    score,
                });
            }
        }
        Ok(found)
    }

    fn fused(
        &self,
        connection: &Connection,
        visual: &[PageScore],
        text: &[PageScore],
        k: usize,
    ) -> Result<Vec<PageScore>> {
        struct Page {
            reach: Reach,
            path: String,
            number: i64,
        }
        let mut pages = HashMap::<PageId, Page>::new();
        let mut statement = connection
            .prepare_cached(
                "SELECT path, number, num_words, segment IS NOT NULL FROM pages
                 JOIN documents ON documents.id = document_id WHERE pages.id = ?1",
            )
            .map_err(self.catalog.failed("read a page in"))?;
        for PageScore { page, .. } in visual.iter().chain(text) {
            if pages.contains_key(page) {
                continue;
            }
            let known = statement
                .query_row(params![page.0], |row| {
                    let reach = Reach {
                        visual: row.get(3)?,
                        text: row.get::<_, i64>(2)? >= i64::from(SPARSE_TEXT_WORDS),
                    };
                    Ok(Page {
                        reach,
                        path: row.get(0)?,
                        number: row.get(1)?,
                    })
                })
                .map_err(self.catalog.failed("read a page in"))?;
            pages.insert(*page, known);
        }
        let ids = |found: &[PageScore]| found.iter().map(|found| found.page).collect::<Vec<_>>();
        let mut fused = reciprocal_rank(&ids(visual), &ids(text), |page| {
            // Without a visual list at all nothing is missing from it.
            let reach = pages.get(&page).map_or(
                Reach {
                    visual: true,
                    text: true,
                },
                |page| page.reach,
            );
            Reach {
                visual: reach.visual && !visual.is_empty(),
                text: reach.text && !text.is_empty(),
            }
        });
        let place = |page: &PageId| {
            pages
                .get(page)
                .map(|page| (page.path.as_str(), page.number))
        };
        fused.sort_by(|a, b| {
            b.1.total_cmp(&a.1)
                .then_with(|| place(&a.0).cmp(&place(&b.0)))
        });
        fused.truncate(k);
        Ok(fused
            .into_iter()
            .map(|(page, score)| PageScore {
                page,
                score: score as f32,
            })
            .collect())
    }

    fn allowed(&self, connection: &Connection, filter: &Filter) -> Result<Allowed> {
        if filter.is_empty() {
            return Ok(None);
        }
        let documents = self.catalog.documents(connection)?;
        let allowed = documents
            .iter()
            .filter(|document| filter.matches(&document.record));
        Ok(Some(allowed.map(|document| document.id).collect()))
    }
}
