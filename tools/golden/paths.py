"""Where the goldens are written, and small helpers for writing files that never differ between two runs."""

import hashlib
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
OUT = REPOSITORY / "crates" / "models" / "tests" / "golden"
# Real configuration and tokenizer files, a sibling of the checkout; never copied into it.
REAL_MODELS = REPOSITORY.parent / "shared" / "models"

CHECKPOINTS = OUT / "checkpoints"
CASES = OUT / "cases"
IMAGES = OUT / "images"
PIXELS = OUT / "pixels"
REAL = OUT / "real"


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value, *, compact: bool = False) -> None:
    """Indented for what people read, compact for tables of numbers; key order is the order given."""
    if compact:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    else:
        text = json.dumps(value, ensure_ascii=False, indent=1)
    write_text(path, text + "\n")


def write_lines(path: Path, entries: list[dict]) -> None:
    """A JSON array with one entry a line: small, and still readable in a diff."""
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries)
    write_text(path, f"[\n{lines}\n]\n")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def run_lengths(ids: list[int]) -> list:
    """`[5, 7, 7, 7, 9]` → `[5, [7, 3], 9]`: a run of three or more becomes `[id, count]`."""
    out: list = []
    index = 0
    while index < len(ids):
        end = index
        while end < len(ids) and ids[end] == ids[index]:
            end += 1
        if end - index >= 3:
            out.append([ids[index], end - index])
        else:
            out.extend(ids[index:end])
        index = end
    return out
