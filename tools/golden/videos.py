"""Goldens of SmolVLM2's video path: which frames are sampled, the text around them, their ids and their pixels.

The reference is transformers' own SmolVLMProcessor and SmolVLMVideoProcessor over a small tokenizer and, where it is
at hand, the published one. Frames are scaled by torchvision there, which differs from Pillow by rounding, so pixels
are compared twice: exactly with the image processor of the same class on Pillow with splitting off, which is what
the video processor is written to match, and within a tolerance with the video processor itself.
"""

import json

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor
from transformers.video_utils import VideoMetadata

from checkpoints import spec_named
from paths import OUT, REAL_MODELS, run_lengths, sha256, write_json, write_lines
from pixels import pattern
from real import load_tokenizer

VIDEO = OUT / "video"
# Frames, frames a second.
CLIPS = [
    (1, 25.0), (2, 25.0), (10, 10.0), (12, 25.0), (13, 25.0), (37, 25.0), (38, 25.0), (50, 12.5), (75, 30.0),
    (75, 29.97), (90, 60.0), (250, 25.0), (1000, 23.976), (1600, 25.0), (1625, 25.0), (1650, 25.0), (1651, 25.0),
    (1700, 25.0), (5000, 24.0), (108000, 30.0), (64, 1.0), (65, 1.0), (66, 1.0), (67, 1.0), (300, 0.5), (7, 0.1),
]  # fmt: skip
# Clips whose prompts are made too.
SHOWN = [(1, 25.0), (12, 25.0), (75, 29.97), (250, 25.0), (1700, 25.0), (108000, 30.0)]
SIZES = [(320, 240), (240, 320), (640, 360), (1920, 1080), (100, 37), (64, 64), (31, 200)]
TILES = [(512, 512), (384, 384), (64, 64)]
QUESTION = "What happens in this video?"


def sampling(tile: int, fps: float = 1, max_frames: int = 64) -> dict:
    return {"fps": fps, "max_frames": max_frames, "video_size": {"longest_edge": tile}}


def video_processor(tile: int, **given) -> SmolVLMVideoProcessor:
    return SmolVLMVideoProcessor(
        max_image_size={"longest_edge": tile},
        size={"longest_edge": tile},
        video_sampling=sampling(tile, **given),
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def metadata(frames: int, fps: float) -> VideoMetadata:
    return VideoMetadata(total_num_frames=frames, fps=fps, duration=frames / fps)


def sampled() -> list[dict]:
    out = []
    for fps, most in ((1, 64), (2, 16), (0.5, 8)):
        processor = video_processor(512, fps=fps, max_frames=most)
        for frames, rate in CLIPS:
            indices = processor.sample_frames(metadata(frames, rate), num_frames=most, fps=fps)
            entry = {"fps": fps, "max_frames": most, "frames": frames, "rate": rate}
            out.append(entry | {"indices": [int(index) for index in indices]})
    return out


def prompts(tokenizer, image_seq_len: int, tile: int) -> list[dict]:
    processor = SmolVLMProcessor(
        SmolVLMImageProcessorPil(max_image_size={"longest_edge": tile}, size={"longest_edge": 4 * tile}),
        tokenizer,
        video_processor(tile),
        image_seq_len=image_seq_len,
    )
    out = []
    for frames, rate in SHOWN:
        known = metadata(frames, rate)
        indices = processor.video_processor.sample_frames(known, num_frames=64, fps=1)
        known.frames_indices = indices
        content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
        conversation = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(conversation, add_generation_prompt=True)
        video = torch.zeros((len(indices), 3, 16, 16), dtype=torch.uint8)
        done = processor(text=[prompt], videos=[video], video_metadata=[known], return_tensors="pt")
        ids = done["input_ids"][0].tolist()
        entry = {"frames": frames, "rate": rate, "tile": tile, "question": QUESTION, "image_seq_len": image_seq_len}
        out.append(entry | {"num_tokens": len(ids), "ids": run_lengths(ids)})
    return out


def frame_pixels() -> list[dict]:
    out = []
    for tile, longest in TILES:
        pil = SmolVLMImageProcessorPil(
            do_image_splitting=False, max_image_size={"longest_edge": tile}, size={"longest_edge": longest}
        )
        torch_side = video_processor(tile)
        for width, height in SIZES:
            source = pattern(width, height)
            picture = Image.fromarray(source, "RGB")
            plain = pil(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
            assert plain.shape == (1, 3, tile, tile), plain.shape
            as_bytes = np.ascontiguousarray(plain.astype(np.uint8).transpose(0, 2, 3, 1))
            video = torch.from_numpy(source.transpose(2, 0, 1).copy())[None]
            there = torch_side([video], do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]
            gap = np.abs(there.numpy().astype(np.int64) - plain.astype(np.int64))
            out.append(
                {
                    "size": [width, height],
                    "tile": tile,
                    "longest_edge": longest,
                    "sha256": sha256(as_bytes.tobytes()),
                    "torchvision_largest": int(gap.max()),
                    "torchvision_mean": round(float(gap.mean()), 4),
                }
            )
    return out


def make() -> None:
    write_lines(VIDEO / "sampled.json", sampled())
    write_lines(VIDEO / "frames.json", frame_pixels())
    small = []
    for name in ("smolvlm-single", "smolvlm-text"):
        spec = spec_named(name)
        tokenizer = AutoTokenizer.from_pretrained(spec.folder)
        for entry in prompts(tokenizer, spec.image_seq_len, spec.tile):
            small.append({"checkpoint": name} | entry)
    write_lines(VIDEO / "prompts.json", small)
    if not REAL_MODELS.is_dir():
        print(f"skipped: no {REAL_MODELS}")
        return
    # SmolVLM2 of all sizes has the tokenizer of SmolVLM-256M.
    folder = REAL_MODELS / "HuggingFaceTB__SmolVLM-256M-Instruct"
    settings = json.loads(
        (REAL_MODELS / "HuggingFaceTB__SmolVLM2-256M-Video-Instruct" / "preprocessor_config.json").read_text()
    )
    assert settings["video_sampling"] == sampling(512)
    entries = prompts(load_tokenizer(folder, "tokenizer.json"), 64, 512)
    entries += prompts(load_tokenizer(folder, "tokenizer.json"), 81, 384)
    write_lines(VIDEO / "real-prompts.json", entries)
    write_json(
        VIDEO / "settings.json",
        {
            "tokenizer_of": "HuggingFaceTB__SmolVLM-256M-Instruct",
            "checkpoints": {
                "64": "HuggingFaceTB__SmolVLM2-256M-Video-Instruct",
                "81": "HuggingFaceTB__SmolVLM2-2.2B-Instruct",
            },
            "template_of": "HuggingFaceTB__SmolVLM2-2.2B-Instruct",
        },
    )
