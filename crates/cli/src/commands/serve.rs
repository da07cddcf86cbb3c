//! `colibri serve`: the web app and the API, on one port of this machine.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
};

use colibri_engine::{checkpoints::ModelConfig, web::FetchConfig};
use colibri_server::{Access, ApiKey, App, Bounds, Listening, ServerConfig};
use serde_json::json;

use super::search::VIEWER;
use crate::{
    Outcome,
    args::{Fetching, Reading},
    context::Context,
    error::{Error, Result},
    interrupt,
    text::parse_bytes,
};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen at; one that others can reach demands a key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen at; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8017)]
    port: u16,
    /// Show the web app in the browser
    #[arg(long)]
    open: bool,
    /// Key that callers must show, also as COLIBRI_API_KEY, which other users of the machine do not see
    #[arg(
        long,
        value_name = "KEY",
        env = "COLIBRI_API_KEY",
        hide_env = true,
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// Let everybody who reaches the address in without a key
    #[arg(long, conflicts_with = "api_key")]
    no_api_key: bool,
    /// Another name by which the server may be called; addresses and localhost always may
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Let callers add documents in this folder by their path
    #[arg(long, value_name = "DIR")]
    allow_path: Vec<PathBuf>,
    /// Fetch no documents by URL
    #[arg(long)]
    no_urls: bool,
    /// Largest file that may be sent
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_bytes)]
    max_upload: u64,
    /// Folder of the files that are sent and fetched [default: beside the index]
    #[arg(long, value_name = "DIR")]
    uploads: Option<PathBuf>,
    #[command(flatten)]
    fetching: Fetching,
    #[command(flatten)]
    reading: Reading,
}

/// Settings of a server over this context; also for `mcp`.
pub(super) fn config(
    context: &Context,
    uploads: Option<PathBuf>,
    reading: &Reading,
) -> Result<ServerConfig> {
    let index = context.index_dir()?;
    // Kept in the catalogue, where a path that depends on the current folder means nothing later.
    let index = std::path::absolute(&index).unwrap_or(index);
    let uploads = uploads.unwrap_or_else(|| {
        let mut name = index.file_name().unwrap_or_default().to_owned();
        name.push("-uploads");
        index.with_file_name(name)
    });
    let models: ModelConfig = context.models()?.config().clone();
    Ok(ServerConfig {
        index,
        uploads: std::path::absolute(&uploads).unwrap_or(uploads),
        roots: Vec::new(),
        models,
        open: reading.open_options()?,
        fetch: None,
        access: Access::default(),
        bounds: Bounds::default(),
    })
}

/// Runs the command.
///
/// # Errors
/// When others could use the server without a key, or the address is taken.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    if !args.host.is_loopback() && args.api_key.is_none() && !args.no_api_key {
        return Err(Error::KeyNeeded { host: args.host });
    }
    if args
        .api_key
        .as_deref()
        .is_some_and(|key| key.trim().is_empty())
    {
        return Err(Error::EmptyKey);
    }
    let mut config = config(context, args.uploads.clone(), &args.reading)?;
    config.access = Access {
        api_key: args.api_key.as_deref().map(|key| ApiKey::new(key.trim())),
        host_names: args.allow_host.clone(),
    };
    config.roots.clone_from(&args.allow_path);
    config.bounds.upload_bytes = args.max_upload;
    if !args.no_urls {
        config.fetch = Some(FetchConfig {
            max_bytes: args.max_upload,
            ..args.fetching.config(&config.uploads)
        });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::Signals)?;
    let app = App::start(config)?;
    runtime.block_on(async {
        let listening = Listening::at(SocketAddr::new(args.host, args.port)).await?;
        let shown = SocketAddr::new(reachable(args.host), listening.address.port());
        let url = format!("http://{shown}/");
        if context.screen.json {
            let event = json!({"event": "listening", "url": url, "address": listening.address});
            context.screen.json(&event)?;
        } else {
            context.screen.line(&format!("Colibri is at {url}"))?;
            context.screen.detail("Ctrl-C ends it");
        }
        if args.open {
            show(&url)?;
        }
        let shutdown = shutdown().map_err(Error::Signals)?;
        colibri_server::serve(app, listening, shutdown).await;
        Ok::<_, Error>(())
    })?;
    // Nothing that still computes holds the end up.
    runtime.shutdown_background();
    Ok(Outcome::Done)
}

/// An address that a browser on this machine reaches.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(address) if address.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => host,
    }
}

/// Completes when the program is asked to end; asked again, it ends at once.
fn shutdown() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        let terminated = terminate.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<Option<()>>();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated => {}
        }
        tokio::spawn(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(interrupt::EXIT_CODE.into());
            }
        });
    })
}

/// Shows the web app.
fn show(url: &str) -> Result<()> {
    Command::new(VIEWER)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
        .map_err(|source| Error::Viewer {
            path: url.into(),
            program: VIEWER,
            source,
        })
}
