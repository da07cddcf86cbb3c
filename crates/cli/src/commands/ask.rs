//! `colibri ask`: an answer with the pages it rests on, from the index or from documents named in the
//! question itself.

use std::path::{Path, PathBuf};

use colibri_engine::{
    answer::{AnswerEvent, AnswerOptions, Answering},
    checkpoints::{LoadedRetriever, Models},
    document::OpenOptions,
    generate::StopReason,
    index::{Filter, Index, Mode},
    ingest::{DocumentStatus, IndexEvent, IngestOptions},
    on_the_fly::{self, Prepared},
    retrieve::Searcher,
};

use crate::{
    Outcome,
    args::{Fetching, Generation, Reading, Searching, Walking},
    context::Context,
    error::{Error, Result},
    interrupt::Listening,
    places,
    progress::{IndexBar, document_line},
    reply::AnswerPrinter,
    screen::Screen,
};

/// Arguments of `ask`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The question
    question: String,
    /// Files, folders and URLs of documents to answer from, instead of the index
    paths: Vec<PathBuf>,
    /// Pages given to the generator
    #[arg(short, long = "num-pages", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    #[command(flatten)]
    searching: Searching,
    /// What every answer should observe, for example "Answer in French."
    #[arg(long, value_name = "TEXT")]
    instructions: Option<String>,
    /// Give the generator the text of the pages beside their pictures
    #[arg(long)]
    with_text: bool,
    /// Keep nothing of the documents named here
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    generation: Generation,
    #[command(flatten)]
    walking: Walking,
    #[command(flatten)]
    fetching: Fetching,
    #[command(flatten)]
    reading: Reading,
}

/// Runs the command.
///
/// # Errors
/// When there is nothing to answer from, or a model fails.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    if args.question.trim().is_empty() {
        return Err(Error::EmptyQuestion);
    }
    let filter = args.searching.filter()?;
    let open = args.reading.open_options()?;
    let models = context.models()?;
    if args.paths.is_empty() {
        models.expect_questions_only();
        let source = Source {
            index: context.index()?,
            filter,
            failed: 0,
            _folder: None,
        };
        return answer(context, args, &models, &source, open);
    }
    let source = prepare(context, args, &models, &open, filter)?;
    answer(context, args, &models, &source, open)
}

/// What is answered from.
struct Source {
    index: Index,
    filter: Filter,
    /// Named documents that could not be read.
    failed: usize,
    /// Removed with everything in it at the end.
    _folder: Option<tempfile::TempDir>,
}

/// Indexes the named documents into the cache, or into a folder that is removed again.
fn prepare(
    context: &Context,
    args: &Args,
    models: &Models,
    open: &OpenOptions,
    filter: Filter,
) -> Result<Source> {
    let paths = {
        let listening = context.interrupt.listen()?;
        let folder = places::cache()?.join("urls");
        args.fetching
            .paths(context, &listening, &args.paths, &folder)?
    };
    let progress = context.model_progress(true);
    let retriever = match args.searching.mode() {
        Mode::Text => None,
        Mode::Visual => Some(context.need_retriever(models)?),
        Mode::Hybrid => models.retriever(None, &|event| progress.on_event(event))?,
    };
    context.screen.hide_bar();
    let options = IngestOptions {
        walk: args.walking.options(),
        open: open.clone(),
        command: Some("colibri ask".to_owned()),
        ..IngestOptions::default()
    };
    let work = Work {
        context,
        paths: &paths,
        retriever: retriever.as_ref(),
        options: &options,
    };
    let cache = places::cache()?.join("asked");
    let (prepared, folder) = if args.no_cache {
        work.in_folder_of_its_own()?
    } else {
        match work.read_into(&cache) {
            // Somebody else is asking just now: better to read the documents once more than to wait.
            Err(Error::Engine(colibri_engine::Error::Index(
                colibri_engine::index::Error::Locked { .. },
            ))) => {
                context.screen.detail(
                    "the cache is in use; reading the documents into a folder of their own",
                );
                work.in_folder_of_its_own()?
            }
            prepared => (prepared?, None),
        }
    };
    let Prepared {
        index,
        filter: named,
        failed,
    } = prepared;
    Ok(Source {
        index,
        filter: named.and(filter),
        failed,
        _folder: folder,
    })
}

struct Work<'a> {
    context: &'a Context,
    paths: &'a [PathBuf],
    retriever: Option<&'a LoadedRetriever>,
    options: &'a IngestOptions,
}

impl Work<'_> {
    fn in_folder_of_its_own(&self) -> Result<(Prepared, Option<tempfile::TempDir>)> {
        let folder = tempfile::Builder::new().prefix("colibri-").tempdir();
        let folder = folder.map_err(Error::file("make a folder for this question"))?;
        let prepared = self.read_into(folder.path())?;
        Ok((prepared, Some(folder)))
    }

    fn read_into(&self, cache: &Path) -> Result<Prepared> {
        let screen = &self.context.screen;
        fs_err::create_dir_all(cache).map_err(Error::file("use the cache"))?;
        let listening = self.context.interrupt.listen()?;
        let mut bar = IndexBar::new(screen);
        let mut broken = None;
        let prepared = on_the_fly::prepare(
            cache,
            self.paths,
            self.retriever,
            self.options,
            listening.stop(),
            &mut |event| {
                bar.on_event(&event);
                if broken.is_none()
                    && let Err(error) = show(screen, &event)
                {
                    listening
                        .stop()
                        .store(true, std::sync::atomic::Ordering::Relaxed);
                    broken = Some(error);
                }
            },
        );
        screen.hide_bar();
        broken.map_or(Ok(()), Err)?;
        Ok(prepared?)
    }
}

/// Documents that fail are always told; those that do not, as status.
fn show(screen: &Screen, event: &IndexEvent) -> Result<()> {
    if let IndexEvent::Document {
        status,
        error: Some(error),
        ..
    } = event
        && *status != DocumentStatus::Failed
    {
        screen.failure(error);
    }
    let Some((status, line)) = document_line(event) else {
        return Ok(());
    };
    let stage = if status == DocumentStatus::Failed {
        screen.failure(&line);
        "note"
    } else {
        if !screen.json {
            screen.detail(&line);
        }
        "index"
    };
    if screen.json {
        screen.json(&AnswerEvent::Status {
            stage,
            message: line,
        })?;
    }
    Ok(())
}

fn answer(
    context: &Context,
    args: &Args,
    models: &Models,
    source: &Source,
    open: OpenOptions,
) -> Result<Outcome> {
    let progress = context.model_progress(true);
    let on_model = |event| progress.on_event(event);
    let searcher = Searcher::open(&source.index, models, args.searching.mode(), &on_model)?;
    context.screen.hide_bar();
    let options = AnswerOptions {
        pages: args.k as usize,
        with_text: args.with_text,
        instructions: args.instructions.clone(),
        generate: args.generation.options(),
        open,
    };
    let mut answering = Answering::new(
        &source.index,
        searcher,
        models,
        source.filter.clone(),
        options,
    );
    let listening = context.interrupt.listen()?;
    let answered = ask_once(
        context,
        &mut answering,
        &args.question,
        &listening,
        &on_model,
    )?;
    Ok(match answered {
        Answered::Whole if source.failed == 0 => Outcome::Done,
        Answered::Whole | Answered::NotThere => Outcome::Incomplete,
        Answered::Interrupted => Outcome::Interrupted,
    })
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Whole,
    /// The documents do not say.
    NotThere,
    Interrupted,
}

/// Asks, and shows the answer as it comes.
///
/// # Errors
/// When the index or a model fails, or nobody reads.
pub(crate) fn ask_once(
    context: &Context,
    answering: &mut Answering<'_>,
    question: &str,
    listening: &Listening<'_>,
    on_model: colibri_engine::checkpoints::OnModelEvent<'_>,
) -> Result<Answered> {
    let mut printer = AnswerPrinter::new(&context.screen, listening);
    let asked = answering.ask(question, listening.stop(), on_model, &mut |event| {
        printer.on_event(&event);
    });
    printer.finish()?;
    let asked = asked?;
    Ok(match asked.done.stop {
        Some(StopReason::Cancelled) => Answered::Interrupted,
        Some(StopReason::EndOfTurn | StopReason::Length) | None
            if asked.done.citations.is_empty() =>
        {
            Answered::NotThere
        }
        Some(StopReason::EndOfTurn | StopReason::Length) | None => Answered::Whole,
    })
}
