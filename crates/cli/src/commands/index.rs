//! `colibri index`: documents into the index.

use std::{fmt::Write as _, path::PathBuf};

use colibri_engine::{
    index::{Index, Metadata},
    ingest::{DocumentStatus, IndexEvent, IngestOptions, ingest},
};

use crate::{
    Outcome,
    args::{Fetching, Reading, Walking},
    context::Context,
    error::{Error, Result},
    progress::{IndexBar, document_line},
    screen::Screen,
    text,
};

/// Arguments of `index`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files, folders and URLs of documents
    paths: Vec<PathBuf>,
    /// Say something about all documents of this run, for example year=2023
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    meta: Vec<(String, serde_json::Value)>,
    #[command(flatten)]
    walking: Walking,
    #[command(flatten)]
    fetching: Fetching,
    #[command(flatten)]
    reading: Reading,
}

/// Numbers, `true` and `false` keep their type, so that filters compare them as what they are.
fn pair(text: &str) -> Result<(String, serde_json::Value), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("write KEY=VALUE".to_owned());
    };
    let key = key.trim();
    if key.is_empty() {
        return Err("there is no key before the `=`".to_owned());
    }
    let value = match serde_json::from_str(value) {
        Ok(
            scalar @ (serde_json::Value::Number(_)
            | serde_json::Value::Bool(_)
            | serde_json::Value::String(_)),
        ) => scalar,
        _ => serde_json::Value::String(value.to_owned()),
    };
    Ok((key.to_owned(), value))
}

/// Runs the command.
///
/// # Errors
/// When the index cannot be written, or a model fails.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    if args.paths.is_empty() {
        return Err(Error::NoPaths);
    }
    let dir = context.index_dir()?;
    let options = IngestOptions {
        walk: args.walking.options(),
        open: args.reading.open_options()?,
        metadata: args.meta.iter().cloned().collect::<Metadata>(),
        command: Some(format!("colibri index {}", quoted(&args.paths))),
        remove_missing: true,
    };
    let models = context.models()?;
    let remembered = if Index::exists(&dir) {
        Index::open(&dir)?.settings()?.retriever
    } else {
        None
    };
    let progress = context.model_progress(false);
    let retriever = models.retriever(remembered.as_deref(), &|event| progress.on_event(event))?;
    context.screen.hide_bar();

    let listening = context.interrupt.listen()?;
    let fetched = beside(&dir);
    let paths = args
        .fetching
        .paths(context, &listening, &args.paths, &fetched)?;
    let mut bar = IndexBar::new(&context.screen);
    let mut broken = None;
    let done = ingest(
        &dir,
        &paths,
        retriever.as_ref(),
        &options,
        listening.stop(),
        &mut |event| {
            bar.on_event(&event);
            if broken.is_none()
                && let Err(error) = show(&context.screen, &event)
            {
                listening
                    .stop()
                    .store(true, std::sync::atomic::Ordering::Relaxed);
                broken = Some(error);
            }
        },
    );
    context.screen.hide_bar();
    if let Some(error) = broken {
        return Err(error);
    }
    let summary = done?;
    Ok(if summary.failed > 0 {
        Outcome::Incomplete
    } else {
        Outcome::Done
    })
}

/// Where fetched documents of an index are kept: they belong to it, and a cache may be cleared.
fn beside(index: &std::path::Path) -> PathBuf {
    let mut name = index.file_name().unwrap_or_default().to_owned();
    name.push("-uploads");
    index.with_file_name(name)
}

fn show(screen: &Screen, event: &IndexEvent) -> Result<()> {
    if screen.json {
        return match event {
            IndexEvent::Document { .. } | IndexEvent::Done(_) => screen.json(event),
            IndexEvent::Found { .. } | IndexEvent::Page { .. } if screen.verbose => {
                screen.json(event)
            }
            IndexEvent::Found { .. } | IndexEvent::Page { .. } => Ok(()),
        };
    }
    match event {
        IndexEvent::Found { documents, skipped } => {
            let (documents, skipped) = (
                text::count(*documents, "document"),
                text::count(*skipped, "other file"),
            );
            screen.detail(&format!("{documents} to look at, {skipped} passed over"));
        }
        IndexEvent::Page { .. } => {}
        IndexEvent::Document { error, .. } => match document_line(event) {
            Some((DocumentStatus::Failed, line)) => screen.failure(&line),
            Some((DocumentStatus::Unchanged, line)) if screen.verbose => screen.line(&line)?,
            Some((DocumentStatus::Unchanged, _)) | None => {}
            Some((_, line)) => {
                // A bar already shows what goes well.
                if !screen.is_lively() || screen.verbose {
                    screen.line(&line)?;
                }
                if let Some(error) = error {
                    screen.failure(error);
                }
            }
        },
        IndexEvent::Done(summary) => {
            screen.hide_bar();
            let mut line = format!(
                "{} with {} in the index",
                text::count(summary.documents, "document"),
                text::count(summary.pages, "page")
            );
            if summary.removed > 0 {
                let _ = write!(line, ", {} removed", summary.removed);
            }
            if summary.failed > 0 {
                let _ = write!(line, ", {} failed", summary.failed);
            }
            screen.line(&format!("{line}; {:.1} s", summary.seconds))?;
        }
    }
    Ok(())
}

fn quoted(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_keeps_numbers_and_flags() {
        let value = |text: &str| pair(text).unwrap().1;
        assert_eq!(value("year=2023"), json!(2023));
        assert_eq!(value("final=true"), json!(true));
        assert_eq!(value("year=\"2023\""), json!("2023"));
        assert_eq!(value("note=null"), json!("null"));
        assert_eq!(value("list=[1]"), json!("[1]"));
        assert_eq!(value("a=b=c"), json!("b=c"));
        assert_eq!(value("a="), json!(""));
        assert!(pair("year").is_err() && pair("=5").is_err());
    }
}
