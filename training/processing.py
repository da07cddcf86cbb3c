"""Pages to tiles, as transformers' Idefics3 image processor does it: on uint8, with Pillow's Lanczos, three times.

`evaluate.py` uses the real processor; this one keeps the words with the pixels, and a test there checks that both agree bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from model import LONGEST_EDGE, MOST_ENLARGED, TILE
from pages.canvas import Canvas


def sizes(width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The sizes after the first resize, to the longest edge but no more than `MOST_ENLARGED` times, and after the second."""
    ratio, edge = width / height, min(LONGEST_EDGE, MOST_ENLARGED * max(width, height))
    if width >= height:
        w, h = edge, int(edge / ratio)
        h += h % 2
    else:
        w, h = int(edge * ratio), edge
        w += w % 2
    w, h = max(w, 1), max(h, 1)
    ratio = w / h
    if w >= h:
        w2 = math.ceil(w / TILE) * TILE
        h2 = math.ceil(int(w2 / ratio) / TILE) * TILE
    else:
        h2 = math.ceil(h / TILE) * TILE
        w2 = math.ceil(int(h2 * ratio) / TILE) * TILE
    return (w, h), (w2, h2)


def split(canvas: Canvas) -> tuple[list[Canvas], int, int]:
    """The tiles row by row, then the overview; and how many rows and columns there are."""
    first, second = sizes(*canvas.image.size)
    stretched = canvas.scaled(*first).scaled(*second)
    rows, columns = second[1] // TILE, second[0] // TILE
    tiles = [stretched.crop(c * TILE, r * TILE, TILE) for r in range(rows) for c in range(columns)]
    overview = stretched.scaled(TILE, TILE)
    return [*tiles, overview], rows, columns


def packed(tiles: list[Canvas]) -> dict[str, torch.Tensor]:
    """Tiles as little as they can be sent as: the grey ones (n, 256, 256), the others (m, 256, 256, 3), and where each tile is in both
    together. `model.unpacked` takes them."""
    grey = [i for i, t in enumerate(tiles) if t.image.mode == "L"]
    colour = [i for i, t in enumerate(tiles) if t.image.mode != "L"]
    order = np.argsort(np.array(grey + colour, dtype=np.int64))
    stack = lambda chosen, shape: np.stack([np.asarray(tiles[i].image) for i in chosen]) if chosen else np.zeros((0, *shape), dtype=np.uint8)
    arrays = {"grey": stack(grey, (TILE, TILE)), "colour": stack(colour, (TILE, TILE, 3)), "order": order}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def document_ids(tokenizer, rows: int, columns: int, tokens: int, before: str = "<|im_start|>User:", after: str = "Describe the image.<end_of_utterance>\nAssistant:") -> list[int]:
    """The token ids of a prompt with one split image (the retriever's document prompt unless said otherwise)."""
    image = "<image>" * tokens
    text = before
    for r in range(1, rows + 1):
        text += "".join(f"<fake_token_around_image><row_{r}_col_{c}>{image}" for c in range(1, columns + 1)) + "\n"
    text += f"\n<fake_token_around_image><global-img>{image}<fake_token_around_image>" + after
    return tokenizer.encode(text).ids
