//! Messages of a chat: what was said before, what is asked now, and the pictures.

use colibri_engine::{
    picture::RgbImage,
    processor::{Content, Message, Role},
};
use serde::Deserialize;

use super::picture;
use crate::{App, Error, Result};

/// Messages and pictures of one request at most.
const MOST_MESSAGES: usize = 256;
const MOST_PICTURES: usize = 16;

/// One message as it is sent.
#[derive(Debug, Deserialize)]
pub(super) struct Sent {
    role: String,
    #[serde(default)]
    content: Option<SentContent>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SentContent {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    image_url: Option<ImageUrl>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ImageUrl {
    Object { url: String },
    Text(String),
}

/// A conversation as it was sent, pictures decoded.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) messages: Vec<Message>,
    pub(super) images: Vec<RgbImage>,
}

impl Talk {
    /// Understands what was sent.
    ///
    /// # Errors
    /// When a role or a part is unknown, or a picture cannot be decoded.
    pub(super) fn read(app: &App, sent: Vec<Sent>) -> Result<Self> {
        if sent.len() > MOST_MESSAGES {
            return Err(Error::bad(format!("more than {MOST_MESSAGES} messages")));
        }
        let mut talk = Self {
            messages: Vec::new(),
            images: Vec::new(),
        };
        for message in sent {
            let role = match message.role.as_str() {
                "system" | "developer" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => {
                    let short: String = other.chars().take(40).collect();
                    return Err(Error::bad(format!("a message of the role `{short}`")));
                }
            };
            let content = match message.content {
                None => Vec::new(),
                Some(SentContent::Text(text)) => vec![Content::Text(text)],
                Some(SentContent::Parts(parts)) => {
                    let mut content = Vec::new();
                    for part in parts {
                        content.push(talk.part(app, part)?);
                    }
                    content
                }
            };
            talk.messages.push(Message { role, content });
        }
        if talk
            .messages
            .last()
            .is_none_or(|last| last.role != Role::User)
        {
            return Err(Error::bad("the last message must be the user's"));
        }
        Ok(talk)
    }

    fn part(&mut self, app: &App, part: Part) -> Result<Content> {
        match (part.kind.as_str(), part.text, part.image_url) {
            ("text", Some(text), _) => Ok(Content::Text(text)),
            ("image_url", _, Some(ImageUrl::Object { url } | ImageUrl::Text(url))) => {
                if self.images.len() >= MOST_PICTURES {
                    return Err(Error::bad(format!("more than {MOST_PICTURES} pictures")));
                }
                self.images.push(picture(app, &url)?);
                Ok(Content::Image)
            }
            (other, _, _) => {
                let short: String = other.chars().take(40).collect();
                Err(Error::bad(format!("a part of the type `{short}`")))
            }
        }
    }

    /// As a question to the documents: what is asked, the turns before, and the instructions.
    pub(super) fn into_question(self) -> (String, Vec<(String, String)>, Option<String>) {
        let (mut history, mut instructions) = (Vec::new(), Vec::new());
        let mut asked = String::new();
        for message in self.messages {
            let text = words(&message);
            match message.role {
                Role::System => instructions.push(text),
                Role::User => asked = text,
                Role::Assistant => history.push((std::mem::take(&mut asked), text)),
            }
        }
        let instructions = (!instructions.is_empty()).then(|| instructions.join("\n"));
        (asked, history, instructions)
    }
}

/// The words of a message.
fn words(message: &Message) -> String {
    let texts = message.content.iter().filter_map(|part| match part {
        Content::Text(text) => Some(text.as_str()),
        Content::Image | Content::Frame => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_is_the_question() {
        let talk = Talk {
            messages: vec![
                Message::text(Role::System, "Be brief."),
                Message::text(Role::User, "Total?"),
                Message::text(Role::Assistant, "145"),
                Message::text(Role::User, "And the date?"),
            ],
            images: Vec::new(),
        };
        assert_eq!(
            talk.into_question(),
            (
                "And the date?".to_owned(),
                vec![("Total?".to_owned(), "145".to_owned())],
                Some("Be brief.".to_owned())
            )
        );
    }
}
