"""Stage 3: the generator learns to read tiles aloud and to answer from key-value tiles; tower and connector frozen, adapter off.

Three kinds of supervision beside the next token, since we drew the tile and know where everything is:
* every visual token predicts the piece of text under it, with the text model's own `lm_head` (so the text model can speak the
  language of its visual tokens before it must choose among them);
* pointing: one head of the third layer must look at the visual token under the piece to be said next, one head of the second
  layer at the token under the piece just said;
* a curriculum: single words first, then two, a line, several lines; questions about key-value lines from the middle on.

    python read.py --start retrieve --minutes 8
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import processing
import supervision as sup
from model import GRID, TOKENS, Colibri, config, load_tokenizer, normalise
from pages import crops, effects, fonts, kinds, words
from pages.canvas import Canvas, Word
from pages.questions import KEYS
from training import Clock, Optimisers, parse, resume, save, stream

CELL = 32
KEPT = 4000
READ = "Read the text."


def lines_tile(rng: random.Random, lines: int, per_line: int, held_out: bool = False) -> tuple[Canvas, list[Word], str]:
    """A tile of whole words in whole lines; the words in reading order and the text to say."""
    paper, ink = crops.colours(rng)
    stretch = rng.uniform(0.85, 1.32)
    canvas = Canvas.blank(round(256 / stretch), 256, paper)
    regular, bold = fonts.choose(rng, held_out)
    em = rng.randint(17, 36 if lines < 3 else 28)
    face = fonts.font(bold if rng.random() < 0.25 else regular, em)
    pitch = em * rng.uniform(1.2, 1.8)
    lines = min(lines, int(230 / pitch))
    y = rng.uniform(em, max(250 - pitch * (lines - 1), em + 1))
    spoken = []
    left = rng.uniform(2, 60)
    for _ in range(lines):
        x, said = left if lines > 1 else rng.uniform(2, 150), []
        for _ in range(per_line):
            token = words.token(rng)
            if x + face.getlength(token) > canvas.image.width - 2:
                break
            x = canvas.text(x, y, token, face, ink) + face.getlength(" ")
            said.append(token)
        y += pitch
        if said:
            spoken.append(" ".join(said))
    canvas = canvas.scaled(256, 256)
    return canvas, canvas.words, "\n".join(spoken)


def fields_tile(rng: random.Random, held_out: bool = False) -> tuple[Canvas, list[Word], str, str]:
    """A tile of key-value lines; the words of the answer, the question and the answer."""
    paper, ink = crops.colours(rng)
    canvas = Canvas.blank(256, 256, paper)
    regular, bold = fonts.choose(rng, held_out)
    em = rng.randint(17, 23)
    y = rng.uniform(em, 50)
    entries = []
    for key in rng.sample([k for k in KEYS if len(k) < 11], 6):
        value = kinds.value_for(rng, key)
        if len(value) > 12:
            value = value.split(" ")[-1]
        if y > 250:
            break
        before = len(canvas.words)
        canvas.text(4, y, kinds.heading(key) + ":", fonts.font(regular, em), ink)
        end = canvas.words[-1].right
        value_from = len(canvas.words)
        canvas.text(max(end + em * 0.6, 110), y, value, fonts.font(bold, em), ink)
        if canvas.words[-1].right < 254:
            entries.append((key, value, canvas.words[value_from:]))
        y += em * rng.uniform(1.4, 2.0)
    if not entries:
        return fields_tile(rng, held_out)
    key, value, where = rng.choice(entries)
    return canvas, where, f"What is the {key}?", value


class Spoken:
    """An endless stream of small batches of tiles with what is to be said about them."""

    def __init__(self, tokenizer_folder: Path, batch: int, seed: int, whole: int) -> None:
        self.folder, self.batch, self.seed, self.whole, self.tokenizer = tokenizer_folder, batch, seed, whole, None

    def sample(self, rng: random.Random, progress: float, held_out: bool = False) -> dict:
        if progress > 0.45 and rng.random() < 0.45:
            canvas, where, question, answer = fields_tile(rng, held_out)
        else:
            level = rng.random() * min(1.0, 0.1 + 1.5 * progress)
            lines, per_line = (1, 1) if level < 0.12 else (1, 2) if level < 0.25 else (1, 5) if level < 0.45 else (rng.randint(2, 7), 6)
            canvas, where, answer = lines_tile(rng, lines, per_line, held_out)
            question = READ
            if not answer:
                return self.sample(rng, progress, held_out)
        if rng.random() < 0.15:
            canvas = effects.scan(canvas, rng)
        return speak(self.tokenizer, canvas, where, question, answer)

    def __call__(self, step: int) -> dict:
        self.tokenizer = self.tokenizer or load_tokenizer(self.folder)
        rng = random.Random(self.seed * 3_000_017 + step)
        made = [self.sample(rng, min(step / self.whole, 1.0)) for _ in range(self.batch)]
        return {"samples": made}


def speak(tokenizer, canvas: Canvas, where: list[Word], question: str, answer: str) -> dict:
    """Ids of prompt and answer; for every answer token the visual token under it; for every visual token the piece under it."""
    fake, image, globe = (tokenizer.token_to_id(t) for t in ("<fake_token_around_image>", "<image>", "<global-img>"))
    prompt = [1, *tokenizer.encode("User:").ids, fake, globe, *[image] * TOKENS, fake, *tokenizer.encode(question + "<end_of_utterance>\nAssistant:").ids]
    said = tokenizer.encode(" " + answer)
    places = [-1] * len(said.ids)
    cursor, at = 0, 1  # `at` counts the leading space
    starts = []
    for word in where:
        cursor = (" " + answer).find(word.text, cursor)
        if cursor < 0:
            break
        starts.append((cursor, cursor + len(word.text), word))
        cursor += len(word.text)
    for number, (start, end) in enumerate(said.offsets):
        for first, last, word in starts:
            low, high = max(start, first), min(end, last)
            if low < high:
                places[number] = cell_of(word, low - first, high - first)
                break
    under = np.full(TOKENS, -100)
    share = np.zeros(TOKENS)
    for word in canvas.words:
        pieces = tokenizer.encode(" " + word.text)
        for piece, (start, end) in zip(pieces.ids, pieces.offsets):
            start, end = max(start - 1, 0), end - 1
            if end > start:
                cell, width = cell_of(word, start, end), word.edges[end] - word.edges[start]
                if 0 <= cell and width > share[cell]:
                    under[cell], share[cell] = piece, width
    return {"pixels": np.asarray(canvas.image.convert("RGB")), "prompt": prompt, "said": said.ids + [tokenizer.token_to_id("<end_of_utterance>")],
            "places": places + [-1], "under": under, "question": question, "answer": answer}


def cell_of(word: Word, start: int, end: int) -> int:
    """The visual token under the middle of some characters of a word."""
    x = (word.edges[start] + word.edges[end]) / 2
    y = (word.top + word.bottom) / 2
    column, row = int(x // CELL), int(y // CELL)
    return row * GRID + column if 0 <= row < GRID and 0 <= column < GRID else -1


def loss_of(model: Colibri, samples: list[dict], device: torch.device) -> tuple[torch.Tensor, dict]:
    """Next token, piece under each visual token, and pointing."""
    longest = max(len(s["prompt"]) + len(s["said"]) for s in samples)
    ids = torch.full((len(samples), longest), 2)
    wanted = torch.full((len(samples), longest), -100)
    points: list[tuple[int, int, int, int]] = []
    for row, sample in enumerate(samples):
        prompt, said = sample["prompt"], sample["said"]
        ids[row, : len(prompt) + len(said)] = torch.tensor(prompt + said)
        wanted[row, len(prompt) - 1 : len(prompt) - 1 + len(said)] = torch.tensor(said)
        first = prompt.index(model.cfg.image_token_id)
        for number, place in enumerate(sample["places"]):
            if place >= 0:
                before = sample["places"][number - 1] if number else -1
                points.append((row, len(prompt) - 1 + number, first + place, first + before if before >= 0 else -1))
    ids, wanted = ids.to(device), wanted.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16), model.generating():
        x = model.model.text_model.embed_tokens(ids)
        image = ids == model.cfg.image_token_id
        visual = torch.stack([s["visual"] for s in samples]).to(device)
        x = x.masked_scatter(image.unsqueeze(-1).expand_as(x), visual.to(x.dtype))
        out = model.model.text_model(inputs_embeds=x, use_cache=False, output_attentions=True)
        logits = model.lm_head(out.last_hidden_state[wanted >= 0]).float()
        pieces = model.lm_head(out.last_hidden_state[image]).float()
    loss_next = F.cross_entropy(logits, wanted[wanted >= 0])
    right = (logits.argmax(-1) == wanted[wanted >= 0]).float().mean()
    under = torch.from_numpy(np.stack([s["under"] for s in samples])).flatten().long().to(device)
    loss_under = F.cross_entropy(pieces, under, ignore_index=-100)
    where = torch.tensor(points, device=device)
    look = out.attentions[2][where[:, 0], 0, where[:, 1]].float()
    point = look.gather(1, where[:, 2:3]).clamp(min=1e-6)
    loss_point = -point.log().mean()
    known = where[:, 3] >= 0
    if known.any():
        back = out.attentions[1][where[known, 0], 0, where[known, 1]].float().gather(1, where[known, 3:4]).clamp(min=1e-6)
        loss_point = loss_point - 0.5 * back.log().mean()
    loss = loss_next + 0.3 * loss_under + 0.3 * loss_point
    return loss, {"next": loss_next, "right": right, "under": loss_under, "named": (pieces.argmax(-1) == under)[under >= 0].float().mean(), "pointing": point.mean()}


def train(stage: str, options, make, taught, batch: int) -> None:
    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    model = Colibri(config(load_tokenizer(options.runs / "tokenizer"))).to(device)
    model.model.text_model.config._attn_implementation = "eager"  # pointing needs the attention itself
    optimiser = Optimisers(model, None, options.rate, taught)
    clock = Clock(options, stage)
    resume(options, stage, model, None, optimiser, clock)
    rng = random.Random(options.seed * 31 + clock.step)
    pool: list[dict] = []
    for _, made in stream(make, clock.step, options.workers):
        if clock.over():
            break
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            visual = model.look(normalise(torch.from_numpy(np.stack([s.pop("pixels") for s in made["samples"]])).to(device))).to(torch.bfloat16)
        for sample, tokens in zip(made["samples"], visual):
            sample["visual"] = tokens
        pool = (pool + made["samples"])[-KEPT:]
        optimiser.scale(clock.schedule())
        fresh = made["samples"]
        # Older samples come again: looking costs more than reading.
        chosen = fresh + rng.sample(pool[: -len(fresh)], min(batch - len(fresh), len(pool) - len(fresh))) if len(pool) > len(fresh) else fresh
        loss, parts = loss_of(model, chosen, device)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        clock.tick(parts, len(fresh))
        if clock.due():
            save(options, stage, model, None, optimiser, clock)
    save(options, stage, model, None, optimiser, clock)


def main() -> None:
    options = parse(__doc__, minutes=8, batch=32, rate=1e-3)
    whole = int(options.minutes * 60 * 2.5)  # about as many steps as the time allows; only the pace of the curriculum hangs on it
    taught = lambda name: (".text_model." in name or name.startswith("lm_head")) and "lora_" not in name
    train("read", options, Spoken(options.runs / "tokenizer", 12, options.seed, whole), taught, options.batch)


if __name__ == "__main__":
    main()
