"""Processors of transformers and colpali-engine over a checkpoint folder, and the prompts they have used."""

from pathlib import Path

import numpy as np
from colpali_engine.models import ColIdefics3Processor
from transformers import AutoTokenizer, Idefics3ImageProcessorPil, Idefics3Processor

from paths import run_lengths, sha256

# What ColIdefics3 put around a page, and around a query, in each range of colpali-engine versions.
END = "<end_of_utterance>"
DOCUMENT_PROMPTS = {
    "0.3.5": "<|im_start|>User: Describe the image.<image><end_of_utterance>",
    "0.3.9": "<|im_start|>user\n<image>Describe the image.<end_of_utterance>",
    "0.3.11": "<|im_start|>User:<image>Describe the image.<end_of_utterance>\nAssistant:",
}
QUERY_PROMPTS = {
    "0.3.5": "Query: {query}" + END * 10 + "\n",
    "0.3.9": "Query: {query}" + END * 10 + "\n",
    "0.3.11": "{query}" + END * 10,
}
NEWEST = "0.3.11"


def image_processor(folder: Path, **overrides) -> Idefics3ImageProcessorPil:
    return Idefics3ImageProcessorPil.from_pretrained(folder, **overrides)


def generator_processor(folder: Path, image_seq_len: int, template: str | None, **overrides) -> Idefics3Processor:
    return Idefics3Processor(
        image_processor=image_processor(folder, **overrides),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        image_seq_len=image_seq_len,
        chat_template=template,
    )


def retriever_processor(folder: Path, image_seq_len: int, **overrides) -> ColIdefics3Processor:
    return ColIdefics3Processor(
        image_processor=image_processor(folder, **overrides),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        image_seq_len=image_seq_len,
    )


def uint8_tiles(processor: Idefics3ImageProcessorPil, image) -> tuple[np.ndarray, int, int]:
    """Tiles before rescaling as (frames, height, width, 3) uint8, and the rows and columns of the split."""
    out = processor(image, do_rescale=False, do_normalize=False, return_row_col_info=True, return_tensors="np")
    tiles = np.asarray(out["pixel_values"])[0]
    as_bytes = tiles.astype(np.uint8)
    assert np.array_equal(as_bytes.astype(tiles.dtype), tiles), "resizing must leave whole numbers"
    return np.ascontiguousarray(as_bytes.transpose(0, 2, 3, 1)), out["rows"][0][0], out["cols"][0][0]


def tile_entry(name: str, tiles: np.ndarray, rows: int, cols: int) -> dict:
    return {"image": name, "frames": len(tiles), "rows": rows, "cols": cols, "sha256": sha256(tiles.tobytes())}


def prompt_versions(processor: ColIdefics3Processor, image=None, query: str | None = None) -> dict:
    """The ids of a page or a query under every prompt version, runs shortened."""
    out = {}
    for version in DOCUMENT_PROMPTS:
        if image is not None:
            text = DOCUMENT_PROMPTS[version]
            ids = processor(text=[text], images=[image], return_tensors="np")["input_ids"][0].tolist()
        else:
            text = QUERY_PROMPTS[version].format(query=query)
            ids = processor(text=[text], return_tensors="np")["input_ids"][0].tolist()
        out[version] = {"text": text, "num_tokens": len(ids), "ids": run_lengths(ids)}
    return out
