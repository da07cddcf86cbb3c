"""Everything at once: the tower learns letters on tiles, then pages are found, read aloud and asked about in the same steps.

The first part of the time is `dense.py`'s: tiles full of text, supervised everywhere. Then every step holds whole pages (or, every third
time, single tiles) and three losses share one pass of the tower: letters under patches and visual tokens; late interaction with the
adapter on (words under rows, words of questions, each question's page among the others of the batch); and the generator with the adapter
off, which reads aloud and answers. Of the generator four kinds of things are supervised beside the next token, since we drew the picture:
* every visual token predicts the piece of text under it, with the text model's own `lm_head`;
* pointing: some heads look at the visual token under the piece to be said next, others at the one under the piece just said;
* finding: the last token before an answer looks at the words of the question that name the key, and the visual token over a value at its
  key; in a table other heads do the same for the column.

    python whole.py --device cuda --minutes 9 --batch 512 --pages 24 --tiles 192 --workers 15
    python whole.py --start shipped --minutes 60 --letters 0 --pages 2 --tiles 24                   # a CPU, on from another stage

`--replay N` trains on what was drawn N times (with `--slips 0.6` going on from mistakes of the time before), `--frozen` leaves tower and connector
as they are, `--accumulate N` makes one step of N batches, `--processes N` has N processes train one model, `--adapter` fits the retriever alone
to a text model that was trained on.
"""

from __future__ import annotations

import quiet  # noqa: F401  (first)
import argparse
import functools
import random

import torch
from torch import nn
from torch.nn import functional as F

import dense
import speech
from attention import WATCH, Looks
from average import Mean
from batches import ROUND, Batches, loader
from dense import TEMPERATURE, Heads, character_loss, word_loss
from fused import fuse
from model import Colibri, config, load_tokenizer, unpacked
from replay import Replay
from slips import Slips
from together import Together, run
from training import Clock, Optimisers, parse, resume, save


def answer(model: Colibri, batch: dict, visual: torch.Tensor, slips: Slips | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The generator's pass over packed sheets, with some of its own mistakes in the answers: logits where an answer's next token is wanted, and
    under the visual tokens with a piece of text."""
    ids = slips.into(batch) if slips else batch["ids"]
    WATCH.picture, WATCH.owner, WATCH.seen = batch["picture"], batch["owner"], {}
    WATCH.looks, WATCH.full = {}, None
    if torch.is_grad_enabled():
        WATCH.looks = {n: Looks(batch[f"{n}_tokens"], batch[f"{n}_picks"], batch[f"{n}_groups"]) for n in speech.LOOKS}
    text = model.model.text_model
    before, text.config._attn_implementation = text.config._attn_implementation, "watched"
    image = ids == model.cfg.image_token_id
    with model.generating():
        x = text.embed_tokens(ids)
        x = x.masked_scatter(image.unsqueeze(-1).expand_as(x), visual.flatten(0, 1).to(x.dtype))
        unmasked = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device)  # the watched attention makes its own
        states = text(inputs_embeds=x, attention_mask=unmasked, position_ids=batch["positions"], use_cache=False).last_hidden_state
        said = model.lm_head(states[batch["wanted"] >= 0])
        under = model.lm_head(states[image][batch["under"] >= 0])
    text.config._attn_implementation = before
    return said.float(), under.float()


def generator_loss(batch: dict, said: torch.Tensor, under: torch.Tensor) -> tuple[torch.Tensor, dict]:
    known, pieces = batch["wanted"] >= 0, batch["under"][batch["under"] >= 0]
    wanted, weight = batch["wanted"][known], batch["weight"][known]
    loss_next, loss_under = (F.cross_entropy(said, wanted, reduction="none") * weight).sum() / weight.sum(), F.cross_entropy(under, pieces)
    right = said.argmax(-1) == wanted
    whole = torch.ones(batch["turns"], device=said.device).index_reduce_(0, batch["turn_of"][known], right.float(), "amin")
    loss, parts = loss_next + 0.3 * loss_under, {"next": loss_next, "said": right.float().mean(), "exact": whole.mean(), "under": (under.argmax(-1) == pieces).float().mean()}
    for name, heads in WATCH.seen.items():
        seen = torch.stack(heads)
        loss = loss - 0.3 * seen.clamp(min=1e-8).log().mean()
        parts[f"look {name}"] = seen.mean()
    return loss, parts


def retriever_loss(model: Colibri, batch: dict, late: torch.Tensor, queries: torch.Tensor, pool: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """Rows over words are those words, all else is nothing; tokens of questions are the words they spell; a question finds its page."""
    unit = lambda x: F.normalize(x.float(), dim=-1)
    rows, image = unit(late), batch["prompts"] == model.cfg.image_token_id
    bank = torch.cat([batch["vectors"], pool[torch.randint(0, len(pool), (1536,), device=pool.device)]])
    loss_word, hit = word_loss(rows[image], batch, bank)
    blank = (1 - rows[image][batch["empty"].flatten()][:, 0]).mean() + (1 - rows[batch["real"] & ~image][:, 0]).mean()
    asked, wanted = unit(queries), batch["query_words"]
    loss_query = F.cross_entropy(asked.flatten(0, 1) @ bank.T / TEMPERATURE, wanted.flatten(), ignore_index=-1)
    # The first of the queries are about the pages.
    about = len(batch["asked_of"])
    questions = asked[:about] * (wanted[:about] >= 0).unsqueeze(-1)
    similar = torch.einsum("qnd,csd->qcns", questions, rows).masked_fill(~batch["real"][None, :, None, :], -1.0)
    scores = similar.amax(-1).sum(-1)
    loss_page = F.cross_entropy(scores * 3, batch["asked_of"])
    found = (scores.argmax(1) == batch["asked_of"]).float().mean()
    loss = loss_word + 0.5 * blank + 0.6 * loss_query + loss_page
    return loss, {"word": loss_word, "hit": hit, "blank": blank, "query": loss_query, "page": loss_page, "found": found}


def looked(model: Colibri, batch: dict, device: torch.device) -> None:
    """For a tower that stands still: puts the visual tokens into a batch in place of its pixels, once for all the times it comes."""
    if "visual" not in batch:
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            visual = model.look(unpacked({k: batch.pop(k).to(device) for k in ("grey", "colour", "order")}))
        batch["visual"] = visual.to("cpu", torch.bfloat16)
        del batch["grid"]


def step_loss(model: Colibri, heads: Heads, drawn: dict, pool: torch.Tensor, slips: Slips, retrieving: bool, answering: bool) -> tuple[torch.Tensor, dict]:
    batch = {k: v.to(pool.device, non_blocking=True) if torch.is_tensor(v) else v for k, v in drawn.items()}
    with torch.autocast(pool.device.type, dtype=torch.bfloat16):
        if "visual" in batch:
            visual, patches = batch["visual"], None
        else:
            patches = model.tower(unpacked(batch))
            visual = model.model.connector(patches)
            named, letters = heads.characters(patches), heads.letters(visual)
        # A generator that says noise must not teach the tower: its gradient is let in little by little.
        if answering:
            said, under = answer(model, batch, torch.lerp(visual.detach(), visual, batch["progress"]), slips)
            if slips.share:
                drawn["slips"] = slips.note(drawn, said)
        if retrieving:
            # Padding stands on the right and attention is causal: no mask is needed.
            late = model.linear(model.states(batch["prompts"], visual.flatten(0, 1)))
            queries = model.linear(model.states(batch["query_ids"], None))
    loss, parts = generator_loss(batch, said, under) if answering else (0.0, {})
    if patches is not None:
        loss_characters, right = character_loss(named, batch["grid"])
        loss_letters, kept = character_loss(letters, batch["grid"])
        loss = loss + loss_characters + 0.4 * loss_letters
        parts |= {"right": right, "kept": kept}
    if retrieving:
        more, others = retriever_loss(model, batch, late, queries, pool)
        loss, parts = loss + 0.5 * more, parts | others
    return loss, {f"{'page' if batch['pages'] else 'tile'} {k}": v for k, v in parts.items()}


def main() -> None:
    options = parse(__doc__)
    run(options.processes, functools.partial(train, options))


def train(options: argparse.Namespace, together: Together) -> None:
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length, which takes longer than the attention
    torch.manual_seed(options.seed)
    folder = options.runs / "tokenizer"
    tokenizer = load_tokenizer(folder)
    model = Colibri(config(tokenizer)).to(device)
    if options.adapter:
        model.requires_grad_(False)
        for part in (*model.adapters, model.linear):
            for name, parameter in part.named_parameters():
                parameter.requires_grad_("base" not in name)
    if options.frozen:
        model.model.vision_model.requires_grad_(False)
        model.model.connector.requires_grad_(False)
    if device.type == "cpu":
        fuse(model, options.runs)
    heads = Heads(model).to(device)
    pool = dense.word_pool(random.Random(options.seed)).to(device)
    slips = Slips(tokenizer, options.slips)
    optimiser = Optimisers(model, heads, options.rate)
    clock = Clock(options, "whole", quiet=together.rank > 0)
    fitted = resume(options, "whole", model, heads, optimiser, clock)
    tiles = dense.Tiles(folder, options.batch, 4, options.seed)
    pages = Batches(folder, options.pages, options.tiles, options.seed, options.easy, options.turns, options.favour, options.rounds, options.aloud, options.apart, options.enlarge)
    draw = lambda batches, start: loader(batches, start * together.size, options.workers, device.type == "cuda", together)
    if not fitted and not options.frozen:
        dense.fit_heads(model, heads, enumerate(draw(tiles, 10_000_000)), 80, device)
        fitted = True
    together.same(model, heads)
    mean = None
    if options.mean and together.rank == 0:
        path = options.runs / "whole-mean.pt"
        if clock.step == 0:  # that of another run
            path.unlink(missing_ok=True)
        mean = Mean(path, options.mean, {"model": model, "heads": heads} if fitted else {"model": model})

    def keep() -> None:
        if together.rank == 0:
            save(options, "whole", model, heads if fitted else None, optimiser, clock)
        if mean:
            mean.save()

    # Two streams: the second is full and waits when the first has done its part.
    first = options.letters * clock.limit
    early = draw(tiles, clock.step) if clock.elapsed() < first else None
    late = iter(Replay(draw(pages, clock.step * options.accumulate), ROUND, options.replay, options.hold, options.seed))
    while True:
        over, rate = together.agree(clock.over(), clock.schedule())
        if over:
            break
        optimiser.scale(rate)
        optimiser.zero_grad(set_to_none=True)
        for part in range(options.accumulate):
            if clock.elapsed() < first:
                loss, parts = dense.step_loss(model, heads, clock.wait(early), pool, torch.bfloat16)
                size = options.batch
            else:
                batch = clock.wait(late)
                if options.frozen:
                    looked(model, batch, device)
                loss, parts = step_loss(model, heads, batch, pool, slips, batch["pages"] and (clock.step * options.accumulate + part) % options.seldom == 0, not options.adapter)
                size = options.pages
            (loss / options.accumulate).backward()
            clock.note(parts, size)
        together.average(model, heads)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        clock.tick()
        if mean:
            mean.tick()
        if clock.due():
            keep()
    keep()


if __name__ == "__main__":
    main()
