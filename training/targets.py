"""The space in which a word read off a page and a word typed in a question meet.

Every word has one fixed vector: the normalised sum of random directions, one for each of its letters, letter pairs and letter
triples (with marks for its beginning and end). Words that look alike are near each other, so a letter misread costs little and
a name never seen in training has its place. The vectors are never shipped and never learnt: they are the *target* that visual
tokens lying over the word and query tokens spelling it are both trained towards, which turns late interaction into soft lexical
matching and gives every token its own gradient from the first step.

Dimension 0 is kept for "nothing": paper, punctuation, tags and words without meaning of their own all point there, so their
part of the MaxSim sum is the same for every page.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np

from pages.questions import KEYS
from pages.words import COMMON, STOP_WORDS, bare

DIM = 128
NOTHING = np.eye(1, DIM, dtype=np.float32)[0]


@lru_cache(maxsize=200_000)
def direction(gram: str) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(gram.encode()))
    vector = generator.standard_normal(DIM).astype(np.float32)
    vector[0] = 0
    return vector


@lru_cache(maxsize=200_000)
def vector(word: str) -> np.ndarray:
    """The target of a bare word, unit length."""
    marked = f"^{word}$"
    total = np.zeros(DIM, dtype=np.float32)
    for n, weight in ((1, 0.6), (2, 1.0), (3, 1.0)):
        source = word if n == 1 else marked
        for i in range(len(source) - n + 1):
            total += weight * direction(source[i : i + n])
    return total / (np.linalg.norm(total) + 1e-6)


#: Words many pages share. In a *question* they count half as much as a name, as inverse document frequency would have it.
FREQUENT = frozenset(COMMON) | {part for key in KEYS for part in key.split()} | set("chart slide form letter table invoice report bar value highest lowest signed received".split())


def asked(word: str) -> np.ndarray:
    """The target of a query token: a frequent word leans towards nothing (cosine 0.5 to its own vector)."""
    return 0.5 * vector(word) + 0.75**0.5 * NOTHING if word in FREQUENT else vector(word)


def is_nothing(word: str) -> bool:
    """Whether a bare word carries no weight in a search."""
    return not word or word in STOP_WORDS


def spans(text: str) -> list[tuple[int, int]]:
    """The words of a text as (start, end), split at white space."""
    found, start = [], None
    for i, char in enumerate(text + " "):
        if char.isspace():
            if start is not None:
                found.append((start, i))
                start = None
        elif start is None:
            start = i
    return found


def prefixes(text: str, offsets: list[tuple[int, int]]) -> list[str]:
    """For each token of a text (by its character offsets) the bare part of its word read so far.

    A causal model cannot know more at that token. Empty for tokens that add nothing: spaces, closing punctuation.
    """
    words = spans(text)
    result, at = [], 0
    for start, end in offsets:
        while at < len(words) and words[at][1] <= start:
            at += 1
        if at == len(words) or end <= words[at][0]:
            result.append("")
            continue
        begin = words[at][0]
        so_far = bare(text[begin:end])
        before = bare(text[begin : max(start, begin)])
        result.append("" if so_far == before else so_far)
    return result
