"""The published checkpoints: names and shapes of their tensors as transformers, colpali-engine and PEFT have them, on the `meta`
device (no weights).

Configurations are derived from what the repositories publish (their config.json is not copied); where a key was never seen, the
value here is our own and said to be in `unseen`. Layers of one shape are written once, as `layers.*N`.
"""

import re

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    ColPaliConfig,
    ColPaliForRetrieval,
    Idefics2ForConditionalGeneration,
    Idefics3ForConditionalGeneration,
    SmolVLMForConditionalGeneration,
)

from colpali import in_layout
from paths import OUT, write_json

SMALL_TOWER = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=512, patch_size=16)
LARGE_TOWER = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, patch_size=14)
TEXT_256M = dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64,
                 vocab_size=49280, max_position_embeddings=8192, rope_theta=100000.0, rms_norm_eps=1e-5, pad_token_id=2)  # fmt: skip
TEXT_500M = {**TEXT_256M, "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5}
TEXT_2B = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32, num_key_value_heads=32, head_dim=64,
               vocab_size=49155, max_position_embeddings=16384, rope_theta=273768.0, rms_norm_eps=1e-5, pad_token_id=2)  # fmt: skip
LLAMA_8B = dict(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, vocab_size=128259,
    max_position_embeddings=131072, rope_theta=500000.0, rms_norm_eps=1e-5, pad_token_id=128002,
    rope_scaling={"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
)  # fmt: skip
MISTRAL_7B = dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, vocab_size=32003,
                  max_position_embeddings=32768, rope_theta=10000.0, rms_norm_eps=1e-5, pad_token_id=0, sliding_window=4096)  # fmt: skip
LORA = "(.*(model.text_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"
LORA_COLPALI = LORA.replace("model.text_model", "language_model")


def idefics3(model_type: str, text: dict, vision: dict, scale: int, image_token: int) -> dict:
    return {
        "model_type": model_type, "image_token_id": image_token, "scale_factor": scale, "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "tie_word_embeddings": False, **text},
        "vision_config": {"model_type": "idefics3" if model_type == "idefics3" else "smolvlm_vision", **vision},
    }  # fmt: skip


def paligemma() -> dict:
    return {
        "model_type": "paligemma", "image_token_index": 257152, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "hidden_size": 2048,
        "projection_dim": 2048, "vocab_size": 257216,
        "text_config": {"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8, "num_hidden_layers": 18,
                        "num_image_tokens": 1024, "num_key_value_heads": 1, "vocab_size": 257216},
        "vision_config": {"model_type": "siglip_vision_model", **LARGE_TOWER, "image_size": 448, "num_image_tokens": 1024, "projection_dim": 2048,
                          "vision_use_head": False},
    }  # fmt: skip


def idefics2() -> dict:
    return {
        "model_type": "idefics2", "image_token_id": 32001, "tie_word_embeddings": False,
        "text_config": {"model_type": "mistral", **MISTRAL_7B},
        "vision_config": {"model_type": "idefics2", **LARGE_TOWER, "image_size": 980},
        "perceiver_config": {"model_type": "idefics2", "hidden_size": 4096, "resampler_n_latents": 64, "resampler_depth": 3, "resampler_n_heads": 16,
                             "resampler_head_dim": 96, "num_key_value_heads": 4},
    }  # fmt: skip


SMOL = "HuggingFaceTB/SmolVLM"
#: Name, folder of its real files where they were to be had, checkpoint whose tokenizer stands in, kind, configuration, keys never seen.
PUBLISHED = [
    (f"{SMOL}-256M-Instruct", "smolvlm-single", "generator", idefics3("idefics3", TEXT_256M, SMALL_TOWER, 4, 49190), []),
    (f"{SMOL}-500M-Instruct", "smolvlm-single", "generator", idefics3("idefics3", TEXT_500M, SMALL_TOWER, 4, 49190), []),
    (f"{SMOL}-Instruct", "smolvlm-text", "generator", idefics3("idefics3", TEXT_2B, {**LARGE_TOWER, "image_size": 384}, 3, 49153), []),
    (f"{SMOL}-Base", "smolvlm-text", "generator", idefics3("idefics3", TEXT_2B, {**LARGE_TOWER, "image_size": 384}, 3, 49153), []),
    (f"{SMOL}-Synthetic", "smolvlm-text", "generator", idefics3("idefics3", TEXT_2B, {**LARGE_TOWER, "image_size": 384}, 3, 49153), []),
    (f"{SMOL}2-256M-Video-Instruct", "smolvlm-single", "generator", idefics3("smolvlm", TEXT_256M, SMALL_TOWER, 4, 49190), []),
    (f"{SMOL}2-500M-Video-Instruct", "smolvlm-single", "generator", idefics3("smolvlm", TEXT_500M, SMALL_TOWER, 4, 49190), []),
    (f"{SMOL}2-2.2B-Instruct", "smolvlm-single", "generator",
     idefics3("smolvlm", {**TEXT_2B, "vocab_size": 49280, "max_position_embeddings": 8192}, {**LARGE_TOWER, "image_size": 384}, 3, 49190), ["rope_theta"]),
    ("HuggingFaceM4/Idefics3-8B-Llama3", "idefics3-llama3", "generator", idefics3("idefics3", LLAMA_8B, {**LARGE_TOWER, "image_size": 364}, 2, 128257),
     ["max_position_embeddings", "vocab_size"]),
    ("HuggingFaceM4/idefics2-8b", "idefics2", "generator", idefics2(), []),
    ("HuggingFaceM4/idefics2-8b-chatty", "idefics2", "generator", idefics2(), []),
    ("HuggingFaceM4/idefics2-8b-base", "idefics2", "generator", idefics2(), []),
    ("vidore/colSmol-256M", "colsmol-single", "adapter", idefics3("idefics3", TEXT_256M, SMALL_TOWER, 4, 49190), []),
    ("vidore/colSmol-500M", "colsmol-single", "adapter", idefics3("idefics3", TEXT_500M, SMALL_TOWER, 4, 49190), []),
    ("vidore/colsmolvlm-v0.1", "colsmol-text", "adapter", idefics3("idefics3", TEXT_2B, {**LARGE_TOWER, "image_size": 384}, 3, 49153), []),
    ("vidore/colpali-v1.2", "colpali", "adapter", paligemma(), []),
    ("vidore/colpali-v1.3", "colpali", "adapter", paligemma(), []),
    ("vidore/colpali-v1.2-merged", "colpali-merged", "retriever", paligemma(), ["names of tensors"]),
    ("vidore/colpali-v1.3-merged", "colpali-merged", "retriever", paligemma(), ["names of tensors"]),
    ("vidore/colpali-v1.2-hf", "colpali-hf", "retriever", {"model_type": "colpali", "embedding_dim": 128, "vlm_config": paligemma()}, ["names of tensors"]),
    ("vidore/colpali-v1.3-hf", "colpali-hf", "retriever", {"model_type": "colpali", "embedding_dim": 128, "vlm_config": paligemma()}, ["names of tensors"]),
]  # fmt: skip


def model_of(config: dict, kind: str) -> torch.nn.Module:
    from colpali_engine.models import ColIdefics3, ColPali

    with torch.device("meta"):
        if config["model_type"] == "colpali":
            return ColPaliForRetrieval(ColPaliConfig(**config))
        made = AutoConfig.for_model(**config)
        if config["model_type"] == "paligemma":
            return ColPali(made)
        if kind == "adapter":
            return ColIdefics3(made)
        classes = {"idefics2": Idefics2ForConditionalGeneration, "idefics3": Idefics3ForConditionalGeneration, "smolvlm": SmolVLMForConditionalGeneration}
        return classes[config["model_type"]](made)


def as_published(name: str, kind: str, model_type: str) -> str | None:
    """A name of today's classes as the repository spells it; None for what files leave out."""
    if model_type == "paligemma":
        if "lm_head" in name:
            return None  # tied
        if kind == "adapter":
            name = name.replace("model.model.language_model", "model.language_model.model").replace("model.model.vision_tower", "model.vision_tower")
            name = name.replace("model.model.multi_modal_projector", "model.multi_modal_projector")
            return re.sub(r"vision_tower\.(?!vision_model)", "vision_tower.vision_model.", name)
        name = name.replace("model.model.vision_tower.vision_model", "model.model.vision_tower")
        return name
    if model_type == "colpali":
        if "lm_head" in name:
            return None
        name = name.replace("vlm.model.language_model", "model.language_model.model").replace("vlm.model.vision_tower", "model.vision_tower")
        name = name.replace("vlm.model.multi_modal_projector", "model.multi_modal_projector")
        name = re.sub(r"vision_tower\.(?!vision_model)", "vision_tower.vision_model.", name)
        return in_layout(name, "transformers")
    return name


def collapsed(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """`….layers.0.…` to `….layers.29.…` of one shape as `….layers.*30.…`."""
    groups: dict[str, dict[int, list[int]]] = {}
    for name, shape in shapes.items():
        found = re.search(r"layers\.(\d+)\.", name)
        pattern = name if not found else f"{name[: found.start()]}layers.*.{name[found.end() :]}"
        groups.setdefault(pattern, {})[int(found[1]) if found else 0] = shape
    out = {}
    for pattern, numbered in groups.items():
        assert sorted(numbered) == list(range(len(numbered))) and len({tuple(s) for s in numbered.values()}) == 1, pattern
        out[pattern.replace("layers.*.", f"layers.*{len(numbered)}.")] = numbered[0]
    return out


def shapes_of(model: torch.nn.Module, kind: str, model_type: str) -> dict[str, list[int]]:
    named = {as_published(name, kind, model_type): list(value.shape) for name, value in model.state_dict().items()}
    return {name: shape for name, shape in sorted((n, s) for n, s in named.items() if n)}


def adapter_of(model: torch.nn.Module, colpali: bool) -> dict[str, list[int]]:
    config = LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, bias="none", target_modules=LORA_COLPALI if colpali else LORA)
    with torch.device("meta"):
        adapted = get_peft_model(model, config)
    found = {}
    for name, value in adapted.state_dict().items():
        if ".lora_" in name:
            name = name.replace(".default.weight", ".weight")
            if colpali:
                name = name.replace("model.model.model.language_model", "model.model.language_model.model")
            found[name] = list(value.shape)
    return found


def make() -> None:
    out = []
    for name, stand_in, kind, config, unseen in PUBLISHED:
        model = model_of(config, kind)
        tensors = shapes_of(model, kind, config["model_type"])
        entry = {"name": name, "stand_in": stand_in, "kind": kind, "unseen": unseen, "config": config, "tensors": collapsed(tensors)}
        entry["parameters"] = sum(torch.Size(shape).numel() for shape in tensors.values())
        if kind == "adapter":
            adapter = adapter_of(model, "colpali" in name)
            entry["adapter"] = collapsed(adapter)
            entry["target_modules"] = LORA_COLPALI if "colpali" in name else LORA
            entry["adapter_parameters"] = sum(torch.Size(shape).numel() for shape in adapter.values())
        print(f"{name}: {entry['parameters']:,} parameters, {len(tensors)} tensors")
        out.append(entry)
    write_json(OUT / "published.json", out, compact=True)
