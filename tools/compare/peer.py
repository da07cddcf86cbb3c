"""Times colpali-engine and transformers on a checkpoint folder, for comparison with `cargo bench --bench page`.

    python tools/compare/peer.py FOLDER [bf16|f32] [RUNS]

The folder is a checkpoint of true shape made of noise (`cargo run -p colibri-testkit --example
random_checkpoint`); the page is the one of crates/models/benches/page.rs. Weights are loaded into the
classes by name, the processor's work is left out (tiles of random pixels go in), so the figure is the
network alone and flatters the peer. Versions: tools/golden/requirements.txt.
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

folder = Path(sys.argv[1])
dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[sys.argv[2] if len(sys.argv) > 2 else "bf16"]
runs = int(sys.argv[3]) if len(sys.argv) > 3 else 2
torch.set_num_threads(2)
torch.manual_seed(0)

raw = json.loads((folder / "config.json").read_text())
retriever = raw["architectures"] == ["ColIdefics3"]
config = Idefics3Config(**raw)
config._attn_implementation = "sdpa"
image_id = raw["image_token_id"]
side = raw["vision_config"]["image_size"]
tokens_per_tile = (side // raw["vision_config"]["patch_size"] // raw["scale_factor"]) ** 2

with torch.device("meta"):
    if retriever:
        from colpali_engine.models import ColIdefics3

        model = ColIdefics3(config)
    else:
        model = Idefics3ForConditionalGeneration(config)
state = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
missing = model.load_state_dict(state, strict=False, assign=True)
assert not missing.missing_keys and not missing.unexpected_keys, missing
# What is not stored (rotary frequencies, position ids) is made anew on the CPU.
for module in model.modules():
    if hasattr(module, "inv_freq"):
        fresh = type(module)(config=config.text_config)
        module.inv_freq = fresh.inv_freq
        module.original_inv_freq = fresh.inv_freq
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.is_meta:
            setattr(module, name, torch.arange(buffer.numel()).reshape(buffer.shape))
model.eval()

ids = []
for _ in range(17):
    ids += [1] + [image_id] * tokens_per_tile + [3]
ids = torch.tensor([[1, 2, 3] + ids + list(range(4, 16))])
pixels = torch.rand(1, 17, 3, side, side).to(dtype) * 2 - 1
inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}

with torch.inference_mode():
    for _ in range(runs):
        started = time.time()
        if retriever:
            model(**inputs)
            print(f"page {time.time() - started:.3f} s, {ids.shape[1]} rows", flush=True)
            query = torch.arange(4, 37)[None]
            started = time.time()
            model(input_ids=query, attention_mask=torch.ones_like(query))
            print(f"query of 33 tokens {(time.time() - started) * 1e3:.1f} ms", flush=True)
        else:
            times = []
            for new in (1, 33):
                started = time.time()
                model.generate(**inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=2)
                times.append(time.time() - started)
            first, total = times
            print(f"first token {first:.3f} s, then {32 / (total - first):.1f} tokens/s", flush=True)
