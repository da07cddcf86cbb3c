//! `colibri search`: the pages that fit a question.

use std::{
    fmt::Write as _,
    io::{self, Read},
    path::{Path, PathBuf},
};

use colibri_engine::{
    document::OpenOptions,
    index::Filter,
    picture,
    retrieve::{PageHit, SearchResult, Searcher},
};
use serde_json::{Value, json};

use crate::{
    Outcome,
    args::{Reading, Searching},
    context::Context,
    error::{Error, Result},
    places, text,
};

/// Longest edge of saved pages: the size the processors scale a page to before they cut it.
const SAVED_LONGEST_EDGE: u32 = 2048;
/// A file of queries is read whole; more than this is no list of questions.
const MAX_QUERIES_BYTES: u64 = 64 << 20;

#[cfg(target_os = "macos")]
pub(super) const VIEWER: &str = "open";
#[cfg(target_os = "windows")]
pub(super) const VIEWER: &str = "explorer";
#[cfg(not(any(target_os = "macos", target_os = "windows")))]
pub(super) const VIEWER: &str = "xdg-open";

/// Arguments of `search`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to look for
    query: Option<String>,
    /// Pages to find
    #[arg(short, long = "num-pages", value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    #[command(flatten)]
    searching: Searching,
    /// Many queries: one a line, or JSON lines with `query`; `-` reads them from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["query", "open"])]
    queries: Option<PathBuf>,
    /// Write the found pages as PNG into a folder
    #[arg(long, value_name = "DIR")]
    save_pages: Option<PathBuf>,
    /// Show the best page with the system's viewer
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    reading: Reading,
}

/// Runs the command.
///
/// # Errors
/// When there is no index, or it cannot be searched this way.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let filter = args.searching.filter()?;
    let queries = match (&args.query, &args.queries) {
        (Some(query), _) if query.trim().is_empty() => return Err(Error::EmptyQuestion),
        (Some(query), _) => vec![query.clone()],
        (None, Some(file)) => read_queries(file)?,
        (None, None) => return Err(Error::NoQuery),
    };
    let index = context.index()?;
    let models = context.models()?;
    let progress = context.model_progress(false);
    models.expect_questions_only();
    let searcher = Searcher::open(&index, &models, args.searching.mode(), &|event| {
        progress.on_event(event);
    })?;
    context.screen.hide_bar();
    let pages = Pages {
        context,
        args,
        filter: &filter,
        open: args.reading.open_options()?,
    };
    let (mut any, mut all_drawn) = (false, true);
    for (number, query) in queries.iter().enumerate() {
        let found = searcher.search(query, args.k as usize, pages.filter)?;
        any |= !found.hits.is_empty();
        let prefix = if args.queries.is_some() {
            format!("q{:03}-", number + 1)
        } else {
            String::new()
        };
        let saved = pages.save(&found, &prefix)?;
        all_drawn &= saved.iter().all(|image| !matches!(image, Image::Missing));
        pages.show(&found, &saved)?;
    }
    Ok(if any && all_drawn {
        Outcome::Done
    } else {
        Outcome::Incomplete
    })
}

/// What became of the picture of a hit.
enum Image {
    /// None was wanted.
    Unwanted,
    Saved(PathBuf),
    /// It could not be drawn; it has been said why.
    Missing,
}

struct Pages<'a> {
    context: &'a Context,
    args: &'a Args,
    filter: &'a Filter,
    open: OpenOptions,
}

impl Pages<'_> {
    /// Draws the found pages again, where they are to be saved or opened.
    fn save(&self, found: &SearchResult, prefix: &str) -> Result<Vec<Image>> {
        let dir = match &self.args.save_pages {
            Some(dir) => dir.clone(),
            None if self.args.open => places::cache()?.join("found"),
            None => return Ok(found.hits.iter().map(|_| Image::Unwanted).collect()),
        };
        fs_err::create_dir_all(&dir).map_err(Error::file("save the pages"))?;
        let mut saved = Vec::new();
        for hit in &found.hits {
            saved.push(self.draw(hit, &dir, prefix)?);
        }
        let first = saved.first().and_then(|image| match image {
            Image::Saved(path) => Some(path),
            Image::Unwanted | Image::Missing => None,
        });
        if self.args.open
            && let Some(path) = first
        {
            view(path)?;
        }
        Ok(saved)
    }

    fn draw(&self, hit: &PageHit, dir: &Path, prefix: &str) -> Result<Image> {
        let hit = &hit.hit;
        let image = match picture::page(
            Path::new(&hit.document),
            hit.page,
            SAVED_LONGEST_EDGE,
            &self.open,
        ) {
            Ok(image) => image,
            Err(error) => {
                let reason = colibri_engine::chain(&error);
                self.context
                    .screen
                    .failure(&format!("to draw p.{}: {reason}", hit.page));
                return Ok(Image::Missing);
            }
        };
        let path = dir.join(format!(
            "{prefix}{:02}-{}-p{}.png",
            hit.rank,
            stem(&hit.document),
            hit.page
        ));
        picture::save_png(&image, &path)?;
        Ok(Image::Saved(path))
    }

    fn show(&self, found: &SearchResult, saved: &[Image]) -> Result<()> {
        let screen = &self.context.screen;
        if screen.json || self.args.queries.is_some() {
            return screen.json(&with_images(found, saved));
        }
        if found.hits.is_empty() {
            screen.error_line("", "nothing found");
        }
        for (PageHit { hit, .. }, image) in found.hits.iter().zip(saved) {
            let place = text::clean_line(&places::shown(&hit.document)).into_owned();
            let place = screen.bold(&format!("{place} p.{}", hit.page));
            let mut entry = format!("{:>2}  {:.4}  {place}\n", hit.rank, hit.score);
            for line in hit
                .text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
            {
                let _ = writeln!(entry, "    {}", screen.dim(line));
            }
            if let Image::Saved(path) = image {
                let _ = writeln!(
                    entry,
                    "    saved as {}",
                    text::clean_line(&path.display().to_string())
                );
            }
            screen.print(&entry)?;
        }
        Ok(())
    }
}

/// The result as JSON, each hit with the file its page was saved in.
fn with_images(found: &SearchResult, saved: &[Image]) -> Value {
    let mut value = json!(found);
    let hits = value.get_mut("hits").and_then(Value::as_array_mut);
    for (hit, image) in hits.into_iter().flatten().zip(saved) {
        if let (Image::Saved(path), Some(hit)) = (image, hit.as_object_mut()) {
            hit.insert("image".to_owned(), json!(path));
        }
    }
    value
}

/// The name of a document as part of a file name: nothing that a shell or a file system takes otherwise.
fn stem(document: &str) -> String {
    let stem = Path::new(document)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let plain = |c: char| {
        if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    };
    let plain: String = stem.chars().map(plain).take(60).collect();
    if plain.trim_matches(['-', '.']).is_empty() {
        "page".to_owned()
    } else {
        plain
    }
}

fn view(path: &Path) -> Result<()> {
    std::process::Command::new(VIEWER)
        .arg(path)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map(drop)
        .map_err(|source| Error::Viewer {
            path: path.to_owned(),
            program: VIEWER,
            source,
        })
}

fn read_queries(file: &Path) -> Result<Vec<String>> {
    let mut text = Vec::new();
    if file == Path::new("-") {
        io::stdin()
            .take(MAX_QUERIES_BYTES)
            .read_to_end(&mut text)
            .map_err(Error::Stdin)?;
    } else {
        let doing = "read the queries";
        let file = fs_err::File::open(file).map_err(Error::input(doing))?;
        file.take(MAX_QUERIES_BYTES)
            .read_to_end(&mut text)
            .map_err(Error::input(doing))?;
    }
    parse_queries(&String::from_utf8_lossy(&text), file)
}

/// A line that begins with `{` is JSON, any other the question itself; `question` serves for `query`, as
/// lists of questions with answers have it.
fn parse_queries(text: &str, file: &Path) -> Result<Vec<String>> {
    let mut queries = Vec::new();
    for (number, line) in text
        .lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
    {
        let fault = |reason: &str| Error::QueryLine {
            path: file.display().to_string(),
            line: number + 1,
            reason: reason.to_owned(),
        };
        if !line.starts_with('{') {
            queries.push(line.to_owned());
            continue;
        }
        let object: Value =
            serde_json::from_str(line).map_err(|error| fault(&error.to_string()))?;
        let query = object.get("query").or_else(|| object.get("question"));
        let query = query
            .and_then(Value::as_str)
            .ok_or_else(|| fault("it has no text under `query`"))?;
        queries.push(query.to_owned());
    }
    if queries.is_empty() {
        Err(Error::NoQuery)
    } else {
        Ok(queries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_lines_or_objects() {
        let file = Path::new("q.jsonl");
        let text = "Who signed?\n\n{\"query\": \"Total?\", \"id\": 3}\n{\"question\": \"When?\"}\n";
        assert_eq!(
            parse_queries(text, file).unwrap(),
            ["Who signed?", "Total?", "When?"]
        );
        for (text, expected) in [
            (
                "ok\n{\"query\": 5}",
                "line 2 of `q.jsonl` is not a query: it has no text under `query`",
            ),
            (
                "{",
                "line 1 of `q.jsonl` is not a query: EOF while parsing an object at line 1 column 1",
            ),
            ("\n", "no question was asked"),
        ] {
            assert_eq!(parse_queries(text, file).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn file_names_are_plain() {
        assert_eq!(stem("/a/annual report (1).pdf"), "annual-report--1-");
        assert_eq!(stem("/a/../..pdf"), "page");
        assert_eq!(stem("/a/\u{1b}[2J"), "--2J");
        assert_eq!(stem(&"x".repeat(300)).len(), 60);
    }
}
