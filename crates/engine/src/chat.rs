//! A conversation about pictures and videos that a person gives, or about nothing but words, without an
//! index.

use std::ops::ControlFlow;

use colibri_models::{
    generate::{Completion, GenerateOptions, Step},
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
        let request = Request {
            messages: &self.messages,
            images: &self.images,
            options: &self.options,
        };
        let completion = self.generator.model.generate(&request, on_step)?;
        self.messages
            .push(Message::text(Role::Assistant, completion.text.trim()));
        Ok(completion)
    }

    /// Forgets the turns and pictures so far, the system message excepted.
    pub fn clear(&mut self) {
        self.messages.retain(|message| message.role == Role::System);
        self.images.clear();
        self.waiting.clear();
    }
}
