"""Batches of whole pages and of single tiles with everything known about them: for the letters, for late interaction and for the generator."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import torch

import facts
import processing
import speech
from dense import Placed, grid_of, training_page
from model import TILE, TOKENS, load_tokenizer
from pages import kinds
from pages.questions import any_query
from together import Together

#: Words lower than this many pixels on the overview cannot be read there.
READABLE = 9.0
#: Batches go in rounds of so many, the last ones of single tiles.
ROUND = 3
#: Questions asked the retriever about a page.
QUERIES = 3
#: How many batches of enlarged tiles are of strips.
STRIPS = 0.3
#: Kinds whose questions are the hardest to learn, and to which a stage may give more of its pages.
HARD = ("table", "invoice", "table", "form", "bars", "slide", "pie")


class Batches:
    """Batch number `step`, a function of the seed and its number alone: pages, or `tile_steps` times in three tiles."""

    def __init__(self, tokenizer_folder: Path, pages: int, tiles: int, seed: int, easy: int, turns: int, favour: float, tile_steps: int, aloud: float, apart: bool, enlarge: float) -> None:
        self.turns, self.favour, self.tile_steps, self.aloud, self.apart, self.enlarge = turns, favour, tile_steps, aloud, apart, enlarge
        self.folder, self.num_pages, self.num_tiles, self.seed, self.easy, self.tokenizer = tokenizer_folder, pages, tiles, seed, max(easy, 1), None

    def __getitem__(self, step: int) -> dict:
        self.tokenizer = self.tokenizer or load_tokenizer(self.folder)
        rng = random.Random(self.seed * 2_000_003 + 17 + step)
        if step % ROUND >= ROUND - self.tile_steps:
            return self.tiles(rng, self.progress(step))
        return {**self.pages(rng), "progress": self.progress(step)}

    def progress(self, step: int) -> float:
        return min(step / self.easy, 1.0)

    def tiles(self, rng: random.Random, progress: float) -> dict:
        """Single tiles: single words at first, then lines, several lines, key-value lines and small tables. Some batches are cut
        as the processor cuts a small picture, twice as large: four tiles and an overview, or less of a strip. That is three times the work."""
        sheets, kind = [], rng.random()
        lines, per_line = some_lines(rng, progress)
        large = rng.random() < self.enlarge
        height = rng.randint(90, TILE) if large and rng.random() < STRIPS else TILE
        while len(sheets) < (max(self.num_tiles // 3, 1) if large else self.num_tiles):
            if not self.apart:
                kind, (lines, per_line) = rng.random(), some_lines(rng, progress)
            if kind < 0.54 * (1 - self.aloud) * progress:
                canvas, turns = facts.table_tile(rng)
            elif kind < (1 - self.aloud) * progress:
                canvas, turns = facts.fields_tile(rng)
            else:
                canvas, turns = facts.lines_tile(rng, lines, per_line, height=height)
            if turns:
                sheets.append((speech.page_sheet if large else speech.tile_sheet)(self.tokenizer, canvas, turns))
        return {"pages": False, "progress": progress, **self.common(sheets)}

    def common(self, sheets: list[dict]) -> dict:
        """Pixels, letters under them, and the generator's part."""
        canvases = [c for s in sheets for c in s["canvases"]]
        return {**processing.packed(canvases), "grid": grid_of(canvases), **speech.pack(sheets, self.tokenizer.token_to_id("<image>"))}

    def pages(self, rng: random.Random) -> dict:
        """Whole pages. In a third of the batches they are of two kinds only, so that each has others much like it."""
        some = rng.sample(list(kinds.KINDS), 2) if rng.random() < 0.33 else list(kinds.KINDS)
        weights = [kinds.KINDS[k][0] for k in some]
        placed = Placed()
        sheets, questions, owner, prompts = [], [], [], []
        for number in range(self.num_pages):
            page = training_page(rng, rng.choice(HARD) if rng.random() < self.favour else rng.choices(some, weights)[0])
            sheet = speech.page_sheet(self.tokenizer, page.canvas, facts.page_turns(page, rng, self.turns))
            sheets.append(sheet)
            prompts.append(processing.document_ids(self.tokenizer, sheet["rows"], sheet["columns"], TOKENS))
            for words in readable(sheet["canvases"]):
                placed.add(words)
            asked = [t.question for t in facts.page_turns(page, rng, QUERIES, whole=True)]
            questions += asked
            owner += [number] * len(asked)
        others = [any_query(rng) for _ in range(3 * self.num_pages)]
        longest = max(len(p) for p in prompts)
        return {
            "pages": True, **self.common(sheets), **placed.batch(self.tokenizer, questions + others), "asked_of": torch.tensor(owner),
            "prompts": torch.tensor([p + [2] * (longest - len(p)) for p in prompts]), "real": torch.tensor([[True] * len(p) + [False] * (longest - len(p)) for p in prompts]),
        }


def some_lines(rng: random.Random, progress: float) -> tuple[int, int]:
    """How many lines a tile to be read aloud has, and how many words each at most: one word at first, in the end mostly several lines."""
    level = rng.random() * (0.08 + 0.92 * progress)
    return (1, 1) if level < 0.08 else (1, 2) if level < 0.12 else (1, 5) if level < 0.25 else (rng.randint(2, 9), 6)


def readable(tiles: list) -> list[list]:
    """The words of each tile of a cut page. Of the overview's those that are too small to be read there must not look like words, so
    they count as paper."""
    return [*(t.words for t in tiles[:-1]), [w for w in tiles[-1].words if w.bottom - w.top >= READABLE]]


def loader(batches, start: int, workers: int, pinned: bool, together: Together) -> Iterator[dict]:
    """Batches start, start + 1, ... in that order, dealt to all processes that train, drawn ahead by worker processes."""
    if workers > 4:  # else the files open at once are too many
        torch.multiprocessing.set_sharing_strategy("file_system")
    return iter(torch.utils.data.DataLoader(batches, batch_size=None, sampler=itertools.count(start + together.rank, together.size), num_workers=workers, pin_memory=pinned,
                                            prefetch_factor=2 if workers else None, worker_init_fn=modest if workers else None))


def modest(_: int) -> None:
    """A process that draws uses one thread and gives way to the one that trains."""
    torch.set_num_threads(1)
    os.nice(5)
