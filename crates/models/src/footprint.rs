//! What a model will hold in memory, told before anything is loaded.
//!
//! Weights are counted exactly, for every architecture: the model is loaded as it would be, from the headers of its
//! files alone (`colibri_nn::weights::Sizes`). What passes through it is counted from the shapes of its widest layers, buffer by buffer
//! as the code holds them at the two moments at which it holds most: inside a layer of the tower, and inside a
//! layer of the text model that reads a whole prompt.

use std::{path::Path, sync::Arc};

pub use colibri_nn::Precision;
use colibri_nn::{
    KvPrecision, Placement,
    blocks::{LARGE_BLOCK_ROWS, LARGE_BYTES, WIDE_BLOCK_ROWS, WIDE_BYTES},
    weights::{Sizes, TensorPool, WeightStore, decoding_precision, matrix_bytes},
};

use crate::{
    Result,
    processor::{ImageProcessor, PreprocessorConfig, TileOptions},
    registry::{self, Checkpoint, LoadOptions},
    text::llama,
    vision::siglip,
};

/// What the model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pages and questions to rows.
    Retriever,
    /// Pictures and conversations to text.
    Generator,
}

/// A model that was loaded without its values.
pub(crate) struct Blueprint {
    /// All tensors.
    pub(crate) sizes: Arc<Sizes>,
    /// The tower.
    pub(crate) vision: siglip::Config,
    /// The text model.
    pub(crate) text: llama::Config,
    /// How pictures become frames.
    pub(crate) images: PreprocessorConfig,
    /// Visual tokens of a frame.
    pub(crate) tokens_per_frame: usize,
    /// Whether a resampler stands between tower and text model, which takes all patches at the text model's width.
    pub(crate) is_resampled: bool,
}

/// Rows that go through a half-block at a time on one thread (`colibri_kernels::parallel`), with some room.
const BLOCK_ROWS: u64 = 112;
/// Bytes of an `f32`.
const FLOAT: u64 = 4;

/// Bytes a model needs, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Matrices, tables, adapters.
    pub matrices: u64,
    /// Norms, biases, positions, rotations, in f32.
    pub values: u64,
    /// Of the matrices, what other models of a pool hold already, as far as the beginnings of the tensors tell.
    pub shared: u64,
    /// The tokenizer and its tables.
    pub tokenizer: u64,
    /// Keys and values of one token.
    pub kv_per_token: u64,
    /// The same in bytes, with their scales.
    kv_per_token_int8: u64,
    /// Passing values while one frame is looked at.
    pub looking: u64,
    /// A page as it is drawn for the model.
    pub drawn_page: u64,
    /// A page while it is cut into frames.
    pub cutting: u64,
    /// The frames of one page.
    pub frames_per_page: u64,
    /// Passing values for each token of a prompt while it is read.
    pub reading_per_token: u64,
    /// The same, however long it is.
    pub reading: u64,
    /// What was seen, for each token, while more is looked at.
    pub seen_per_token: u64,
    /// Visual tokens as they are kept beside an index, for each token.
    pub kept_per_token: u64,
    /// Tokens of one page.
    pub page_tokens: u64,
}

/// A model of which everything is known that its footprint depends on, save the precision.
pub struct Needs {
    blueprint: Blueprint,
    tokenizer: u64,
    role: Role,
    tiles: TileOptions,
    threads: u64,
}

impl std::fmt::Debug for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Needs")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Needs {
    /// Looks at the headers and settings of `checkpoint`, or with a seed `made_up` at its settings alone, and at
    /// what models that are loaded hold in `pool`.
    ///
    /// # Errors
    /// When a file is missing or damaged, or is of a model for something else.
    pub fn of(
        checkpoint: &Checkpoint,
        made_up: Option<u64>,
        role: Role,
        tiles: &TileOptions,
        threads: usize,
        pool: &Arc<TensorPool>,
    ) -> Result<Self> {
        let options = LoadOptions {
            made_up,
            pool: Some(Arc::clone(pool)),
            ..LoadOptions::new(Placement::cpu(Precision::F32))
        };
        Ok(Self {
            blueprint: registry::blueprint(checkpoint, &options, role)?,
            tokenizer: tokenizer_bytes(&checkpoint.folder, checkpoint.base_folder()),
            role,
            tiles: *tiles,
            threads: threads as u64,
        })
    }

    /// The same with default settings, on one thread and with nothing else loaded: enough to check files against the
    /// configuration and to tell what weights will take.
    ///
    /// # Errors
    /// As [`Needs::of`].
    pub fn alone(checkpoint: &Checkpoint, role: Role) -> Result<Self> {
        let pool = Arc::new(TensorPool::new(None));
        Self::of(checkpoint, None, role, &TileOptions::default(), 1, &pool)
    }

    /// The tower.
    pub fn vision(&self) -> &siglip::Config {
        &self.blueprint.vision
    }

    /// The text model.
    pub fn text(&self) -> &llama::Config {
        &self.blueprint.text
    }

    /// Visual tokens of a frame.
    pub fn tokens_per_frame(&self) -> usize {
        self.blueprint.tokens_per_frame
    }

    /// How many tensors of the checkpoint the model is made of, each found with the shape that the configuration
    /// says; adapters left out.
    pub fn num_tensors(&self) -> usize {
        self.blueprint.sizes.names().len()
    }

    /// Tensors in the files of `checkpoint` that the model has no use for.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn unused(&self, checkpoint: &Checkpoint) -> Result<Vec<String>> {
        let used = self.blueprint.sizes.names();
        let store = WeightStore::open_folder(checkpoint.base_folder())?;
        let unused = store.names().filter(|name| !used.contains(*name));
        Ok(unused.map(str::to_owned).collect())
    }

    /// What is needed where large matrices are held in `precision`.
    pub fn in_precision(&self, precision: Precision) -> Footprint {
        let Blueprint {
            sizes,
            vision,
            text,
            images,
            tokens_per_frame,
            is_resampled,
        } = &self.blueprint;
        let wide = |value: usize| value as u64;
        let page = Page::of(images, self.tiles);

        let hidden = wide(text.hidden_size);
        let (q_width, kv_width) = (
            wide(text.num_attention_heads * text.head_dim()),
            wide(text.num_key_value_heads() * text.head_dim()),
        );
        // Half the bytes where attention multiplies bfloat16 anyway.
        let kept = if precision == Precision::F32 {
            FLOAT
        } else {
            FLOAT / 2
        };
        let block = |weights: usize| {
            let is_wide = weights >= WIDE_BYTES;
            let rows = if is_wide {
                wide(WIDE_BLOCK_ROWS)
            } else {
                BLOCK_ROWS
            };
            FLOAT * self.threads * rows
        };
        // Of an MLP with a gate: its weights decide.
        let gated_block = |form: Precision, width: usize, inner: usize| {
            let weights = 3 * matrix_bytes(form, inner, width);
            let is_large = weights >= LARGE_BYTES;
            // On all threads together.
            let large = FLOAT * wide(if is_large { LARGE_BLOCK_ROWS } else { 0 });
            block(weights).max(large) * wide(2 * inner + width)
        };
        let (width, inner) = (wide(vision.hidden_size), wide(vision.intermediate_size));
        let patches = page.frame_pixels / wide(vision.patch_size.pow(2)).max(1);
        // The frame in numbers; the residual stream, queries, keys, values and what attention makes of them.
        let weights = 2 * matrix_bytes(precision, vision.intermediate_size, vision.hidden_size);
        let tower = FLOAT * (3 * page.frame_pixels + patches * 5 * width)
            + block(weights) * (inner + width);
        let resampler = if *is_resampled {
            // What the tower saw, projected, normed; its scratch is still there.
            FLOAT * patches * (2 * hidden)
                + gated_block(
                    precision,
                    text.hidden_size,
                    text.intermediate_size.max(4 * text.hidden_size),
                )
        } else {
            0
        };
        let text_block = gated_block(
            decoding_precision(precision),
            text.hidden_size,
            text.intermediate_size,
        );
        let rotations = FLOAT * wide(text.num_positions() * text.head_dim());
        // Tags around a frame: one token where the vocabulary has them, about ten where it does not.
        let tags = match (page.frames, tokens_per_frame) {
            (1, _) => 4,
            (_, 65..) => 10,
            _ => 3,
        };
        Footprint {
            matrices: sizes.matrix_bytes(precision),
            values: sizes.value_bytes() + rotations,
            shared: sizes.shared_bytes(precision),
            tokenizer: self.tokenizer,
            kv_per_token: wide(text.num_hidden_layers) * 2 * kv_width * kept,
            kv_per_token_int8: wide(text.num_hidden_layers)
                * 2
                * wide(text.num_key_value_heads())
                * (wide(text.head_dim().next_multiple_of(4)) + FLOAT),
            looking: tower + resampler,
            drawn_page: page.drawn,
            cutting: page.cutting,
            frames_per_page: page.frames * 3 * page.frame_pixels,
            // The residual stream, what a norm makes of it, and inside a layer queries, keys, values and attention's
            // result; of a retriever also what was seen, for the index.
            reading_per_token: FLOAT
                * (2 * hidden
                    + 2 * q_width
                    + 2 * kv_width
                    + if self.role == Role::Retriever {
                        hidden
                    } else {
                        0
                    }),
            reading: text_block,
            // Frame by frame, and all together.
            seen_per_token: 2 * FLOAT * hidden,
            kept_per_token: FLOAT / 2 * hidden,
            page_tokens: page.frames * (wide(*tokens_per_frame) + tags),
        }
    }
}

impl Footprint {
    /// The same where keys and values are kept in `precision`.
    #[must_use]
    pub fn keeping(self, precision: KvPrecision) -> Self {
        match precision {
            KvPrecision::Auto => self,
            KvPrecision::Int8 => Self {
                kv_per_token: self.kv_per_token_int8,
                ..self
            },
        }
    }

    /// Keys and values of so many tokens.
    pub fn kv(&self, tokens: u64) -> u64 {
        self.kv_per_token * tokens
    }

    /// The greatest need besides the weights over a prompt of `tokens` tokens about `pages` pages, of which the keys
    /// and values are `kv`: pages are looked at one after another, then everything is read.
    pub fn working(&self, pages: u64, tokens: u64, kv: u64) -> u64 {
        let before = pages.saturating_sub(1);
        let kept = self.kept_per_token * self.page_tokens * before;
        let looking = if pages == 0 {
            0
        } else {
            let frames = self.seen_per_token * self.page_tokens + self.frames_per_page;
            (self.looking + frames).max(self.cutting)
        };
        let reading = kv + self.reading + (self.reading_per_token + self.kept_per_token) * tokens;
        (kept + looking).max(reading)
    }
}

/// A page as a model is shown it.
struct Page {
    frames: u64,
    /// Pixels of the largest frame.
    frame_pixels: u64,
    drawn: u64,
    cutting: u64,
}

impl Page {
    /// The ordinary page that takes most: US Letter, which is a little wider than three quarters of its height and so fills a
    /// square of the longest edge with tiles.
    fn of(config: &PreprocessorConfig, tiles: TileOptions) -> Self {
        let images = ImageProcessor::new(config.clone());
        let edge = images.longest_edge(&tiles);
        let (width, height) = ((edge * 17).div_ceil(22), edge);
        let side = u64::from(config.tile_side);
        let drawn = 3 * u64::from(width) * u64::from(height);
        let plan = images.plan(width, height, &tiles).ok();
        let (frames, stretched) = plan.map_or((1, (edge, edge)), |plan| {
            (plan.grid.num_frames() as u64, plan.stretched)
        });
        Self {
            frames,
            frame_pixels: side * side,
            drawn,
            cutting: 3 * (u64::from(stretched.0) * u64::from(stretched.1) + frames * side * side),
        }
    }
}

/// What a tokenizer takes once it is read: maps of its vocabulary and merges, several times the file.
fn tokenizer_bytes(folder: &Path, base: &Path) -> u64 {
    const TIMES_THE_FILE: u64 = 9;
    [folder, base]
        .iter()
        .find_map(|folder| fs_err::metadata(folder.join("tokenizer.json")).ok())
        .map_or(0, |file| TIMES_THE_FILE * file.len())
}
