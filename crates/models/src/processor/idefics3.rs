//! Pictures and conversations for the generators of the Idefics family (SmolVLM, Idefics3, Idefics2).

use image::RgbImage;

use super::chat::{ChatTemplate, Content, Message, num_images};
use super::config::PreprocessorConfig;
use super::error::{Error, Result};
use super::expand::expand;
use super::files::ProcessorFiles;
use super::native;
use super::seq_len::ProcessorConfig;
use super::tiles::{ImageProcessor, TileGrid, TileOptions, Tiles};
use super::tokenizer::Tokenizer;
use super::video::VideoRecipe;

/// The processor of a generator: tokenizer, chat template and picture settings of a checkpoint.
#[derive(Debug)]
pub struct Idefics3Processor {
    images: ImageProcessor,
    /// The same for frames of videos.
    frames: ImageProcessor,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    image_seq_len: usize,
    text: ImageText,
}

/// What stands for an image in the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImageText {
    /// Tiles with their tags (Idefics3).
    Tagged,
    /// Frames between fakes (Idefics2), with or without a space before a word that follows.
    Bare { space: bool },
}

/// The template that transformers gives Idefics2 where the checkpoint has none.
const IDEFICS2_TEMPLATE: &str = "{% for message in messages %}{{message['role'].capitalize()}}\
    {% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}\
    {% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}\
    {% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}\
    {% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

/// A conversation ready for the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Ids of all tokens, `<image>` once for each visual token.
    pub ids: Vec<u32>,
    /// The pictures, cut, in the order of the conversation.
    pub tiles: Vec<Tiles>,
    /// The id at whose places the visual tokens go.
    pub image_token_id: u32,
}

impl Prompt {
    /// Places of the visual tokens in `ids`, in order.
    pub fn visual_positions(&self) -> impl Iterator<Item = usize> {
        let visual = move |&(_, &id): &(usize, &u32)| id == self.image_token_id;
        self.ids.iter().enumerate().filter(visual).map(|(at, _)| at)
    }
}

impl Idefics3Processor {
    /// Loads a checkpoint's processor. `derived_seq_len` is the number of visual tokens that the
    /// network makes of a tile, (image_size / patch_size / scale_factor)², for checkpoints that do
    /// not say; where they do, both must agree.
    ///
    /// # Errors
    /// Those of [`PreprocessorConfig::load`], [`ProcessorConfig::image_seq_len`],
    /// [`Tokenizer::load`] and [`ChatTemplate::load`].
    pub fn load(files: &ProcessorFiles, derived_seq_len: Option<usize>) -> Result<Self> {
        let images = PreprocessorConfig::load(files)?;
        let mut frames = images.clone();
        frames.do_image_splitting = false;
        if let Some(sampling) = images.video_sampling {
            frames.longest_edge = sampling.longest_edge;
        }
        Ok(Self {
            images: ImageProcessor::new(images),
            frames: ImageProcessor::new(frames),
            tokenizer: Tokenizer::load(files)?,
            template: ChatTemplate::load(files)?,
            image_seq_len: ProcessorConfig::image_seq_len(files, derived_seq_len)?,
            text: ImageText::Tagged,
        })
    }

    /// [`Idefics3Processor::load`] for Idefics2. `num_latents` is the number of visual tokens of a frame.
    ///
    /// # Errors
    /// As there, save for a missing template.
    pub fn load_idefics2(files: &ProcessorFiles, num_latents: usize) -> Result<Self> {
        let tokenizer = Tokenizer::load(files)?;
        let images = PreprocessorConfig::load_over(files, &PreprocessorConfig::native())?;
        let space = tokenizer.joins_words_to_special_tokens()?;
        // Frames of videos keep their own shape too, and are not quartered.
        let mut frames = images.clone();
        frames.do_image_splitting = false;
        Ok(Self {
            images: ImageProcessor::new(images),
            frames: ImageProcessor::new(frames),
            template: match ChatTemplate::load(files) {
                Err(Error::MissingTemplate { .. }) => {
                    ChatTemplate::new("(the template of Idefics2)", IDEFICS2_TEMPLATE)?
                }
                found => found?,
            },
            image_seq_len: ProcessorConfig::image_seq_len(files, Some(num_latents))?,
            text: ImageText::Bare { space },
            tokenizer,
        })
    }

    /// Cuts pictures.
    pub fn images(&self) -> &ImageProcessor {
        &self.images
    }

    /// How videos are shown.
    pub fn video(&self) -> VideoRecipe {
        let config = self.images.config();
        VideoRecipe::of(config.video_sampling, config.longest_edge)
    }

    /// Makes the one tile of a frame of a video.
    ///
    /// # Errors
    /// As [`ImageProcessor::cut`].
    pub fn cut_frame(&self, image: &RgbImage) -> Result<Tiles> {
        self.frames.cut(image, &TileOptions::default())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Visual tokens of a tile.
    pub fn image_seq_len(&self) -> usize {
        self.image_seq_len
    }

    /// Cuts the pictures and makes the prompt of a conversation about them.
    ///
    /// # Errors
    /// [`Error::ImageCount`] where the messages mention another number of images, and those of
    /// [`ImageProcessor::cut`] and [`Idefics3Processor::ids`].
    pub fn process(
        &self,
        messages: &[Message],
        images: &[RgbImage],
        add_generation_prompt: bool,
        options: &TileOptions,
    ) -> Result<Prompt> {
        check_count(messages, images.len())?;
        let shown = messages.iter().flat_map(|message| &message.content);
        let shown = shown.filter(|content| !matches!(content, Content::Text(_)));
        let tiles = images.iter().zip(shown).map(|(image, content)| {
            if *content == Content::Frame {
                self.cut_frame(image)
            } else {
                self.images.cut(image, options)
            }
        });
        let tiles = tiles.collect::<Result<Vec<Tiles>>>()?;
        let grids: Vec<TileGrid> = tiles.iter().map(Tiles::grid).collect();
        Ok(Prompt {
            ids: self.ids(messages, &grids, add_generation_prompt)?,
            tiles,
            image_token_id: self.tokenizer.image_id(),
        })
    }

    /// Ids of a conversation about pictures cut as `grids` say, for visual tokens that are already
    /// there.
    ///
    /// # Errors
    /// [`Error::ImageCount`], [`Error::PlacedImages`], [`Error::Template`], [`Error::Encode`],
    /// [`Error::SpecialFromText`], [`Error::NoMarker`].
    pub fn ids(
        &self,
        messages: &[Message],
        grids: &[TileGrid],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        check_count(messages, grids.len())?;
        let prompt = self
            .template
            .render(messages, add_generation_prompt, &self.tokenizer)?;
        self.template.check_images(messages, &prompt)?;
        self.tokenizer.encode_marked(&match self.text {
            ImageText::Tagged => expand(prompt, grids, self.image_seq_len),
            ImageText::Bare { space } => native::expand(&prompt, grids, self.image_seq_len, space),
        })
    }
}

fn check_count(messages: &[Message], found: usize) -> Result<()> {
    let expected = num_images(messages);
    if expected != found {
        return Err(Error::ImageCount { expected, found });
    }
    Ok(())
}
