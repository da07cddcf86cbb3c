"""What all stages share: options, the clock (schedule, log), checkpoints, and the stream of batches."""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn


def parse(doc: str, minutes: float, batch: int, rate: float) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path(__file__).parent / "runs", help="where checkpoints and logs go")
    parser.add_argument("--minutes", type=float, default=minutes, help="training time of this stage, all its runs together")
    parser.add_argument("--batch", type=int, default=batch, help="tiles (or pages) a step")
    parser.add_argument("--rate", type=float, default=rate, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pages")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", default=None, help="the stage whose weights this stage starts from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


class Clock:
    """Counts steps and seconds over all runs of a stage. The learning rate follows the *time* spent, so that a stage ends when
    it should on any machine: linear warm-up over 80 steps, then cosine to a twentieth. On a CPU shared with others it is the
    processor time divided by the threads that counts, not the wall clock: a starved run must not lose its schedule."""

    def __init__(self, options: argparse.Namespace, stage: str) -> None:
        self.minutes, self.hurry = options.minutes, options.runs / f"{stage}.minutes"
        self.step, self.before, self.seen = 0, 0.0, 0
        self.threads = options.threads if options.device == "cpu" else 0
        self.saved = self.logged = time.monotonic()
        self.started = self.now()
        self.sums: dict[str, float] = {}
        self.count = 0
        self.stage = stage

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
        return min(1.0, (self.step + 1) / 80) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(self.elapsed() / self.limit, 1))))

    def tick(self, parts: dict, size: int) -> None:
        self.step += 1
        self.seen += size
        self.count += 1
        for key, value in parts.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value.detach() if torch.is_tensor(value) else value)
        if time.monotonic() - self.logged > 20:
            means = "  ".join(f"{k} {v / self.count:.3f}" for k, v in self.sums.items())
            print(f"{self.stage} {self.elapsed() / 60:6.1f} min  step {self.step:5d}  seen {self.seen:6d}  {means}", flush=True)
            self.sums, self.count, self.logged = {}, 0, time.monotonic()

    def due(self) -> bool:
        """Whether two minutes have passed since the last checkpoint."""
        if time.monotonic() - self.saved < 120:
            return False
        self.saved = time.monotonic()
        return True


class Optimisers:
    """Muon for the matrices inside the layers (it leaves plateaus in fewer steps than Adam), AdamW for all else."""

    def __init__(self, model: nn.Module, heads: nn.Module | None, rate: float, trained: Callable[[str], bool] = lambda name: True) -> None:
        matrices, others = [], []
        for name, parameter in model.named_parameters():
            if trained(name):
                inside = ".layers." in name and parameter.ndim == 2 and "lora" not in name
                (matrices if inside else others).append(parameter)
            else:
                parameter.requires_grad_(False)
        others += list(heads.parameters()) if heads else []
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)]
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, lr=4 * rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"))
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
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def resume(options: argparse.Namespace, stage: str, model: nn.Module, heads: nn.Module | None, optimiser: Optimisers, clock: Clock) -> bool:
    """Continues this stage where it stopped, or starts it from another stage's weights (`--start`). Returns whether the heads
    need no fitting: they came with the weights, or all begins at random together."""
    path = options.runs / f"{stage}.pt"
    if path.exists():
        state = torch.load(path, map_location=options.device, weights_only=True)
        model.load_state_dict(state["model"])
        if heads and state["heads"]:
            heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        clock.step, clock.before, clock.seen = state["step"], state["elapsed"], state["seen"]
        print(f"{stage} resumes at step {clock.step}, {clock.before / 60:.1f} min", flush=True)
    elif options.start:
        state = torch.load(options.runs / f"{options.start}.pt", map_location=options.device, weights_only=True)
        model.load_state_dict(state["model"])
        if heads and state["heads"]:
            heads.load_state_dict(state["heads"], strict=False)
        print(f"{stage} starts from {options.start}", flush=True)
        return heads is None or state["heads"] is not None
    return True


def _work(make: Callable[[int], dict], steps: multiprocessing.Queue, done: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    parent = os.getppid()
    while os.getppid() == parent:  # a worker does not outlive a stage that was killed
        try:
            step = steps.get(timeout=10)
        except queue.Empty:
            continue
        done.put((step, {k: v.numpy() if torch.is_tensor(v) else v for k, v in make(step).items()}))


def stream(make: Callable[[int], dict], start: int, workers: int) -> Iterator[tuple[int, dict]]:
    """Batches start, start + 1, ... in that order, drawn ahead by worker processes (0: drawn in place)."""
    if workers == 0:
        step = start
        while True:
            yield step, make(step)
            step += 1
    context = multiprocessing.get_context("fork")
    steps, done = context.Queue(), context.Queue(maxsize=workers + 2)
    processes = [context.Process(target=_work, args=(make, steps, done), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    ahead = 2 * workers + 1
    for step in range(start, start + ahead):
        steps.put(step)
    waiting: dict[int, dict] = {}
    step = start
    try:
        while True:
            while step not in waiting:
                number, arrays = done.get()
                waiting[number] = {k: torch.from_numpy(v) if hasattr(v, "dtype") else v for k, v in arrays.items()}
            steps.put(step + ahead)
            yield step, waiting.pop(step)
            step += 1
    finally:
        for process in processes:
            process.terminate()
