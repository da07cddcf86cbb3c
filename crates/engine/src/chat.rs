//! A conversation about pictures and videos that a person gives, or about nothing but words, without an
//! index.

use std::ops::ControlFlow;

use colibri_models::{
    Error, VisualTokens,
    generate::{Completion, GenerateOptions, Step, StopReason},
    generators::Request,
    processor::{Content, Message, Role, VideoRecipe},
};
use image::RgbImage;

use crate::{Result, checkpoints::LoadedGenerator, messages::Conversation, video::Shown};

/// A conversation: pictures and turns, kept until it ends.
pub struct Chat {
    generator: LoadedGenerator,
    options: GenerateOptions,
    messages: Vec<Message>,
    images: Vec<RgbImage>,
    /// What was seen of the first pictures, where the generator looks once; those are no longer in `images`.
    seen: Vec<VisualTokens>,
    /// What was shown since the last turn.
    waiting: Vec<Content>,
}

impl std::fmt::Debug for Chat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chat")
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}

impl Chat {
    /// Bytes of what was seen of the pictures.
    pub fn features_bytes(&self) -> u64 {
        self.seen.iter().map(VisualTokens::num_bytes).sum::<usize>() as u64
    }

    /// Begins a conversation, with a system message where one is wanted.
    pub fn new(generator: LoadedGenerator, options: GenerateOptions, system: Option<&str>) -> Self {
        let messages = system
            .map(|text| Message::text(Role::System, text))
            .into_iter()
            .collect();
        Self {
            generator,
            options,
            messages,
            images: Vec::new(),
            seen: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// How its generator is shown a video.
    pub fn video(&self) -> VideoRecipe {
        self.generator.model.video()
    }

    /// Adds a picture to the next turn.
    pub fn show(&mut self, image: RgbImage) {
        self.images.push(image);
        self.waiting.push(Content::Image);
    }

    /// Adds a video to the next turn.
    pub fn show_video(&mut self, shown: Shown) {
        self.images.extend(shown.images);
        self.waiting.extend(shown.content);
    }

    /// Takes over turns that were said elsewhere, before anything is shown here.
    pub fn take_over(&mut self, conversation: Conversation) {
        self.messages.extend(conversation.messages);
        self.images.extend(conversation.images);
    }

    /// Whether the last turn is the user's, so that [`Chat::answer`] has something to answer.
    pub fn is_asked(&self) -> bool {
        self.messages
            .last()
            .is_some_and(|last| last.role == Role::User)
    }

    /// Says something; what was shown since the last turn comes before it. The turn and its answer become
    /// part of the conversation; a turn that fails does not.
    ///
    /// # Errors
    /// When the conversation outgrows the model, or a layer fails.
    pub fn say(
        &mut self,
        text: &str,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let mut content = self.waiting.clone();
        content.push(Content::Text(text.to_owned()));
        self.messages.push(Message {
            role: Role::User,
            content,
        });
        let answered = self.answer(on_step);
        match &answered {
            Ok(_) => self.waiting.clear(),
            Err(_) => {
                self.messages.pop();
            }
        }
        answered
    }

    /// Answers the conversation as it stands.
    ///
    /// # Errors
    /// As [`Chat::say`].
    pub fn answer(
        &mut self,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let completion = self.complete(on_step)?;
        self.messages
            .push(Message::text(Role::Assistant, completion.text.trim()));
        Ok(completion)
    }

    fn complete(
        &mut self,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> colibri_models::Result<Completion> {
        let Some(looking) = self.generator.model.looking() else {
            let request = Request {
                messages: &self.messages,
                images: &self.images,
                options: &self.options,
            };
            return self.generator.model.generate(&request, on_step);
        };
        // Which of all pictures are frames of videos.
        let shown = self.messages.iter().flat_map(|message| &message.content);
        let frames: Vec<bool> = shown
            .filter(|content| !matches!(content, Content::Text(_)))
            .map(|content| *content == Content::Frame)
            .collect();
        while let Some(image) = self.images.first() {
            let mut on_tile = |done, total| on_step(Step::Tile { done, total }).is_continue();
            let looked = if frames.get(self.seen.len()) == Some(&true) {
                looking.look_at_frame(image, &mut on_tile)
            } else {
                looking.look(image, &mut on_tile)
            };
            match looked {
                Ok(tokens) => self.seen.push(tokens),
                Err(Error::Cancelled) => return Ok(nothing_said()),
                Err(error) => return Err(error),
            }
            self.images.remove(0);
        }
        looking.generate_seen(&self.messages, &self.seen, &self.options, on_step)
    }

    /// Forgets the turns and pictures so far, the system message excepted.
    pub fn clear(&mut self) {
        self.messages.retain(|message| message.role == Role::System);
        self.images.clear();
        self.seen.clear();
        self.waiting.clear();
    }
}

/// What an answer is that was stopped while the pictures were looked at.
fn nothing_said() -> Completion {
    Completion {
        text: String::new(),
        ids: Vec::new(),
        prompt_tokens: 0,
        new_tokens: 0,
        stop: StopReason::Cancelled,
    }
}
