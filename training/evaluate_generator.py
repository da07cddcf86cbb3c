"""Measures the generator on tiles, pages and questions it never saw (held-out seeds and fonts).

Reading: the character error rate (edits / characters) of tiles of several lines, said greedily; as the processor cuts them, twice as large, and
uncut. Answering: exact match by kind of
question, asked about the page alone. An answer is said greedily exactly if every token of it is the likeliest after the true ones
before it, so one packed pass tells for all questions of a page.

    python evaluate_generator.py --stage whole --tiles 40 --pages 60
"""

from __future__ import annotations

import quiet  # noqa: F401  (first)
import argparse
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

import facts
import processing
import speech
from evaluate import HELD_OUT_SEED
from model import Colibri, config, load_tokenizer, unpacked
from pages import kinds
from whole import answer


def edits(said: str, meant: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(meant) + 1))
    for i, a in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(meant, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


class Generator:
    def __init__(self, runs: Path, stage: str) -> None:
        self.tokenizer = load_tokenizer(runs / "tokenizer")
        self.model = Colibri(config(self.tokenizer))
        self.model.load_state_dict(torch.load(runs / f"{stage}.pt", weights_only=True)["model"])
        self.model.eval()
        self.image = self.model.cfg.image_token_id

    @torch.inference_mode()
    def look(self, sheet: dict) -> dict:
        """Adds the visual tokens to a sheet."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sheet["visual"] = self.model.look(unpacked(processing.packed(sheet.pop("canvases"))))
        return sheet

    @torch.inference_mode()
    def pass_over(self, sheet: dict) -> tuple[dict, torch.Tensor]:
        """The packed sheet and the logits of its answers' tokens."""
        batch = speech.pack([sheet], self.image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return batch, answer(self.model, batch, sheet["visual"])[0]

    @torch.inference_mode()
    def say(self, sheet: dict, most: int) -> str:
        """The greedy answer to a sheet's first turn."""
        turn = sheet["turns"][0]
        asked, said, end = turn["ids"][: turn["answer"]], [], self.tokenizer.token_to_id(speech.END)
        while len(said) < most:
            # One token more than is known, whose prediction is wanted.
            one = {**sheet, "turns": [{**turn, "ids": asked + said + [end], "places": [-1], "named": [], "said": [], "keys": [], "heads": []}]}
            token = int(self.pass_over(one)[1][-1].argmax())
            if token == end:
                break
            said.append(token)
        return self.tokenizer.decode(said).strip()

    @torch.inference_mode()
    def exact(self, sheet: dict) -> list[bool]:
        batch, said = self.pass_over(sheet)
        known = batch["wanted"] >= 0
        right = said.argmax(-1) == batch["wanted"][known]
        return [bool(right[batch["turn_of"][known] == n].all()) for n in range(batch["turns"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent
    parser.add_argument("--runs", type=Path, default=here / "runs")
    parser.add_argument("--stage", default="whole")
    parser.add_argument("--tiles", type=int, default=40)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = Generator(options.runs, options.stage)
    for name, lines, sheet in (("single words", 1, speech.page_sheet), ("several lines", 5, speech.page_sheet), ("several lines, uncut", 5, speech.tile_sheet)):
        wrong = length = whole = count = 0
        for number in range(options.tiles):
            canvas, turns = facts.lines_tile(random.Random(HELD_OUT_SEED + number), lines, 1 if lines == 1 else 6, held_out=True)
            if turns:
                said = generator.say(generator.look(sheet(generator.tokenizer, canvas, turns)), 2 * len(turns[0].answer) + 8)
                wrong, length, count = wrong + edits(said, turns[0].answer), length + len(turns[0].answer), count + 1
                whole += said == turns[0].answer
                if number < 3:
                    print(f"  {turns[0].answer!r} read as {said!r}")
        print(f"{name}: {count} tiles, character error rate {wrong / max(length, 1):.3f}, whole answers right {whole / max(count, 1):.3f}")
    right: dict[str, list[bool]] = defaultdict(list)
    for number in range(options.tiles):
        canvas, turns = facts.fields_tile(random.Random(HELD_OUT_SEED + number), held_out=True)
        if turns:
            right["key-value on a tile"] += generator.exact(generator.look(speech.tile_sheet(generator.tokenizer, canvas, turns)))
    for number in range(options.pages):
        page = kinds.page(random.Random(HELD_OUT_SEED + number), held_out=True)
        turns = [facts.turn(page.canvas.words, fact, False) for fact in page.facts]
        sheet = generator.look(speech.page_sheet(generator.tokenizer, page.canvas, turns))
        for turn, exact in zip(turns, generator.exact(sheet)):
            right[f"{turn.kind} on a page"].append(exact)
    for kind, found in sorted(right.items()):
        print(f"{kind}: exact {np.mean(found):.3f} of {len(found)}")


if __name__ == "__main__":
    main()
