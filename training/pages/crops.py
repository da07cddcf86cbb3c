"""Single tiles full of text: what the tower learns to read on, drawn directly at tile size."""

from __future__ import annotations

import random

from PIL import Image

from . import effects, fonts, words
from .canvas import Canvas


def colours(rng: random.Random) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Paper and ink: mostly dark on light, sometimes coloured, sometimes light on dark."""
    style = rng.random()
    if style < 0.75:
        shade = rng.randint(235, 255)
        ink = rng.randint(0, 90)
        return (shade, shade, shade), (ink, ink, ink)
    dark = tuple(rng.randint(0, 120) for _ in range(3))
    light = tuple(rng.randint(200, 255) for _ in range(3))
    return (light, dark) if style < 0.93 else (dark, light)


def tile(rng: random.Random, side: int = 256, held_out: bool = False, sizes: tuple[int, int] = (16, 44), grey: bool = False) -> Canvas:
    """A tile of random lines: one or two fonts, sizes in pixels of em, stretched as the processor stretches pages."""
    stretch = rng.uniform(0.85, 1.32)  # width over height after the second resize of the processor
    scale = rng.choice((1.0, 1.0, 1.25))  # pages are drawn larger than the tower sees them
    width, height = round(side * scale / stretch), round(side * scale)
    paper, ink = colours(rng)
    canvas = Canvas.blank(width, height, paper)
    low, high = sizes
    y = rng.uniform(-0.4, 1.2) * low * scale
    regular, bold = fonts.choose(rng, held_out)
    while y < height:
        if rng.random() < 0.12:
            regular, bold = fonts.choose(rng, held_out)
        em = round(low * (high / low) ** (rng.random() ** 1.3) * scale)
        face = fonts.font(bold if rng.random() < 0.25 else regular, em)
        lines = rng.randint(1, 4)
        pitch = em * rng.uniform(1.05, 1.7)
        for _ in range(lines):
            y += pitch
            x = rng.uniform(-1.5, 1.5) * em if rng.random() < 0.7 else rng.uniform(0, 0.5) * width
            gap = 1 if rng.random() < 0.7 else rng.uniform(1, 6)
            while x < width and y < height + em * 0.3:
                x = canvas.text(x, y, words.token(rng), face, ink) + face.getlength(" ") * gap
                if rng.random() < 0.06:
                    x += rng.uniform(1, 5) * em
            if rng.random() < 0.06:
                canvas.draw.line((0, y + em * 0.35, width, y + em * 0.35), fill=ink, width=rng.randint(1, 2))
    if grey:
        canvas = canvas.grey()
    if rng.random() < 0.06:
        canvas = effects.turn(canvas, rng.uniform(-1, 1))
    canvas = canvas.scaled(side, side, Image.Resampling.LANCZOS)
    if rng.random() < 0.12:
        canvas = effects.scan(canvas, rng)
    return canvas.crop(0, 0, side)
