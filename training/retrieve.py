"""Stage 2: whole pages, through the true processing path, with the tower and the connector frozen.

A page is looked at once and its visual tokens are kept in a pool; every step adds a page or two and trains the text model's
adapter and the projection on several from the pool: (a) rows over a word are that word (words on the overview count only where
they are large enough to be read there; everything else on it, paper, tags and prompt are nothing); (b) query tokens are the
word they spell; (c) late interaction: each page's questions must score their page above the others of the batch.

    python retrieve.py --start dense --minutes 8
    python retrieve.py --start read --minutes 4 --base-frozen       # after the base has learnt to read
"""

from __future__ import annotations

import quiet  # noqa: F401  (first)
import random
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import processing
import supervision as sup
import targets
from dense import POOL, TEMPERATURE, bank_of, query_batch, word_loss
from model import TOKENS, Colibri, config, load_tokenizer, normalise
from pages import kinds, words
from training import Clock, Optimisers, parse, resume, save, stream

KEPT = 360
#: Words lower than this many pixels on the overview cannot be read there.
READABLE = 9.0


class Pages:
    """An endless stream of single pages with everything known about them."""

    def __init__(self, tokenizer_folder: Path, seed: int) -> None:
        self.folder, self.seed, self.tokenizer = tokenizer_folder, seed, None

    def __call__(self, step: int) -> dict:
        self.tokenizer = self.tokenizer or load_tokenizer(self.folder)
        rng = random.Random(self.seed * 2_000_003 + 17 + step)
        page = kinds.page(rng)
        tiles, rows, columns = processing.split(page.canvas)
        pixels = processing.pixels(tiles)
        empty = np.stack([sup.empty_tokens(t.words) for t in tiles])
        pairs = []
        for number, tile in enumerate(tiles):
            overview = number == len(tiles) - 1
            for word, (text, tokens) in zip([w for w in tile.words if words.bare(w.text) and sup.tokens_of(w)], sup.pairs(tile.words)):
                if overview and word.bottom - word.top < READABLE:
                    continue
                pairs.append(("" if targets.is_nothing(text) else text, [number * TOKENS + t for t in tokens]))
        # What is too small to read on the overview must not look like a word.
        small = np.zeros(TOKENS, dtype=bool)
        for word in tiles[-1].words:
            if word.bottom - word.top < READABLE:
                small[sup.tokens_of(word)] = True
        for word in tiles[-1].words:
            if word.bottom - word.top >= READABLE:
                small[sup.tokens_of(word)] = False
        empty[-1] |= small
        facts = rng.sample(page.facts, min(3, len(page.facts)))
        return {"pixels": pixels, "empty": empty.reshape(-1), "ids": processing.document_ids(self.tokenizer, rows, columns, TOKENS), "pairs": pairs, "kind": page.kind,
                "questions": [f.question for f in facts]}


def supervision(pages: list[dict], tokenizer, rng: random.Random) -> dict:
    """The words over the image tokens of several pages, and queries, as one batch."""
    index: dict[str, int] = {"": 0}
    token_at, word_at, instance, offset, count = [], [], [], 0, 0
    for page in pages:
        for text, tokens in page["pairs"]:
            at = index.setdefault(text, len(index))
            token_at += [offset + t for t in tokens]
            word_at += [at] * len(tokens)
            instance += [count] * len(tokens)
            count += 1
        offset += len(page["empty"])
    free_ids, free_words = query_batch(tokenizer, rng, 12, index)
    asked_ids, asked_words = query_batch(tokenizer, rng, 0, index, [q for p in pages for q in p["questions"]])
    vectors = bank_of(index)
    long = lambda x: torch.tensor(x, dtype=torch.long)
    return {"token_at": long(token_at), "word_at": long(word_at), "instance": long(instance), "vectors": torch.from_numpy(vectors),
            "free_ids": free_ids, "free_words": free_words, "asked_ids": asked_ids, "asked_words": asked_words}


def main() -> None:
    frozen = "--base-frozen" in sys.argv
    sys.argv = [a for a in sys.argv if a != "--base-frozen"]
    options = parse(__doc__, minutes=8, batch=4, rate=6e-4)
    stage = "retrieve_final" if frozen else "retrieve"
    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    tokenizer = load_tokenizer(options.runs / "tokenizer")
    model = Colibri(config(tokenizer)).to(device)
    taught = (lambda name: "lora_" in name or name.startswith("linear.")) if frozen else (lambda name: "text_model" in name or name.startswith("linear."))
    optimiser = Optimisers(model, None, options.rate, taught)
    clock = Clock(options, stage)
    resume(options, stage, model, None, optimiser, clock)
    rng = random.Random(options.seed * 77 + clock.step)
    bank_pool = torch.from_numpy(np.stack([targets.vector(w) for w in {words.bare(words.token(rng)) for _ in range(POOL)} if w])).to(device)
    pool: list[dict] = []
    image_token = model.cfg.image_token_id
    for number, page in stream(Pages(options.runs / "tokenizer", options.seed), clock.step, options.workers):
        if clock.over():
            break
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            pixels = torch.as_tensor(page.pop("pixels"))
            page["visual"] = model.look(normalise(pixels.to(device))).to(torch.bfloat16)
        pool.append(page)
        pool = pool[-KEPT:]
        if len(pool) < 3 * options.batch:
            continue
        optimiser.scale(clock.schedule())
        # Hard negatives: every other batch holds pages of the newest one's kind, as far as there are any.
        others = [p for p in pool[:-1] if number % 2 and p["kind"] == page["kind"]]
        others = rng.sample(others, min(len(others), options.batch - 1))
        rest = [p for p in pool[:-1] if all(p is not o for o in others)]
        chosen = [pool[-1], *others, *rng.sample(rest, options.batch - 1 - len(others))]
        batch = {k: v.to(device) for k, v in supervision(chosen, tokenizer, rng).items()}
        longest = max(len(p["ids"]) for p in chosen)
        ids = torch.tensor([list(p["ids"]) + [2] * (longest - len(p["ids"])) for p in chosen], device=device)
        real = torch.tensor([[1] * len(p["ids"]) + [0] * (longest - len(p["ids"])) for p in chosen], device=device).bool()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            # Padding stands on the right and attention is causal: no mask is needed.
            late = model.linear(model.states(ids, torch.cat([p["visual"].flatten(0, 1) for p in chosen])))
            free = model.linear(model.states(batch["free_ids"], None))
            asked = model.linear(model.states(batch["asked_ids"], None))
        unit = lambda x: F.normalize(x.float(), dim=-1)
        rows, image = unit(late), ids == image_token
        bank = torch.cat([batch["vectors"], bank_pool[torch.randint(0, len(bank_pool), (1536,), device=device)]])
        loss_word, hit = word_loss(rows[image], batch, bank)
        empty = torch.cat([torch.as_tensor(np.asarray(p["empty"])) for p in chosen]).to(device)
        blank = (1 - rows[image][empty][:, 0]).mean() + (1 - rows[real & ~image][:, 0]).mean()
        loss_query = 0.0
        for given, wanted in ((free, batch["free_words"]), (asked, batch["asked_words"])):
            kept = wanted.flatten() >= 0
            loss_query = loss_query + F.cross_entropy(unit(given).flatten(0, 1)[kept] @ bank.T / TEMPERATURE, wanted.flatten()[kept])
        questions = unit(asked) * (batch["asked_words"] >= 0).unsqueeze(-1)
        similar = torch.einsum("qnd,csd->qcns", questions, rows).masked_fill(~real[None, :, None, :], -1.0)
        scores = similar.amax(-1).sum(-1)
        owner = torch.tensor([i for i, p in enumerate(chosen) for _ in p["questions"]], device=device)
        loss_page = F.cross_entropy(scores * 3, owner)
        right = (scores.argmax(1) == owner).float().mean()
        loss = loss_word + 0.5 * blank + 0.3 * loss_query + loss_page
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        clock.tick({"word": loss_word, "hit": hit, "blank": blank, "query": loss_query, "page": loss_page, "right": right}, 1)
        if clock.due():
            save(options, stage, model, None, optimiser, clock)
    save(options, stage, model, None, optimiser, clock)


if __name__ == "__main__":
    main()
