//! The backbone of the Idefics family: SmolVLM, Idefics3 and, under another head, ColIdefics3; and Idefics2, which
//! differs in its connector (a perceiver for pixel shuffle), its text model (Mistral) and its frames, which keep the
//! picture's shape.
//!
//! Papers: Laurençon et al. 2024, <https://arxiv.org/abs/2405.02246> (Idefics2), <https://arxiv.org/abs/2408.12637>
//! (Idefics3); SmolVLM: Marafioti et al. 2025, <https://arxiv.org/abs/2504.05299>. Upstream: `Idefics2Model` and
//! `Idefics3Model` in transformers 5.23.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use candle_core::Tensor;
use colibri_nn::{Linear, Weights};

use serde_json::{Value, json};

use super::{config_file, merge::merge};
use crate::{
    Error, Result, Trace,
    connector::{
        perceiver::{self, PerceiverConnector},
        pixel_shuffle::PixelShuffleConnector,
    },
    processor::{Frame, ImageProcessor, TileOptions, Tiles},
    text::{
        Family, fill,
        llama::{self, Llama},
    },
    vision::siglip::{self, SiglipTower},
};

/// `config.json`, with the defaults of transformers' `Idefics3Config` or, as `model_type` says, `Idefics2Config`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// `idefics3`, `smolvlm` or `idefics2`.
    pub model_type: Option<String>,
    /// Class names; tell a retriever's base from a generator.
    pub architectures: Option<Vec<String>>,
    /// The text model.
    pub text_config: llama::Config,
    /// The vision tower.
    pub vision_config: siglip::Config,
    /// Patches along the side of a visual token; 2 if not given.
    scale_factor: Option<usize>,
    /// Id of `<image>`; the older layout calls it `image_token_index`. 128257 if not given.
    #[serde(alias = "image_token_index")]
    image_token_id: Option<u32>,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Idefics2's resampler.
    pub perceiver_config: Option<perceiver::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model_type: None,
            architectures: None,
            // The one value that Idefics3 changes, and only where `text_config` is missing altogether
            // (`sub_configs_defaults` in `configuration_idefics3.py`).
            text_config: llama::Config {
                rms_norm_eps: 1e-5,
                ..llama::Config::default()
            },
            vision_config: siglip::Config::default(),
            scale_factor: None,
            image_token_id: None,
            tie_word_embeddings: false,
            perceiver_config: None,
        }
    }
}

impl Config {
    /// Reads and checks `config.json` in `folder`.
    ///
    /// # Errors
    /// When it cannot be read or describes no model that can be run.
    pub fn load(folder: &Path) -> Result<Self> {
        let (path, value) = config_file::load(folder)?;
        Self::from_json(&path, value)
    }

    /// Checks what stands in the file `path`.
    ///
    /// # Errors
    /// When it describes no model that can be run.
    pub(crate) fn from_json(path: &Path, value: Value) -> Result<Self> {
        config_file::checked(path, Self::read(value), Self::check)
    }

    fn read(mut value: Value) -> std::result::Result<Self, serde_json::Error> {
        if value["model_type"] != "idefics2" {
            return serde_json::from_value(value);
        }
        // `sub_configs_defaults` of `configuration_idefics2.py`; what it says of the text model holds where there is
        // no `text_config` at all.
        let mut part = |name: &str| value.get_mut(name).map_or(Value::Null, Value::take);
        let (mut text, mut vision, perceiver) = (
            part("text_config"),
            part("vision_config"),
            part("perceiver_config"),
        );
        if text.is_null() {
            text = json!({"max_position_embeddings": 32_768, "rms_norm_eps": 1e-5});
        }
        fill(
            &mut vision,
            &json!({"hidden_size": 768, "num_attention_heads": 12}),
        );
        let text = Family::Mistral.read(text)?;
        let vision = serde_json::from_value(vision)?;
        let perceiver = perceiver::Config::read(perceiver, &text)?;
        fill(&mut value, &json!({"image_token_id": 32_001}));
        for name in ["text_config", "vision_config", "perceiver_config"] {
            value.as_object_mut().map(|object| object.remove(name));
        }
        let mut config: Self = serde_json::from_value(value)?;
        config.text_config = text;
        config.vision_config = vision;
        config.perceiver_config = Some(perceiver);
        Ok(config)
    }

    /// Whether it is Idefics2, whose frames keep the picture's shape.
    pub fn is_idefics2(&self) -> bool {
        self.perceiver_config.is_some()
    }

    fn check(&self) -> std::result::Result<(), String> {
        self.vision_config.check()?;
        self.text_config.check()?;
        if let Some(perceiver) = &self.perceiver_config {
            return perceiver.check(&self.text_config);
        }
        let side = self.vision_config.patches_per_side();
        let scale = self.scale_factor();
        if scale == 0 || !side.is_multiple_of(scale) {
            return Err(format!(
                "`scale_factor` {scale} does not divide {side} patches"
            ));
        }
        Ok(())
    }

    /// Patches along the side of a visual token.
    pub fn scale_factor(&self) -> usize {
        self.scale_factor.unwrap_or(2)
    }

    /// Id of `<image>`.
    pub fn image_token_id(&self) -> u32 {
        self.image_token_id.unwrap_or(128_257)
    }

    /// Visual tokens of one tile.
    pub fn tokens_per_tile(&self) -> usize {
        if let Some(perceiver) = &self.perceiver_config {
            return perceiver.resampler_n_latents;
        }
        (self.vision_config.patches_per_side() / self.scale_factor()).pow(2)
    }
}

#[derive(Debug)]
enum Connector {
    PixelShuffle(PixelShuffleConnector),
    Perceiver(Box<PerceiverConnector>),
}

/// Tower, connector and text model.
#[derive(Debug)]
pub struct Idefics3 {
    config: Config,
    vision: SiglipTower,
    connector: Connector,
    text: Llama,
    /// Bytes of tower and connector.
    vision_bytes: usize,
    tiles_looked_at: AtomicU64,
}

/// A name for everything that visual tokens depend on besides the picture: weights of the tower and the connector,
/// arithmetic, how pictures are cut. Weights are hashed when it is first asked for.
pub struct LookKey {
    vb: Weights,
    settings: String,
    key: OnceLock<Option<String>>,
}

impl LookKey {
    /// The name; `None` where weights have no hash or cannot be read.
    pub fn get(&self) -> Option<&str> {
        let make = || {
            let mut hasher = blake3::Hasher::new();
            for part in ["vision_model", "connector"] {
                hasher.update(&self.vb.pp(part).fingerprint().ok().flatten()?);
            }
            hasher.update(self.settings.as_bytes());
            Some(hasher.finalize().to_hex()[..32].to_owned())
        };
        self.key.get_or_init(make).as_deref()
    }
}

impl std::fmt::Debug for LookKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LookKey")
            .field("settings", &self.settings)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Idefics3 {
    /// Loads the backbone from `model.*`.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn load(config: &Config, vb: &Weights) -> Result<Self> {
        let vision = SiglipTower::load(&config.vision_config, &vb.pp("vision_model"))?;
        let (vision_hidden, text_config) = (config.vision_config.hidden_size, &config.text_config);
        let at = vb.pp("connector");
        let connector = match &config.perceiver_config {
            Some(perceiver) => {
                let connector =
                    PerceiverConnector::load(perceiver, vision_hidden, text_config, &at)?;
                Connector::Perceiver(Box::new(connector))
            }
            None => Connector::PixelShuffle(PixelShuffleConnector::load(
                config.scale_factor(),
                vision_hidden,
                text_config.hidden_size,
                &at,
            )?),
        };
        let vision_bytes = vb.loaded_bytes();
        let text = Llama::load(&config.text_config, &vb.pp("text_model"))?;
        Ok(Self {
            config: config.clone(),
            vision,
            connector,
            text,
            vision_bytes,
            tiles_looked_at: AtomicU64::new(0),
        })
    }

    /// What the visual tokens of a picture depend on besides the picture. `vb` is what [`Idefics3::load`] was
    /// given; `images` cuts pictures as `tiles` says.
    pub fn look_key(&self, vb: Weights, images: &ImageProcessor, tiles: TileOptions) -> LookKey {
        // The version stands for the arithmetic, which may change with it.
        let settings = format!(
            "{} {} {:?} {} {:?} {:?} {tiles:?}",
            env!("CARGO_PKG_VERSION"),
            vb.placement().arithmetic(),
            self.config.vision_config,
            self.config.scale_factor(),
            self.config.perceiver_config,
            images.config(),
        );
        LookKey {
            vb,
            settings,
            key: OnceLock::new(),
        }
    }

    /// Bytes of the matrices of tower and connector that were loaded for it.
    pub fn vision_bytes(&self) -> usize {
        self.vision_bytes
    }

    /// Tiles that went through the tower so far.
    pub fn tiles_looked_at(&self) -> u64 {
        self.tiles_looked_at.load(Ordering::Relaxed)
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The text model.
    pub fn text(&self) -> &Llama {
        &self.text
    }

    /// The output head of a generator.
    ///
    /// # Errors
    /// When the tensor is missing or of another shape.
    pub fn load_head(&self, root: &Weights) -> Result<Linear> {
        let tied = self.config.tie_word_embeddings || self.config.text_config.tie_word_embeddings;
        self.text.load_head(tied, root)
    }

    /// One normalised frame `(3, height, width)` to visual tokens `(tokens_per_tile, hidden)`.
    ///
    /// # Errors
    /// When a layer fails.
    pub fn encode_frame(
        &self,
        pixels: &[f32],
        size: (usize, usize),
        trace: &mut dyn Trace,
    ) -> Result<Tensor> {
        self.tiles_looked_at.fetch_add(1, Ordering::Relaxed);
        let features = self.vision.encode(pixels, size, trace)?; // (1, patches, vision_hidden)
        let tokens = match &self.connector {
            Connector::PixelShuffle(connector) => connector.forward(&features)?,
            Connector::Perceiver(connector) => connector.forward(&features, trace)?,
        }; // (1, tokens_per_tile, hidden)
        trace.record("connector", &tokens)?;
        Ok(tokens.squeeze(0)?)
    }

    /// All tiles of a prompt's images to visual tokens `(tiles * tokens_per_tile, hidden)`, in order.
    /// Byte-identical tiles (blank margins, repeated backgrounds) go through the tower once; the result is
    /// the same. `on_tile(done, total)` may stop the work by returning `false`.
    ///
    /// # Errors
    /// When a layer fails, or [`Error::Cancelled`].
    pub fn encode_images(
        &self,
        images: &[Tiles],
        processor: &ImageProcessor,
        on_tile: &mut dyn FnMut(usize, usize) -> bool,
        trace: &mut dyn Trace,
    ) -> Result<Option<Tensor>> {
        let frames: Vec<Frame<'_>> = images.iter().flat_map(Tiles::frames).collect();
        if frames.is_empty() {
            return Ok(None);
        }
        let mut normalised = Vec::new();
        let mut seen: HashMap<Frame<'_>, Tensor> = HashMap::new();
        let mut tokens = Vec::with_capacity(frames.len());
        for (index, &frame) in frames.iter().enumerate() {
            if !on_tile(index, frames.len()) {
                return Err(Error::Cancelled);
            }
            if let Some(known) = seen.get(&frame) {
                tokens.push(known.clone());
                continue;
            }
            let size = (frame.width as usize, frame.height as usize);
            if !self.takes(size) {
                return Err(Error::Config {
                    path: "preprocessor_config.json".into(),
                    reason: format!(
                        "frames of {} × {} pixels do not fit the vision tower",
                        frame.width, frame.height
                    ),
                });
            }
            normalised.resize(frame.pixels.len(), 0.0);
            processor.normalize_tile(frame.pixels, &mut normalised);
            let encoded = self.encode_frame(&normalised, size, trace)?;
            seen.insert(frame, encoded.clone());
            tokens.push(encoded);
        }
        Ok(Some(Tensor::cat(&tokens, 0)?))
    }

    /// Whether the tower and the connector can look at a frame of this size.
    fn takes(&self, (width, height): (usize, usize)) -> bool {
        let vision = &self.config.vision_config;
        match self.connector {
            Connector::PixelShuffle(_) => (width, height) == (vision.image_size, vision.image_size),
            Connector::Perceiver(_) => width.min(height) >= vision.patch_size,
        }
    }

    /// Token embeddings of `ids` with the rows of `<image>` replaced, in order, by the visual tokens:
    /// `(1, tokens, hidden)`.
    ///
    /// # Errors
    /// [`Error::ImageTokens`] when their numbers differ.
    pub fn merge(&self, ids: &[u32], visual: Option<&Tensor>) -> Result<Tensor> {
        merge(&self.text, ids, self.config.image_token_id(), visual)
    }
}
