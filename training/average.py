"""A checkpoint between two others: what a run learnt from small steps without the noise they left (training/README.md, Results).

Small batches pull weights about while they learn. The straight line between where a run began and where it ended keeps most of what it learnt,
and most of what it would have forgotten.

    python average.py shipped whole --share 0.5 --out between
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from training import store


class Mean:
    """The running mean of weights over about `steps` steps (at first over those there were), kept beside the checkpoint of a stage as `STAGE-mean.pt`."""

    def __init__(self, path: Path, steps: int, parts: dict[str, nn.Module]) -> None:
        self.path, self.steps, self.parts, self.seen = path, steps, parts, 0
        self.mean = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in parts.items()}
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.seen = state["seen"]
            for name, mean in self.mean.items():
                for key, value in mean.items():
                    value.copy_(state[name][key])

    @torch.no_grad()
    def tick(self) -> None:
        """A step of the optimisers is done."""
        self.seen += 1
        share = 1 / min(self.seen, self.steps)
        for name, part in self.parts.items():
            torch._foreach_lerp_(list(self.mean[name].values()), list(part.state_dict().values()), share)

    def save(self) -> None:
        store({"heads": None, **self.mean, "seen": self.seen}, self.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="a checkpoint in `--runs`")
    parser.add_argument("second")
    parser.add_argument("--share", type=float, default=0.5, help="of the second")
    parser.add_argument("--out", required=True, help="the checkpoint to write; another stage goes on from it with --start")
    parser.add_argument("--runs", type=Path, default=Path(__file__).parent / "runs")
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        raise SystemExit(f"--share is {options.share}, it must be from 0 to 1")
    first, second = (torch.load(options.runs / f"{name}.pt", map_location="cpu", weights_only=True) for name in (options.first, options.second))
    state = {part: between(first[part], second[part], options.share) if first[part] and second[part] else None for part in ("model", "heads")}
    store(state, options.runs / f"{options.out}.pt")


def between(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """The retriever's own parts are the second's: the mean of two adapters' factors is not the adapter between them, and both are fitted again anyhow."""
    own = lambda name: ".lora_" in name or name.startswith("linear.")
    return {name: second[name] if own(name) else torch.lerp(first[name].float(), second[name].float(), share) for name in first}


if __name__ == "__main__":
    main()
