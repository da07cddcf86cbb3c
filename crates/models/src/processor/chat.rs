//! Conversations, and the chat template of a checkpoint.
//!
//! The template is looked for where transformers 5.23 looks: `chat_template` in
//! `processor_config.json`, `chat_template.json`, `chat_template.jinja`, and last the tokenizer's
//! own in `tokenizer_config.json` (a string, or a list of named ones of which `default` is taken).
//! It runs in minijinja with transformers' settings (`trim_blocks`, `lstrip_blocks`, Python's string
//! methods, `raise_exception`, `strftime_now`, `tojson` without HTML escapes).
//!
//! Limits: `{% generation %}` blocks, which only training uses, are not understood; tools and
//! documents are not passed in.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

use super::clock::strftime_now;
use super::error::{Error, Result};
use super::escape::Marked;
use super::files::{JsonFile, ProcessorFiles, json_in, text_in};
use super::python_json::to_json;
use super::tokenizer::{IMAGE_TOKEN, Tokenizer};

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions that come before the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name templates know it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A part of what is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Words. Special tokens in them are shown to the model as text.
    Text(String),
    /// The next of the images that go with the conversation.
    Image,
    /// The same, where it is a frame of a video: it is not cut into tiles.
    Frame,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said, in order.
    pub content: Vec<Content>,
}

impl Message {
    /// A turn of the user: images, then words.
    pub fn user(images: usize, text: impl Into<String>) -> Self {
        let mut content = vec![Content::Image; images];
        content.push(Content::Text(text.into()));
        Self {
            role: Role::User,
            content,
        }
    }

    /// A turn of words alone.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![Content::Text(text.into())],
        }
    }

    /// Number of images in this turn.
    pub fn num_images(&self) -> usize {
        self.content
            .iter()
            .filter(|content| matches!(content, Content::Image | Content::Frame))
            .count()
    }
}

/// Number of images in a conversation.
pub fn num_images(messages: &[Message]) -> usize {
    messages.iter().map(Message::num_images).sum()
}

/// A checkpoint's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    environment: Environment<'static>,
}

/// The template's name inside its environment: no extension, so that nothing is HTML-escaped.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Finds and compiles the template of a checkpoint. Each folder is asked for all four files
    /// before the next one is.
    ///
    /// # Errors
    /// [`Error::MissingTemplate`], [`Error::Read`], [`Error::Json`], [`Error::BadValue`],
    /// [`Error::Template`] where it does not compile.
    pub fn load(files: &ProcessorFiles) -> Result<Self> {
        for dir in files.dirs() {
            if let Some((path, source)) = find(dir)? {
                return Self::new(path, source);
            }
        }
        Err(Error::MissingTemplate {
            dirs: files.dir_list(),
        })
    }

    /// Compiles a template that came from `path`.
    ///
    /// # Errors
    /// [`Error::Template`].
    pub fn new(path: impl Into<PathBuf>, source: impl Into<String>) -> Result<Self> {
        let (path, source) = (path.into(), source.into());
        let mut environment = Environment::new();
        let failed = |source| Error::Template {
            path: path.clone(),
            source,
        };
        let mut syntax = SyntaxConfig::builder();
        let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(failed)?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| strftime_now(format));
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source.clone())
            .map_err(failed)?;
        Ok(Self {
            path,
            source,
            environment,
        })
    }

    /// The file that holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation as one string, with user text marked and one `<image>` for each image.
    pub(super) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        tokenizer: &Tokenizer,
    ) -> Result<Marked> {
        let texts = messages.iter().flat_map(|message| &message.content);
        let texts = texts.filter_map(|content| match content {
            Content::Text(text) => Some(text.as_str()),
            Content::Image | Content::Frame => None,
        });
        let marker = tokenizer.marker(texts.chain([self.source.as_str()]))?;
        let content = |content: &Content| match content {
            Content::Text(text) => context! { type => "text", text => marker.text(text) },
            Content::Image | Content::Frame => context! { type => "image" },
        };
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                let parts: Vec<Value> = message.content.iter().map(content).collect();
                context! { role => message.role.as_str(), content => parts }
            })
            .collect();
        let names = tokenizer.names();
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            template.render(context! {
                messages,
                add_generation_prompt,
                bos_token => &names.bos_token,
                eos_token => &names.eos_token,
                pad_token => &names.pad_token,
                unk_token => &names.unk_token,
            })
        });
        let text = rendered.map_err(|source| Error::Template {
            path: self.path.clone(),
            source,
        })?;
        Ok(Marked {
            text,
            mark: marker.mark(),
        })
    }

    /// The conversation as transformers' `apply_chat_template` gives it: before images are expanded.
    ///
    /// # Errors
    /// [`Error::Template`], [`Error::PlacedImages`], [`Error::NoMarker`].
    pub fn render_text(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        tokenizer: &Tokenizer,
    ) -> Result<String> {
        let marked = self.render(messages, add_generation_prompt, tokenizer)?;
        self.check_images(messages, &marked)?;
        Ok(marked.plain())
    }

    /// Checks that the template placed each image once.
    pub(super) fn check_images(&self, messages: &[Message], marked: &Marked) -> Result<()> {
        let expected = num_images(messages);
        let found = marked.text.matches(IMAGE_TOKEN).count();
        if found != expected {
            return Err(Error::PlacedImages {
                path: self.path.clone(),
                expected,
                found,
            });
        }
        Ok(())
    }
}

fn raise_exception(message: &str) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        message.to_owned(),
    ))
}

/// The template of one folder and the file it stands in.
fn find(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    for name in ["processor_config.json", "chat_template.json"] {
        if let Some(file) = json_in(dir, name)?
            && let Some(source) = template_of(&file)?
        {
            return Ok(Some((file.path, source)));
        }
    }
    if let Some(found) = text_in(dir, "chat_template.jinja")? {
        return Ok(Some(found));
    }
    if let Some(file) = json_in(dir, "tokenizer_config.json")?
        && let Some(source) = template_of(&file)?
    {
        return Ok(Some((file.path, source)));
    }
    Ok(None)
}

/// `chat_template` of a JSON file: a string, a list of `{name, template}`, or an object of named
/// ones. Of several the one named `default` is taken, a single one whatever its name.
fn template_of(file: &JsonFile) -> Result<Option<String>> {
    const KEY: &str = "chat_template";
    let Some(value) = file.value.get(KEY).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let named: Vec<(&str, &str)> = if let Some(source) = value.as_str() {
        vec![("default", source)]
    } else if let Some(list) = value.as_array() {
        let entry = |entry: &'_ serde_json::Value| -> Option<(String, String)> {
            let text = |key| entry.get(key)?.as_str().map(str::to_owned);
            Some((text("name")?, text("template")?))
        };
        let entries: Vec<(String, String)> = list.iter().filter_map(entry).collect();
        return choose(
            file,
            entries
                .iter()
                .map(|(name, source)| (name.as_str(), source.as_str())),
        );
    } else if let Some(object) = value.as_object() {
        object
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
            .collect()
    } else {
        Vec::new()
    };
    choose(file, named.into_iter())
}

fn choose<'a>(
    file: &JsonFile,
    named: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Option<String>> {
    let named: Vec<(&str, &str)> = named.collect();
    let default = named.iter().find(|(name, _)| *name == "default");
    let only = if let [only] = named.as_slice() {
        Some(only)
    } else {
        None
    };
    match default.or(only) {
        Some((_, source)) => Ok(Some((*source).to_owned())),
        None => Err(Error::BadValue {
            path: file.path.clone(),
            key: "chat_template",
            expected: "a template, or several with one named `default`",
            found: format!("{} without that name", named.len()),
        }),
    }
}
