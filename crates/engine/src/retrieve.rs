//! Finding pages: by what they look like, by what is written on them, or both.

use colibri_index::{Filter, Hit, Index, Mode, Query, QueryRows, Settings};

use crate::{
    Error, Region, Result,
    checkpoints::{LoadedRetriever, Models, OnModelEvent},
    regions::regions,
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
        match models.retriever(Some(name), on_event)? {
            Some(retriever) => {
                check(index, &settings, &retriever.index_settings())?;
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
        let mut hits = Vec::new();
        for hit in self.index.search(&query)? {
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

/// Rows of another retriever, or made otherwise, do not compare.
fn check(index: &Index, own: &Settings, asked: &Settings) -> Result<()> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let pairs = [
        ("retriever", &own.retriever, &asked.retriever),
        ("revision", &own.revision, &asked.revision),
        ("prompt version", &own.prompt_version, &asked.prompt_version),
        ("precision", &own.precision, &asked.precision),
    ];
    for (what, own, other) in pairs {
        if own != other {
            return Err(Error::Index(colibri_index::Error::SettingsMismatch {
                path: index.dir().to_owned(),
                what,
                index: text(own),
                asked: text(other),
            }));
        }
    }
    Ok(())
}
