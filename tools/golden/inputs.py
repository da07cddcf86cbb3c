"""Small picture files in every mode that people feed in, with the RGB that they must become.

Expected: the orientation of EXIF applied, then what `convert_to_rgb` of transformers makes of it (transparency
composited on white), except for 16-bit grey: Pillow clips it at 255, which turns almost every such scan white, so
there the high byte is expected, as Pillow itself takes of 16-bit colour.
"""

import shutil
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from transformers.image_transforms import convert_to_rgb

from paths import PIXELS, sha256, write_json
from pixels import pattern

FOLDER = PIXELS / "inputs"
W, H = 24, 18
# libjpeg and other decoders may differ by a unit or two in the inverse transform and in chroma upsampling.
JPEG_TOLERANCE = 4
# Colour conversion of CMYK is not standardised: only gross errors (inverted channels) should fail.
CMYK_TOLERANCE = 24


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(array: np.ndarray, colour_type: int, depth: int, extra: bytes = b"") -> bytes:
    """A PNG of modes that Pillow cannot write. `array`: (height, width, channels), one sample an element."""
    height, width, channels = array.shape
    rows = array.reshape(height, width * channels)
    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    elif depth == 8:
        lines = [row.astype(np.uint8).tobytes() for row in rows]
    else:
        lines = []
        for row in rows:
            bits = "".join(f"{int(value):0{depth}b}" for value in row)
            bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
            lines.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    data = zlib.compress(b"".join(b"\0" + line for line in lines), 9)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    out = BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def wide16(values: np.ndarray) -> np.ndarray:
    """8-bit values with a low byte that a rounding converter would let through."""
    low = (values.astype(np.uint32) * 37 + 200) & 255
    return (values.astype(np.uint32) << 8 | low).astype(np.uint16)


def files() -> dict[str, tuple[bytes, dict]]:
    """Name → (bytes, notes). Notes may hold `tolerance` and `expected` where Pillow's own answer is not wanted."""
    rgb = pattern(W, H)
    x, y = np.meshgrid(np.arange(W), np.arange(H))
    alpha = ((x * 11 + y * 13) & 255).astype(np.uint8)
    alpha[:4] = 255
    alpha[-4:] = 0
    grey = rgb[..., 2]
    picture = Image.fromarray(rgb, "RGB")
    rgba = np.dstack([rgb, alpha])
    palette = picture.quantize(13, dither=Image.Dither.NONE)
    out: dict[str, tuple[bytes, dict]] = {}

    def add(name: str, data: bytes, **notes) -> None:
        out[name] = (data, notes)

    add("rgb.png", encode(picture, "PNG"))
    add("rgba.png", encode(Image.fromarray(rgba, "RGBA"), "PNG"))
    add("grey.png", encode(Image.fromarray(grey, "L"), "PNG"))
    add("grey-alpha.png", encode(Image.fromarray(np.dstack([grey, alpha]), "LA"), "PNG"))
    add("grey-key.png", encode(Image.fromarray(grey, "L"), "PNG", transparency=int(grey[0, 0])))
    add("rgb-key.png", encode(picture, "PNG", transparency=tuple(int(v) for v in rgb[9, 9])))
    add("one-bit.png", encode(Image.fromarray(grey, "L").convert("1", dither=Image.Dither.NONE), "PNG"))
    add("grey-2.png", raw_png(grey[..., None] >> 6, 0, 2))
    add("grey-4.png", raw_png(grey[..., None] >> 4, 0, 4))
    add("palette.png", encode(palette, "PNG"))
    add("palette-key.png", encode(palette, "PNG", transparency=3))
    add("palette-alpha.png", encode(palette, "PNG", transparency=bytes(range(0, 260, 20))))
    add("rgb-16.png", raw_png(wide16(rgb), 2, 16))
    add("rgba-16.png", raw_png(wide16(rgba), 6, 16))
    add("grey-alpha-16.png", raw_png(wide16(np.dstack([grey, alpha])), 4, 16))
    high = np.repeat(grey[..., None], 3, axis=2)
    add("grey-16.png", raw_png(wide16(grey[..., None]), 0, 16), expected=high,
        note="Pillow opens this as I;16 and clips at 255; expected is the high byte")  # fmt: skip
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"orientation-{orientation}.png", encode(picture, "PNG", exif=exif))
    # Flat blocks on the 8x8 grid survive JPEG almost unchanged.
    blocks = np.kron(pattern(3 * 32, 2 * 32)[::32, ::32][:2, :3], np.ones((16, 16, 1), dtype=np.uint8))
    blocks = Image.fromarray(np.ascontiguousarray(blocks), "RGB")
    for orientation in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"orientation-{orientation}.jpg", encode(blocks, "JPEG", quality=95, subsampling=0, exif=exif),
            tolerance=JPEG_TOLERANCE)  # fmt: skip
    add("grey.jpg", encode(blocks.convert("L"), "JPEG", quality=95), tolerance=JPEG_TOLERANCE)
    add("cmyk.jpg", encode(blocks.convert("CMYK"), "JPEG", quality=95), tolerance=CMYK_TOLERANCE)
    add("rgb.webp", encode(picture, "WEBP", lossless=True, exact=True))
    add("rgba.webp", encode(Image.fromarray(rgba, "RGBA"), "WEBP", lossless=True, exact=True))
    add("rgb.bmp", encode(picture, "BMP"))
    add("palette.gif", encode(palette, "GIF"))
    add("rgb.tiff", encode(picture, "TIFF"))
    add("rgb-lzw.tiff", encode(picture, "TIFF", compression="tiff_lzw"))
    add("grey-16.tiff", encode(Image.fromarray(wide16(grey)), "TIFF"), expected=high,
        note="Pillow opens this as I;16 and clips at 255; expected is the high byte")  # fmt: skip
    # Every colour value over every alpha.
    value, opacity = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    table = np.dstack([value, 255 - value, value, opacity])
    add("rgba-all.png", encode(Image.fromarray(table, "RGBA"), "PNG", optimize=True), hash_only=True)
    return out


def expected_rgb(data: bytes) -> tuple[np.ndarray, str]:
    with Image.open(BytesIO(data)) as picture:
        mode = picture.mode
        upright = ImageOps.exif_transpose(picture)
        return np.ascontiguousarray(convert_to_rgb(upright, return_numpy=True)), mode


def make() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    manifest, tensors = [], {}
    for name, (data, notes) in files().items():
        Path(FOLDER / name).write_bytes(data)
        rgb, mode = expected_rgb(data)
        rgb = notes.get("expected", rgb)
        entry = {"file": name, "pillow_mode": mode, "size": [rgb.shape[1], rgb.shape[0]], "sha256": sha256(rgb.tobytes())}
        entry["tolerance"] = notes.get("tolerance", 0)
        if "note" in notes:
            entry["note"] = notes["note"]
        manifest.append(entry)
        if not notes.get("hash_only"):
            tensors[name] = np.ascontiguousarray(rgb)
    write_json(FOLDER / "inputs.json", manifest)
    save_file(tensors, FOLDER / "expected.safetensors")
