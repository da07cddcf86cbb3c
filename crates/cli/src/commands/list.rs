//! `colibri list`: the documents in the index.

use std::fmt::Write as _;

use colibri_engine::index::{DocumentInfo, Filter};
use serde_json::{Value, json};

use crate::{Outcome, context::Context, error::Result, places, text};

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only documents for which this holds, for example year>=2023 or 'name~*.pdf'
    #[arg(long = "where", value_name = "EXPR")]
    filter: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When there is no index.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let screen = &context.screen;
    let documents = context.index()?.list(&Filter::parse_all(&args.filter)?)?;
    if screen.json {
        screen.json(&json!({"documents": documents.iter().map(as_json).collect::<Vec<_>>()}))?;
    } else {
        let width = documents
            .iter()
            .map(|document| document.num_pages.to_string().len())
            .max()
            .unwrap_or(1);
        for document in &documents {
            let pages = format!(
                "{:>width$} {}",
                document.num_pages,
                if document.num_pages == 1 {
                    "page "
                } else {
                    "pages"
                }
            );
            let size = format!("{:>9}", text::bytes(document.record.size_bytes));
            let path = text::clean_line(&places::shown(&document.record.path)).into_owned();
            let mut line = format!("{pages}  {size}  {path}");
            for (key, value) in &document.record.metadata {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                let _ = write!(line, "  {}", text::clean_line(&format!("{key}={value}")));
            }
            screen.line(&line)?;
        }
        if documents.is_empty() {
            screen.error_line("", "no document");
        }
    }
    Ok(if documents.is_empty() {
        Outcome::Incomplete
    } else {
        Outcome::Done
    })
}

/// A document as other programs read it.
pub(crate) fn as_json(document: &DocumentInfo) -> Value {
    let record = &document.record;
    json!({
        "path": record.path,
        "kind": record.kind,
        "title": record.title,
        "pages": document.num_pages,
        "pages_with_rows": document.num_pages_with_rows,
        "rows": document.num_rows,
        "size_bytes": record.size_bytes,
        "content_hash": record.content_hash,
        "metadata": record.metadata,
    })
}
