"""A checkpoint of fewer text layers, or of an adapter of higher rank, made to fit `model.py`'s shapes, so that training goes on where it was.

A layer that is added at the end is a copy of the last one whose outputs are zero: at first the model says what it said, and the new layer already
looks where the last one does. The adapter's products are replaced by the nearest ones of the lower rank (Eckart and Young, 1936); it is
fitted again at the end of every stage anyhow (`whole.py --adapter`). Optimisers are left behind.

    python grow.py old --out grown && python whole.py --start grown --letters 0      # restore.py does it by itself
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch

from model import RANK, Colibri, config, load_tokenizer
from training import store

#: What a layer adds to its input goes through these.
OUTPUTS = ("self_attn.o_proj.", "mlp.down_proj.")
LAYER = re.compile(r"(.*text_model\.layers\.)(\d+)\.(.*)")


def grown(state: dict[str, torch.Tensor], layers: int, rank: int = RANK) -> dict[str, torch.Tensor]:
    """The weights of a model with so many text layers and an adapter of that rank."""
    state = lowered(state, rank)
    have = 1 + max((int(m[2]) for name in state if (m := LAYER.match(name))), default=-1)
    if have > layers:
        raise SystemExit(f"the checkpoint has {have} text layers, more than the {layers} there are now")
    for name, value in list(state.items()):
        if (m := LAYER.match(name)) and int(m[2]) == have - 1:
            silent = m[3].startswith(OUTPUTS) and not m[3].endswith("lora_A")
            for number in range(have, layers):
                state[f"{m[1]}{number}.{m[3]}"] = torch.zeros_like(value) if silent else value.clone()
    return state


def lowered(state: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """The same with adapters of at most that rank (alpha is the rank in both: nothing scales them)."""
    state = dict(state)
    for name in [n for n in state if n.endswith("lora_A")]:
        other = name.removesuffix("A") + "B"
        if state[name].shape[0] <= rank:
            continue
        u, s, v = torch.linalg.svd(state[other].float() @ state[name].float(), full_matrices=False)
        root = s[:rank].sqrt()
        state[name], state[other] = root[:, None] * v[:rank], u[:, :rank] * root
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", help="a checkpoint in `--runs`")
    parser.add_argument("--out", required=True, help="the checkpoint to write")
    parser.add_argument("--runs", type=Path, default=Path(__file__).parent / "runs")
    options = parser.parse_args()
    cfg = config(load_tokenizer(options.runs / "tokenizer"))
    found = torch.load(options.runs / f"{options.stage}.pt", map_location="cpu", weights_only=True)
    model = Colibri(cfg)
    model.load_state_dict(grown(found["model"], cfg.text_config.num_hidden_layers))
    store({"model": model.state_dict(), "heads": found["heads"]}, options.runs / f"{options.out}.pt")


if __name__ == "__main__":
    main()
