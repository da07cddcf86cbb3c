"""Drawn batches that are trained on more than once, when drawing them (or looking at them) costs more than learning from them.

A *round* of batches (pages, pages, tiles) is kept as it was drawn and comes again later, among others: never next to itself, and in the
end as often as wanted. A batch is a dict and each time the same object, so what is worked out from it once and put into it (the visual
tokens of a tower that stands still) is there the next time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch


class Replay:
    """The batches of `source` in rounds of `together`, every round `times`. At first all rounds are new, until `hold` are kept; from then on one in
    `times` is, and up to twice `hold` are kept. The order is a function of the seed alone."""

    def __init__(self, source: Iterator[dict], together: int, times: int, hold: int, seed: int) -> None:
        if times < 1 or hold < 2:
            raise SystemExit(f"--replay is {times} and --hold {hold}; they must be at least 1 and 2, so that a round comes again later")
        self.source, self.together, self.times, self.hold, self.rng = source, together, times, hold, random.Random(seed)
        self.kept: list[tuple[list[dict], int]] = []
        self.turn = 0

    def __iter__(self) -> Iterator[dict]:
        if self.times == 1:
            yield from self.source
        while True:
            full = len(self.kept) >= self.hold
            yield from self.again() if full and self.turn % self.times else self.fresh()
            self.turn += full

    def fresh(self) -> Iterator[dict]:
        """The next round of the source, copied: what comes from another process keeps a file open for every tensor."""
        batches = []
        for _ in range(self.together):
            batches.append({k: v.clone() if torch.is_tensor(v) else v for k, v in next(self.source).items()})
            yield batches[-1]
        self.kept.append((batches, self.times - 1))

    def again(self) -> Iterator[dict]:
        """One of the rounds kept, but not the last, which may be the one just seen."""
        batches, left = self.kept.pop(self.rng.randrange(len(self.kept) - 1))
        yield from batches
        if left > 1:
            self.kept.append((batches, left - 1))
