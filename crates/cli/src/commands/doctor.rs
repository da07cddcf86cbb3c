//! `colibri doctor`: this machine, the index and the models, for people in doubt and for bug reports.

use colibri_engine::{
    budget::ModelPlan,
    checkpoints::{DEFAULT_GENERATOR, DEFAULT_RETRIEVER, ModelConfig, Models},
    document::Limits,
    generate::GenerateOptions,
    hub::{Hub, ModelName},
    index::{FORMAT_VERSION, Index},
    machine, memory, threads,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    Outcome,
    context::{Context, hub_config},
    error::Result,
    places, text,
};

/// Pages that `ask` shows to the generator unless told otherwise.
const PAGES_OF_A_QUESTION: usize = 3;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// A default model, and what serves where it is missing.
#[derive(Serialize)]
struct Model {
    role: &'static str,
    name: &'static str,
    cached: bool,
    /// What serves now.
    serves: String,
}

/// Runs the command.
///
/// # Errors
/// When the home folder is unknown.
pub(crate) fn run(context: &Context, _: &Args) -> Result<Outcome> {
    let screen = &context.screen;
    let hub = hub_config()?;
    let index = context.index_dir()?;
    let index_state = state(&index);
    let models = [
        model(
            &Hub::new(hub.clone()),
            "retriever",
            DEFAULT_RETRIEVER,
            "the built-in one serves",
        ),
        model(
            &Hub::new(hub.clone()),
            "generator",
            DEFAULT_GENERATOR,
            "answers quote the best lines of the pages",
        ),
    ];
    let plan = plan(context)?;
    let limits = Limits::default();
    let (total, available) = system_memory();
    let sets = colibri_engine::instruction_sets();
    let checks = machine::check_paths();
    let wrong: Vec<String> = checks
        .iter()
        .filter(|check| !check.passed())
        .map(|check| format!("{} of {}", check.operation, check.isa))
        .collect();
    let outcome = if wrong.is_empty() {
        Outcome::Done
    } else {
        Outcome::Incomplete
    };
    let cache = places::cache()?;
    let config = places::default_config()?;
    if screen.json {
        screen.json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "index_format": FORMAT_VERSION,
            "system": {"os": std::env::consts::OS, "architecture": std::env::consts::ARCH, "instruction_sets": sets,
                "threads": threads::count(), "memory_bytes": total, "available_memory_bytes": available},
            "kernels": {"checked": checks.len(), "wrong": wrong},
            "index": {"path": index, "state": index_state.0, "error": index_state.1},
            "cache": cache,
            "config": {"path": config, "present": config.is_file()},
            "hub": {"cache": hub.cache_dir, "endpoint": hub.endpoint, "offline": hub.offline},
            "models": models,
            "plan": plan.as_ref().map(|plan| plan.as_ref().ok()),
            "plan_error": plan.as_ref().and_then(|plan| plan.as_ref().err()),
            "limits": limits,
            "resident_memory_bytes": memory::resident_bytes(),
        }))?;
        return Ok(outcome);
    }
    let offline = if hub.offline {
        "offline (HF_HUB_OFFLINE)"
    } else {
        hub.endpoint.as_str()
    };
    let mut lines = vec![
        (
            "version",
            format!(
                "{} (index format {FORMAT_VERSION})",
                env!("CARGO_PKG_VERSION")
            ),
        ),
        (
            "system",
            format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        ),
        (
            "processor",
            format!(
                "{}, {}",
                text::count(threads::count(), "thread"),
                sets.join(" ")
            ),
        ),
        (
            "kernels",
            if wrong.is_empty() {
                format!("{} operations agree with their definitions", checks.len())
            } else {
                format!("WRONG: {}", wrong.join(", "))
            },
        ),
        (
            "memory",
            format!(
                "{}, {} available",
                text::bytes(total),
                text::bytes(available)
            ),
        ),
        (
            "index",
            match &index_state {
                (state, None) => format!("{} ({state})", index.display()),
                (state, Some(error)) => format!("{} ({state}: {error})", index.display()),
            },
        ),
        ("cache", cache.display().to_string()),
        (
            "config",
            format!(
                "{} ({})",
                config.display(),
                if config.is_file() {
                    "present"
                } else {
                    "absent"
                }
            ),
        ),
        (
            "hub",
            format!("{}, cache {}", offline, hub.cache_dir.display()),
        ),
    ];
    for model in &models {
        let present = if model.cached { "present" } else { "absent" };
        lines.push((
            model.role,
            format!("{} ({present}); {}", model.name, model.serves),
        ));
    }
    match &plan {
        None => {}
        Some(Ok(plans)) => lines.extend(plans.iter().map(|plan| ("plan", text::plan(plan)))),
        Some(Err(reason)) => lines.push(("plan", reason.clone())),
    }
    lines.push((
        "limits",
        format!(
            "{} a file, {} pages a document, {} megapixels a page, {} s a page, {} of memory for a PDF",
            text::bytes(limits.max_file_bytes),
            limits.max_pages,
            limits.max_pixels / 1_000_000,
            limits.max_seconds_per_page,
            text::bytes(limits.worker_memory_bytes)
        ),
    ));
    for (what, value) in lines {
        screen.line(&format!("{what:<10} {}", text::clean_line(&value)))?;
    }
    Ok(outcome)
}

/// How the models would be held, where memory is limited or more is to be told: never by way of the network.
fn plan(context: &Context) -> Result<Option<Result<Vec<ModelPlan>, String>>> {
    if context.global.memory.is_none() && !context.global.verbose {
        return Ok(None);
    }
    let mut config: ModelConfig = context.models()?.config().clone();
    config.hub.offline = true;
    let models = Models::new(config);
    models.expect(
        PAGES_OF_A_QUESTION,
        GenerateOptions::default().max_new_tokens,
    );
    Ok(Some(models.plans_beforehand().map_err(|error| {
        let hint = error.hint().map(|hint| format!("; {hint}"));
        colibri_engine::chain(&error) + &hint.unwrap_or_default()
    })))
}

fn state(dir: &std::path::Path) -> (&'static str, Option<String>) {
    if !Index::exists(dir) {
        return ("absent", None);
    }
    match Index::open(dir).and_then(|index| index.stats()) {
        Ok(stats) if stats.settings.is_text_only() => ("present, text only", None),
        Ok(_) => ("present", None),
        Err(error) => ("unreadable", Some(colibri_engine::chain(&error))),
    }
}

fn model(hub: &Hub, role: &'static str, name: &'static str, instead: &str) -> Model {
    let parsed: Option<ModelName> = name.parse().ok();
    let cached = parsed.is_some_and(|name| hub.cached(&name, None).is_some());
    let serves = match (cached, hub.config().offline) {
        (true, _) => "it serves".to_owned(),
        (false, true) => instead.to_owned(),
        (false, false) => format!("fetched when first needed; until then {instead}"),
    };
    Model {
        role,
        name,
        cached,
        serves,
    }
}

/// Bytes of memory in all and available, 0 where the system does not tell.
fn system_memory() -> (u64, u64) {
    let text = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0) * 1024
    };
    (value("MemTotal:"), value("MemAvailable:"))
}
