"""The opposite of `export.py`: makes a training checkpoint of the exported folders, so that a stage can start from what was shipped.

Weights come back as bf16 left them; the throw-away heads and the optimisers are gone, and a stage that needs heads fits them first. Folders of an older
checkpoint with fewer text layers come back grown (`grow.py`).

    python restore.py --builtin ../builtin --stage shipped
    python whole.py --start shipped --letters 0 --minutes 20
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file

from export import TOKENIZER_FILES
from grow import grown
from model import ADAPTED, Colibri, config, load_tokenizer
from training import store


def restore(builtin: Path, runs: Path, stage: str) -> None:
    """Writes `runs/STAGE.pt` and, where there is none, `runs/tokenizer`."""
    tokenizer = runs / "tokenizer"
    if not (tokenizer / "tokenizer.json").exists():
        tokenizer.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            shutil.copyfile(builtin / "base" / name, tokenizer / name)
    cfg = config(load_tokenizer(tokenizer))
    found = {trained(name): value.float() for name, value in load_file(builtin / "base" / "model.safetensors").items()}
    for name, value in load_file(builtin / "retriever" / "adapter_model.safetensors").items():
        found[name.removeprefix("base_model.model.").removesuffix(".weight")] = value.float()
    state, model = grown(found, cfg.text_config.num_hidden_layers), Colibri(cfg).state_dict()
    if missing := model.keys() - state.keys():
        raise SystemExit(f"`{builtin}` has no `{min(missing).replace('.base.weight', '.weight')}`; is it what export.py writes?")
    if extra := state.keys() - model.keys():
        raise SystemExit(f"`{builtin}` holds `{min(extra)}`, which the model does not have")
    store({"model": state, "heads": None}, runs / f"{stage}.pt")
    print(f"{runs / stage}.pt holds {sum(v.numel() for v in state.values()) / 1e6:.2f} M parameters")


def trained(name: str) -> str:
    """What a weight of the exported base is called where an adapter may lie over it."""
    layer = ".text_model.layers." in name and any(f".{part}.weight" in name for part in ADAPTED)
    return name.removesuffix("weight") + "base.weight" if layer else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent
    parser.add_argument("--builtin", type=Path, default=here.parent / "builtin")
    parser.add_argument("--runs", type=Path, default=here / "runs")
    parser.add_argument("--stage", default="shipped")
    options = parser.parse_args()
    restore(options.builtin, options.runs, options.stage)


if __name__ == "__main__":
    main()
