//! Checkpoints of the published shapes, made of noise: for speed, memory and end-to-end paths, where the
//! values do not matter but every size does.

use std::{io::Write, path::Path};

use half::bf16;
use serde_json::json;

/// The published shapes (`config.json` of each model).
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Side of a tile in pixels.
    pub tile: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Patches along the side of a visual token.
    pub scale_factor: usize,
    /// Width, MLP width, layers, heads of the tower.
    pub vision: [usize; 4],
    /// Width, MLP width, layers, query heads, key heads of the text model.
    pub text: [usize; 5],
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

/// SmolVLM-256M-Instruct and colSmol-256M.
pub const SMOLVLM_256M: Shape = Shape {
    tile: 512,
    patch: 16,
    scale_factor: 4,
    vision: [768, 3072, 12, 12],
    text: [576, 1536, 30, 9, 3],
    vocabulary: 49_280,
    rope_theta: 100_000.0,
};

/// SmolVLM-Instruct, of 2.2 thousand million weights.
pub const SMOLVLM_2B: Shape = Shape {
    tile: 384,
    patch: 14,
    scale_factor: 3,
    vision: [1152, 4304, 27, 16],
    text: [2048, 8192, 24, 32, 32],
    vocabulary: 49_155,
    rope_theta: 130_000.0,
};

/// The same structure at a hundredth of the size, for tests that need only the paths.
pub const TINY: Shape = Shape {
    tile: 64,
    patch: 8,
    scale_factor: 2,
    vision: [32, 64, 2, 2],
    text: [48, 96, 2, 3, 1],
    vocabulary: 1024,
    rope_theta: 10_000.0,
};

/// What the checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// With `lm_head`.
    Generator,
    /// With `linear`, 128 wide.
    Retriever,
}

/// Writes a checkpoint of noise to `folder`: weights in bf16, configuration, and the tokenizer of the golden
/// checkpoints, whose ids fit into every vocabulary here.
///
/// # Panics
/// When a file cannot be read or written.
pub fn write_checkpoint(folder: &Path, shape: &Shape, role: Role) {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models/tests/golden/checkpoints/smolvlm-single");
    let known = fs_err::read(tokenizer.join("config.json")).expect("the golden checkpoints");
    let known: serde_json::Value = serde_json::from_slice(&known).expect("a configuration");
    let image_token_id = &known["image_token_id"];
    fs_err::create_dir_all(folder).expect("a folder");
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.json",
        "generation_config.json",
    ] {
        let from = tokenizer.join(name);
        if from.is_file() {
            fs_err::copy(from, folder.join(name)).expect("a tokenizer file");
        }
    }
    let [vision_width, vision_inner, vision_layers, vision_heads] = shape.vision;
    let [text_width, text_inner, text_layers, q_heads, kv_heads] = shape.text;
    let config = json!({
        "architectures": [match role { Role::Generator => "Idefics3ForConditionalGeneration", Role::Retriever => "ColIdefics3" }],
        "model_type": "idefics3",
        "image_token_id": image_token_id,
        "scale_factor": shape.scale_factor,
        "tie_word_embeddings": false,
        "text_config": {
            "model_type": "llama", "hidden_size": text_width, "intermediate_size": text_inner,
            "num_hidden_layers": text_layers, "num_attention_heads": q_heads, "num_key_value_heads": kv_heads,
            "vocab_size": shape.vocabulary, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
            "rope_theta": shape.rope_theta, "tie_word_embeddings": false,
        },
        "vision_config": {
            "hidden_size": vision_width, "intermediate_size": vision_inner, "num_hidden_layers": vision_layers,
            "num_attention_heads": vision_heads, "image_size": shape.tile, "patch_size": shape.patch,
        },
    });
    let processor = json!({
        "do_convert_rgb": true, "do_image_splitting": true, "do_normalize": true, "do_pad": true,
        "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Idefics3ImageProcessor", "max_image_size": {"longest_edge": shape.tile},
        "resample": 1, "rescale_factor": 1.0 / 255.0, "size": {"longest_edge": 4 * shape.tile},
    });
    let write = |name: &str, value: &serde_json::Value| {
        fs_err::write(folder.join(name), value.to_string()).expect("a configuration file");
    };
    write("config.json", &config);
    write("preprocessor_config.json", &processor);
    let tokens = (shape.tile / shape.patch / shape.scale_factor).pow(2);
    write("processor_config.json", &json!({"image_seq_len": tokens}));
    write_weights(&folder.join("model.safetensors"), &tensors(shape, role));
}

/// Names and shapes, as published.
fn tensors(shape: &Shape, role: Role) -> Vec<(String, Vec<usize>)> {
    let [width, inner, layers, _] = shape.vision;
    let mut list: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize]| list.push((name, shape.to_vec()));
    let vision = "model.vision_model";
    add(
        format!("{vision}.embeddings.patch_embedding.weight"),
        &[width, 3, shape.patch, shape.patch],
    );
    add(
        format!("{vision}.embeddings.patch_embedding.bias"),
        &[width],
    );
    add(
        format!("{vision}.embeddings.position_embedding.weight"),
        &[(shape.tile / shape.patch).pow(2), width],
    );
    for layer in 0..layers {
        let at = format!("{vision}.encoder.layers.{layer}");
        for norm in ["layer_norm1", "layer_norm2"] {
            add(format!("{at}.{norm}.weight"), &[width]);
            add(format!("{at}.{norm}.bias"), &[width]);
        }
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            add(format!("{at}.self_attn.{name}.weight"), &[width, width]);
            add(format!("{at}.self_attn.{name}.bias"), &[width]);
        }
        for (name, out, inputs) in [("fc1", inner, width), ("fc2", width, inner)] {
            add(format!("{at}.mlp.{name}.weight"), &[out, inputs]);
            add(format!("{at}.mlp.{name}.bias"), &[out]);
        }
    }
    add(format!("{vision}.post_layernorm.weight"), &[width]);
    add(format!("{vision}.post_layernorm.bias"), &[width]);
    let [hidden, text_inner, text_layers, q_heads, kv_heads] = shape.text;
    let head_dim = hidden / q_heads;
    add(
        "model.connector.modality_projection.proj.weight".into(),
        &[hidden, width * shape.scale_factor.pow(2)],
    );
    add(
        "model.text_model.embed_tokens.weight".into(),
        &[shape.vocabulary, hidden],
    );
    for layer in 0..text_layers {
        let at = format!("model.text_model.layers.{layer}");
        add(format!("{at}.input_layernorm.weight"), &[hidden]);
        add(format!("{at}.post_attention_layernorm.weight"), &[hidden]);
        for (name, out, inputs) in [
            ("self_attn.q_proj", q_heads * head_dim, hidden),
            ("self_attn.k_proj", kv_heads * head_dim, hidden),
            ("self_attn.v_proj", kv_heads * head_dim, hidden),
            ("self_attn.o_proj", hidden, q_heads * head_dim),
            ("mlp.gate_proj", text_inner, hidden),
            ("mlp.up_proj", text_inner, hidden),
            ("mlp.down_proj", hidden, text_inner),
        ] {
            add(format!("{at}.{name}.weight"), &[out, inputs]);
        }
    }
    add("model.text_model.norm.weight".into(), &[hidden]);
    match role {
        Role::Generator => add("lm_head.weight".into(), &[shape.vocabulary, hidden]),
        Role::Retriever => {
            add("linear.weight".into(), &[128, hidden]);
            add("linear.bias".into(), &[128]);
        }
    }
    list
}

fn write_weights(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, shape) in tensors {
        let bytes = 2 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + bytes]}),
        );
        offset += bytes;
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = fs_err::File::create(path).expect("a weight file");
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    out.write_all(&(header.len() as u64).to_le_bytes())
        .expect("a header");
    out.write_all(header.as_bytes()).expect("a header");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for (name, shape) in tensors {
        let count: usize = shape.iter().product();
        // Norm weights around one, matrices scaled by their inputs: activations keep their size through
        // thirty layers, as in a trained model.
        let is_norm = name.contains("norm") && name.ends_with("weight");
        let inputs: usize = shape[1..].iter().product::<usize>().max(1);
        let scale = if shape.len() == 1 {
            0.02
        } else {
            (3.0 / inputs as f32).sqrt()
        };
        for _ in 0..count {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let uniform = (state >> 40) as f32 / (1_u32 << 24) as f32 * 2.0 - 1.0;
            let value = uniform * scale + if is_norm { 1.0 } else { 0.0 };
            out.write_all(&bf16::from_f32(value).to_le_bytes())
                .expect("weights");
        }
    }
    out.flush().expect("weights");
}
