"""What the program makes of held-out pages and tiles, in every precision: the same pages as `evaluate.py` and `evaluate_generator.py`,
written as pictures and handed to the `colibri` binary.

    python evaluate_program.py --colibri ../target/release/colibri --pages 200 --precisions f32,bf16,int8,int4
    python evaluate_program.py --colibri ../target/release/colibri --pages 0 --tiles 60 --questions 60
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
from collections.abc import Iterator
from pathlib import Path

import facts
from evaluate import HELD_OUT_SEED, held_out
from evaluate_generator import edits
from pages import kinds
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
    for name, more in (("tiles", ()), ("tiles uncut", ("--no-split",))):
        for precision, said, same in by_precision(program, cases, generator, precisions, *more):
            wrong = sum(edits(a, answer) for a, (_, _, answer) in zip(said, cases))
            print(f"{precision}: character error rate {wrong / sum(len(c[2]) for c in cases):.3f} on {len(cases)} {name}, {same} of them as in {precisions[0]}", flush=True)


def answering(program: Program, pages: int, generator: str, precisions: list[str]) -> None:
    """A key-value or table question about each of some pages: how many are answered exactly, and as the first precision does."""
    cases, of, number = [], [], 0
    while len(cases) < pages:
        page = kinds.page(random.Random(HELD_OUT_SEED + number), held_out=True)
        asked = [fact for fact in page.facts if fact.kind in ("key-value", "table")]
        if asked:
            path = program.home / f"asked{number:04}.png"
            page.canvas.image.convert("RGB").save(path)
            fact = random.Random(number).choice(asked)
            cases.append((path, f"{fact.core}?", fact.answer))
            of.append(f"{fact.kind}, {page.kind}")
        number += 1
    for precision, said, same in by_precision(program, cases, generator, precisions):
        right = [a == answer for a, (_, _, answer) in zip(said, cases)]
        kinds_ = {kind: f"{sum(r for r, k in zip(right, of) if k == kind)} of {of.count(kind)}" for kind in sorted(set(of))}
        print(f"{precision}: {sum(right)} of {len(cases)} answers exact, {same} of them as in {precisions[0]}; {kinds_}", flush=True)


def by_precision(program: Program, cases: list[tuple[Path, str, str]], generator: str, precisions: list[str], *more: str) -> Iterator[tuple[str, list[str], int]]:
    """What is said to every case in each precision, and how often that is what the first precision says."""
    reference: list[str] = []
    for precision in precisions:
        said = [program("generate", "--generator", generator, "--image", str(path), question, *more, "--precision", precision, "--max-tokens", "160").strip()
                for path, question, _ in cases]
        reference = reference or said
        yield precision, said, sum(a == b for a, b in zip(said, reference))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--colibri", type=Path, required=True, help="the binary")
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--tiles", type=int, default=0)
    parser.add_argument("--retriever", default="builtin")
    parser.add_argument("--questions", type=int, default=0, help="pages that the generator is asked about")
    parser.add_argument("--generator", default="builtin")
    parser.add_argument("--precisions", default="f32,bf16,int8,int4")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="held-out-"))
    try:
        program = Program(options.colibri, home, options.threads)
        precisions = options.precisions.split(",")
        if options.pages:
            retrieval(program, options.pages, options.retriever, precisions)
        if options.tiles:
            reading(program, options.tiles, options.generator, precisions)
        if options.questions:
            answering(program, options.questions, options.generator, precisions)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
