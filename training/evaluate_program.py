"""What the program makes of held-out pages and tiles, in every precision: the same pages as `evaluate.py` and `evaluate_generator.py`,
written as pictures and handed to the `colibri` binary.

    python evaluate_program.py --colibri ../target/release/colibri --pages 200 --precisions f32,bf16,int8,int4
    python evaluate_program.py --colibri ../target/release/colibri --pages 0 --tiles 60 --generator FOLDER
"""

from __future__ import annotations

import quiet  # noqa: F401  (first)
import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import facts
from evaluate import HELD_OUT_SEED, held_out
from evaluate_generator import edits
from speech import READ


class Program:
    """The binary with a home of its own, away from any network."""

    def __init__(self, binary: Path, home: Path, threads: int) -> None:
        self.binary, self.home, self.threads = binary.resolve(), home, threads

    def __call__(self, *words: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([str(self.binary), *words, "--threads", str(self.threads)], env=environment, cwd=self.home, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise SystemExit(f"`colibri {' '.join(words[:3])}` failed: {done.stderr.strip()}")
        return done.stdout


def retrieval(program: Program, pages: int, retriever: str, precisions: list[str]) -> None:
    images, asked, _ = held_out(pages)
    folder = program.home / "pages"
    folder.mkdir()
    for number, image in enumerate(images):
        image.convert("RGB").save(folder / f"{number:04}.png")
    queries = program.home / "questions.jsonl"
    queries.write_text("".join(json.dumps({"query": question}) + "\n" for question, _ in asked))
    for precision in precisions:
        index = str(program.home / f"index-{precision}")
        started = time.monotonic()
        program("index", str(folder), "--index", index, "--retriever", retriever, "--precision", precision, "--quiet")
        seconds = time.monotonic() - started
        found = program("search", "--queries", str(queries), "--mode", "visual", "-k", "5", "--json", "--index", index, "--retriever", retriever, "--precision", precision)
        answers = [json.loads(line) for line in found.splitlines() if line.strip()]
        if len(answers) != len(asked):
            raise SystemExit(f"{len(asked)} questions, but {len(answers)} answers")
        ranks = [[int(Path(hit["document"]).stem) for hit in answer["hits"]] for answer in answers]
        first, five = (sum(page in rank[:most] for rank, (_, page) in zip(ranks, asked)) / len(asked) for most in (1, 5))
        print(f"{precision}: recall@1 {first:.3f}, recall@5 {five:.3f}, {seconds / pages:.3f} s a page with everything", flush=True)


def reading(program: Program, tiles: int, generator: str, precisions: list[str]) -> None:
    """Tiles read aloud, and how often a precision says what the first one says."""
    cases = []
    for number in range(tiles):
        canvas, turns = facts.lines_tile(random.Random(HELD_OUT_SEED + number), 5, 6, held_out=True)
        if turns:
            path = program.home / f"tile{number:04}.png"
            canvas.image.convert("RGB").save(path)
            cases.append((path, READ, turns[0].answer))
    reference: list[str] = []
    for precision in precisions:
        said = [program("generate", "--generator", generator, "--image", str(path), question, "--no-split", "--precision", precision, "--max-tokens", "160").strip()
                for path, question, _ in cases]
        reference = reference or said
        wrong = sum(edits(a, answer) for a, (_, _, answer) in zip(said, cases))
        same = sum(a == b for a, b in zip(said, reference))
        print(f"{precision}: character error rate {wrong / sum(len(c[2]) for c in cases):.3f} on {len(cases)} tiles, {same} of them as in {precisions[0]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--colibri", type=Path, required=True, help="the binary")
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--tiles", type=int, default=0)
    parser.add_argument("--retriever", default="builtin")
    parser.add_argument("--generator", help="a folder that export.py --generator wrote; read with --tiles")
    parser.add_argument("--precisions", default="f32,bf16,int8,int4")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.tiles and not options.generator:
        parser.error("--tiles needs --generator")
    home = Path(tempfile.mkdtemp(prefix="held-out-"))
    try:
        program = Program(options.colibri, home, options.threads)
        precisions = options.precisions.split(",")
        if options.pages:
            retrieval(program, options.pages, options.retriever, precisions)
        if options.tiles:
            reading(program, options.tiles, options.generator, precisions)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
