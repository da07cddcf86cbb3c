"""Regenerates everything under crates/models/tests/golden from fixed seeds: `python tools/golden/make.py`.

Names of jobs as arguments run only these.
"""

import os
import shutil
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch  # noqa: E402
from transformers.utils import logging  # noqa: E402

import cases  # noqa: E402
import colpali  # noqa: E402
import idefics2  # noqa: E402
import images  # noqa: E402
import inputs  # noqa: E402
import pixels  # noqa: E402
import published  # noqa: E402
import real  # noqa: E402
import strings  # noqa: E402
import videos  # noqa: E402
from checkpoints import SPECS  # noqa: E402
from paths import CASES, CHECKPOINTS, IMAGES, OUT  # noqa: E402


def networks() -> None:
    for folder in (CASES, CHECKPOINTS, IMAGES):
        shutil.rmtree(folder, ignore_errors=True)
    pictures = images.write_images()
    seeds: dict[str, int] = {}
    for spec in SPECS:
        if not spec.retriever:
            seeds[spec.name] = cases.make_generator(spec, pictures)
    for retrieval in cases.RETRIEVALS:
        spec = next(spec for spec in SPECS if spec.name == retrieval.base)
        seed = seeds[spec.seed_of] if spec.seed_of else retrieval.seed
        cases.make_retriever(retrieval, seed, pictures)
    colpali.make(pictures)
    idefics2.make(pictures)


def only_smolvlm2() -> None:
    cases.make_generator(next(spec for spec in SPECS if spec.name == "smolvlm2"), images.write_images())


def only_colpali() -> None:
    colpali.make(images.write_images())


def only_idefics2() -> None:
    idefics2.make(images.write_images())


MAX_BYTES = 7_500_000
JOBS = {
    "networks": networks, "smolvlm2": only_smolvlm2, "colpali": only_colpali, "idefics2": only_idefics2, "pixels": pixels.make, "inputs": inputs.make, "strings": strings.make, "real": real.make,
}  # fmt: skip
JOBS["videos"] = videos.make
JOBS["published"] = published.make


def main() -> None:
    # One thread: the order of additions, and so the last bit of every number, does not depend on the machine's cores.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in sys.argv[1:] or JOBS:
        print(f"== {name}")
        JOBS[name]()
    size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    print(f"{size} bytes in all")
    assert size < MAX_BYTES, "the goldens have outgrown their budget"


if __name__ == "__main__":
    main()
