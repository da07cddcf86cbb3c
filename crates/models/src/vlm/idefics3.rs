//! The Idefics3 backbone: SmolVLM, Idefics3 and, under another head, ColIdefics3.
//!
//! Paper: Laurençon et al. 2024, <https://arxiv.org/abs/2408.12637>; SmolVLM: Marafioti et al. 2025,
//! <https://arxiv.org/abs/2504.05299>. Upstream: `Idefics3Model` in transformers 5.23.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use candle_core::{Device, Tensor};
use colibri_nn::{Linear, Weights};

use crate::{
    Error, Result, Trace,
    connector::pixel_shuffle::PixelShuffleConnector,
    processor::{ImageProcessor, TileOptions, Tiles},
    text::llama::{self, Llama},
    vision::siglip::{self, SiglipTower, cut_patches},
};

/// `config.json`, with the defaults of transformers' `Idefics3Config`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// `idefics3` or `smolvlm`.
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
        }
    }
}

impl Config {
    /// Reads and checks `config.json` in `folder`.
    ///
    /// # Errors
    /// When it cannot be read or describes no model that can be run.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let bytes = fs_err::read(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        let config: Self = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        config
            .check()
            .map_err(|reason| Error::Config { path, reason })?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        self.vision_config.check()?;
        self.text_config.check()?;
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
        (self.vision_config.patches_per_side() / self.scale_factor()).pow(2)
    }
}

/// Tower, connector and text model.
#[derive(Debug)]
pub struct Idefics3 {
    config: Config,
    vision: SiglipTower,
    connector: PixelShuffleConnector,
    text: Llama,
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
        let connector = PixelShuffleConnector::load(
            config.scale_factor(),
            config.vision_config.hidden_size,
            config.text_config.hidden_size,
            &vb.pp("connector"),
        )?;
        let text = Llama::load(&config.text_config, &vb.pp("text_model"))?;
        Ok(Self {
            config: config.clone(),
            vision,
            connector,
            text,
            tiles_looked_at: AtomicU64::new(0),
        })
    }

    /// What the visual tokens of a picture depend on besides the picture. `vb` is what [`Idefics3::load`] was
    /// given; `images` cuts pictures as `tiles` says.
    pub fn look_key(&self, vb: Weights, images: &ImageProcessor, tiles: TileOptions) -> LookKey {
        // The version stands for the arithmetic, which may change with it.
        let settings = format!(
            "{} {} {:?} {} {:?} {tiles:?}",
            env!("CARGO_PKG_VERSION"),
            vb.placement().arithmetic(),
            self.config.vision_config,
            self.config.scale_factor(),
            images.config(),
        );
        LookKey {
            vb,
            settings,
            key: OnceLock::new(),
        }
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

    /// One normalised tile `(3, side, side)` to visual tokens `(tokens_per_tile, hidden)`.
    ///
    /// # Errors
    /// When a layer fails.
    pub fn encode_tile(&self, tile: &[f32], trace: &mut dyn Trace) -> Result<Tensor> {
        self.tiles_looked_at.fetch_add(1, Ordering::Relaxed);
        let vision = &self.config.vision_config;
        let (side, patch) = (vision.image_size, vision.patch_size);
        let (num_patches, width) = (vision.patches_per_side().pow(2), 3 * patch * patch);
        let mut patches = vec![0.0; num_patches * width];
        cut_patches(tile, side, patch, &mut patches);
        let device = self.text.device();
        let patches = Tensor::from_vec(patches, (1, num_patches, width), &Device::Cpu)?
            .to_dtype(self.text.dtype())?
            .to_device(device)?;
        let features = self.vision.forward(&patches, trace)?; // (1, num_patches, vision_hidden)
        let tokens = self.connector.forward(&features)?; // (1, tokens_per_tile, hidden)
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
        let frames: Vec<&[u8]> = images.iter().flat_map(Tiles::frames).collect();
        if frames.is_empty() {
            return Ok(None);
        }
        let side = self.config.vision_config.image_size;
        let mut normalised = vec![0.0; 3 * side * side];
        let mut seen: HashMap<&[u8], Tensor> = HashMap::new();
        let mut tokens = Vec::with_capacity(frames.len());
        for (index, &frame) in frames.iter().enumerate() {
            if !on_tile(index, frames.len()) {
                return Err(Error::Cancelled);
            }
            if let Some(known) = seen.get(frame) {
                tokens.push(known.clone());
                continue;
            }
            if frame.len() != normalised.len() {
                return Err(Error::Config {
                    path: "preprocessor_config.json".into(),
                    reason: format!(
                        "tiles of {} bytes do not fit a tower for {side} × {side} pixels",
                        frame.len()
                    ),
                });
            }
            processor.normalize_tile(frame, &mut normalised);
            let encoded = self.encode_tile(&normalised, trace)?;
            seen.insert(frame, encoded.clone());
            tokens.push(encoded);
        }
        Ok(Some(Tensor::cat(&tokens, 0)?))
    }

    /// Token embeddings of `ids` with the rows of `<image>` replaced, in order, by the visual tokens:
    /// `(1, tokens, hidden)`.
    ///
    /// # Errors
    /// [`Error::ImageTokens`] when their numbers differ.
    pub fn merge(&self, ids: &[u32], visual: Option<&Tensor>) -> Result<Tensor> {
        let image = self.config.image_token_id();
        let num_ids = ids.iter().filter(|&&id| id == image).count();
        let num_visual = visual.map_or(Ok(0), |visual| visual.dim(0))?;
        if num_ids != num_visual {
            return Err(Error::ImageTokens {
                ids: num_ids,
                visual: num_visual,
            });
        }
        let embedded = self.text.embed_tokens().forward(ids)?; // (tokens, hidden)
        let Some(visual) = visual else {
            return Ok(embedded.unsqueeze(0)?);
        };
        let visual = visual.to_dtype(embedded.dtype())?;
        // Runs of equal kind are copied as a whole: a tile's tokens are one run.
        let mut parts = Vec::new();
        let (mut start, mut used) = (0, 0);
        while start < ids.len() {
            let is_image = ids[start] == image;
            let len = ids[start..]
                .iter()
                .take_while(|&&id| (id == image) == is_image)
                .count();
            if is_image {
                parts.push(visual.narrow(0, used, len)?);
                used += len;
            } else {
                parts.push(embedded.narrow(0, start, len)?);
            }
            start += len;
        }
        Ok(Tensor::cat(&parts, 0)?.unsqueeze(0)?)
    }
}
