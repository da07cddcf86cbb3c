"""The fonts pages are set in, and which of them training never sees.

Fonts come from Debian packages (README) and are never copied into the project. `TRAIN` and `HELD_OUT` name families by file
prefix; a family that is not installed is skipped, but at least eight training and three held-out families must be there.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

ROOT = Path("/usr/share/fonts")
TRAIN = (
    "DejaVuSans-", "DejaVuSans.", "DejaVuSansCondensed", "DejaVuSerif", "DejaVuSansMono", "LiberationSans-", "LiberationSerif-", "LiberationMono-", "FreeSans", "FreeSerif",
    "Lato-", "Roboto-", "RobotoCondensed", "Inter-", "B612-", "Hack-", "LinLibertine_R", "LinBiolinum", "C059", "URWBookman", "URWGothic",
    "NimbusSansNarrow", "Quicksand", "FiraCode", "Arimo", "Tinos", "Cousine",
    "GilliusADF-", "LibrisADFStd-", "UniversalisADFStd-", "Cabin-", "ClearSans-", "cmunrm", "cmunss.", "Courier Prime", "Dosis-", "EBGaramond12-R", "GFSDidot",
    "GFSNeohellenic", "Go-", "Inconsolata", "JetBrainsMono-", "Karla-", "LindenHill", "Manrope-", "OldStandard-", "Oxygen", "PTS", "PTF", "Play-", "Quattrocento-",
    "Andika-", "CharisSIL-", "STIX-", "Tuffy", "Vollkorn-", "Yrsa-", "NimbusSans-", "NimbusRoman-", "Cardo", "mononoki-",
)
HELD_OUT = ("Carlito", "Caladea", "GenBas", "GenBkBas", "Cantarell", "OpenSans-", "P052", "RobotoSlab")
#: Cuts too thin, too heavy or too ornate to be read at twenty pixels.
SKIPPED = ("Thin", "Hairline", "ExtraLight", "Black", "Heavy", "Display", "_M.", "_K.", "_DR", "_RZ", "08-", "Light", "Smallcaps")


@lru_cache(maxsize=2)
def files(held_out: bool = False) -> tuple[tuple[str, ...], ...]:
    """Font files grouped by family; every family is as likely as any other."""
    found = sorted(p for p in ROOT.rglob("*") if p.suffix in (".ttf", ".otf"))
    groups = []
    for family in HELD_OUT if held_out else TRAIN:
        group = tuple(str(p) for p in found if p.name.startswith(family) and not any(s in p.name for s in SKIPPED))
        if group:
            groups.append(group)
    needed = 3 if held_out else 8
    if len(groups) < needed:
        raise FileNotFoundError(f"under `{ROOT}` {len(groups)} of the font families were found, {needed} are needed; see README.md for the packages")
    return tuple(groups)


@lru_cache(maxsize=4096)
def font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size, in whole pixels of em, with the simple layout engine (no shaping: boxes add up)."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def choose(rng: random.Random, held_out: bool = False) -> tuple[str, str]:
    """A regular cut and a bold (or other) cut of one family."""
    group = rng.choice(files(held_out))
    upright = [p for p in group if "Italic" not in p and "Oblique" not in p and "Bold" not in p and not p.endswith(("I.otf", "BI.ttf"))] or list(group)
    bold = [p for p in group if "Bold" in p or "Demi" in p or p.endswith(("B.ttf", "RB.otf"))] or upright
    plain = rng.choice(upright) if rng.random() < 0.8 else rng.choice(group)
    return plain, rng.choice(bold)
