"""Tiles full of text, supervised everywhere: what the tower learns first, and what all stages of training share.

Three losses from the first step: (a) throw-away heads on the tower and on the connector name the character under every 8 x 8
pixels (the connector's output must keep the letters, or nothing can be read aloud from it); (b) the retriever's rows over a word
are that word among thousands (`targets.py`), with another throw-away head straight after the connector; (c) query tokens are the
word they spell. Trains tower, connector, text model, adapter and projection together.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import processing
import supervision as sup
import targets
from model import TOKENS, Colibri, load_tokenizer, unpacked
from pages import crops, kinds, questions, words

TEMPERATURE = 0.06
POOL = 16384
#: The share of tiles drawn in grey.
GREY = 0.7


class Tiles:
    """An endless stream of batches, each a function of the seed and its number alone."""

    def __init__(self, tokenizer_folder: Path, batch: int, per_sequence: int, seed: int) -> None:
        if batch % per_sequence:
            raise SystemExit(f"--batch is {batch}, it must be a multiple of {per_sequence}")
        self.folder, self.batch, self.per_sequence, self.seed = tokenizer_folder, batch, per_sequence, seed
        self.tokenizer = None

    def __getitem__(self, step: int) -> dict:
        self.tokenizer = self.tokenizer or load_tokenizer(self.folder)
        rng = random.Random(self.seed * 1_000_003 + step)
        canvases = page_tiles(rng, self.batch // 2)
        canvases += [crops.tile(rng, grey=rng.random() < GREY, sizes=(13, 44)) for _ in range(self.batch - len(canvases))]
        placed = Placed()
        for canvas in canvases:
            placed.add(canvas.words)
        queries = [questions.any_query(rng) for _ in range(self.batch)]
        ids = sequences(self.tokenizer, rng, self.batch, self.per_sequence)
        return {**processing.packed(canvases), "grid": grid_of(canvases), "ids": ids, **placed.batch(self.tokenizer, queries)}


class Placed:
    """The words over the visual tokens of a batch, tile by tile, as `word_loss` takes them. Every word has a number, 0 is nothing."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {"": 0}
        self.token_at, self.word_at, self.instance, self.empty, self.count = [], [], [], [], 0

    def add(self, words_: list) -> None:
        """The next tile, with the words on it that can be read."""
        first = len(self.empty) * TOKENS
        for text, tokens in sup.pairs(words_):
            self.token_at += [first + t for t in tokens]
            self.word_at += [self.index.setdefault("" if targets.is_nothing(text) else text, len(self.index))] * len(tokens)
            self.instance += [self.count] * len(tokens)
            self.count += 1
        self.empty.append(sup.empty_tokens(words_))

    def batch(self, tokenizer, queries: list[str]) -> dict[str, torch.Tensor]:
        """The words, the tokens (tile, 64) that have none, the queries, and the vectors of all words in the order of their numbers."""
        query_ids, query_words = query_batch(tokenizer, queries, self.index)
        long = lambda x: torch.tensor(x, dtype=torch.long)
        return {"token_at": long(self.token_at), "word_at": long(self.word_at), "instance": long(self.instance), "empty": torch.from_numpy(np.stack(self.empty)),
                "query_ids": query_ids, "query_words": query_words, "vectors": torch.from_numpy(bank_of(self.index))}


def grid_of(canvases: list) -> torch.Tensor:
    """The characters under tiles: (tile, 32, 32) of class numbers."""
    return torch.from_numpy(np.stack([sup.character_grid(c.words) for c in canvases]))


def training_page(rng: random.Random, kind: str | None = None) -> kinds.Page:
    """A page to train on: type down to 13 units, mostly grey and seldom larger than it is looked at, which saves half of the drawing."""
    return kinds.page(rng, kind=kind, grey=rng.random() < GREY, smallest=13, scales=(1.0, 1.0, 1.0, 1.3, 1.6))


def page_tiles(rng: random.Random, count: int) -> list:
    """Tiles of real pages, those with words on them: headings, fields and tables as they come through the processor."""
    found: list = []
    while len(found) < count:
        tiles, _, _ = processing.split(training_page(rng).canvas)
        inked = [t for t in tiles[:-1] if len(t.words) >= 2]
        found += rng.sample(inked, min(len(inked), 8, count - len(found)))
    return found


def bank_of(index: dict[str, int]) -> np.ndarray:
    """The vectors of a batch's words, in the order of their numbers; a leading `?` marks a frequent word in a question."""
    return np.stack([targets.NOTHING if not w else targets.asked(w[1:]) if w[0] == "?" and len(w) > 1 else targets.vector(w) for w in index]).astype(np.float32)


def query_batch(tokenizer, texts: list[str], index: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries with the retriever's ten `<end_of_utterance>`; for each token the number of its word, 0 for nothing, -1 for padding."""
    end = tokenizer.token_to_id("<end_of_utterance>")
    count = len(texts)
    encoded = tokenizer.encode_batch(texts)
    longest = max(len(e.ids) for e in encoded) + 10
    ids = torch.full((count, longest), 2)
    names = torch.full((count, longest), -1)
    for row, (text, e) in enumerate(zip(texts, encoded)):
        said = [("" if targets.is_nothing(w) else f"?{w}" if w in targets.FREQUENT else w) for w in targets.prefixes(text, e.offsets)]
        numbers = [index.setdefault(w, len(index)) for w in said] + [0] * 10
        ids[row, : len(numbers)] = torch.tensor(e.ids + [end] * 10)
        names[row, : len(numbers)] = torch.tensor(numbers)
    return ids, names


def sequences(tokenizer, rng: random.Random, tiles: int, per_sequence: int) -> torch.Tensor:
    """Prompts of a few tiles each, with random tags: (sequence, length)."""
    name = tokenizer.token_to_id
    rows = []
    for _ in range(tiles // per_sequence):
        row = [1] + tokenizer.encode("User:").ids
        for _ in range(per_sequence):
            tag = f"<row_{rng.randint(1, 4)}_col_{rng.randint(1, 4)}>" if rng.random() < 0.93 else "<global-img>"
            row += [name("<fake_token_around_image>"), name(tag)] + [name("<image>")] * TOKENS
        rows.append(row)
    return torch.tensor(rows)


class Heads(nn.Module):
    """The throw-away heads."""

    def __init__(self, model: Colibri) -> None:
        super().__init__()
        vision, text = model.cfg.vision_config.hidden_size, model.cfg.text_config.hidden_size
        self.characters = nn.Linear(vision, 4 * sup.CLASSES)
        self.words = nn.Linear(text, targets.DIM)
        self.letters = nn.Linear(text, 16 * sup.CLASSES)
        #: a running mean of the share of characters named right: it decides how much the word losses weigh
        self.register_buffer("right", torch.zeros(()))

    def word_weight(self) -> float:
        """Words cannot be told before letters can, and their gradient is sixteen times (1 / temperature) as large: with full
        weight from the start the tower stayed at the letter prior for 180 steps. So they grow with the letters named."""
        return min(max((float(self.right) - 0.15) / 0.5, 0.03), 1.0)


def character_loss(logits: torch.Tensor, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (tile, 256, 4 * classes) of patches or (tile, 64, 16 * classes) of visual tokens against the grid (tile, 32, 32); paper
    counts for a tenth. Also: how many inked squares are right."""
    tiles, side = grid.shape[0], math.isqrt(logits.shape[1])
    wanted = grid.view(tiles, side, 32 // side, side, 32 // side).permute(0, 1, 3, 2, 4).reshape(-1).long()
    flat = logits.float().view(-1, sup.CLASSES)
    weight = torch.where(wanted > 0, 1.0, 0.1)
    loss = (F.cross_entropy(flat, wanted, reduction="none") * weight).sum() / weight.sum()
    inked = wanted > 0
    right = (flat.argmax(-1)[inked] == wanted[inked]).float().mean()
    return loss, right


def word_loss(rows: torch.Tensor, batch: dict, bank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (tile * 64, 128) over words must be nearest to their word's vector; the best token of a word counts most, as in MaxSim."""
    token_at, word_at, instance = batch["token_at"], batch["word_at"], batch["instance"]
    logits = rows[token_at] @ bank.T / TEMPERATURE
    each = F.cross_entropy(logits, word_at, reduction="none")
    with torch.no_grad():
        close = torch.exp(-(each / 2).clamp(max=20))
        total = torch.zeros(int(instance.max()) + 1, device=rows.device).index_add_(0, instance, close)
        sizes = torch.zeros_like(total).index_add_(0, instance, torch.ones_like(close))
        weight = (0.5 * close / total[instance] + 0.5 / sizes[instance]) * torch.where(word_at == 0, 0.2, 1.0)
        hit = torch.zeros_like(total).index_reduce_(0, instance, (logits.argmax(-1) == word_at).float(), "amax")
        named = torch.zeros_like(total).index_reduce_(0, instance, (word_at > 0).float(), "amax") > 0
    return (each * weight).sum() / weight.sum(), hit[named].mean()


def step_loss(model: Colibri, heads: Heads, batch: dict, pool: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, dict]:
    device = pool.device
    batch = {k: v.to(device) for k, v in batch.items()}
    bank = torch.cat([batch["vectors"], pool[torch.randint(0, len(pool), (1536,), device=device)]])
    reading = heads.right > 0.12
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        patches = model.tower(unpacked(batch))
        if not reading:  # no words before letters: the text model waits, which saves a third of a step
            loss, right = character_loss(heads.characters(patches), batch["grid"])
            heads.right.mul_(0.95).add_(0.05 * right)
            return loss, {"characters": loss, "right": right}
        visual = model.model.connector(patches)
        states = model.states(batch["ids"], visual)
        queries = model.states(batch["query_ids"], None)
        named = heads.characters(patches)
        early = heads.words(visual)
        letters = heads.letters(visual)
        late = model.linear(states)
        asked = model.linear(queries)
    loss_characters, right = character_loss(named, batch["grid"])
    loss_letters, kept_letters = character_loss(letters, batch["grid"])
    image = batch["ids"] == model.cfg.image_token_id
    unit = lambda x: F.normalize(x.float(), dim=-1)
    rows = unit(late[image])
    loss_early, _ = word_loss(unit(early).flatten(0, 1), batch, bank)
    loss_late, hit = word_loss(rows, batch, bank)
    blank = (1 - rows[batch["empty"].flatten(), 0]).mean() + (1 - unit(late[~image])[:, 0]).mean()
    asked_rows, wanted = unit(asked).flatten(0, 1), batch["query_words"].flatten()
    kept = wanted >= 0
    logits = asked_rows[kept] @ bank.T / TEMPERATURE
    loss_query = F.cross_entropy(logits, wanted[kept])
    meaning = wanted[kept] > 0
    asked_right = (logits.argmax(-1) == wanted[kept])[meaning].float().mean()
    with torch.no_grad():
        heads.right.mul_(0.95).add_(0.05 * right)
    weight = heads.word_weight()
    loss = loss_characters + 0.4 * loss_letters + weight * (0.25 * loss_early + 0.5 * loss_late + 0.5 * loss_query) + 0.1 * blank
    return loss, {"characters": loss_characters, "right": right, "kept": kept_letters, "early": loss_early, "late": loss_late, "hit": hit, "blank": blank, "query": loss_query, "asked": asked_right}


def word_pool(rng: random.Random) -> torch.Tensor:
    """The vectors of many words, to draw wrong answers from."""
    return torch.from_numpy(np.stack([targets.vector(w) for w in {words.bare(words.token(rng)) for _ in range(POOL)} if w]))


def fit_heads(model: Colibri, heads: Heads, batches, steps: int, device: torch.device) -> None:
    """A model that comes without its throw-away heads gets new ones, fitted while it stands still: their first gradients are noise."""
    optimiser = torch.optim.AdamW(heads.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0)
    for step, (_, batch) in zip(range(steps), batches):
        batch = {k: v.to(device) for k, v in batch.items()}
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            patches = model.tower(unpacked(batch))
            visual = model.model.connector(patches)
        loss_characters, right = character_loss(heads.characters(patches.float()), batch["grid"])
        loss_letters, _ = character_loss(heads.letters(visual.float()), batch["grid"])
        loss_word, hit = word_loss(F.normalize(heads.words(visual.float()), dim=-1).flatten(0, 1), batch, batch["vectors"])
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        optimiser.zero_grad()
        (loss_characters + loss_letters + loss_word).backward()
        optimiser.step()
        heads.right.mul_(0.9).add_(0.1 * right)
        if step % 20 == 19:
            print(f"heads, step {step + 1}: {float(right):.2f} of the inked squares named, {float(hit):.2f} of the words", flush=True)
