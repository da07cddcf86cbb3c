"""Gives a checkpoint outlier channels without changing what it computes, to measure low precision as it meets it in
trained towers: random weights have none.

    python tools/compare/outliers.py FOLDER OUT [PERCENT] [FACTOR]

One percent of the channels behind every norm, every value projection and every `up_proj` is multiplied by 64, and the
weights that read them are divided by as much; both are exact in bfloat16. What the network computes in exact
arithmetic stays the same.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
percent = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
factor = float(sys.argv[4]) if len(sys.argv) > 4 else 64.0
torch.manual_seed(0)
out.mkdir(parents=True, exist_ok=True)
for file in folder.iterdir():
    if file.is_file() and file.suffix != ".safetensors":
        shutil.copy(file, out / file.name)
state = load_file(folder / "model.safetensors")


def chosen(width):
    return torch.randperm(width)[: max(1, round(width * percent / 100))]


def grow(names, channels):
    for name in names:
        if name in state:
            state[name][channels] *= factor


def shrink(names, channels):
    for name in names:
        if name in state:
            state[name][:, channels] /= factor


places = 0
for name in sorted(state):
    at, _, last = name.rpartition(".")
    if last != "weight":
        continue
    layer, _, part = at.rpartition(".")
    if part in ("layer_norm1", "input_layernorm"):
        readers = [f"{layer}.self_attn.{p}.weight" for p in ("q_proj", "k_proj", "v_proj")]
    elif part in ("layer_norm2", "post_attention_layernorm"):
        readers = [f"{layer}.mlp.{p}.weight" for p in ("fc1", "gate_proj", "up_proj")]
    elif at.endswith("text_model.norm"):
        readers = ["lm_head.weight", "linear.weight"]
    elif part == "up_proj":
        readers = [f"{layer}.down_proj.weight"]
    elif part == "v_proj":
        outputs = [f"{layer}.out_proj.weight", f"{layer}.o_proj.weight"]
        output = next(state[o] for o in outputs if o in state)
        channels, width = chosen(state[name].shape[0]), state[name].shape[0]
        grow([name, f"{at}.bias"], channels)
        # Several query heads may read one value head.
        groups, head = output.shape[1] // width, 64
        spread = [
            (c // head * groups + g) * head + c % head for c in channels.tolist() for g in range(groups)
        ]
        shrink(outputs, torch.tensor(spread))
        places += 1
        continue
    else:
        continue
    channels = chosen(state[name].shape[0])
    grow([name, f"{at}.bias"], channels)
    shrink(readers, channels)
    places += 1
save_file(state, out / "model.safetensors", metadata={"format": "pt"})
print(f"{places} places, {percent} % of the channels, {factor:g} times")
