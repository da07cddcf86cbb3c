"""What surrounds the training itself: options, the clock (schedule, log), the optimisers, checkpoints."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn


def parse(doc: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--runs", type=Path, default=Path(__file__).parent / "runs", help="where checkpoints and logs go")
    add("--minutes", type=float, default=30, help="training time, all runs together")
    add("--letters", type=float, default=0.3, help="share of the time that goes to tiles full of text first")
    add("--batch", type=int, default=16, help="tiles full of text a step")
    add("--pages", type=int, default=2, help="pages a step")
    add("--tiles", type=int, default=24, help="single tiles a step")
    add("--rounds", type=int, default=1, help="of three steps, how many are of single tiles")
    add("--easy", type=int, default=600, help="steps until the tiles read aloud are as hard as they get")
    add("--turns", type=int, default=10, help="questions asked about a page")
    add("--favour", type=float, default=0.0, help="share of pages of the kinds whose questions are hardest")
    add("--seldom", type=int, default=1, help="the retriever is trained in every n-th batch, if that is of pages")
    add("--frozen", action="store_true", help="tower and connector stay as they are, and a batch that comes again has its visual tokens with it")
    add("--adapter", action="store_true", help="the retriever's adapter and projection alone are trained, on pages: --frozen --rounds 0 --seldom 1 and no answers")
    add("--aloud", type=float, default=0.35, help="share of the single tiles that are read aloud; the others are asked about")
    add("--apart", action="store_true", help="a batch of single tiles is of one kind, so that none is padded to the length of another; for --accumulate")
    add("--enlarge", type=float, default=0.0, help="share of the batches of single tiles that are cut as small pictures are, twice as large; of a third as many")
    add("--accumulate", type=int, default=1, help="batches before every step of the optimisers; a multiple of three keeps their kinds even")
    add("--replay", type=int, default=1, help="how often each drawn batch of pages or single tiles is trained on")
    add("--slips", type=float, default=0.0, help="share of the wrong pieces the model said that are given to it to go on from when --replay brings their batch again")
    add("--hold", type=int, default=24, help="rounds of batches kept for --replay")
    add("--mean", type=int, default=0, help="also keeps the mean of the weights over about so many steps, as `whole-mean.pt`; small batches leave noise that it is without")
    add("--warm", type=int, default=80, help="steps until the learning rate has reached its peak")
    add("--rate", type=float, default=1e-3, help="peak learning rate")
    add("--seed", type=int, default=1, help="what is drawn; a run that goes on from another (--start) wants one of its own, or it begins with the same pages")
    add("--device", default="cpu")
    add("--workers", type=int, default=1, help="processes that draw pages")
    add("--threads", type=int, default=2)
    add("--processes", type=int, default=1, help="that train together, each on batches of its own; on a CPU best one for each core, with --threads 1 --workers 0")
    add("--start", help="another checkpoint in `--runs` that training goes on from")
    options = parser.parse_args()
    if options.slips and options.replay < 2:
        parser.error("--slips goes on from mistakes of the time before, so it needs --replay 2 or more")
    if options.adapter:
        options.frozen, options.rounds, options.seldom = True, 0, 1
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


class Clock:
    """Counts steps and seconds over all runs of a stage. The learning rate follows the *time* spent, so that a stage ends when
    it should on any machine: linear warm-up over a number of steps, then cosine to a twentieth. On a CPU shared with others it is the
    processor time divided by the threads that counts, not the wall clock: a starved run must not lose its schedule."""

    def __init__(self, options: argparse.Namespace, stage: str, quiet: bool = False) -> None:
        self.minutes, self.warm, self.hurry = options.minutes, options.warm, options.runs / f"{stage}.minutes"
        self.step, self.before, self.seen = 0, 0.0, 0
        self.threads = options.threads if options.device == "cpu" else 0
        self.saved = self.logged = time.monotonic()
        self.started, self.waited = self.now(), 0.0
        self.sums: dict[str, tuple[float | torch.Tensor, int]] = {}
        self.stage, self.quiet = stage, quiet

    def now(self) -> float:
        return time.process_time() / self.threads if self.threads else time.monotonic()

    def elapsed(self) -> float:
        return self.before + self.now() - self.started

    @property
    def limit(self) -> float:
        """Seconds this stage may take; a number written to `runs/STAGE.minutes` while it runs takes the place of `--minutes`."""
        try:
            self.minutes = float(self.hurry.read_text())
        except (OSError, ValueError):
            pass
        return self.minutes * 60

    def over(self) -> bool:
        return self.elapsed() >= self.limit

    def schedule(self) -> float:
        return min(1.0, (self.step + 1) / max(self.warm, 1)) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(self.elapsed() / self.limit, 1))))

    def note(self, parts: dict, size: int) -> None:
        """What a batch came to, for the log."""
        self.seen += size
        for key, value in parts.items():
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + (value.detach() if torch.is_tensor(value) else value), count + 1)

    def tick(self) -> None:
        """A step of the optimisers is done."""
        self.step += 1
        if time.monotonic() - self.logged > 20 and not self.quiet:
            means = "  ".join(f"{k} {float(total) / count:.3f}" for k, (total, count) in self.sums.items())
            print(f"{self.stage} {self.elapsed() / 60:6.1f} min  step {self.step:5d}  seen {self.seen:6d}  waited {self.waited / (time.monotonic() - self.logged):.0%}  {means}", flush=True)
            self.sums, self.logged, self.waited = {}, time.monotonic(), 0.0

    def wait(self, batches: Iterator[dict]) -> dict:
        """The next batch; the log tells the share of time spent waiting for the processes that draw."""
        started = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - started
        return batch

    def due(self) -> bool:
        """Whether two minutes have passed since the last checkpoint."""
        if time.monotonic() - self.saved < 120:
            return False
        self.saved = time.monotonic()
        return True


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal (Keller Jordan, 2024; scaled to AdamW's root mean square as Moonlight does), matrices of one
    shape at a time: torch's own takes them singly, thousands of launches a step, which on a GPU cost more than the training itself."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, alike in shapes.items():
                grads = [p.grad for p in alike]
                moving = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in alike]
                torch._foreach_lerp_(moving, grads, 1 - group["momentum"])
                turned = orthogonal(torch.stack(torch._foreach_lerp(grads, moving, group["momentum"])))
                torch._foreach_mul_(alike, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(alike, list(turned.to(alike[0].dtype).unbind()), alpha=-0.2 * group["lr"] * max(shape) ** 0.5)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """(n, rows, columns) -> the nearest orthogonal matrices, about: five Newton-Schulz steps in bf16."""
    x = matrices.to(torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Optimisers:
    """Muon for the matrices inside the layers (it leaves plateaus in fewer steps than Adam), AdamW for all else."""

    def __init__(self, model: nn.Module, heads: nn.Module, rate: float) -> None:
        matrices, others = [], list(heads.parameters())
        for name, parameter in model.named_parameters():
            (matrices if ".layers." in name and parameter.ndim == 2 and "lora" not in name else others).append(parameter)
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01), Muon(matrices, 4 * rate)]
        self.rates = [rate, 4 * rate]

    def scale(self, factor: float) -> None:
        for part, rate in zip(self.parts, self.rates):
            for group in part.param_groups:
                group["lr"] = rate * factor

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)


def save(options: argparse.Namespace, stage: str, model: nn.Module, heads: nn.Module | None, optimiser: Optimisers, clock: Clock) -> None:
    path = options.runs / f"{stage}.pt"
    state = {"model": model.state_dict(), "heads": heads.state_dict() if heads else None, "optimiser": optimiser.state_dict(),
             "step": clock.step, "elapsed": clock.elapsed(), "seen": clock.seen}
    store(state, path)


def store(state: dict, path: Path) -> None:
    """Writes a checkpoint whole or not at all."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def resume(options: argparse.Namespace, stage: str, model: nn.Module, heads: nn.Module, optimiser: Optimisers, clock: Clock) -> bool:
    """Continues this stage where it stopped, or starts it from another stage's weights (`--start`). Returns whether the heads
    need no fitting: they came with the weights, or all begins at random together."""
    path = options.runs / f"{stage}.pt"
    if path.exists():
        state = torch.load(path, map_location=options.device, weights_only=True)
        model.load_state_dict(state["model"])
        if state["heads"]:
            heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        clock.step, clock.before, clock.seen = state["step"], state["elapsed"], state["seen"]
        print(f"{stage} resumes at step {clock.step}, {clock.before / 60:.1f} min", flush=True)
        return state["heads"] is not None
    elif options.start:
        state = torch.load(options.runs / f"{options.start}.pt", map_location=options.device, weights_only=True)
        model.load_state_dict(state["model"])
        if state["heads"]:
            heads.load_state_dict(state["heads"])
        print(f"{stage} starts from {options.start}", flush=True)
        return state["heads"] is not None
    return True
