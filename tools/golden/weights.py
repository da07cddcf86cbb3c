"""Random weights under the names and shapes that the published checkpoints use, and how they are stored.

Each tensor has a generator of its own, seeded by the checkpoint's seed and the tensor's name: two checkpoints
with one seed share every tensor they have in common, as a ColSmol base and its SmolVLM do.
"""

import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from paths import write_json

SMALL = 0.02
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def normal(seed: int, name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> torch.Tensor:
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    values = generator.standard_normal(shape, dtype=np.float64) * std + mean
    return torch.from_numpy(values.astype(np.float32))


def linear(seed: int, name: str, rows: int, cols: int, gain: float) -> torch.Tensor:
    """Standard deviation `gain / sqrt(inputs)`: a unit input gives outputs of about `gain`."""
    return normal(seed, name, (rows, cols), gain / cols**0.5)


def vision_weights(seed: int, config: dict, prefix: str, small: bool) -> dict[str, torch.Tensor]:
    hidden, mlp, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    side = config["image_size"] // patch
    out: dict[str, torch.Tensor] = {}

    def add(name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> None:
        out[prefix + name] = normal(seed, prefix + name, shape, std, mean)

    scale = SMALL if small else 1.0
    inputs = 3 * patch * patch
    add("embeddings.patch_embedding.weight", (hidden, 3, patch, patch), scale * 1.2 / inputs**0.5)
    add("embeddings.patch_embedding.bias", (hidden,), scale * 0.2)
    add("embeddings.position_embedding.weight", (side * side, hidden), scale * 0.5)
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{index}."
        for norm in ("layer_norm1", "layer_norm2"):
            add(layer + norm + ".weight", (hidden,), 0.2, 1.0)
            add(layer + norm + ".bias", (hidden,), 0.1)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            add(layer + f"self_attn.{name}.weight", (hidden, hidden), 1.2 / hidden**0.5)
            add(layer + f"self_attn.{name}.bias", (hidden,), 0.1)
        # Around -2 the tanh form of GELU and the exact one differ by some per cent of a value.
        add(layer + "mlp.fc1.weight", (mlp, hidden), (0.4 if small else 1.2) / hidden**0.5)
        add(layer + "mlp.fc1.bias", (mlp,), 0.1, -2.2 if small else 0.0)
        add(layer + "mlp.fc2.weight", (hidden, mlp), (24.0 if small else 1.2) / mlp**0.5)
        add(layer + "mlp.fc2.bias", (hidden,), 0.1)
    add("post_layernorm.weight", (hidden,), 0.2, 1.0)
    add("post_layernorm.bias", (hidden,), 0.1)
    return out


def text_weights(seed: int, config: dict, prefix: str, small: bool) -> dict[str, torch.Tensor]:
    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    values = config["num_key_value_heads"] * config["head_dim"]
    out: dict[str, torch.Tensor] = {}

    def add(name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> None:
        out[prefix + name] = normal(seed, prefix + name, shape, std, mean)

    add("embed_tokens.weight", (config["vocab_size"], hidden), SMALL if small else 0.7)
    for index in range(config["num_hidden_layers"]):
        layer = f"layers.{index}."
        add(layer + "input_layernorm.weight", (hidden,), 0.2, 1.0)
        add(layer + "self_attn.q_proj.weight", (queries, hidden), 1.8 / hidden**0.5)
        add(layer + "self_attn.k_proj.weight", (values, hidden), 1.8 / hidden**0.5)
        add(layer + "self_attn.v_proj.weight", (values, hidden), 1.8 / hidden**0.5)
        add(layer + "self_attn.o_proj.weight", (hidden, queries), 1.8 / queries**0.5)
        add(layer + "post_attention_layernorm.weight", (hidden,), 0.2, 1.0)
        add(layer + "mlp.gate_proj.weight", (mlp, hidden), 1.8 / hidden**0.5)
        add(layer + "mlp.up_proj.weight", (mlp, hidden), 1.8 / hidden**0.5)
        add(layer + "mlp.down_proj.weight", (hidden, mlp), 1.8 / mlp**0.5)
    add("norm.weight", (hidden,), 0.2, 1.0)
    return out


def model_weights(seed: int, vision: dict, text: dict, scale_factor: int, small: bool) -> dict:
    """Everything under `model.`: vision tower, connector, text model.

    `small` makes what enters both towers so small that the epsilons of their first norms show, and feeds GELU where
    its two forms differ: choices that are lost in the tolerance otherwise.
    """
    out = vision_weights(seed, vision, "model.vision_model.", small)
    name = "model.connector.modality_projection.proj.weight"
    out[name] = linear(seed, name, text["hidden_size"], vision["hidden_size"] * scale_factor**2, SMALL if small else 1.0)
    out.update(text_weights(seed, text, "model.text_model.", small))
    return out


def adapter_weights(seed: int, text: dict, rank: int) -> dict[str, torch.Tensor]:
    """PEFT's names for a LoRA over every projection of the text model; `lora_B` is not zero as it would be untrained."""
    hidden, mlp = text["hidden_size"], text["intermediate_size"]
    queries = text["num_attention_heads"] * text["head_dim"]
    values = text["num_key_value_heads"] * text["head_dim"]
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (values, hidden),
        "self_attn.v_proj": (values, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    out: dict[str, torch.Tensor] = {}
    for index in range(text["num_hidden_layers"]):
        for module, (rows, cols) in shapes.items():
            name = f"base_model.model.model.text_model.layers.{index}.{module}"
            out[f"{name}.lora_A.weight"] = linear(seed, f"{name}.lora_A", rank, cols, 0.7)
            out[f"{name}.lora_B.weight"] = linear(seed, f"{name}.lora_B", rows, rank, 0.7)
    return out


def save(folder: Path, tensors: dict[str, torch.Tensor], dtype: str, shards: int = 1,
         name: str = "model.safetensors") -> None:  # fmt: skip
    """One file, or `shards` files of about equal size with `model.safetensors.index.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {key: value.to(DTYPES[dtype]).contiguous() for key, value in tensors.items()}
    if shards == 1:
        save_file(stored, folder / name, metadata={"format": "pt"})
        return
    total = sum(value.nbytes for value in stored.values())
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    seen = 0
    for key, value in stored.items():
        parts[min(shards - 1, seen * shards // total)][key] = value
        seen += value.nbytes
    weight_map = {}
    for index, part in enumerate(parts):
        file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update({key: file for key in part})
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )
