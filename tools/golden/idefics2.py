"""Idefics2: frames of the picture's own shape, fractional positions, the perceiver resampler, Mistral.

Upstream pads the frames of a prompt to one size and masks the padding; the rows of padded patches are left out of the
stages here, since nothing reads them.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, Idefics2ForConditionalGeneration
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics2.processing_idefics2 import Idefics2Processor

import sentencepiece
from cases import CONVERSATION, IMAGE, Chat, check_noise, user, write_case
from paths import CASES, CHECKPOINTS, OUT, run_lengths, sha256, write_json, write_lines
from stages import check_report, run, thin
from text import Refused, greedy
from tokenizer import CHAT_TEMPLATE, END
from weights import linear, normal, save, text_weights, vision_weights

TEMPLATE = CHAT_TEMPLATE.replace("<|im_start|>", "").replace("message['role'] | capitalize", "message['role'].capitalize()")
SEEDS = 60


@dataclass(frozen=True)
class Spec:
    name: str
    modern: bool  # see sentencepiece.write_mistral
    vision: dict
    text: dict
    perceiver: dict
    longest: int
    shortest: int
    dtype: str
    shards: int
    template_in: str | None
    # Of Mistral 7B v0.1, and of the published checkpoint.
    sliding_window: int = 4096

    @property
    def folder(self) -> Path:
        return CHECKPOINTS / self.name


SPECS = [
    # 70 positions a side as published, of which a frame uses some; latents and heads other than the defaults.
    Spec(
        "idefics2", modern=False, longest=140, shortest=54,
        vision=dict(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
                    image_size=280, patch_size=4),
        text=dict(hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, head_dim=8),
        perceiver=dict(resampler_n_latents=6, resampler_depth=2, resampler_n_heads=4, resampler_head_dim=12,
                       num_key_value_heads=2, hidden_size=32),
        dtype="bfloat16", shards=1, template_in=None,
    ),
    # A perceiver_config without hidden_size, so that its width and epsilon come from the text model; transformers 5's
    # tokenizer; two shards; a window that every prompt outgrows.
    Spec(
        "idefics2-new", modern=True, longest=64, shortest=26,
        vision=dict(hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
                    image_size=64, patch_size=7),
        text=dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=4, head_dim=6),
        perceiver=dict(resampler_n_latents=5, resampler_depth=1, resampler_n_heads=4, resampler_head_dim=8,
                       num_key_value_heads=4),
        dtype="float32", shards=2, template_in="chat_template.json", sliding_window=23,
    ),
]  # fmt: skip
CHATS = [
    Chat("split", "idefics2", [user(IMAGE, "Describe the image.")], ("page-tall.png",)),
    # Three pictures of three shapes in one prompt, two of them side by side.
    Chat(
        "conversation",
        "idefics2",
        [user(IMAGE, IMAGE, "Which of them is wider?"), *CONVERSATION[2:3], user(" Then this: ", IMAGE)],
        ("strip-wide.png", "square.png", "slope.png"),
        {"do_image_splitting": False},
    ),
    Chat("text-only", "idefics2", [user("How long does the journey take? Über 3 hours, or 40 minutes?")]),
    Chat("whole", "idefics2-new", [user(IMAGE, "Describe the image.")], ("slope.png",), {"do_image_splitting": False}),
    Chat("split", "idefics2-new", [user(IMAGE, "<b> or not?")], ("strip-wide.png",)),
    # Its answer slides on from there.
    Chat("text-only", "idefics2-new", [user("How many words has a window, and which of them are seen from its end?")]),
]


def config_json(spec: Spec, ids: dict) -> dict:
    text = {
        **spec.text, "model_type": "mistral", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "pad_token_id": 0,
        "rope_theta": 10000.0, "sliding_window": spec.sliding_window, "vocab_size": ids[END] + 1,
    }  # fmt: skip
    vision = {**spec.vision, "model_type": "idefics2"}
    return {
        "architectures": ["Idefics2ForConditionalGeneration"], "image_token_id": ids["<image>"],
        "model_type": "idefics2", "perceiver_config": {**spec.perceiver, "model_type": "idefics2"},
        "text_config": text, "tie_word_embeddings": False, "torch_dtype": spec.dtype,
        "transformers_version": "4.40.0", "use_cache": True, "vision_config": vision,
    }  # fmt: skip


def model_weights(spec: Spec, seed: int, vocabulary: int) -> dict[str, torch.Tensor]:
    text, perceiver = {**spec.text, "vocab_size": vocabulary}, spec.perceiver
    hidden, width = text["hidden_size"], spec.vision["hidden_size"]
    out = vision_weights(seed, spec.vision, "model.vision_model.", False)
    out.update(text_weights(seed, text, "model.text_model.", False))

    def gated(prefix: str, inputs: int, inner: int, outputs: int) -> None:
        for name, (rows, cols) in {
            "gate_proj": (inner, inputs), "up_proj": (inner, inputs), "down_proj": (outputs, inner),
        }.items():  # fmt: skip
            key = f"{prefix}{name}.weight"
            out[key] = linear(seed, key, rows, cols, 1.8)

    at = "model.connector."
    gated(at + "modality_projection.", width, text["intermediate_size"], hidden)
    at += "perceiver_resampler."
    out[at + "latents"] = normal(seed, at + "latents", (perceiver["resampler_n_latents"], hidden), 1.0)
    queries = perceiver["resampler_n_heads"] * perceiver["resampler_head_dim"]
    values = perceiver["num_key_value_heads"] * perceiver["resampler_head_dim"]
    for index in range(perceiver["resampler_depth"]):
        layer = f"{at}layers.{index}."
        for name in ("input_latents_norm", "input_context_norm", "post_attention_layernorm"):
            out[f"{layer}{name}.weight"] = normal(seed, f"{layer}{name}.weight", (hidden,), 0.2, 1.0)
        for name, (rows, cols) in {
            "q_proj": (queries, hidden), "k_proj": (values, hidden), "v_proj": (values, hidden),
            "o_proj": (hidden, queries),
        }.items():  # fmt: skip
            key = f"{layer}self_attn.{name}.weight"
            out[key] = linear(seed, key, rows, cols, 1.8)
        gated(layer + "mlp.", hidden, 4 * hidden, hidden)
    out[at + "norm.weight"] = normal(seed, at + "norm.weight", (hidden,), 0.2, 1.0)
    out["lm_head.weight"] = linear(seed, "lm_head.weight", vocabulary, hidden, 2.0)
    return out


def write_checkpoint(spec: Spec, seed: int) -> None:
    shutil.rmtree(spec.folder, ignore_errors=True)
    spec.folder.mkdir(parents=True)
    ids = sentencepiece.write_mistral(spec.folder, spec.modern)
    save(spec.folder, model_weights(spec, seed, ids[END] + 1), spec.dtype, spec.shards)
    write_json(spec.folder / "config.json", config_json(spec, ids))
    write_json(
        spec.folder / "generation_config.json",
        {"bos_token_id": 1, "eos_token_id": [2, ids[END]], "pad_token_id": 0, "transformers_version": "4.40.0"},
    )
    write_json(
        spec.folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True,
            "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "Idefics2ImageProcessor", "image_std": [0.5, 0.5, 0.5],
            "processor_class": "Idefics2Processor", "resample": 2, "rescale_factor": 0.00392156862745098,
            "size": {"longest_edge": spec.longest, "shortest_edge": spec.shortest},
        },
    )  # fmt: skip
    if spec.template_in:
        write_json(spec.folder / spec.template_in, {"chat_template": TEMPLATE})


def load(spec: Spec, attention: str):
    model, report = Idefics2ForConditionalGeneration.from_pretrained(
        spec.folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    check_report(report)
    return model.eval()


def processor_of(spec: Spec, **overrides) -> Idefics2Processor:
    return Idefics2Processor(
        image_processor=Idefics2ImageProcessorPil.from_pretrained(spec.folder, **overrides),
        tokenizer=AutoTokenizer.from_pretrained(spec.folder),
        image_seq_len=spec.perceiver["resampler_n_latents"],
        chat_template=TEMPLATE,
    )


def frames_of(image_processor, picture) -> list[np.ndarray]:
    """The frames before rescaling, as (height, width, 3) uint8."""
    out = image_processor([[picture]], do_rescale=False, do_normalize=False, return_tensors="np")
    frames = []
    for pixels, mask in zip(out["pixel_values"][0], out["pixel_attention_mask"][0]):
        height, width = int(mask[:, 0].sum()), int(mask[0].sum())
        frame = pixels[:, :height, :width]
        assert (frame == frame.astype(np.uint8)).all()
        frames.append(np.ascontiguousarray(frame.astype(np.uint8).transpose(1, 2, 0)))
    return frames


def without_padding(stages: dict, inputs: dict, patch: int) -> dict:
    """Leaves out the rows of patches that upstream masks."""
    if "pixel_attention_mask" not in inputs:
        return stages
    mask = inputs["pixel_attention_mask"][0]
    grid = mask.unfold(1, patch, patch).unfold(2, patch, patch).sum((-1, -2)) == patch * patch
    real = grid.reshape(-1)
    out = {}
    for name, value in stages.items():
        if name.startswith(("patch_embeddings", "vision.", "modality_projection")):
            assert len(value) == len(real), (name, value.shape, real.shape)
            value = value[real]
        out[name] = value
    return out


def chat_case(chat: Chat, spec: Spec, seed: int, model, twin, pictures: dict) -> tuple[dict, dict]:
    processor = processor_of(spec, **chat.processor)
    prompt = processor.apply_chat_template(chat.messages, add_generation_prompt=True)
    images = [pictures[name] for name in chat.images]
    inputs = dict(processor(text=[prompt], images=[images] if images else None, return_tensors="pt"))
    inputs.pop("mm_token_type_ids", None)
    stages = run(model, inputs)
    check_noise(model, twin, inputs, stages)
    stages = without_padding(stages, inputs, spec.vision["patch_size"])
    answer = greedy(model, processor.tokenizer, inputs, chat.expect)
    tiles = []
    for name in chat.images:
        frames = frames_of(processor.image_processor, pictures[name])
        tiles.append(
            {
                "image": name,
                "frames": len(frames),
                "sizes": [[frame.shape[1], frame.shape[0]] for frame in frames],
                "sha256": sha256(b"".join(frame.tobytes() for frame in frames)),
            }
        )
    kept, entries = thin(stages)
    ids = inputs["input_ids"][0]
    manifest = {
        "case": chat.name, "kind": "generate", "checkpoint": spec.name, "adapter": None, "seed": seed,
        "processor": chat.processor, "images": list(chat.images), "messages": chat.messages,
        "add_generation_prompt": True, "prompt": prompt, "tiles": tiles, "num_tokens": len(ids),
        "ids": run_lengths(ids.tolist()), "stages": entries, "generated": answer.entry(),
    }  # fmt: skip
    return manifest, {"input_ids": ids.contiguous(), **kept}


def positions(side: int, count: int) -> list[int]:
    """`Idefics2VisionEmbeddings` along one axis, in f32."""
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    step = 1.0 / torch.tensor([count])
    fraction = torch.arange(count, dtype=torch.float32)[None, :] * step[:, None]
    fraction = torch.clamp(fraction, max=(1.0 - 1e-6))
    return torch.bucketize(fraction, boundaries, right=True)[0].tolist()


def make(pictures: dict) -> None:
    write_lines(
        OUT / "positions.json",
        [{"side": side, "buckets": [positions(side, count) for count in range(1, side + 1)]} for side in (9, 27, 70)],
    )
    for spec in SPECS:
        chats = [chat for chat in CHATS if chat.checkpoint == spec.name]
        for seed in range(1, SEEDS):
            write_checkpoint(spec, seed)
            model, twin = load(spec, "eager"), load(spec, "sdpa")
            try:
                done = [chat_case(chat, spec, seed, model, twin, pictures) for chat in chats]
            except Refused as why:
                print(f"{spec.name}: seed {seed} refused: {why}")
                continue
            shutil.rmtree(CASES / spec.name, ignore_errors=True)
            for manifest, tensors in done:
                write_case(spec.name, manifest["case"], manifest, tensors)
            break
        else:
            raise SystemExit(f"{spec.name}: no seed below {SEEDS} is accepted")
