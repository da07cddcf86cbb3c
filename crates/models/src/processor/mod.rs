//! Images, prompts and tokens as the checkpoints expect them.
//!
//! A picture becomes tiles ([`tiles`], on Pillow's resampler in [`resample`]); a conversation
//! becomes a string by the checkpoint's template ([`chat`]), its images the text that stands for
//! them ([`expand`]), and the string ids ([`tokenizer`]). [`Idefics3Processor`] does all of it for
//! generators, [`ColIdefics3Processor`] and [`ColPaliProcessor`] for retrievers. What users type never becomes a special
//! token.
//!
//! Sources: transformers 5.23.0 (`processing_idefics3.py`, `image_processing_pil_idefics3.py`),
//! colpali-engine 0.3.18 (`processing_colidefics3.py`), Pillow 13 (`Resample.c`).

pub mod chat;
mod clock;
pub mod colidefics3;
pub mod colpali;
pub mod config;
mod error;
mod escape;
pub mod expand;
mod fields;
mod files;
pub mod geometry;
mod grid;
pub mod idefics3;
mod native;
mod prompt_version;
mod python_json;
pub mod resample;
mod seq_len;
mod specials;
mod stream;
pub mod tiles;
pub mod tokenizer;
pub mod video;

pub use chat::{ChatTemplate, Content, Message, Role};
pub use colidefics3::{ColIdefics3Processor, DocumentPrompt};
pub use colpali::ColPaliProcessor;
pub use config::{Frames, PreprocessorConfig, VideoSampling};
pub use error::{Error, Result};
pub use files::ProcessorFiles;
pub use geometry::{PageBox, TokenGeometry, TokenKind};
pub use idefics3::{Idefics3Processor, Prompt};
pub use prompt_version::PromptVersion;
pub use seq_len::ProcessorConfig;
pub use stream::StreamDecoder;
pub use tiles::{Frame, ImageProcessor, TileGrid, TileOptions, TilePlan, Tiles};
pub use tokenizer::{NamedTokens, Tokenizer};
pub use video::VideoRecipe;
