//! Look once: what a model saw on a page is kept beside the index and is what an answer begins with.
//!
//! Visual tokens belong to a content (the hash of the document), a page of it, and everything else they depend on:
//! weights of the tower and the connector, precision, how pages are drawn and cut
//! ([`colibri_models::generators::Looking::look_key`]). Where retriever and generator agree in all that, the
//! tokens from indexing serve; where they do not, the generator's own are kept when it has first looked.

use colibri_index::{FeatureKey, Features, Index};
use colibri_models::{TokenPrecision, VisualTokens, generators::Looking};

use crate::{Result, checkpoints::LoadedRetriever};

/// What is kept of pages unless another bound is set: 2 GiB, some 1600 pages of the 256M models.
pub const DEFAULT_FEATURE_BYTES: u64 = 2 << 30;

/// What is kept of what is seen on pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFeatures {
    /// Bytes beside an index; 0 for none.
    pub max_bytes: u64,
    /// In what form.
    pub precision: TokenPrecision,
}

impl KeptFeatures {
    /// Nothing is kept.
    pub fn none() -> Self {
        Self {
            max_bytes: 0,
            ..Self::default()
        }
    }
}

impl Default for KeptFeatures {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_FEATURE_BYTES,
            precision: TokenPrecision::F16,
        }
    }
}

/// What one model sees of the pages of one index.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    features: Features,
    settings: String,
    precision: TokenPrecision,
}

impl Seen {
    /// `None` where nothing is to be kept, or the model does not tell what its visual tokens depend on.
    pub(crate) fn new(
        index: &std::path::Path,
        kept: KeptFeatures,
        look_key: Option<&str>,
    ) -> Option<Self> {
        let KeptFeatures {
            max_bytes,
            precision,
        } = kept;
        let look_key = look_key.filter(|_| max_bytes > 0)?;
        let form = match precision {
            TokenPrecision::F16 => "",
            TokenPrecision::Int8 => " int8",
        };
        Some(Self {
            features: Features::new(index, max_bytes),
            // How pages are drawn may change with the version.
            settings: format!("{} {look_key}{form}", env!("CARGO_PKG_VERSION")),
            precision,
        })
    }

    /// For a retriever that fills an index. The built-in one keeps nothing: to look again takes less time than
    /// what it saw is worth in bytes.
    pub(crate) fn by_retriever(
        index: &std::path::Path,
        retriever: Option<&LoadedRetriever>,
    ) -> Option<Self> {
        let retriever = retriever.filter(|retriever| !retriever.is_weak())?;
        Self::new(index, retriever.features, retriever.model.look_key())
    }

    /// What is kept of a page, if it fits the generator.
    pub(crate) fn load(
        &self,
        content_hash: &str,
        page: u32,
        generator: &dyn Looking,
    ) -> Option<VisualTokens> {
        let key = FeatureKey::new(content_hash, page, &self.settings);
        let tokens = VisualTokens::from_bytes(&self.features.get(&key)?)?;
        generator.fits(&tokens).then_some(tokens)
    }

    /// Keeps what was seen of a page. A folder that cannot be written costs another look, and nothing else.
    pub(crate) fn keep(&self, content_hash: &str, page: u32, tokens: VisualTokens) {
        let tokens = tokens.rounded(self.precision);
        let key = FeatureKey::new(content_hash, page, &self.settings);
        let _ = self.features.put(&key, &tokens.to_bytes());
    }
}

/// The content hash of the document a page belongs to, as the index has it.
pub(crate) fn content_hash(index: &Index, document: &str) -> Result<Option<String>> {
    let found = index.document(document)?;
    Ok(found.map(|document| document.record.content_hash))
}
