"""Stage 3: the generator learns to read aloud and to answer; tower and connector frozen, adapter off.

One curriculum from a single word to a whole page (`--steps` long): words, lines, several lines, key-value lines on single tiles, then
whole pages with up to ten questions each. Three kinds of supervision beside the next token, since we drew the picture:
* every visual token predicts the piece of text under it, with the text model's own `lm_head`, so the text model can speak the
  language of its visual tokens before it must choose among them;
* pointing: a head of the third layer must look at the visual token under the piece to be said next; a head of the second layer at
  the token under the piece just said;
* finding: in the second layer the last token before an answer must look at the words of the question that name the key, and the visual
  token over a value at its key (in a table at the row's name and the column's head), so that the third layer can match the two.

    python read.py --start retrieve --minutes 18 --steps 1400
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

import facts
import speech
from attention import WATCH
from model import Colibri, config, load_tokenizer, normalise
from pages import kinds
from training import Clock, Optimisers, parse, resume, save, stream

#: Sheets kept with what the tower saw on them: looking costs more than reading.
KEPT = 600
#: A batch of tiles is this many times as large as one of pages.
TILES_A_PAGE = 10
#: Kinds of pages asked about: those whose facts stand on them as key and value or in tables, and letters.
ASKED = ("form", "invoice", "table", "slide", "form", "invoice", "letter")


class Sheets:
    """An endless stream of small batches of sheets, all of them tiles or all of them pages."""

    def __init__(self, tokenizer_folder: Path, batch: int, seed: int, steps: int) -> None:
        self.folder, self.batch, self.seed, self.steps, self.tokenizer = tokenizer_folder, batch, seed, steps, None

    def tile(self, rng: random.Random, progress: float, held_out: bool = False) -> dict:
        turns: list[speech.Turn] = []
        while not turns:
            if progress > 0.25 and rng.random() < 0.5:
                canvas, turns = facts.fields_tile(rng, held_out)
            else:
                level = rng.random() * min(1.0, 0.1 + 3 * progress)
                lines, per_line = (1, 1) if level < 0.12 else (1, 2) if level < 0.25 else (1, 5) if level < 0.45 else (rng.randint(2, 7), 6)
                canvas, turns = facts.lines_tile(rng, lines, per_line, held_out)
        return speech.tile_sheet(self.tokenizer, canvas, turns)

    def page(self, rng: random.Random, held_out: bool = False) -> dict:
        page = kinds.page(rng, held_out, rng.choice(ASKED))
        return speech.page_sheet(self.tokenizer, page.canvas, facts.page_turns(page, rng, 10))

    def __call__(self, step: int) -> dict:
        self.tokenizer = self.tokenizer or load_tokenizer(self.folder)
        rng = random.Random(self.seed * 3_000_017 + step)
        progress = min(step / self.steps, 1.0)
        if progress > 0.4 and step % 2 == 0:
            return {"pages": True, "sheets": [self.page(rng) for _ in range(max(self.batch // TILES_A_PAGE // 3, 1))]}
        return {"pages": False, "sheets": [self.tile(rng, progress) for _ in range(self.batch // 3)]}


def run(model: Colibri, sheets: list[dict], device: torch.device) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """The packed batch, logits of the answers' tokens, logits under the visual tokens."""
    batch = speech.pack(sheets, model.cfg.image_token_id)
    ids, owner = batch["ids"].to(device), batch["owner"].to(device)
    WATCH.picture, WATCH.owner, WATCH.seen = batch["picture"], owner, {}
    WATCH.looks = {name: looks.to(device) for name, looks in batch["looks"].items()} if torch.is_grad_enabled() else {}
    image = ids == model.cfg.image_token_id
    with torch.autocast(device.type, dtype=torch.bfloat16), model.generating():
        x = model.model.text_model.embed_tokens(ids)
        visual = torch.cat([s["visual"].flatten(0, 1) for s in sheets]).to(device)
        x = x.masked_scatter(image.unsqueeze(-1).expand_as(x), visual.to(x.dtype))
        whole = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)  # the watched attention makes its own
        states = model.model.text_model(inputs_embeds=x, attention_mask=whole, position_ids=batch["positions"].to(device), use_cache=False).last_hidden_state
        said = model.lm_head(states[batch["wanted"].to(device) >= 0]).float()
        under = model.lm_head(states[image][batch["under"].to(device) >= 0]).float()
    return batch, said, under


def loss_of(model: Colibri, sheets: list[dict], device: torch.device) -> tuple[torch.Tensor, dict]:
    batch, said, under = run(model, sheets, device)
    wanted = batch["wanted"][batch["wanted"] >= 0].to(device)
    pieces = batch["under"][batch["under"] >= 0].to(device)
    loss_next, loss_under = F.cross_entropy(said, wanted), F.cross_entropy(under, pieces)
    right = said.argmax(-1) == wanted
    whole = torch.ones(len(batch["turns"]), device=device).index_reduce_(0, batch["turn_of"][batch["wanted"] >= 0].to(device), right.float(), "amin")
    loss, parts = loss_next + 0.3 * loss_under, {"next": loss_next, "right": right.float().mean(), "whole": whole.mean(), "named": (under.argmax(-1) == pieces).float().mean()}
    for name, seen in WATCH.seen.items():
        loss = loss - 0.3 * seen.clamp(min=1e-5).log().mean()
        parts[f"look {name}"] = seen.mean()
    return loss, parts


def main() -> None:
    steps = int(sys.argv.pop(sys.argv.index("--steps") + 1)) if "--steps" in sys.argv else 3000
    sys.argv = [a for a in sys.argv if a != "--steps"]
    options = parse(__doc__, minutes=20, batch=30, rate=5e-4)
    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    model = Colibri(config(load_tokenizer(options.runs / "tokenizer"))).to(device)
    model.model.text_model.config._attn_implementation = "watched"
    optimiser = Optimisers(model, None, options.rate, lambda name: (".text_model." in name or name.startswith("lm_head")) and "lora_" not in name)
    clock = Clock(options, "read")
    resume(options, "read", model, None, optimiser, clock)
    rng = random.Random(options.seed * 31 + clock.step)
    pools: dict[bool, list[dict]] = {False: [], True: []}
    log: dict[bool, dict] = {False: {}, True: {}}
    for _, made in stream(Sheets(options.runs / "tokenizer", options.batch, options.seed, steps), clock.step, options.workers):
        if clock.over():
            break
        fresh, pages = made["sheets"], made["pages"]
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            counts = [len(s["pixels"]) for s in fresh]
            visual = model.look(normalise(torch.from_numpy(np.concatenate([s.pop("pixels") for s in fresh])).to(device))).to(torch.bfloat16)
        for sheet, tokens in zip(fresh, visual.split(counts)):
            sheet["visual"] = tokens
        pool = pools[pages]
        wanted = options.batch // TILES_A_PAGE if pages else options.batch
        chosen = fresh + rng.sample(pool, min(wanted - len(fresh), len(pool)))
        pools[pages] = (pool + fresh)[-KEPT:]
        optimiser.scale(clock.schedule())
        loss, parts = loss_of(model, chosen, device)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        # Tiles and pages are told apart in the log: a running mean of each.
        mean = log[pages]
        for key, value in parts.items():
            mean[key] = 0.95 * mean.get(key, float(value)) + 0.05 * float(value)
        clock.tick({f"{'page' if p else 'tile'} {k}": v for p in log for k, v in log[p].items()}, len(fresh))
        if clock.due():
            save(options, "read", model, None, optimiser, clock)
    save(options, "read", model, None, optimiser, clock)


if __name__ == "__main__":
    main()
