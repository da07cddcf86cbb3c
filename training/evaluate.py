"""Measures a checkpoint on pages and questions it never saw.

Retrieval (visual only): N held-out pages (seeds and fonts no training page had), one question each; recall@1 and @5 of MaxSim over
all rows. `--stage NAME` reads a training checkpoint through our own code; without it the exported folders are read through
colpali-engine and transformers themselves, pages through the real processor.

    python evaluate.py --stage whole --pages 64
    python evaluate.py --pages 200                              # builtin/ as shipped
    python evaluate.py --corpus ../../shared/corpus             # documents nobody generated (needs poppler's pdftoppm)
    python evaluate.py --documents ../examples/documents
"""

from __future__ import annotations

import quiet  # noqa: F401  (first)
import argparse
import json
import random
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import processing
from model import TOKENS, Colibri, config, load_tokenizer, unpacked
from pages import kinds
from pages.canvas import Canvas

#: Held-out pages are numbered from here; training seeds stay far below.
HELD_OUT_SEED = 900_000_000


class Ours:
    """A training checkpoint, through `model.py`."""

    def __init__(self, runs: Path, stage: str) -> None:
        self.tokenizer = load_tokenizer(runs / "tokenizer")
        self.model = Colibri(config(self.tokenizer))
        self.model.load_state_dict(torch.load(runs / f"{stage}.pt", weights_only=True)["model"])
        self.model.eval()

    @torch.inference_mode()
    def document(self, image: Image.Image) -> torch.Tensor:
        tiles, rows, columns = processing.split(Canvas(image.convert("RGB")))
        ids = torch.tensor([processing.document_ids(self.tokenizer, rows, columns, TOKENS)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            visual = self.model.look(unpacked(processing.packed(tiles)))
            states = self.model.states(ids, visual)
        return self.model.rows(states.float())[0]

    @torch.inference_mode()
    def query(self, text: str) -> torch.Tensor:
        ids = self.tokenizer.encode(text + "<end_of_utterance>" * 10).ids
        return self.model.rows(self.model.states(torch.tensor([ids]), None))[0]


class Shipped:
    """The exported folders, through colpali-engine 0.3.18, PEFT and transformers."""

    def __init__(self, folder: Path) -> None:
        from colpali_engine.models import ColIdefics3, ColIdefics3Processor
        from peft import PeftModel
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

        base = ColIdefics3.from_pretrained(str(folder / "base"), dtype=torch.float32)
        self.model = PeftModel.from_pretrained(base, str(folder / "retriever")).eval()
        self.processor = ColIdefics3Processor.from_pretrained(str(folder / "retriever"))
        self.processor.image_processor = Idefics3ImageProcessorPil.from_pretrained(str(folder / "retriever"))

    @torch.inference_mode()
    def document(self, image: Image.Image) -> torch.Tensor:
        return self.model(**self.processor.process_images([image.convert("RGB")]))[0]

    @torch.inference_mode()
    def query(self, text: str) -> torch.Tensor:
        return self.model(**self.processor.process_queries([text]))[0]


def recall(model, pages: list, asked: list[tuple[str, int]], kinds_: list[str] | None = None) -> dict:
    """Ranks all pages for every (question, page number); returns recall and the time a page takes."""
    started = time.monotonic()
    rows = [model.document(p) for p in pages]
    seconds = (time.monotonic() - started) / len(pages)
    ranks, by_kind, missed = [], defaultdict(list), []
    for number, (question, right) in enumerate(asked):
        query = model.query(question)
        scores = torch.stack([(query @ r.T).amax(1).sum() for r in rows])
        rank = int((scores > scores[right]).sum())
        ranks.append(rank)
        if kinds_:
            by_kind[kinds_[number]].append(rank)
        if rank:
            missed.append((rank, question))
    share = lambda r, k: round(float(np.mean([x < k for x in r])), 3)
    return {"pages": len(pages), "questions": len(asked), "recall@1": share(ranks, 1), "recall@5": share(ranks, 5), "chance@1": round(1 / len(pages), 3),
            "seconds/page": round(seconds, 2), "by kind": {k: (share(v, 1), len(v)) for k, v in sorted(by_kind.items())}, "missed": missed[:8]}


def held_out(count: int):
    """Pages from unseen seeds in unseen fonts, with one question each."""
    pages, asked, names = [], [], []
    for number in range(count):
        rng = random.Random(HELD_OUT_SEED + number)
        page = kinds.page(rng, held_out=True)
        fact = rng.choice(page.facts)
        pages.append(page.canvas.image)
        asked.append((fact.question, number))
        names.append(page.kind)
    return pages, asked, names


def documents(folder: Path, dpi: int = 120):
    """The pages of a folder's documents that its `questions.jsonl` names, and all their other pages."""
    questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines() if line.strip()]
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".pdf", ".png", ".jpg"))
    pages, where = [], {}
    for path in files:
        name = str(path.relative_to(folder))
        if path.suffix == ".pdf":
            with tempfile.TemporaryDirectory() as out:
                subprocess.run(["pdftoppm", "-r", str(dpi), "-png", str(path), f"{out}/p"], check=True, capture_output=True)
                found = [Image.open(p).convert("RGB") for p in sorted(Path(out).glob("*.png"))]
        else:
            image = Image.open(path)
            found = [image.convert("RGB")]
        for number, image in enumerate(found, 1):
            where[name, number] = len(pages)
            pages.append(image)
    asked = [(q["question"], where[q["doc"], q["page"]]) for q in questions if (q["doc"], q["page"]) in where]
    return pages, asked, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent
    parser.add_argument("--runs", type=Path, default=here / "runs")
    parser.add_argument("--stage")
    parser.add_argument("--builtin", type=Path, default=here.parent / "builtin")
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = Ours(options.runs, options.stage) if options.stage else Shipped(options.builtin)
    material = documents(options.corpus or options.documents) if options.corpus or options.documents else held_out(options.pages)
    result = recall(model, *material)
    for key, value in result.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
