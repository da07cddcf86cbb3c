"""Writes `builtin/README.md`, the card that travels with the checkpoint, from the measured results in `results.json`.

    python card.py
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent

TEXT = """# The built-in checkpoint

A very small visual retriever and the skeleton of a generator, trained from scratch by `training/` on pages its scripts draw. It exists so
that Colibri works, and its tests mean something, with no download. It is a genuine Idefics3 / ColIdefics3 checkpoint in the Hugging Face layout.

* `base/`: ColIdefics3 base (`model.*`, `linear.*`); `retriever/`: LoRA adapter over `../base`; `generator/`: Idefics3ForConditionalGeneration,
  its `model.*` equal to the base's.
* Trained on: {trained}
* Retrieval, visual only, {pages} held-out generated pages (unseen seeds, unseen fonts), one question each: recall@1 {r1}, recall@5 {r5}
  (chance {c1} and {c5}).
{more}
* What it cannot do: {cannot}

No data but generated pages was used; no weights of others. Licence: that of the repository.
"""


def main() -> None:
    results = json.loads((HERE / "results.json").read_text())
    results["more"] = "\n".join(f"* {line}" for line in results["more"])
    (HERE.parent / "builtin" / "README.md").write_text(TEXT.format(**results))


if __name__ == "__main__":
    main()
