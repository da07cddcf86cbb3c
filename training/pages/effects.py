"""What happens to a page between the printer and the file: turning, blur, shade, noise, compression."""

from __future__ import annotations

import io
import math
import random

import numpy as np
from PIL import Image, ImageFilter

from .canvas import Canvas, Word


def turn(canvas: Canvas, degrees: float) -> Canvas:
    """Turns the page about its centre by a small angle; word boxes move with their centres and stay upright."""
    image = canvas.image
    fill = image.getpixel((1, 1))
    cx, cy = image.width / 2, image.height / 2
    a = math.radians(-degrees)
    words = []
    for word in canvas.words:
        mx, my = (word.left + word.right) / 2, (word.top + word.bottom) / 2
        nx = cx + (mx - cx) * math.cos(a) - (my - cy) * math.sin(a)
        ny = cy + (mx - cx) * math.sin(a) + (my - cy) * math.cos(a)
        words.append(Word(word.text, [e + nx - mx for e in word.edges], word.top + ny - my, word.bottom + ny - my))
    return Canvas(image.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=fill), words)


def scan(canvas: Canvas, rng: random.Random, strength: float = 1.0) -> Canvas:
    """Noise, a soft lens, uneven light; sometimes JPEG."""
    image = canvas.image
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8) * strength))
    pixels = np.asarray(image, dtype=np.float32)
    generator = np.random.default_rng(rng.getrandbits(32))
    noise = generator.normal(0, rng.uniform(1, 10) * strength, pixels.shape[:2]).astype(np.float32)
    light = np.linspace(rng.uniform(-14, 0), rng.uniform(0, 10), pixels.shape[1], dtype=np.float32)[None, :] * strength
    shift = noise + light
    pixels = np.clip(pixels + (shift if pixels.ndim == 2 else shift[:, :, None]), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if rng.random() < 0.4:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(35, 85))
        image = Image.open(io.BytesIO(buffer.getvalue())).convert(image.mode)
    return Canvas(image, canvas.words)
