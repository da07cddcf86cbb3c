"""What is known about every patch and every visual token, as arrays."""

from __future__ import annotations

import math

import numpy as np

from model import GRID, PATCH, SCALE, TILE
from pages.canvas import Word
from pages.words import bare

#: The characters the throw-away head tells apart; 0 is paper, 1 any other character.
ALPHABET = "".join(chr(c) for c in range(33, 127)) + "€£"
CHARACTERS = {c: i + 2 for i, c in enumerate(ALPHABET)}
CLASSES = len(ALPHABET) + 2
STEP = 8  # the characters are asked for every 8 pixels: 2 x 2 answers a patch
CELL = PATCH * SCALE


def character_grid(words: list[Word], side: int = TILE) -> np.ndarray:
    """The character under every eighth pixel (in the middle of its 8 x 8 square): (side/8, side/8) of class numbers."""
    grid = np.zeros((side // STEP, side // STEP), dtype=np.uint8)
    for word in words:
        top = max(math.ceil((word.top - STEP / 2) / STEP), 0)
        bottom = max(math.ceil((word.bottom - STEP / 2) / STEP), top)
        for i, char in enumerate(word.text):
            left = max(math.ceil((word.edges[i] - STEP / 2) / STEP), 0)
            right = math.ceil((word.edges[i + 1] - STEP / 2) / STEP)
            if right > left:
                grid[top:bottom, left:right] = CHARACTERS.get(char, 1)
    return grid


def tokens_of(word: Word, grid: int = GRID, cell: float = CELL) -> list[int]:
    """The visual tokens (row-major in one tile) that lie over a word's middle line, each with at least a fifth of its width."""
    middle = (word.top + word.bottom) / 2
    row = int(middle // cell)
    if not 0 <= row < grid:
        return []
    first, last = max(int(word.left // cell), 0), min(int(word.right // cell), grid - 1)
    found = [c for c in range(first, last + 1) if min(word.right, (c + 1) * cell) - max(word.left, c * cell) >= cell / 5]
    if not found and first <= last:
        found = [first]
    rows = [row]
    within = middle / cell - row
    if within < 0.25 and row > 0 and word.bottom - word.top > cell / 4:
        rows.append(row - 1)
    elif within > 0.75 and row + 1 < grid and word.bottom - word.top > cell / 4:
        rows.append(row + 1)
    return [r * grid + c for r in rows for c in found]


def empty_tokens(words: list[Word], grid: int = GRID, cell: float = CELL) -> np.ndarray:
    """Whether no word touches a token: (grid * grid) of bool."""
    free = np.ones((grid, grid), dtype=bool)
    for word in words:
        top, bottom = max(int(word.top // cell), 0), min(int(word.bottom // cell), grid - 1)
        left, right = max(int(word.left // cell), 0), min(int(word.right // cell), grid - 1)
        free[top : bottom + 1, left : right + 1] = False
    return free.reshape(-1)


def pairs(words: list[Word]) -> list[tuple[str, list[int]]]:
    """Each word of a tile in its bare form with the tokens over it."""
    found = ((bare(w.text), tokens_of(w)) for w in words)
    return [(text, tokens) for text, tokens in found if text and tokens]
