"""Pictures of our own making for the network cases: drawn, seeded, saved as small PNG files."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from paths import IMAGES


def page(width: int, height: int, seed: int, ink: tuple[int, int, int]) -> Image.Image:
    """A page: a heading, lines of 'words', a bar chart and a coloured box, all placed by the seed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    picture = Image.new("RGB", (width, height), (252, 250, 245))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((6, 5, int(width * 0.6), 12), fill=ink)
    y = 20
    while y < height * 0.55:
        x = 6
        while x < width - 12:
            word = int(rng.integers(5, 24))
            draw.rectangle((x, y, min(x + word, width - 7), y + 3), fill=(40, 40, 48))
            x += word + 4
        y += 8
    bars = max(3, width // 24)
    for bar in range(bars):
        tall = int(rng.integers(4, max(6, int(height * 0.35))))
        left = 6 + bar * (width - 12) // bars
        colour = tuple(int(c) for c in rng.integers(20, 235, 3))
        draw.rectangle((left, height - 6 - tall, left + (width - 12) // bars - 3, height - 6), fill=colour)
    draw.ellipse((width - 22, 2, width - 6, 18), outline=ink, width=2)
    return picture


def slope(width: int, height: int) -> Image.Image:
    """Smooth gradients with a diagonal: content at every frequency a resampler may get wrong."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    red = (x * 255 // max(width - 1, 1)).astype(np.uint8)
    green = (y * 255 // max(height - 1, 1)).astype(np.uint8)
    blue = ((x * 7 + y * 11) % 256 // 64 * 64).astype(np.uint8)
    return Image.fromarray(np.stack([red, green, blue], axis=-1), "RGB")


def pictures() -> dict[str, Image.Image]:
    return {
        "page-tall.png": page(150, 200, 1, (24, 60, 140)),
        "strip-wide.png": page(240, 90, 2, (150, 30, 40)),
        "square.png": page(96, 96, 3, (20, 110, 60)),
        "slope.png": slope(120, 70),
    }


def write_images() -> dict[str, Image.Image]:
    IMAGES.mkdir(parents=True, exist_ok=True)
    out = {}
    for name, picture in pictures().items():
        path: Path = IMAGES / name
        picture.save(path, optimize=True)
        with Image.open(path) as stored:
            out[name] = stored.convert("RGB")
    return out
