//! `colibri generate`: the generator itself, without an index.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use colibri_engine::{chat::Chat, generate::StopReason};

use crate::{
    Outcome,
    args::{Generation, Reading},
    context::Context,
    error::{Error, Result},
    reply,
};

/// A prompt on standard input; longer ones fit no model.
const MAX_PROMPT_BYTES: u64 = 4 << 20;

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to say; `-` reads it from standard input
    prompt: String,
    /// A picture to look at; several are seen in their order
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// What the answer should observe
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    generation: Generation,
    #[command(flatten)]
    reading: Reading,
}

/// Runs the command.
///
/// # Errors
/// When there is no generator, or it fails.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let prompt = if args.prompt == "-" {
        let mut bytes = Vec::new();
        io::stdin()
            .take(MAX_PROMPT_BYTES)
            .read_to_end(&mut bytes)
            .map_err(Error::Stdin)?;
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        args.prompt.clone()
    };
    if prompt.trim().is_empty() && args.image.is_empty() {
        return Err(Error::EmptyQuestion);
    }
    let images = reply::pictures(&args.image, &args.reading.limits())?;
    let models = context.models()?;
    let new_tokens = args.generation.options().max_new_tokens;
    models.expect(images.len(), new_tokens);
    let generator = context.need_generator(&models)?;
    let mut chat = Chat::new(generator, args.generation.options(), args.system.as_deref());
    for image in images {
        chat.show(image);
    }
    let completion = reply::say(context, &mut chat, &prompt)?;
    Ok(if completion.stop == StopReason::Cancelled {
        Outcome::Interrupted
    } else {
        Outcome::Done
    })
}
