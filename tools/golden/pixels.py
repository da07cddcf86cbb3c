"""Goldens of the image processor and of Pillow's resampler, over source pictures made by a formula.

The formula is integer arithmetic, so that a test makes the same picture without storing it (see `pattern`).
"""

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from transformers import Idefics3ImageProcessorPil
from transformers.image_utils import SizeDict
from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

from paths import PIXELS, sha256, write_json, write_lines
from prompts import uint8_tiles

FORMULA = (
    "u32, wrapping: h = x*0x9E3779B1 + y*0x85EBCA77 + c*0xC2B2AE3D; h ^= h>>15; h *= 0x2C1B3C6D; h ^= h>>12; "
    "h *= 0x297A2D39; h ^= h>>15; kind = ((x>>5) + 3*(y>>5)) & 3; "
    "value = kind 0: (3x + 5y + 85c) & 255; kind 1: ((x/3 + y/5 + c) & 1) * 255; kind 2: h & 255; kind 3: 255 - 16c"
)


def pattern(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: gradients that wrap, hard stripes, noise and flat light areas in a mosaic of 32."""
    x = np.arange(width, dtype=np.uint32)[None, :, None]
    y = np.arange(height, dtype=np.uint32)[:, None, None]
    c = np.arange(3, dtype=np.uint32)[None, None, :]
    h = x * np.uint32(0x9E3779B1) + y * np.uint32(0x85EBCA77) + c * np.uint32(0xC2B2AE3D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    h *= np.uint32(0x297A2D39)
    h ^= h >> np.uint32(15)
    kind = ((x >> np.uint32(5)) + np.uint32(3) * (y >> np.uint32(5))) & np.uint32(3)
    gradient = (x * np.uint32(3) + y * np.uint32(5) + c * np.uint32(85)) & np.uint32(255)
    stripes = ((x // np.uint32(3) + y // np.uint32(5) + c) & np.uint32(1)) * np.uint32(255)
    noise = h & np.uint32(255)
    flat = np.uint32(255) - np.uint32(16) * c + np.zeros_like(h)
    value = np.select([kind == 0, kind == 1, kind == 2], [gradient, stripes, noise], flat)
    return value.astype(np.uint8)


SIZES = [
    (1700, 2200), (1240, 1754), (595, 842), (800, 600), (3000, 500), (512, 512), (100, 100), (20, 20), (1, 1),
    (1, 300), (300, 1), (2048, 2048), (4097, 13), (5000, 400), (333, 777), (2047, 1535), (513, 511), (7, 4099),
]  # fmt: skip
FEW = [(1240, 1754), (800, 600), (3000, 500), (100, 100), (1, 300), (333, 777), (1455, 1457)]
SMALL = [(150, 200), (240, 90), (64, 64), (65, 64), (64, 65), (1, 1), (2, 3), (200, 1), (1, 200), (129, 127), (97, 31)]


def settings() -> list[dict]:
    """Tile side, longest edge, splitting, and the sizes to run."""
    out = [
        {"tile": 512, "longest_edge": 2048, "splitting": True, "sizes": SIZES},
        {"tile": 384, "longest_edge": 1536, "splitting": True, "sizes": FEW + [(1700, 2200), (595, 842), (20, 20)]},
        {"tile": 364, "longest_edge": 1456, "splitting": True, "sizes": FEW},
        # Fewer tiles, and a longest edge that is no multiple of the tile or is above the cap of 4096.
        {"tile": 512, "longest_edge": 512, "splitting": True, "sizes": [(800, 600), (1240, 1754), (100, 100)]},
        {"tile": 512, "longest_edge": 1024, "splitting": True, "sizes": [(800, 600), (1240, 1754)]},
        {"tile": 512, "longest_edge": 1536, "splitting": True, "sizes": [(1240, 1754), (3000, 500)]},
        {"tile": 512, "longest_edge": 700, "splitting": True, "sizes": [(800, 600), (300, 1)]},
        {"tile": 512, "longest_edge": 5120, "splitting": True, "sizes": [(900, 60), (60, 900)]},
        {"tile": 512, "longest_edge": 2048, "splitting": False, "sizes": [(1240, 1754), (800, 600), (20, 20), (1, 300)]},
        {"tile": 384, "longest_edge": 1536, "splitting": False, "sizes": [(800, 600), (3000, 500)]},
        {"tile": 64, "longest_edge": 64, "splitting": True, "sizes": SMALL},
        {"tile": 64, "longest_edge": 128, "splitting": True, "sizes": SMALL},
        {"tile": 64, "longest_edge": 256, "splitting": True, "sizes": SMALL},
        {"tile": 83, "longest_edge": 166, "splitting": True, "sizes": SMALL},
        {"tile": 64, "longest_edge": 128, "splitting": False, "sizes": SMALL},
    ]  # fmt: skip
    return out


def processor(tile: int, longest_edge: int, splitting: bool) -> Idefics3ImageProcessorPil:
    return Idefics3ImageProcessorPil(
        do_image_splitting=splitting,
        max_image_size={"longest_edge": tile},
        size={"longest_edge": longest_edge},
        resample=Image.Resampling.LANCZOS,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def processor_cases() -> list[dict]:
    out = []
    for group in settings():
        runner = processor(group["tile"], group["longest_edge"], group["splitting"])
        for width, height in group["sizes"]:
            source = pattern(width, height)
            tiles, rows, cols = uint8_tiles(runner, Image.fromarray(source, "RGB"))
            step1 = get_resize_output_image_size(source.transpose(2, 0, 1), group["longest_edge"])
            out.append(
                {
                    "size": [width, height],
                    "tile": group["tile"],
                    "longest_edge": group["longest_edge"],
                    "do_image_splitting": group["splitting"],
                    "resized": [step1[1], step1[0]],
                    "rows": rows,
                    "cols": cols,
                    "frames": len(tiles),
                    "sha256": sha256(tiles.tobytes()),
                    # The first eight digits for each frame, to see which one differs.
                    "frame_sha256": [sha256(frame.tobytes())[:8] for frame in tiles],
                }
            )
    return out


FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
RESIZES = [
    ((100, 80), (37, 29)), ((100, 80), (100, 31)), ((100, 80), (31, 80)), ((100, 80), (100, 80)),
    ((37, 29), (100, 80)), ((37, 29), (38, 30)), ((1, 1), (64, 64)), ((1, 300), (64, 64)), ((300, 1), (7, 64)),
    ((640, 480), (1, 1)), ((640, 480), (448, 448)), ((1000, 7), (64, 448)), ((513, 517), (512, 512)),
    ((33, 65), (2048, 3)), ((2500, 90), (61, 1000)),
]  # fmt: skip


def resize_cases() -> list[dict]:
    out = []
    for source, target in RESIZES:
        picture = Image.fromarray(pattern(*source), "RGB")
        for name, resample in FILTERS.items():
            resized = np.asarray(picture.resize(target, resample))
            entry = {"from": list(source), "to": list(target), "filter": name, "sha256": sha256(resized.tobytes())}
            out.append(entry)
    return out


def normalise_table() -> None:
    """All 256 values of a channel after rescaling and normalising: exact float32 numbers."""
    tables = {}
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256)).copy()
    for name, mean, std in (
        ("half", [0.5] * 3, [0.5] * 3),
        ("other", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ):
        runner = processor(512, 2048, True)
        rescaled = runner.rescale(values, 0.00392156862745098)
        tables[name] = np.ascontiguousarray(runner.normalize(rescaled, mean, std)[:, 0, :])
        assert tables[name].dtype == np.float32
    PIXELS.mkdir(parents=True, exist_ok=True)
    save_file(tables, PIXELS / "normalise.safetensors")


def check_against_pillow() -> None:
    """The class used here resizes with Pillow, not with torchvision."""
    source = pattern(90, 70)
    runner = processor(64, 64, True)
    ours = runner.resize(source.transpose(2, 0, 1), SizeDict(height=31, width=50), resample=Image.Resampling.LANCZOS)
    pillow = np.asarray(Image.fromarray(source, "RGB").resize((50, 31), Image.Resampling.LANCZOS))
    assert np.array_equal(ours.transpose(1, 2, 0), pillow)


def make() -> None:
    check_against_pillow()
    write_json(PIXELS / "pattern.json", {
        "formula": FORMULA,
        "samples": [
            {"size": list(size), "sha256": sha256(pattern(*size).tobytes())} for size in ((1, 1), (97, 31), (300, 200))
        ],
    })  # fmt: skip
    write_lines(PIXELS / "processor.json", processor_cases())
    write_lines(PIXELS / "resize.json", resize_cases())
    normalise_table()
