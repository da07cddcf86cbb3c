"""Times llama.cpp on a generator folder, for comparison with `colibri bench` on the same shape.

    python tools/compare/llama.py FOLDER [bf16|q8_0|q4_0] [RUNS]

The folder is a checkpoint of true shape made of noise (`cargo run -p colibri-testkit --example
random_checkpoint`). Its weights become two GGUF files beside it, text model and vision tower, with a made-up
vocabulary: llama.cpp wants the tags of a page as tokens. One page of US Letter at 200 dpi, 17 tiles, goes through
`mtmd` as it would in `llama-server`: split, encoded, read; then 64 tokens are written one by one. Two threads,
flash attention as llama.cpp chooses it.

    pip install "llama-cpp-python[server]==0.3.36" gguf     # builds from source
"""

import ctypes
import json
import sys
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import torch
from llama_cpp import mtmd_cpp as mtmd
from safetensors import safe_open

THREADS = 2
CONTEXT = 8192
NEW_TOKENS = 64
KINDS = {
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}


def put(writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor, kind: gguf.GGMLQuantizationType) -> None:
    """Matrices in the wanted type, or in bf16 where blocks of 32 do not fit into a row; all else in f32."""
    values = tensor.to(torch.float32).numpy()
    if values.ndim < 2:
        kind = gguf.GGMLQuantizationType.F32
    elif values.shape[-1] % 32 and kind != gguf.GGMLQuantizationType.F32:
        kind = gguf.GGMLQuantizationType.BF16
    data = values if kind == gguf.GGMLQuantizationType.F32 else gguf.quants.quantize(values, kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def tokens(count: int) -> tuple[list[str], list[int]]:
    """A vocabulary with the bytes, the line breaks and tags that the page needs, and filler."""
    alphabet = [chr(c) for c in range(33, 127)] + [chr(c) for c in range(161, 427)]
    tags = ["<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<image>"]
    tags += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    ordinary = alphabet + ["\u010a\u010a"]
    filler = [f"filler{index}" for index in range(count - len(ordinary) - len(tags))]
    kinds = [gguf.TokenType.NORMAL] * (len(ordinary) + len(filler)) + [gguf.TokenType.CONTROL] * len(tags)
    return ordinary + filler + tags, kinds


def write_text(path: Path, config: dict, weights, kind) -> None:
    text = config["text_config"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_rope_dimension_count(text["hidden_size"] // text["num_attention_heads"])
    writer.add_rope_freq_base(text["rope_theta"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    names, kinds = tokens(text["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges(["\u010a \u010a"])
    writer.add_bos_token_id(names.index("<|im_start|>"))
    writer.add_eos_token_id(names.index("<end_of_utterance>"))
    at = "model.text_model"
    put(writer, "token_embd.weight", weights(f"{at}.embed_tokens.weight"), kind)
    put(writer, "output_norm.weight", weights(f"{at}.norm.weight"), kind)
    put(writer, "output.weight", weights("lm_head.weight"), kind)
    layer_names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    for layer in range(text["num_hidden_layers"]):
        for to, name in layer_names.items():
            put(writer, f"blk.{layer}.{to}.weight", weights(f"{at}.layers.{layer}.{name}.weight"), kind)
    finish(writer)


def write_vision(path: Path, config: dict, weights, kind) -> None:
    vision = config["vision_config"]
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "idefics3")
    writer.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "embedding_length": vision["hidden_size"],
        "feed_forward_length": vision["intermediate_size"],
        "block_count": vision["num_hidden_layers"],
        "attention.head_count": vision["num_attention_heads"],
        "projection_dim": config["text_config"]["hidden_size"],
        "projector.scale_factor": config["scale_factor"],
        "preproc_image_size": 4 * vision["image_size"],
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)
    at = "model.vision_model"
    put(writer, "v.patch_embd.weight", weights(f"{at}.embeddings.patch_embedding.weight"), gguf.GGMLQuantizationType.F32)
    put(writer, "v.patch_embd.bias", weights(f"{at}.embeddings.patch_embedding.bias"), kind)
    position = weights(f"{at}.embeddings.position_embedding.weight")
    put(writer, "v.position_embd.weight", position, gguf.GGMLQuantizationType.F32)
    layer_names = {
        "ln1": "layer_norm1",
        "ln2": "layer_norm2",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_out": "self_attn.out_proj",
        "ffn_up": "mlp.fc1",
        "ffn_down": "mlp.fc2",
    }
    for layer in range(vision["num_hidden_layers"]):
        for to, name in layer_names.items():
            for part in ("weight", "bias"):
                put(writer, f"v.blk.{layer}.{to}.{part}", weights(f"{at}.encoder.layers.{layer}.{name}.{part}"), kind)
    for part in ("weight", "bias"):
        put(writer, f"v.post_ln.{part}", weights(f"{at}.post_layernorm.{part}"), kind)
    put(writer, "mm.model.fc.weight", weights("model.connector.modality_projection.proj.weight"), kind)
    finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def page() -> np.ndarray:
    """The page of crates/models/benches/page.rs: no two tiles alike."""
    x, y = np.meshgrid(np.arange(1700), np.arange(2200))
    ink = (x * 7 + y * 13 + (x // 9) * (y // 17)) % 61 < 9
    picture = np.full((2200, 1700, 3), 255, dtype=np.uint8)
    picture[ink] = 20
    return picture


def main() -> None:
    folder = Path(sys.argv[1])
    name = sys.argv[2] if len(sys.argv) > 2 else "bf16"
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    text_path, vision_path = folder / f"text-{name}.gguf", folder / f"vision-{name}.gguf"
    if not vision_path.exists():
        config = json.loads((folder / "config.json").read_text())
        with safe_open(folder / "model.safetensors", "pt") as file:
            write_text(text_path, config, file.get_tensor, KINDS[name])
            write_vision(vision_path, config, file.get_tensor, KINDS[name])

    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    for set_log in (llama_cpp.llama_log_set, mtmd.mtmd_log_set, mtmd.mtmd_helper_log_set):
        set_log(quiet, None)
    no_callback = ctypes.cast(None, mtmd.mtmd_helper_post_decode_callback)
    model = llama_cpp.llama_model_load_from_file(str(text_path).encode(), llama_cpp.llama_model_default_params())
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = CONTEXT, 2048, 512
    options.n_threads = options.n_threads_batch = THREADS
    context = llama_cpp.llama_init_from_model(model, options)
    vision_options = mtmd.mtmd_context_params_default()
    vision_options.n_threads, vision_options.use_gpu, vision_options.print_timings = THREADS, False, False
    vision = mtmd.mtmd_init_from_file(str(vision_path).encode(), model, vision_options)
    assert model and context and vision, "llama.cpp refuses the files"
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary)

    picture = page()
    bitmap = mtmd.mtmd_bitmap_init(1700, 2200, picture.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    prompt = b"<|im_start|>" + mtmd.mtmd_default_marker() + b"What is shown?<end_of_utterance>"
    for _ in range(runs):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        started = time.time()
        chunks = mtmd.mtmd_input_chunks_init()
        text = mtmd.mtmd_input_text(text=prompt, text_len=len(prompt), add_special=False, parse_special=True)
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        assert mtmd.mtmd_tokenize(vision, chunks, ctypes.byref(text), bitmaps, 1) == 0
        past, looking = ctypes.c_int32(0), 0.0
        count = mtmd.mtmd_input_chunks_size(chunks)
        for index in range(count):
            chunk = mtmd.mtmd_input_chunks_get(chunks, index)
            if mtmd.mtmd_input_chunk_get_type(chunk) == 0:
                assert not mtmd.mtmd_helper_eval_chunk_single(
                    vision, context, chunk, past.value, 0, 2048, index == count - 1, ctypes.byref(past)
                )
                continue
            before = time.time()
            assert not mtmd.mtmd_encode_chunk(vision, chunk)
            looking += time.time() - before
            embedded = mtmd.mtmd_get_output_embd(vision)
            assert not mtmd.mtmd_helper_decode_image_chunk(
                vision, context, chunk, embedded, past.value, 0, 2048, ctypes.byref(past), no_callback, None
            )
        first = time.time() - started
        mtmd.mtmd_input_chunks_free(chunks)
        depth = past.value
        started = time.time()
        for step in range(NEW_TOKENS):
            row = llama_cpp.llama_get_logits_ith(context, -1)
            best = int(np.ctypeslib.as_array(row, shape=(size,)).argmax())
            one = (llama_cpp.llama_token * 1)(best)
            assert not llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1))
        decode = NEW_TOKENS / (time.time() - started)
        # The same number of tokens at once: how fast the text model reads where nothing interrupts it.
        ids = (llama_cpp.llama_token * depth)(*(7 + index % 200 for index in range(depth)))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        started = time.time()
        assert not llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, depth))
        prefill = time.time() - started
        print(
            f"{name}: tower {looking:.3f} s, first token after {depth} tokens {first:.3f} s, "
            f"prefill at once {prefill:.3f} s, then {decode:.1f} tokens/s",
            flush=True,
        )


main()
