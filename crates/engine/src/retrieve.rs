//! Finding pages: by what they look like, by what is written on them, or both.

use std::{collections::HashSet, path::Path};

use colibri_index::{Filter, Hit, Index, Mode, PageId, Query, QueryRows, RRF_K};

use crate::{
    Error, Region, Result,
    checkpoints::{LoadedRetriever, Models, OnModelEvent},
    heat::{self, HeatMap},
    regions::regions,
    words::{content_words, words},
};

/// How to look.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Pages to find.
    pub k: usize,
    /// By what.
    pub mode: Mode,
    /// Among which documents.
    pub filter: Filter,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            k: 5,
            mode: Mode::Hybrid,
            filter: Filter::default(),
        }
    }
}

/// The answer to a search: one object of `search --json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SearchResult {
    /// The question as asked.
    pub query: String,
    /// How pages were found in the end: hybrid without a retriever is text.
    pub mode: Mode,
    /// The pages, the best first.
    pub hits: Vec<PageHit>,
}

/// A found page.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PageHit {
    /// What the index says.
    #[serde(flatten)]
    pub hit: Hit,
    /// Where on the page.
    pub regions: Vec<Region>,
}

/// An index with the retriever that fits it.
pub struct Searcher<'a> {
    index: &'a Index,
    retriever: Option<LoadedRetriever>,
    mode: Mode,
}

impl std::fmt::Debug for Searcher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Searcher")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl<'a> Searcher<'a> {
    /// Prepares searches in `mode`, loading the retriever the index was made with if it is needed.
    ///
    /// # Errors
    /// [`Error::NoRetriever`] where `mode` is visual and there is none, or when the one that is there does
    /// not fit the index.
    pub fn open(
        index: &'a Index,
        models: &Models,
        mode: Mode,
        on_event: OnModelEvent<'_>,
    ) -> Result<Self> {
        let settings = index.settings()?;
        if mode == Mode::Text {
            return Ok(Self {
                index,
                retriever: None,
                mode,
            });
        }
        let Some(name) = &settings.retriever else {
            if mode == Mode::Visual {
                let reason = "the index was made without one, by text only".to_owned();
                return Err(Error::NoRetriever { reason });
            }
            return Ok(Self {
                index,
                retriever: None,
                mode: Mode::Text,
            });
        };
        models.expect_index(index.stats()?.live_bytes, settings.precision.as_deref());
        match models.retriever(Some(name), on_event)? {
            Some(retriever) => {
                // Rows of another retriever, or made otherwise, do not compare.
                settings.check_query(&retriever.index_settings(), index.dir())?;
                Ok(Self {
                    index,
                    retriever: Some(retriever),
                    mode,
                })
            }
            None if mode == Mode::Visual => Err(Error::NoRetriever {
                reason: format!("`{name}` could not be loaded"),
            }),
            None => Ok(Self {
                index,
                retriever: None,
                mode: Mode::Text,
            }),
        }
    }

    /// How it finds pages.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The pages that fit `query` best.
    ///
    /// # Errors
    /// When the index cannot be read or the retriever fails.
    pub fn search(&self, query: &str, k: usize, filter: &Filter) -> Result<SearchResult> {
        let rows = match &self.retriever {
            Some(retriever) => {
                let rows = retriever.model.embed_query(query)?;
                Some(QueryRows::new(rows.dim, rows.values)?)
            }
            None => None,
        };
        let query = Query {
            text: query.to_owned(),
            rows,
            mode: self.mode,
            k,
            filter: filter.clone(),
        };
        let found = match &self.retriever {
            Some(retriever) if retriever.is_weak() && self.mode == Mode::Hybrid => {
                self.text_first(&query)?
            }
            _ => self.index.search(&query)?,
        };
        let mut hits = Vec::new();
        for hit in found {
            let regions = match &query.rows {
                Some(rows) => regions(self.index, hit.page_id, rows)?,
                None => Vec::new(),
            };
            hits.push(PageHit { hit, regions });
        }
        Ok(SearchResult {
            query: query.text,
            mode: self.mode,
            hits,
        })
    }
}

impl Searcher<'_> {
    /// How much each part of a page says to each word of `query`; `None` where the page has no rows or
    /// pages are found by their text alone.
    ///
    /// # Errors
    /// When the index cannot be read or the retriever fails.
    pub fn heat_map(&self, page: PageId, query: &str) -> Result<Option<HeatMap>> {
        let Some(retriever) = &self.retriever else {
            return Ok(None);
        };
        heat::heat_map(self.index, page, &*retriever.model, query)
    }
}

/// Share of the question's words that the best page by text must hold for the text to lead. Of the questions
/// of the examples and of a collection of real documents, those that the text answers lie above it and
/// those about scans and pictures below.
const TRUSTED_SHARE: f64 = 0.4;
/// Words of the question in the name of a document that make it the one that is asked for.
const NAMING_WORDS: usize = 2;

impl Searcher<'_> {
    /// Hybrid search with a retriever that is weaker than the text: where the best page by text holds most
    /// of the question's words, pages found by text come first; where it does not, the page that is asked
    /// for has likely no text layer, and both rankings are fused as usual.
    fn text_first(&self, query: &Query) -> Result<Vec<Hit>> {
        let by_text = self.index.search(&Query {
            mode: Mode::Text,
            ..query.clone()
        })?;
        let trusted = match by_text.first() {
            Some(hit) => self.is_about(hit, &content_words(&query.text))?,
            None => false,
        };
        let fused = self.index.search(query)?;
        if !trusted {
            return Ok(fused);
        }
        let known: HashSet<_> = by_text.iter().map(|hit| hit.page_id).collect();
        let others = fused
            .into_iter()
            .filter(|hit| !known.contains(&hit.page_id));
        let mut hits: Vec<Hit> = by_text
            .iter()
            .cloned()
            .chain(others)
            .take(query.k)
            .collect();
        for (rank, hit) in (1..).zip(&mut hits) {
            hit.rank = rank;
            // As if the joined list were the only one: scores of both kinds do not compare.
            hit.score = (1.0 / (RRF_K + f64::from(rank))) as f32;
        }
        Ok(hits)
    }

    /// Whether a page found by its text holds enough of the words that were asked for, or its document is
    /// named after them.
    fn is_about(&self, hit: &Hit, asked: &HashSet<String>) -> Result<bool> {
        let stem = Path::new(&hit.document).file_stem().unwrap_or_default();
        let named: HashSet<String> = words(&stem.to_string_lossy()).collect();
        let mut there: HashSet<String> = words(&self.index.page(hit.page_id)?.text).collect();
        if named.intersection(asked).count() >= NAMING_WORDS {
            return Ok(true);
        }
        there.extend(named);
        let held = asked.intersection(&there).count();
        Ok(held as f64 >= TRUSTED_SHARE * asked.len() as f64)
    }
}
