//! What goes over the wire: the request, pieces of the answer, and what services say when they refuse.

use colibri_models::{
    generate::{GenerateOptions, StopReason},
    processor::{Content, Message},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What a service says is repeated up to here.
const SAID_CHARACTERS: usize = 300;

/// The request. It can give way where a service does not know one of its parameters.
#[derive(Clone, Debug)]
pub(super) struct Body(Map<String, Value>);

impl Body {
    /// `images` are data URLs in the order in which the messages mention them.
    pub(super) fn new(
        model: &str,
        messages: &[Message],
        images: &[String],
        options: &GenerateOptions,
    ) -> Self {
        let mut images = images.iter();
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                json!({"role": message.role.as_str(), "content": content(message, &mut images)})
            })
            .collect();
        let mut body = Map::new();
        let mut set = |key: &str, value: Value| body.insert(key.to_owned(), value);
        set("model", model.into());
        set("messages", messages.into());
        set("stream", true.into());
        set("stream_options", json!({"include_usage": true}));
        set("max_tokens", options.max_new_tokens.into());
        set("temperature", decimal(options.temperature));
        // What was left at its default is the service's own affair, and not every service knows it.
        if options.temperature > 0.0 {
            set("seed", options.seed.into());
        }
        if options.top_p != 1.0 {
            set("top_p", decimal(options.top_p));
        }
        if options.top_k != 0 {
            set("top_k", options.top_k.into());
        }
        if options.repetition_penalty != 1.0 {
            set("repetition_penalty", decimal(options.repetition_penalty));
        }
        Self(body)
    }

    /// Leaves out or renames a parameter that a service has refused; whether that changes anything. What a
    /// person asked for is not left out.
    pub(super) fn give_way(&mut self, parameter: &str) -> bool {
        let parameter = parameter.split(['.', '[']).next().unwrap_or_default();
        match parameter {
            // Its newer name at OpenAI; other services know only the older one.
            "max_tokens" => match self.0.remove("max_tokens") {
                Some(limit) => {
                    self.0.insert("max_completion_tokens".to_owned(), limit);
                    true
                }
                None => false,
            },
            "temperature" => {
                let is_default = self.0.get("temperature").and_then(Value::as_f64) == Some(0.0);
                is_default && self.0.remove("temperature").is_some()
            }
            "stream_options" | "seed" => self.0.remove(parameter).is_some(),
            _ => false,
        }
    }

    /// As it is sent.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a map of strings to JSON values is JSON")
    }
}

/// The shortest decimal that means this number: `0.7`, where the plain conversion gives `0.699999988`.
fn decimal(number: f32) -> Value {
    number
        .to_string()
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}

/// Words alone as a string, which every service takes; words and pictures as a list of parts.
fn content<'a>(message: &Message, images: &mut impl Iterator<Item = &'a String>) -> Value {
    if let [Content::Text(text)] = message.content.as_slice() {
        return text.as_str().into();
    }
    let part = |content: &Content| match content {
        Content::Text(text) => json!({"type": "text", "text": text}),
        Content::Image | Content::Frame => {
            json!({"type": "image_url", "image_url": {"url": images.next()}})
        }
    };
    message.content.iter().map(part).collect()
}

/// A piece of a streamed answer, or a whole one: the fields of both that are looked at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    /// In a streamed answer.
    delta: Option<Said>,
    /// In a whole one.
    message: Option<Said>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Said {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: usize,
    #[serde(default)]
    completion_tokens: usize,
}

/// Why a service stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop(StopReason),
    Filtered,
}

/// An answer that is coming into being.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) prompt_tokens: usize,
    pub(super) new_tokens: usize,
    pub(super) finish: Option<Finish>,
}

impl Reply {
    /// Takes one event; the new text in it, or what the service says has failed.
    pub(super) fn take(&mut self, event: &str) -> Result<Option<String>, Unusable> {
        let chunk: Chunk = serde_json::from_str(event)
            .map_err(|error| Unusable::Garbage(format!("{error} in `{}`", shortened(event, 80))))?;
        if let Some(error) = &chunk.error {
            return Err(Unusable::Failed(message_of(error).unwrap_or_default()));
        }
        if let Some(usage) = chunk.usage {
            self.prompt_tokens = usage.prompt_tokens;
            self.new_tokens = usage.completion_tokens;
        }
        let Some(choice) = chunk.choices.into_iter().find(|choice| choice.index == 0) else {
            return Ok(None);
        };
        if let Some(reason) = choice.finish_reason {
            self.finish = Some(match reason.as_str() {
                "length" | "max_tokens" => Finish::Stop(StopReason::Length),
                "content_filter" => Finish::Filtered,
                _ => Finish::Stop(StopReason::EndOfTurn),
            });
        }
        let said = choice.delta.or(choice.message);
        let text = said.and_then(|said| {
            let content = said.content.filter(|text| !text.is_empty());
            content.or(said.refusal)
        });
        if let Some(text) = &text {
            self.text.push_str(text);
        }
        Ok(text.filter(|text| !text.is_empty()))
    }
}

/// Why an event cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is not what it should be.
    Garbage(String),
    /// It says that the service has failed.
    Failed(String),
}

/// What a refusal says: its words, a code, and the parameter it is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) said: String,
    pub(super) code: String,
    pub(super) parameter: Option<String>,
}

impl Refusal {
    /// Reads the body of a refusal in the forms that services have: `{"error": {…}}`, `{"error": "…"}`,
    /// `{"message": …}`, `{"detail": …}`, or plain text.
    pub(super) fn parse(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            let text = String::from_utf8_lossy(body);
            let text = text.trim();
            // A page of HTML says nothing to a reader of terminals.
            let said = if text.starts_with('<') { "" } else { text };
            return Self {
                said: shortened(said, SAID_CHARACTERS),
                ..Self::default()
            };
        };
        let error = value.get("error").unwrap_or(&value);
        let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
        let place = || {
            let detail = error.get("detail")?.get(0)?;
            let last = detail.get("loc")?.as_array()?.last()?;
            last.as_str().map(str::to_owned)
        };
        Self {
            said: message_of(error).unwrap_or_default(),
            code: text("code").or_else(|| text("type")).unwrap_or_default(),
            parameter: text("param").or_else(place),
        }
    }
}

/// The words in an error's value.
fn message_of(error: &Value) -> Option<String> {
    let detail = || {
        let detail = error.get("detail")?;
        detail
            .get(0)
            .and_then(|first| first.get("msg"))
            .or(Some(detail))
    };
    let words = error
        .as_str()
        .or_else(|| error.get("message")?.as_str())
        .or_else(|| detail()?.as_str())?;
    Some(shortened(words, SAID_CHARACTERS))
}

/// One line of at most so many characters, without control characters.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    let mut out: String = text
        .chars()
        .take(characters)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(characters).is_some() {
        out.push('…');
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use colibri_models::processor::Role;

    use super::*;

    fn value(body: &Body) -> Value {
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }

    #[test]
    fn the_request_holds_turns_and_pictures_in_order() {
        let messages = [
            Message::text(Role::System, "Be brief."),
            Message {
                role: Role::User,
                content: vec![
                    Content::Text("First".to_owned()),
                    Content::Image,
                    Content::Text("then".to_owned()),
                    Content::Image,
                ],
            },
            Message::text(Role::Assistant, "Yes."),
        ];
        let images = ["data:a".to_owned(), "data:b".to_owned()];
        let body = Body::new("m", &messages, &images, &GenerateOptions::default());
        let expected = json!({
            "model": "m", "stream": true, "stream_options": {"include_usage": true},
            "max_tokens": 500, "temperature": 0.0,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "First"},
                    {"type": "image_url", "image_url": {"url": "data:a"}},
                    {"type": "text", "text": "then"},
                    {"type": "image_url", "image_url": {"url": "data:b"}}]},
                {"role": "assistant", "content": "Yes."}]
        });
        assert_eq!(value(&body), expected);
    }

    #[test]
    fn a_refused_parameter_gives_way_once_unless_it_was_asked_for() {
        let options = GenerateOptions {
            temperature: 0.7,
            top_p: 0.9,
            top_k: 5,
            ..GenerateOptions::default()
        };
        let mut body = Body::new("m", &[], &[], &options);
        assert_eq!(value(&body)["temperature"], json!(0.7));
        assert_eq!(value(&body)["top_p"], json!(0.9));
        for parameter in [
            "temperature",
            "top_p",
            "top_k",
            "messages[0].content",
            "model",
        ] {
            assert!(!body.give_way(parameter), "{parameter}");
        }
        for parameter in ["max_tokens", "stream_options.include_usage", "seed"] {
            assert!(
                body.give_way(parameter) && !body.give_way(parameter),
                "{parameter}"
            );
        }
        assert_eq!(value(&body)["max_completion_tokens"], json!(500));
        let mut body = Body::new("m", &[], &[], &GenerateOptions::default());
        assert!(body.give_way("temperature") && value(&body).get("temperature").is_none());
    }

    #[test]
    fn pieces_add_up_to_a_reply() {
        let mut reply = Reply::default();
        let event = |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}}]});
        let role =
            json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": null}}]});
        assert_eq!(reply.take(&role.to_string()).unwrap(), None);
        assert_eq!(
            reply.take(&event("Hel").to_string()).unwrap().unwrap(),
            "Hel"
        );
        assert_eq!(reply.take(&event("lo").to_string()).unwrap().unwrap(), "lo");
        let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]});
        assert_eq!(reply.take(&end.to_string()).unwrap(), None);
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}});
        assert_eq!(reply.take(&usage.to_string()).unwrap(), None);
        assert_eq!(
            (reply.text.as_str(), reply.prompt_tokens, reply.new_tokens),
            ("Hello", 7, 2)
        );
        assert_eq!(reply.finish, Some(Finish::Stop(StopReason::Length)));
        let failed = r#"{"error": {"message": "out of\nmemory"}}"#;
        assert_eq!(
            reply.take(failed),
            Err(Unusable::Failed("out of memory".to_owned()))
        );
        assert!(matches!(reply.take("{"), Err(Unusable::Garbage(_))));
    }

    #[test]
    fn refusals_are_read_in_the_forms_services_have() {
        let refusal = |said: &str, code: &str, parameter: Option<&str>| Refusal {
            said: said.to_owned(),
            code: code.to_owned(),
            parameter: parameter.map(str::to_owned),
        };
        let cases = [
            (
                r#"{"error": {"message": "Unsupported", "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter"}}"#,
                refusal("Unsupported", "unsupported_parameter", Some("max_tokens")),
            ),
            (
                r#"{"error": "model 'x' not found"}"#,
                refusal("model 'x' not found", "", None),
            ),
            (
                r#"{"object": "error", "message": "too long", "type": "BadRequestError", "param": null, "code": 400}"#,
                refusal("too long", "BadRequestError", None),
            ),
            (
                r#"{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}"#,
                refusal("Extra inputs", "", Some("seed")),
            ),
            (r#"{"detail": "Not Found"}"#, refusal("Not Found", "", None)),
            ("busy\n", refusal("busy", "", None)),
            ("<html>…</html>", Refusal::default()),
            ("", Refusal::default()),
        ];
        for (body, expected) in cases {
            assert_eq!(Refusal::parse(body.as_bytes()), expected, "{body}");
        }
        let long = Refusal::parse("x".repeat(5000).as_bytes()).said;
        assert_eq!(long.chars().count(), SAID_CHARACTERS + 1);
    }
}
