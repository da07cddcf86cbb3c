//! A conversation about pictures that a person gives, without an index.

use std::ops::ControlFlow;

use colibri_models::{
    Error, VisualTokens,
    generate::{Completion, GenerateOptions, Step, StopReason},
    generators::Request,
    processor::{Content, Message, Role},
};
use image::RgbImage;

use crate::{Result, checkpoints::LoadedGenerator};

/// A conversation: pictures and turns, kept until it ends.
pub struct Chat {
    generator: LoadedGenerator,
    options: GenerateOptions,
    messages: Vec<Message>,
    images: Vec<RgbImage>,
    /// What was seen of the first pictures, where the generator looks once; those are no longer in `images`.
    seen: Vec<VisualTokens>,
    /// Pictures given since the last turn.
    waiting: usize,
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
            seen: Vec::new(),
            waiting: 0,
        }
    }

    /// Adds a picture to the next turn.
    pub fn show(&mut self, image: RgbImage) {
        self.images.push(image);
        self.waiting += 1;
    }

    /// Says something; the pictures shown since the last turn come before it. The turn and its answer
    /// become part of the conversation; a turn that fails does not.
    ///
    /// # Errors
    /// When the conversation outgrows the model, or a layer fails.
    pub fn say(
        &mut self,
        text: &str,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let mut content = vec![Content::Image; self.waiting];
        content.push(Content::Text(text.to_owned()));
        self.messages.push(Message {
            role: Role::User,
            content,
        });
        match self.answer(on_step) {
            Ok(completion) => {
                self.waiting = 0;
                self.messages
                    .push(Message::text(Role::Assistant, completion.text.trim()));
                Ok(completion)
            }
            Err(error) => {
                self.messages.pop();
                Err(error.into())
            }
        }
    }

    fn answer(
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
        while let Some(image) = self.images.first() {
            let mut on_tile = |done, total| on_step(Step::Tile { done, total }).is_continue();
            match looking.look(image, &mut on_tile) {
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
        self.waiting = 0;
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
