//! Conversations from a JSON file, in the form that transformers and OpenAI share.
//!
//! ```json
//! [{"role": "system", "content": "Be brief."},
//!  {"role": "user", "content": [
//!     {"type": "text", "text": "What changed between"},
//!     {"type": "image", "path": "before.png"},
//!     {"type": "text", "text": "and"},
//!     {"type": "image_url", "image_url": {"url": "after.png"}},
//!     {"type": "video", "path": "clip.mp4"}]}]
//! ```
//!
//! A list of turns, or an object with the list under `messages`. `content` is a text or a list of parts, in
//! the order in which the model sees them. A picture or video is named by `path`, `url`, `image` or `video`:
//! a file (relative ones beside the JSON file), a `file:` address, or a picture as a `data:` address. Nothing
//! is fetched from the network.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colibri_document::{OpenOptions, image_file::decode_image};
use colibri_models::processor::{Content, Message, Role, VideoRecipe};
use image::RgbImage;
use serde_json::Value;

use crate::{Error, Result, picture, video};

/// A longer file is no conversation that a model could read.
const MOST_BYTES: u64 = 256 << 20;
/// Pictures and frames of one conversation: each has at least 64 tokens.
const MOST_IMAGES: usize = 2048;

/// Turns and the pictures they mention, in order.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// The pictures.
    pub images: Vec<RgbImage>,
}

/// Reads a conversation from a file, with its pictures.
///
/// # Errors
/// [`Error::Messages`] where it is none, and those of reading pictures and videos.
pub fn read(path: &Path, recipe: &VideoRecipe, options: &OpenOptions) -> Result<Conversation> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let length = fs_err::metadata(path).map_err(io)?.len();
    if length > MOST_BYTES {
        return Err(Error::Messages {
            path: path.to_owned(),
            reason: format!("it has {length} bytes, more than {MOST_BYTES}"),
        });
    }
    let text = fs_err::read(path).map_err(io)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let reader = Reader {
        path,
        folder,
        recipe,
        options,
    };
    reader.conversation(&text)
}

struct Reader<'a> {
    path: &'a Path,
    folder: &'a Path,
    recipe: &'a VideoRecipe,
    options: &'a OpenOptions,
}

impl Reader<'_> {
    fn fault(&self, reason: impl Into<String>) -> Error {
        Error::Messages {
            path: self.path.to_owned(),
            reason: reason.into(),
        }
    }

    fn conversation(&self, text: &[u8]) -> Result<Conversation> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|error| self.fault(format!("it is no JSON: {error}")))?;
        let turns = value.get("messages").unwrap_or(&value);
        let turns = turns
            .as_array()
            .filter(|turns| !turns.is_empty())
            .ok_or_else(|| {
                self.fault("it is no list of turns, nor an object with one under `messages`")
            })?;
        let mut conversation = Conversation::default();
        for (at, turn) in turns.iter().enumerate() {
            let place = format!("turn {}", at + 1);
            let role = match turn.get("role").and_then(Value::as_str) {
                Some("system" | "developer") => Role::System,
                Some("user") => Role::User,
                Some("assistant") => Role::Assistant,
                Some(other) => {
                    let known = "system, user, assistant";
                    return Err(
                        self.fault(format!("{place}: the role `{other}` is none of {known}"))
                    );
                }
                None => return Err(self.fault(format!("{place}: it has no `role`"))),
            };
            let mut content = Vec::new();
            match turn.get("content") {
                Some(Value::String(text)) => content.push(Content::Text(text.clone())),
                Some(Value::Array(parts)) => {
                    for (number, part) in parts.iter().enumerate() {
                        let place = format!("{place}, part {}", number + 1);
                        self.part(part, &place, &mut content, &mut conversation.images)?;
                    }
                }
                Some(_) | None => {
                    return Err(
                        self.fault(format!("{place}: `content` is neither a text nor a list"))
                    );
                }
            }
            if conversation.images.len() > MOST_IMAGES {
                return Err(self.fault(format!("it shows more than {MOST_IMAGES} pictures")));
            }
            conversation.messages.push(Message { role, content });
        }
        Ok(conversation)
    }

    fn part(
        &self,
        part: &Value,
        place: &str,
        content: &mut Vec<Content>,
        images: &mut Vec<RgbImage>,
    ) -> Result<()> {
        let text = |key: &str| part.get(key).and_then(Value::as_str);
        match text("type") {
            Some("text") => {
                let text =
                    text("text").ok_or_else(|| self.fault(format!("{place}: it has no `text`")))?;
                content.push(Content::Text(text.to_owned()));
            }
            Some("image" | "image_url") => {
                let nested = part.get("image_url");
                let source = nested
                    .and_then(|nested| nested.get("url").unwrap_or(nested).as_str())
                    .or_else(|| text("path"))
                    .or_else(|| text("image"))
                    .or_else(|| text("url"))
                    .ok_or_else(|| self.fault(format!("{place}: it names no picture by `path`")))?;
                images.push(self.picture(source, place)?);
                content.push(Content::Image);
            }
            Some("video") => {
                let source = text("path")
                    .or_else(|| text("video"))
                    .or_else(|| text("url"))
                    .ok_or_else(|| self.fault(format!("{place}: it names no video by `path`")))?;
                let shown = video::show(&self.file(source, place)?, self.recipe, self.options)?;
                content.extend(shown.content);
                images.extend(shown.images);
            }
            Some(other) => {
                let known = "text, image, image_url, video";
                return Err(self.fault(format!("{place}: the type `{other}` is none of {known}")));
            }
            None => return Err(self.fault(format!("{place}: it has no `type`"))),
        }
        Ok(())
    }

    fn picture(&self, source: &str, place: &str) -> Result<RgbImage> {
        let limits = &self.options.limits;
        let Some(data) = source.strip_prefix("data:") else {
            return picture::open(&self.file(source, place)?, limits);
        };
        let bytes = data
            .split_once(";base64,")
            .and_then(|(_, data)| STANDARD.decode(data.trim()).ok())
            .ok_or_else(|| self.fault(format!("{place}: the `data:` address holds no base64")))?;
        decode_image(&bytes, limits).map_err(|reason| self.fault(format!("{place}: {reason}")))
    }

    fn file(&self, source: &str, place: &str) -> Result<PathBuf> {
        if source.starts_with("http://") || source.starts_with("https://") {
            let reason =
                format!("{place}: `{source}` lies on the network; save it and name the file");
            return Err(self.fault(reason));
        }
        let source = source
            .strip_prefix("file://")
            .or_else(|| source.strip_prefix("file:"))
            .unwrap_or(source);
        Ok(self.folder.join(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: VideoRecipe = VideoRecipe::Plain {
        max_frames: 3,
        longest_edge: 64,
    };

    fn in_folder(text: &str) -> Result<Conversation> {
        let folder = tempfile::tempdir().unwrap();
        let picture = RgbImage::from_pixel(4, 3, image::Rgb([1, 2, 3]));
        picture.save(folder.path().join("a.png")).unwrap();
        let frames = folder.path().join("frames");
        fs_err::create_dir(&frames).unwrap();
        for name in ["1.png", "2.png"] {
            picture.save(frames.join(name)).unwrap();
        }
        let path = folder.path().join("talk.json");
        fs_err::write(&path, text).unwrap();
        read(&path, &RECIPE, &OpenOptions::default())
    }

    #[test]
    fn turns_parts_and_pictures_come_in_order() {
        let conversation = in_folder(
            r#"{"messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "Between "},
                    {"type": "image", "path": "a.png"},
                    {"type": "text", "text": " and "},
                    {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODdhAQABAIAAAAAAAAAAACwAAAAAAQABAAACAkQBADs="}},
                    {"type": "image_url", "image_url": "file:a.png"},
                    {"type": "video", "path": "frames"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Nothing."}]}]}"#,
        )
        .unwrap();
        let text = |text: &str| Content::Text(text.to_owned());
        let roles: Vec<Role> = conversation.messages.iter().map(|m| m.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant]);
        assert_eq!(
            conversation.messages[1].content,
            [
                text("Between "),
                Content::Image,
                text(" and "),
                Content::Image,
                Content::Image,
                Content::Frame,
                Content::Frame
            ]
        );
        let sizes: Vec<_> = conversation
            .images
            .iter()
            .map(RgbImage::dimensions)
            .collect();
        assert_eq!(sizes, [(4, 3), (1, 1), (4, 3), (4, 3), (4, 3)]);
    }

    #[test]
    fn what_is_no_conversation_says_where() {
        let cases = [
            ("", "it is no JSON"),
            ("[]", "it is no list of turns"),
            (r#"{"messages": 1}"#, "it is no list of turns"),
            (r#"[{"content": "x"}]"#, "turn 1: it has no `role`"),
            (
                r#"[{"role": "tool", "content": "x"}]"#,
                "turn 1: the role `tool` is none of",
            ),
            (r#"[{"role": "user"}]"#, "turn 1: `content` is neither"),
            (
                r#"[{"role": "user", "content": [{"text": "x"}]}]"#,
                "turn 1, part 1: it has no `type`",
            ),
            (
                r#"[{"role": "user", "content": [{"type": "text"}]}]"#,
                "part 1: it has no `text`",
            ),
            (
                r#"[{"role": "user", "content": [{"type": "audio"}]}]"#,
                "the type `audio` is none of",
            ),
            (
                r#"[{"role": "user", "content": [{"type": "image"}]}]"#,
                "names no picture by `path`",
            ),
            (
                r#"[{"role": "user", "content": [{"type": "image", "url": "https://h/a.png"}]}]"#,
                "lies on the network",
            ),
            (
                r#"[{"role": "user", "content": [{"type": "image", "url": "data:image/png;base64,!"}]}]"#,
                "holds no base64",
            ),
            (
                r#"[{"role": "user", "content": [{"type": "image", "url": "data:image/png;base64,AAAA"}]}]"#,
                "not a picture",
            ),
        ];
        for (text, expected) in cases {
            let error = in_folder(text).unwrap_err();
            let told = error.to_string();
            assert!(
                told.contains("talk.json") && told.contains(expected),
                "{told}"
            );
            assert!(error.is_input(), "{told}");
        }
        let missing = r#"[{"role": "user", "content": [{"type": "image", "path": "b.png"}]}]"#;
        assert!(in_folder(missing).is_err());
    }
}
