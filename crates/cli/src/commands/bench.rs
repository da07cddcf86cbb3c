//! `colibri bench`: how fast and how small it is on this machine, so that nobody has to believe a table.

use colibri_engine::{
    bench::{self, Figures, PipelineOptions, SearchOptions, Shape, Text},
    checkpoints::{Choice, ModelConfig, Models, PrecisionChoice},
};

use crate::{
    Outcome,
    context::Context,
    error::{Error, Result},
    text,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// The retriever looks at a page
    EmbedPage,
    /// The retriever reads a question
    EmbedQuery,
    /// The generator reads a prompt with a page
    Prefill,
    /// The generator looks at a page and begins to answer
    FirstToken,
    /// The generator writes
    Decode,
    /// Single products at the shapes of the models
    Kernels,
    /// Exact search over made-up rows
    Search,
    /// Index pages and answer from them, in one process
    Pipeline,
}

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum)]
    work: Work,
    /// A checkpoint: a folder or a hub name [default: the model the command would use]
    #[arg(long, value_name = "MODEL", conflicts_with = "random")]
    model: Option<String>,
    /// Made-up weights of a published shape: colSmol-256M, SmolVLM-256M, colSmol-500M, SmolVLM-500M, SmolVLM-2.2B,
    /// ColPali-v1.3 (a retriever), Idefics2-8B (a generator); with `:N` behind it, of N text layers only
    #[arg(long, value_name = "SHAPE")]
    random: Option<Shape>,
    /// Runs, of which the best counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Pages: of the index (`search`), given to the generator (all others) [default: 1000, 1]
    #[arg(long, value_name = "N")]
    pages: Option<usize>,
    /// Rows of a page (`search`)
    #[arg(long, value_name = "N", default_value_t = 1088)]
    rows: usize,
    /// Let the retriever and the generator have no weight in common (`pipeline --random`)
    #[arg(long, requires = "random")]
    separate: bool,
}

/// Runs the command.
///
/// # Errors
/// When there is no such model, or it fails.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let screen = &context.screen;
    let scratch = tempfile::tempdir().map_err(Error::file("make a folder for"))?;
    let precision = context.global.precision();
    let progress = context.model_progress(false);
    let on_event = |event| progress.on_event(event);
    screen.status("measuring");
    let figures = match args.work {
        Work::Kernels => bench::kernels(precision, args.runs),
        Work::Search => bench::search(
            scratch.path(),
            SearchOptions {
                pages: args.pages.unwrap_or(1000).max(1),
                rows: args.rows.max(1),
                runs: args.runs,
                ..SearchOptions::default()
            },
        )?,
        Work::EmbedPage | Work::EmbedQuery => {
            let models = models(context, args, scratch.path(), true)?;
            // One object is all that is written: no events of loading.
            let retriever = models.retriever(None, &on_event)?;
            let retriever = retriever.ok_or(Error::ModelRefused { role: "retriever" })?;
            if args.work == Work::EmbedPage {
                bench::embed_page(&retriever, precision, args.runs)?
            } else {
                bench::embed_query(&retriever, precision, args.runs)?
            }
        }
        Work::Prefill | Work::FirstToken | Work::Decode => {
            let what = if args.work == Work::Prefill {
                Text::Prefill
            } else if args.work == Work::FirstToken {
                Text::FirstToken
            } else {
                Text::Decode
            };
            let models = models(context, args, scratch.path(), false)?;
            let generator = models.generator(&on_event)?;
            let generator = generator.ok_or(Error::ModelRefused { role: "generator" })?;
            let pages = args.pages.unwrap_or(1).max(1);
            bench::generator(&generator, precision, what, pages, args.runs)?
        }
        Work::Pipeline => {
            let models = models(context, args, scratch.path(), false)?;
            let options = PipelineOptions {
                pages: args.pages.unwrap_or(1).max(1),
                ..PipelineOptions::default()
            };
            bench::pipeline(scratch.path(), &models, options)?
        }
    };
    screen.hide_bar();
    if screen.json {
        screen.json(&figures)?;
    } else {
        print(context, &figures, precision)?;
    }
    Ok(Outcome::Done)
}

/// The models to measure: made up, named, or those of every other command.
fn models(
    context: &Context,
    args: &Args,
    scratch: &std::path::Path,
    is_retriever: bool,
) -> Result<Models> {
    let mut config: ModelConfig = context.models()?.config().clone();
    if let Some(shape) = args.random {
        let pair = shape.write(scratch, &config.builtin_dir, args.separate)?;
        let choice =
            |found: Option<_>| found.map_or(Choice::None, |it| Choice::Found(Box::new(it)));
        config.retriever = choice(pair.retriever);
        config.generator = choice(pair.generator);
    } else if let Some(name) = &args.model {
        let named = Choice::Named(name.clone());
        if is_retriever {
            config.retriever = named;
        } else {
            config.generator = named;
        }
    }
    Ok(Models::new(config))
}

fn print(context: &Context, figures: &Figures, precision: PrecisionChoice) -> Result<()> {
    let screen = &context.screen;
    let mut lines: Vec<(&str, String)> = Vec::new();
    let seconds = |value: f64| {
        if value < 0.1 {
            format!("{:.1} ms", 1e3 * value)
        } else {
            format!("{value:.2} s")
        }
    };
    let model = figures.model.as_deref().unwrap_or("none");
    let form = figures.precision.clone().unwrap_or_default();
    lines.push(("work", figures.work.to_owned()));
    if figures.model.is_some() {
        lines.push(("model", format!("{model}, {form}")));
    }
    lines.push(("threads", figures.threads.to_string()));
    let mut timed = |what, value: Option<f64>| {
        if let Some(value) = value {
            lines.push((what, seconds(value)));
        }
    };
    timed("load", figures.seconds_load);
    timed("index", figures.seconds_index);
    timed("a page", figures.seconds_per_page);
    timed("a question", figures.seconds_per_query);
    timed("first token", figures.seconds_to_first_token);
    timed("second answer", figures.seconds_to_first_token_indexed);
    timed("same question", figures.seconds_to_first_token_again);
    if let Some(tiles) = figures.tiles_indexed {
        lines.push(("looked at", format!("{tiles} tiles for the second answer")));
    }
    if let Some(rate) = figures.tokens_per_second {
        lines.push(("tokens", format!("{rate:.1} a second")));
    }
    let share = figures
        .peak_share
        .map(|share| format!(", {:.0} % of this machine's peak", 100.0 * share))
        .unwrap_or_default();
    match (figures.gflops, figures.gigabytes_per_second) {
        (_, Some(bytes)) => lines.push(("rate", format!("{bytes:.1} GB/s{share}"))),
        (Some(operations), None) => {
            lines.push(("rate", format!("{operations:.0} GFLOP/s{share}")));
        }
        (None, None) => {}
    }
    for product in &figures.products {
        screen.line(&format!(
            "{:<22} {:<5} {:>5} × {:>5} × {:>5} {:>10} {:>6.0} GFLOP/s {:>5.1} GB/s {:>4.0} %",
            product.of,
            product.precision,
            product.shape[0],
            product.shape[1],
            product.shape[2],
            seconds(product.seconds),
            product.gflops,
            product.gigabytes_per_second,
            100.0 * product.peak_share
        ))?;
    }
    if !figures.products.is_empty() && precision == PrecisionChoice::Auto {
        lines.push((
            "share",
            "of operations where there are many rows, of bandwidth where few".to_owned(),
        ));
    }
    if let Some(bytes) = figures.weight_bytes {
        lines.push(("weights", text::bytes(bytes as u64)));
    }
    lines.push(("peak memory", text::bytes(figures.peak_memory_bytes)));
    for (what, value) in lines {
        screen.line(&format!("{what:<14} {}", text::clean_line(&value)))?;
    }
    Ok(())
}
