"""Writes a copy of a checkpoint whose linear layers went through bitsandbytes' NF4 and back, for
`cargo run --workspace --example receipt`.

    pip install bitsandbytes torch safetensors
    python tools/compare/nf4.py FOLDER OUT

As `load_in_4bit` with double quantisation does: every `nn.Linear` but the output head, blocks of 64; embeddings and
the patch convolution stay as they are.
"""

import json
import shutil
import sys
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import load_file, save_file

source, target = Path(sys.argv[1]), Path(sys.argv[2])
target.mkdir(parents=True, exist_ok=True)
for file in source.iterdir():
    if file.name != "model.safetensors":
        shutil.copy(file, target / file.name)
tensors = load_file(source / "model.safetensors")
kept = ("embed_tokens", "position_embedding", "patch_embedding", "lm_head")
error = size = 0.0
for name, tensor in tensors.items():
    values = tensor.float().contiguous()
    if values.ndim == 2 and not any(part in name for part in kept):
        codes, state = bnb.quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")
        found = bnb.dequantize_4bit(codes, state).reshape(values.shape)
        error += ((found - values) ** 2).sum().item()
        size += (values**2).sum().item()
        values = found
    tensors[name] = values
save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
print(json.dumps({"relative_square_error": error / size}))
