//! `colibri mcp`: the documents as tools of an agent, over standard input and output.

use colibri_server::App;

use crate::{
    Outcome,
    args::Reading,
    context::Context,
    error::{Error, Result},
};

/// Arguments of `mcp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    reading: Reading,
}

/// Runs the command; standard output belongs to the protocol.
///
/// # Errors
/// When the other side does not speak it.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let config = super::serve::config(context, None, &args.reading)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::Signals)?;
    let app = App::start(config)?;
    let served = runtime.block_on(colibri_server::serve_stdio(app.clone()));
    app.stop();
    // A read of standard input cannot be called off.
    runtime.shutdown_background();
    served?;
    Ok(Outcome::Done)
}
