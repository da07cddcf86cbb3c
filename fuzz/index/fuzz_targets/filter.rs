//! Any text as a filter, over any JSON as metadata: `EXPRESSION\nJSON`.

#![no_main]

use colibri_index::{DocumentRecord, Filter, Metadata};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (expression, json) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(filter) = Filter::parse(expression) else {
        return;
    };
    let metadata = serde_json::from_str::<Metadata>(json).unwrap_or_default();
    let document = DocumentRecord {
        path: "/a/b.pdf".to_owned(),
        metadata,
        ..DocumentRecord::default()
    };
    filter.matches(&document);
});
