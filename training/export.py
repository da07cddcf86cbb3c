"""Writes a trained checkpoint as ordinary Hugging Face folders (bf16):

* `base/`: a complete Idefics3ForConditionalGeneration, the generator, and in the same file the retriever's projection (`linear.*`), so
  that it is a ColIdefics3 base too;
* `retriever/`: a PEFT adapter over `../base`, laid out as vidore/colSmol's.

    python export.py --stage whole --out ../builtin
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from model import ALPHA, LONGEST_EDGE, MOST_ENLARGED, RANK, TILE, TOKENS, Colibri, config, load_tokenizer
from tokenizer import CHAT_TEMPLATE

TARGETS = "(.*(model.text_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
LIMIT = 24_000_000


def adapter_config() -> dict:
    return {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "../base", "bias": "none", "eva_config": None, "exclude_modules": None,
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": "gaussian", "layer_replication": None, "layers_pattern": None,
        "layers_to_transform": None, "loftq_config": {}, "lora_alpha": ALPHA, "lora_bias": False, "lora_dropout": 0.1, "megatron_config": None,
        "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA", "r": RANK, "rank_pattern": {}, "revision": None,
        "target_modules": TARGETS, "task_type": "FEATURE_EXTRACTION", "use_dora": False, "use_rslora": False,
    }


def preprocessor_config(processor: str) -> dict:
    return {
        "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "Idefics3ImageProcessor", "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": TILE}, "processor_class": processor, "resample": 1, "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": LONGEST_EDGE}, "most_enlarged": MOST_ENLARGED,
    }


def model_config(model: Colibri, architecture: str) -> dict:
    """`config.json` in the spelling of the published SmolVLM files: every key in full, `rope_theta` at the top of the text part."""
    text, vision = model.cfg.text_config, model.cfg.vision_config
    pick = lambda part, *names: {name: getattr(part, name) for name in names}
    return {
        "architectures": [architecture], "model_type": "idefics3", "image_token_id": model.cfg.image_token_id, "scale_factor": model.cfg.scale_factor,
        "pad_token_id": 2, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.46.0", "use_cache": True, "vocab_size": text.vocab_size,
        "text_config": {"model_type": "llama", "rope_theta": 10000.0, "rope_scaling": None, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", **pick(
            text, "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps",
            "max_position_embeddings", "vocab_size", "pad_token_id", "attention_bias", "attention_dropout", "mlp_bias", "tie_word_embeddings", "initializer_range")},
        "vision_config": {"model_type": "idefics3", "max_image_size": {"longest_edge": TILE}, "size": {"longest_edge": LONGEST_EDGE}, "tie_word_embeddings": False, **pick(
            vision, "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size", "patch_size", "hidden_act",
            "layer_norm_eps", "attention_dropout", "initializer_range")},
    }


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def common(folder: Path, tokenizer: Path, processor: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    write_json(folder / "preprocessor_config.json", preprocessor_config(processor))
    write_json(folder / "processor_config.json", {"image_seq_len": TOKENS, "processor_class": processor})


def export(runs: Path, stage: str, out: Path) -> None:
    tokenizer = runs / "tokenizer"
    model = Colibri(config(load_tokenizer(tokenizer)))
    model.load_state_dict(torch.load(runs / f"{stage}.pt", weights_only=True, map_location="cpu")["model"])
    base, adapter = {}, {}
    for name, value in model.state_dict().items():
        value = value.to(torch.bfloat16).contiguous()
        if ".lora_" in name:
            adapter[f"base_model.model.{name}.weight"] = value
        else:
            base[name.replace(".base.weight", ".weight")] = value
    metadata = {"format": "pt"}
    common(out / "base", tokenizer, "Idefics3Processor")
    save_file(base, out / "base" / "model.safetensors", metadata)
    write_json(out / "base" / "config.json", model_config(model, "Idefics3ForConditionalGeneration"))
    end = load_tokenizer(tokenizer).token_to_id("<end_of_utterance>")
    write_json(out / "base" / "generation_config.json", {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": end, "pad_token_id": 2, "transformers_version": "4.46.0"})
    common(out / "retriever", tokenizer, "ColIdefics3Processor")
    save_file(adapter, out / "retriever" / "adapter_model.safetensors", metadata)
    write_json(out / "retriever" / "adapter_config.json", adapter_config())
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files for their owner alone
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {size / 1e6:.2f} MB, {sum(v.numel() for v in base.values()) / 1e6:.2f} M parameters in the base")
    if size > LIMIT:
        raise SystemExit(f"`{out}` is {size} bytes, more than the {LIMIT} it may be")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent
    parser.add_argument("--runs", type=Path, default=here / "runs")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--out", type=Path, default=here.parent / "builtin")
    options = parser.parse_args()
    export(options.runs, options.stage, options.out)


if __name__ == "__main__":
    main()
