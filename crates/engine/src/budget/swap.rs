//! A retriever that can be given up and comes back when it is needed.

use std::sync::{Arc, Mutex, PoisonError};

use colibri_models::{
    Result, VisualTokens, WeightBytes,
    retrievers::{PageEmbedding, QueryToken, Retriever, RetrieverSettings, Rows},
};
use image::RgbImage;

type Load = Box<dyn Fn() -> Result<Box<dyn Retriever>> + Send + Sync>;

/// A retriever whose weights are held only while they are wanted.
pub(crate) struct Swapped {
    /// Makes room and reads the weights.
    load: Load,
    held: Mutex<Option<Arc<dyn Retriever>>>,
    settings: RetrieverSettings,
    look_key: Option<String>,
}

impl Swapped {
    /// Reads the weights for the first time.
    pub(crate) fn new(load: Load) -> Result<Self> {
        let model: Arc<dyn Retriever> = load()?.into();
        Ok(Self {
            load,
            settings: model.settings(),
            look_key: model.look_key().map(str::to_owned),
            held: Mutex::new(Some(model)),
        })
    }

    /// Gives the weights up, as soon as nobody uses them.
    pub(crate) fn release(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn model(&self) -> Result<Arc<dyn Retriever>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*held {
            return Ok(Arc::clone(model));
        }
        let model: Arc<dyn Retriever> = (self.load)()?.into();
        *held = Some(Arc::clone(&model));
        Ok(model)
    }
}

impl Retriever for Swapped {
    fn settings(&self) -> RetrieverSettings {
        self.settings.clone()
    }

    fn embed_page(
        &self,
        page: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<PageEmbedding> {
        self.model()?.embed_page(page, on_tile)
    }

    fn embed_page_seen(
        &self,
        page: &RgbImage,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<(PageEmbedding, Option<VisualTokens>)> {
        self.model()?.embed_page_seen(page, on_tile)
    }

    fn look_key(&self) -> Option<&str> {
        self.look_key.as_deref()
    }

    fn embed_query(&self, query: &str) -> Result<Rows> {
        self.model()?.embed_query(query)
    }

    fn query_tokens(&self, query: &str) -> Result<Vec<QueryToken>> {
        self.model()?.query_tokens(query)
    }

    /// Those that are held.
    fn weight_bytes(&self) -> WeightBytes {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .map_or_else(WeightBytes::default, |model| model.weight_bytes())
    }
}
