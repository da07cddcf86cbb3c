//! What a model will hold in memory, told before anything is loaded: from its configuration and from the headers
//! of its files.
//!
//! Weights are counted exactly, tensor by tensor. What passes through the model is counted from the shapes of its
//! largest layer; that the sum is within a few per cent of what the kernel counts is tested on the true shapes.

use std::path::Path;

use colibri_nn::{
    Precision,
    weights::{WeightStore, adapter_precision, matrix_bytes, table_precision},
};

use crate::{
    Result,
    processor::TileOptions,
    registry::{Checkpoint, idefics3_config},
    vlm::idefics3::Config,
};

/// What the model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pages and questions to rows.
    Retriever,
    /// Pictures and conversations to text.
    Generator,
}

/// Rows that go through a half-block at a time on one thread (`colibri_kernels::parallel`), with some room.
const BLOCK_ROWS: u64 = 112;
/// Bytes of an `f32`.
const FLOAT: u64 = 4;

/// Bytes a model needs, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Matrices, tables, norms, adapters.
    pub weights: u64,
    /// The tokenizer and its tables.
    pub tokenizer: u64,
    /// Keys and values of one token.
    pub kv_per_token: u64,
    /// Passing values while one tile is looked at, the page's pixels included.
    pub looking: u64,
    /// Passing values for each token of a prompt while it is read.
    pub reading_per_token: u64,
    /// The same, however long it is.
    pub reading: u64,
    /// What was seen, for each token of a prompt.
    pub seen_per_token: u64,
    /// The tiles of one page.
    pub tiles_per_page: u64,
    /// Tokens of one page.
    pub page_tokens: u64,
}

impl Footprint {
    /// Counts what `checkpoint` will need in `precision` on `threads` threads. Of one whose weights are made up
    /// there is nothing but its configuration. `None` for architectures other than Idefics3, whose needs have not
    /// been measured.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn of(
        checkpoint: &Checkpoint,
        is_made_up: bool,
        role: Role,
        precision: Precision,
        tiles: &TileOptions,
        threads: usize,
    ) -> Result<Option<Self>> {
        let base = checkpoint.base_folder();
        let Some(config) = idefics3_config(base)? else {
            return Ok(None);
        };
        let tied = config.tie_word_embeddings || config.text_config.tie_word_embeddings;
        let mut weights = 0;
        if is_made_up {
            for (name, shape) in tensors(&config, role) {
                weights += tensor_bytes(&name, &shape, precision);
            }
        } else {
            let store = WeightStore::open_folder(base)?;
            for name in store.names() {
                let is_left_out = match role {
                    Role::Retriever => name.starts_with("lm_head."),
                    Role::Generator => {
                        name.starts_with("linear.") || (tied && name.starts_with("lm_head."))
                    }
                };
                if !is_left_out {
                    weights += tensor_bytes(name, store.shape(name).unwrap_or_default(), precision);
                }
            }
        }
        if checkpoint.base.is_some() && !is_made_up {
            let file = checkpoint.folder.join("adapter_model.safetensors");
            let adapter = WeightStore::open_files(&[file])?;
            for name in adapter.names() {
                weights += tensor_bytes(name, adapter.shape(name).unwrap_or_default(), precision);
            }
        }
        let (vision, text) = (&config.vision_config, &config.text_config);
        let wide = |value: usize| value as u64;
        let per_side = tiles.detail.map_or(4, |detail| u64::from(detail.get()));
        let num_tiles = per_side * per_side + 1;
        let tokens_per_tile = wide(config.tokens_per_tile());
        // Tags are one token where the vocabulary has them, about ten where it does not.
        let tags = if tokens_per_tile > 64 { 10 } else { 3 };
        let page_tokens = num_tiles * (tokens_per_tile + tags);

        let hidden = wide(text.hidden_size);
        let (q_width, kv_width) = (
            wide(text.num_attention_heads * text.head_dim()),
            wide(text.num_key_value_heads() * text.head_dim()),
        );
        let kept = if precision == Precision::F32 {
            FLOAT
        } else {
            FLOAT / 2
        };
        let threads = wide(threads);

        let patches = wide(vision.patches_per_side().pow(2));
        let side = wide(vision.image_size);
        let (width, inner) = (wide(vision.hidden_size), wide(vision.intermediate_size));
        let pixels = 3 * side * side;
        // Patches, embedded patches, the residual stream and what attention takes beside it.
        let tower = FLOAT * patches * (pixels.div_ceil(patches) + 6 * width);
        let blocks = FLOAT * threads * BLOCK_ROWS * (inner + 2 * width);
        let tiles_per_page = pixels * num_tiles;
        let text_blocks =
            FLOAT * threads * BLOCK_ROWS * (2 * wide(text.intermediate_size) + 2 * hidden);
        Ok(Some(Self {
            weights,
            tokenizer: tokenizer_bytes(&checkpoint.folder, base),
            kv_per_token: wide(text.num_hidden_layers) * 2 * kv_width * kept,
            // The page as resized, its tiles, one of them as numbers.
            looking: tower
                + blocks
                + pixels * per_side * per_side
                + tiles_per_page
                + FLOAT * pixels,
            reading_per_token: FLOAT * (4 * hidden + 2 * q_width + 2 * kv_width),
            reading: text_blocks,
            // Of each tile and all together.
            seen_per_token: 2 * FLOAT * hidden,
            tiles_per_page,
            page_tokens,
        }))
    }

    /// Keys and values of so many tokens.
    pub fn kv(&self, tokens: u64) -> u64 {
        self.kv_per_token * tokens
    }

    /// The greatest need besides the weights over a prompt of `tokens` tokens about `pages` pages, of which the keys
    /// and values are `kv`: first all pages are looked at, then everything is read.
    pub fn working(&self, pages: u64, tokens: u64, kv: u64) -> u64 {
        let seen = self.seen_per_token * tokens;
        let looking = self.looking + self.tiles_per_page * pages.saturating_sub(1) + seen;
        let reading = kv
            + self.reading
            + self.reading_per_token * tokens
            + seen
            + self.tiles_per_page * pages;
        looking.max(reading)
    }
}

/// The matrices of a checkpoint of which there is only the configuration; a retriever has an adapter of rank 32.
fn tensors(config: &Config, role: Role) -> Vec<(String, Vec<usize>)> {
    const RANK: usize = 32;
    let (vision, text) = (&config.vision_config, &config.text_config);
    let (width, inner) = (vision.hidden_size, vision.intermediate_size);
    let mut all = vec![
        vec![width, 3 * vision.patch_size * vision.patch_size],
        vec![text.hidden_size, width * config.scale_factor().pow(2)],
    ];
    for _ in 0..vision.num_hidden_layers {
        all.extend(std::iter::repeat_n(vec![width, width], 4));
        all.extend([vec![inner, width], vec![width, inner]]);
    }
    let (hidden, inner) = (text.hidden_size, text.intermediate_size);
    let (q_width, kv_width) = (
        text.num_attention_heads * text.head_dim(),
        text.num_key_value_heads() * text.head_dim(),
    );
    let mut list: Vec<(String, Vec<usize>)> = Vec::new();
    for _ in 0..text.num_hidden_layers {
        for (outputs, inputs) in [
            (q_width, hidden),
            (kv_width, hidden),
            (kv_width, hidden),
            (hidden, q_width),
            (inner, hidden),
            (inner, hidden),
            (hidden, inner),
        ] {
            all.push(vec![outputs, inputs]);
            if role == Role::Retriever {
                list.push(("lora_A".to_owned(), vec![RANK, inputs]));
                list.push(("lora_B".to_owned(), vec![outputs, RANK]));
            }
        }
    }
    let positions = vision.patches_per_side().pow(2);
    list.push(("position_embedding".to_owned(), vec![positions, width]));
    list.push((
        "embed_tokens.weight".to_owned(),
        vec![text.vocab_size, hidden],
    ));
    if role == Role::Generator && !config.tie_word_embeddings && !text.tie_word_embeddings {
        all.push(vec![text.vocab_size, hidden]);
    }
    list.extend(all.into_iter().map(|shape| ("matrix".to_owned(), shape)));
    list
}

/// Bytes of one tensor as it is held.
fn tensor_bytes(name: &str, shape: &[usize], precision: Precision) -> u64 {
    let Some((&outputs, rest)) = shape.split_first() else {
        return FLOAT;
    };
    let inputs: usize = rest.iter().product();
    if rest.is_empty() || name.contains("position_embedding") {
        return FLOAT * (outputs * inputs) as u64;
    }
    let precision = if name.ends_with("embed_tokens.weight") {
        table_precision(precision)
    } else if name.contains("lora_") {
        adapter_precision(precision)
    } else {
        precision
    };
    matrix_bytes(precision, outputs, inputs) as u64
}

/// What a tokenizer takes once it is read: maps of its vocabulary and merges, several times the file.
fn tokenizer_bytes(folder: &Path, base: &Path) -> u64 {
    const TIMES_THE_FILE: u64 = 9;
    [folder, base]
        .iter()
        .find_map(|folder| fs_err::metadata(folder.join("tokenizer.json")).ok())
        .map_or(0, |file| TIMES_THE_FILE * file.len())
}
