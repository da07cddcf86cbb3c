//! `colibri chat`: several turns, with the index or about pictures.

use std::{
    cell::OnceCell,
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
};

use colibri_engine::{
    answer::{AnswerOptions, Answering},
    chat::Chat,
    checkpoints::Models,
    document::OpenOptions,
    generate::StopReason,
    index::{Filter, Index},
    messages,
    retrieve::Searcher,
};

use super::ask::{Answered, ask_once};
use crate::{
    Outcome,
    args::{Generation, Reading, Searching},
    context::Context,
    error::{self, Error, Result},
    places,
    progress::ModelProgress,
    reply,
};

/// Arguments of `chat`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Talk about a picture; several are seen together
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Talk about a video: a file, an animated GIF or WebP, or a folder of frames
    #[arg(long, value_name = "PATH")]
    video: Vec<PathBuf>,
    /// Go on from turns in a JSON file: [{"role": "user", "content": [{"type": "image", "path": "a.png"},
    /// {"type": "text", "text": "What is it?"}]}]. Last turns of the user are answered at once
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
    /// Talk with the generator alone, without the index
    #[arg(long)]
    no_index: bool,
    /// What every answer should observe
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Pages of the index given to the generator
    #[arg(short, long = "num-pages", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    #[command(flatten)]
    searching: Searching,
    /// Give the generator the text of the pages beside their pictures
    #[arg(long)]
    with_text: bool,
    #[command(flatten)]
    generation: Generation,
    #[command(flatten)]
    reading: Reading,
}

/// What a person types.
enum Line {
    Say(String),
    Image(PathBuf),
    Video(PathBuf),
    Clear,
    Help,
    Quit,
    Unknown(String),
    Nothing,
}

impl Line {
    fn read(text: &str) -> Self {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match word {
            "" => Self::Nothing,
            "/image" if !rest.trim().is_empty() => Self::Image(PathBuf::from(rest.trim())),
            "/video" if !rest.trim().is_empty() => Self::Video(PathBuf::from(rest.trim())),
            "/clear" => Self::Clear,
            "/help" => Self::Help,
            "/quit" | "/exit" => Self::Quit,
            // A path is something to say, and so is `/ 5`.
            word if word.len() > 1 && word.starts_with('/') && !word[1..].contains('/') => {
                Self::Unknown(word.to_owned())
            }
            _ => Self::Say(text.to_owned()),
        }
    }
}

const HELP: &str = "\
/image FILE  talk about a picture
/video PATH  talk about a video, or a folder of frames
/clear       forget what was said
/quit        end (or Ctrl-D)
Ctrl-C stops an answer.";

/// Runs the command.
///
/// # Errors
/// When the conversation cannot begin, or nobody reads. A turn that fails is told and the next one read.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let filter = args.searching.filter()?;
    let models = context.models()?;
    models.expect_questions_only();
    let index = OnceCell::new();
    let mut talk = Talk {
        context,
        args,
        models: &models,
        progress: context.model_progress(true),
        index: &index,
        filter,
        open: args.reading.open_options()?,
        pictures: None,
        pages: None,
    };
    let talks = args.no_index || args.messages.is_some();
    if args.image.is_empty() && args.video.is_empty() && !talks {
        // Without an index there is only talk about pictures, which may still be named.
        if !Index::exists(context.index_dir()?) && io::stdin().is_terminal() {
            context.screen.note(
                "there is no index; name a picture with `/image FILE`, or talk with `--no-index`",
            );
        }
    } else {
        talk.begin()?;
        talk.look(&args.image)?;
        for path in &args.video {
            talk.watch(path)?;
        }
    }
    let interactive = io::stdin().is_terminal();
    if interactive {
        let about = if talk.pictures.is_some() {
            "the pictures or anything else"
        } else {
            "the documents"
        };
        context.screen.detail(HELP);
        context
            .screen
            .error_line("", &format!("Ask about {about}; /help lists commands."));
    }
    let mut outcome = Outcome::Done;
    if talk.is_asked() {
        talk.answer(None)?;
    }
    loop {
        if interactive {
            context.screen.prompt("> ");
        }
        let Some(text) = read_line()? else { break };
        let done = match Line::read(&text) {
            Line::Nothing => Ok(Answered::Whole),
            Line::Quit => break,
            Line::Help => {
                context.screen.error_line("", HELP);
                Ok(Answered::Whole)
            }
            Line::Unknown(word) => {
                context.screen.error_line(
                    "error:",
                    &format!("`{word}` is no command; /help lists them"),
                );
                Ok(Answered::NotThere)
            }
            Line::Clear => {
                talk.clear();
                Ok(Answered::Whole)
            }
            Line::Image(path) => talk.look(&[path]).map(|()| Answered::Whole),
            Line::Video(path) => talk.watch(&path).map(|()| Answered::Whole),
            Line::Say(words) => talk.say(&words),
        };
        match done {
            Ok(Answered::Whole | Answered::Interrupted) => {}
            Ok(Answered::NotThere) => outcome = Outcome::Incomplete,
            Err(error @ Error::Stdout(_)) => return Err(error),
            Err(Error::Engine(colibri_engine::Error::Cancelled)) => {
                context.screen.error_line("", "stopped");
            }
            Err(error) => {
                super::write_failed(context, &error);
                error::report(&error, &context.screen);
                outcome = Outcome::Incomplete;
            }
        }
    }
    // A person who talked has seen what went wrong; a program asks for the exit code.
    Ok(if interactive { Outcome::Done } else { outcome })
}

/// A line of standard input without its end; bytes that are no UTF-8 are replaced.
fn read_line() -> Result<Option<String>> {
    let mut line = Vec::new();
    let read = io::stdin()
        .lock()
        .read_until(b'\n', &mut line)
        .map_err(Error::Stdin)?;
    Ok((read > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

struct Talk<'a> {
    context: &'a Context,
    args: &'a Args,
    models: &'a Models,
    /// One for all turns, so that a note is told once.
    progress: ModelProgress<'a>,
    index: &'a OnceCell<Index>,
    filter: Filter,
    open: OpenOptions,
    /// Begun with the first picture; from then on the talk is about pictures.
    pictures: Option<Chat>,
    /// Begun with the first question to the index.
    pages: Option<Answering<'a>>,
}

impl Talk<'_> {
    fn look(&mut self, paths: &[PathBuf]) -> Result<()> {
        // Read first: a picture that cannot be read does not turn a talk about documents into another.
        let images = reply::pictures(paths, &self.open.limits)?;
        let chat = self.chat()?;
        for image in images {
            chat.show(image);
        }
        for path in paths {
            self.tell(path);
        }
        Ok(())
    }

    fn watch(&mut self, path: &Path) -> Result<()> {
        let (screen, open) = (&self.context.screen, self.open.clone());
        // How it is read depends on who looks at it.
        let is_new = self.pictures.is_none();
        let chat = self.chat()?;
        match reply::video(screen, path, &chat.video(), &open) {
            Ok(shown) => chat.show_video(shown),
            Err(error) => {
                if is_new {
                    self.pictures = None;
                }
                return Err(error);
            }
        }
        self.tell(path);
        Ok(())
    }

    fn tell(&self, path: &Path) {
        let name = path
            .to_str()
            .map_or_else(|| path.display().to_string(), places::shown);
        self.context
            .screen
            .detail(&format!("looking at {name} from the next turn on"));
    }

    /// The talk without an index, begun if it has not begun.
    fn chat(&mut self) -> Result<&mut Chat> {
        if self.pictures.is_none() {
            let generator = self.context.need_generator(self.models)?;
            let options = self.args.generation.options();
            let chat = Chat::new(generator, options, self.args.system.as_deref());
            self.pictures = Some(chat);
        }
        Ok(self.pictures.as_mut().expect("it was begun above"))
    }

    /// Begins a talk without an index, with the turns of a file where one is named.
    fn begin(&mut self) -> Result<()> {
        if !self.args.no_index && self.args.messages.is_none() {
            return Ok(());
        }
        let (args, open) = (self.args, self.open.clone());
        let chat = self.chat()?;
        if let Some(path) = &args.messages {
            chat.take_over(messages::read(path, &chat.video(), &open)?);
        }
        Ok(())
    }

    /// Whether turns of a file wait for an answer, and nothing more is shown before it.
    fn is_asked(&self) -> bool {
        let shows = !self.args.image.is_empty() || !self.args.video.is_empty();
        !shows && self.pictures.as_ref().is_some_and(Chat::is_asked)
    }

    /// Answers `words`, or the talk as it stands.
    fn answer(&mut self, words: Option<&str>) -> Result<Answered> {
        let context = self.context;
        let completion = reply::say(context, self.models, self.chat()?, words)?;
        Ok(if completion.stop == StopReason::Cancelled {
            Answered::Interrupted
        } else {
            Answered::Whole
        })
    }

    fn say(&mut self, words: &str) -> Result<Answered> {
        if self.pictures.is_some() {
            return self.answer(Some(words));
        }
        let on_model = |event| self.progress.on_event(event);
        let answering = if let Some(answering) = &mut self.pages {
            answering
        } else {
            let index = if let Some(index) = self.index.get() {
                index
            } else {
                let opened = self.context.index()?;
                self.index.get_or_init(|| opened)
            };
            let searcher =
                Searcher::open(index, self.models, self.args.searching.mode(), &on_model)?;
            self.context.screen.hide_bar();
            let options = AnswerOptions {
                pages: self.args.k as usize,
                with_text: self.args.with_text,
                instructions: self.args.system.clone(),
                generate: self.args.generation.options(),
                open: self.open.clone(),
            };
            let filter = self.filter.clone();
            self.pages.insert(Answering::new(
                index,
                searcher,
                self.models,
                filter,
                options,
            ))
        };
        let listening = self.context.interrupt.listen()?;
        ask_once(self.context, answering, words, &listening, &on_model)
    }

    fn clear(&mut self) {
        if let Some(chat) = &mut self.pictures {
            chat.clear();
        }
        self.pages = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_begin_with_a_slash() {
        assert!(matches!(Line::read("  /quit\n"), Line::Quit));
        assert!(matches!(Line::read("/clear"), Line::Clear));
        assert!(
            matches!(Line::read("/image a b.png"), Line::Image(path) if path == Path::new("a b.png"))
        );
        assert!(
            matches!(Line::read("/video v.mp4"), Line::Video(path) if path == Path::new("v.mp4"))
        );
        assert!(matches!(Line::read("/image "), Line::Unknown(word) if word == "/image"));
        assert!(matches!(Line::read("/cleer"), Line::Unknown(_)));
        assert!(matches!(Line::read("\n"), Line::Nothing));
        for text in ["what is /clear?", "/etc/passwd holds what?", "/ 5"] {
            assert!(
                matches!(Line::read(text), Line::Say(said) if said == text),
                "{text}"
            );
        }
    }
}
