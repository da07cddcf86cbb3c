//! Names and numbers beside paths, so that callers need not take paths apart.

use std::path::Path;

use colibri_engine::index::Index;
use serde_json::{Value, json};

/// The last part of a path.
pub(crate) fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Adds `name` and `page_id` to objects that have `document` and `page`.
pub(crate) fn with_pages(index: Option<&Index>, pages: &mut Value) {
    for page in pages.as_array_mut().into_iter().flatten() {
        let document = page["document"].as_str().unwrap_or_default().to_owned();
        let number = page["page"].as_u64().unwrap_or_default() as u32;
        page["name"] = json!(file_name(&document));
        if let Some(index) = index {
            let found = index.page_id(&document, number);
            page["page_id"] = json!(found.ok().flatten());
        }
    }
}
