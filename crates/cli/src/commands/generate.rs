//! `colibri generate`: the generator itself, without an index.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use colibri_engine::{chat::Chat, generate::StopReason, messages};

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
    /// What to say; `-` reads it from standard input. May be left out with `--messages`
    #[arg(required_unless_present = "messages")]
    prompt: Option<String>,
    /// A picture to look at; several are seen in their order
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// A video to look at, after the pictures: a file, an animated GIF or WebP, or a folder of frames
    #[arg(long, value_name = "PATH")]
    video: Vec<PathBuf>,
    /// Turns before the prompt, as JSON: [{"role": "user", "content": [{"type": "image", "path": "a.png"},
    /// {"type": "text", "text": "What is it?"}]}]
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
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
    let prompt = if args.prompt.as_deref() == Some("-") {
        let mut bytes = Vec::new();
        io::stdin()
            .take(MAX_PROMPT_BYTES)
            .read_to_end(&mut bytes)
            .map_err(Error::Stdin)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    } else {
        args.prompt.clone()
    };
    let shows = !args.image.is_empty() || !args.video.is_empty();
    let is_empty = |prompt: &String| prompt.trim().is_empty();
    if prompt.as_ref().is_some_and(is_empty) && !shows || prompt.is_none() && shows {
        return Err(Error::EmptyQuestion);
    }
    let open = args.reading.open_options()?;
    let images = reply::pictures(&args.image, &open.limits)?;
    let models = context.models()?;
    let new_tokens = args.generation.options().max_new_tokens;
    models.expect(images.len(), new_tokens);
    let generator = context.need_generator(&models)?;
    let mut chat = Chat::new(generator, args.generation.options(), args.system.as_deref());
    if let Some(path) = &args.messages {
        chat.take_over(messages::read(path, &chat.video(), &open)?);
        if prompt.is_none() && !chat.is_asked() {
            return Err(Error::EmptyQuestion);
        }
    }
    for image in images {
        chat.show(image);
    }
    for path in &args.video {
        let shown = reply::video(&context.screen, path, &chat.video(), &open)?;
        chat.show_video(shown);
    }
    let completion = reply::say(context, &models, &mut chat, prompt.as_deref())?;
    Ok(if completion.stop == StopReason::Cancelled {
        Outcome::Interrupted
    } else {
        Outcome::Done
    })
}
