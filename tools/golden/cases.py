"""The network cases: which checkpoint sees which pictures and words, and the files written for each."""

import shutil
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor
from transformers.video_utils import VideoMetadata

from checkpoints import (
    ADAPTERS,
    Adapter,
    Spec,
    generation_json,
    preprocessor_json,
    spec_named,
    write_adapter,
    write_checkpoint,
)
from paths import CASES, run_lengths, write_json
from prompts import (
    DOCUMENT_PROMPTS,
    NEWEST,
    generator_processor,
    image_processor,
    prompt_versions,
    retriever_processor,
    tile_entry,
    uint8_tiles,
)
from stages import MAX_NOISE, in_double, load_generator, load_retriever, noise, run, thin
from text import Refused, greedy
from tokenizer import CHAT_TEMPLATE, END, specials

SEEDS = 60
# Where there are more, their hash must do.
MAX_STORED_TILES = 3


@dataclass(frozen=True)
class Chat:
    """A conversation for a generator. Images appear in `messages` as {"type": "image"}, in order."""

    name: str
    checkpoint: str
    messages: list
    images: tuple[str, ...] = ()
    processor: dict = field(default_factory=dict)
    expect: str = "length"
    keep_pixels: bool = False
    # Pictures that make a clip, and frames a second; a frame of it is {"type": "video"}'s in `messages`.
    clip: tuple[str, ...] = ()
    rate: float = 0.0


def user(*content) -> dict:
    return {"role": "user", "content": [item(part) for part in content]}


def turn(role: str, *content) -> dict:
    return {"role": role, "content": [item(part) for part in content]}


def item(part) -> dict:
    if part is IMAGE or part is VIDEO:
        return {"type": "image" if part is IMAGE else "video"}
    return {"type": "text", "text": part}


IMAGE = object()
VIDEO = object()

CONVERSATION = [
    turn("system", "You answer from the pages that you are given."),
    user("Compare", IMAGE, "with", IMAGE, "please."),
    turn("assistant", " They agree in every row but the last one."),
    user(IMAGE, "And this one?\n\nAnswer in 3 words."),
]

CHATS = [
    Chat(
        "one-tile",
        "smolvlm-single",
        [user(IMAGE, "Describe the image.")],
        ("square.png",),
        {"do_image_splitting": False},
        keep_pixels=True,
    ),
    Chat(
        "three-tiles",
        "smolvlm-single",
        [user(IMAGE, "What does the table show? 42 rows, 7 columns.")],
        ("strip-wide.png",),
    ),
    # Splitting is on, but with a longest edge of one tile every image is a single frame.
    Chat(
        "conversation",
        "smolvlm-single",
        CONVERSATION,
        ("strip-wide.png", "slope.png", "square.png"),
        {"longest_edge": 64},
    ),
    Chat("text-only", "smolvlm-single", [user("How long does the journey take? Über 3 hours, or 40 minutes?")]),
    Chat("five-tiles", "smolvlm-text", [user(IMAGE, "Which bar is the tallest?")], ("page-tall.png",)),
    Chat("text-first", "smolvlm-text", [user("Look at ", IMAGE)], ("slope.png",), {"do_image_splitting": False}),
    Chat("stops", "smolvlm-text", [user("Where is the nearest dealer?")], expect="eos"),
    Chat("one-tile", "idefics3-llama3", [user(IMAGE, "Describe the image.")], ("page-tall.png",)),
    Chat("text-only", "idefics3-llama3", [user("What is 17 + 71?")]),
    Chat(
        "one-tile",
        "smolvlm-defaults",
        [user(IMAGE, "Describe the image.")],
        ("slope.png",),
        {"do_image_splitting": False},
        keep_pixels=True,
    ),
    Chat(
        "conversation",
        "smolvlm2",
        CONVERSATION,
        ("square.png", "slope.png", "strip-wide.png"),
    ),
    # Six frames at two a second: three are sampled.
    Chat(
        "video",
        "smolvlm2",
        [user(VIDEO, "What happens in this video?")],
        clip=("slope.png", "page-tall.png", "strip-wide.png", "square.png", "page-tall.png", "square.png"),
        rate=2.0,
    ),
    # Three images of different tile counts in one prompt: 1x2, 2x2 and 2x2 tiles and an overview each.
    Chat("conversation", "smolvlm-defaults", CONVERSATION, ("strip-wide.png", "page-tall.png", "square.png")),
]


def check_noise(model, other_attention, inputs: dict, stages: dict) -> None:
    for name, found in (("float64", in_double(model, inputs)), ("sdpa", run(other_attention, inputs))):
        distance = noise(stages, found)
        if distance > MAX_NOISE:
            raise Refused(f"{name} differs by {distance:.1e}")


def processor_overrides(settings: dict) -> dict:
    out = dict(settings)
    if "longest_edge" in out:
        out["size"] = {"longest_edge": out.pop("longest_edge")}
    return out


def write_case(group: str, name: str, manifest: dict, tensors: dict) -> None:
    folder = CASES / group
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{name}.safetensors")
    write_json(folder / f"{name}.json", manifest)


def picture_part(processor, names, pictures, keep_pixels, inputs) -> tuple[list, dict]:
    """Tile hashes for the manifest, and the uint8 tiles (with exact pixel_values for the smallest case)."""
    entries, stacks = [], []
    for name in names:
        tiles, rows, cols = uint8_tiles(processor.image_processor, pictures[name])
        entries.append(tile_entry(name, tiles, rows, cols))
        stacks.append(torch.from_numpy(tiles))
    tensors = {}
    if 0 < sum(map(len, stacks)) <= MAX_STORED_TILES:
        tensors["tiles"] = torch.cat(stacks).contiguous()
    if keep_pixels:
        tensors["pixel_values"] = inputs["pixel_values"][0].contiguous()
    return entries, tensors


def chat_case(chat: Chat, spec: Spec, seed: int, model, twin, pictures: dict) -> tuple[dict, dict]:
    if chat.clip:
        processor, prompt, inputs, names = clip_inputs(chat, spec, pictures)
    else:
        processor = generator_processor(
            spec.folder, spec.image_seq_len, CHAT_TEMPLATE, **processor_overrides(chat.processor)
        )
        prompt = processor.apply_chat_template(chat.messages, add_generation_prompt=True)
        images = [pictures[name] for name in chat.images] or None
        inputs = dict(processor(text=[prompt], images=[images] if images else None, return_tensors="pt"))
        names = chat.images
    inputs.pop("mm_token_type_ids", None)
    stages = run(model, inputs)
    check_noise(model, twin, inputs, stages)
    answer = greedy(model, processor.tokenizer, inputs, chat.expect)
    entries, tensors = picture_part(processor, names, pictures, chat.keep_pixels, inputs)
    kept, stage_entries = thin(stages)
    ids = inputs["input_ids"][0]
    manifest = {
        "case": chat.name,
        "kind": "generate",
        "checkpoint": spec.name,
        "adapter": None,
        "seed": seed,
        "processor": chat.processor,
        "images": list(names),
        **({"clip": list(chat.clip), "rate": chat.rate} if chat.clip else {}),
        "messages": chat.messages,
        "add_generation_prompt": True,
        "prompt": prompt,
        "tiles": entries,
        "num_tokens": len(ids),
        "ids": run_lengths(ids.tolist()),
        "stages": stage_entries,
        "generated": answer.entry(),
    }
    return manifest, {"input_ids": ids.contiguous(), **tensors, **kept}


def clip_inputs(chat: Chat, spec: Spec, pictures: dict):
    """A prompt with a clip by SmolVLM's own processor, which also samples the frames. The pixels are those of its
    image processor on Pillow: its video processor is written to match that one and differs by torchvision's rounding.
    """
    video = SmolVLMVideoProcessor(
        max_image_size={"longest_edge": spec.tile}, size={"longest_edge": spec.tile},
        video_sampling=preprocessor_json(spec)["video_sampling"], image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    images = image_processor(spec.folder, do_image_splitting=False, size={"longest_edge": spec.tile})
    processor = SmolVLMProcessor(
        images, AutoTokenizer.from_pretrained(spec.folder), video, image_seq_len=spec.image_seq_len,
        chat_template=CHAT_TEMPLATE.replace(
            "{% if line['type'] == 'text' %}", "{% if line['type'] == 'video' %}{{ '<video>' }}{% elif line['type'] == 'text' %}"
        ),
    )  # fmt: skip
    total = len(chat.clip)
    known = VideoMetadata(total_num_frames=total, fps=chat.rate, duration=total / chat.rate)
    known.frames_indices = video.sample_frames(known, num_frames=64, fps=1)
    names = [chat.clip[index] for index in known.frames_indices]
    prompt = processor.apply_chat_template(chat.messages, add_generation_prompt=True)
    assert "<video>" in prompt, prompt
    frames = torch.zeros((len(names), 3, 16, 16), dtype=torch.uint8)
    inputs = dict(processor(text=[prompt], videos=[frames], video_metadata=[known], return_tensors="pt"))
    pixels = images([[pictures[name] for name in names]], return_tensors="pt")
    assert pixels["pixel_values"].shape == inputs["pixel_values"].shape
    inputs["pixel_values"] = pixels["pixel_values"]
    inputs["pixel_attention_mask"] = pixels["pixel_attention_mask"]
    return processor, prompt, inputs, names


def choose_second_eos(spec: Spec, model, chats: list[Chat]) -> None:
    """Declares one of the ids that a text-only case generates an end id too, so that this case ends with it."""
    chat = next(chat for chat in chats if chat.name == spec.second_eos_from)
    processor = generator_processor(spec.folder, spec.image_seq_len, CHAT_TEMPLATE)
    prompt = processor.apply_chat_template(chat.messages, add_generation_prompt=True)
    ids = greedy(model, processor.tokenizer, dict(processor(text=[prompt], return_tensors="pt")), "length").ids
    # New at this place, so generation gets there, and an ordinary token.
    place = next((i for i in range(9, 20) if ids[i] not in ids[:i] and ids[i] >= 17), None)
    if place is None:
        raise Refused("no id to stop at")
    eos = [specials(spec.tags)[END], ids[place]]
    write_json(spec.folder / "generation_config.json", generation_json(spec, eos))
    model.generation_config.eos_token_id = eos


def make_generator(spec: Spec, pictures: dict) -> int:
    """Tries seeds until every conversation of this checkpoint is accepted; writes them and returns the seed."""
    chats = [chat for chat in CHATS if chat.checkpoint == spec.name]
    for seed in range(1, SEEDS):
        write_checkpoint(spec, seed)
        model, twin = load_generator(spec), load_generator(spec, "sdpa")
        try:
            if spec.second_eos_from:
                choose_second_eos(spec, model, chats)
            done = [chat_case(chat, spec, seed, model, twin, pictures) for chat in chats]
        except Refused as why:
            print(f"{spec.name}: seed {seed} refused: {why}")
            continue
        shutil.rmtree(CASES / spec.name, ignore_errors=True)
        for manifest, tensors in done:
            write_case(spec.name, manifest["case"], manifest, tensors)
        return seed
    raise SystemExit(f"{spec.name}: no seed below {SEEDS} is accepted")


@dataclass(frozen=True)
class Retrieval:
    """Pages and queries for one retriever. The last two pages also go through as one left-padded batch."""

    base: str
    adapter: str | None
    pages: tuple[str, ...]
    queries: tuple[str, ...]
    seed: int | None = None
    processor: dict = field(default_factory=dict)


RETRIEVALS = [
    Retrieval(
        "colsmol-single-base",
        "colsmol-single",
        ("strip-wide.png", "page-tall.png"),
        ("How many rows are there in the second column?", "Où est la page 112?"),
    ),
    Retrieval(
        "colsmol-text-base",
        "colsmol-text",
        ("page-tall.png", "strip-wide.png"),
        ("the tallest bar",),
        seed=1,
    ),
]


def retrieval_case(kind, name, spec, adapter, seed, processor, model, twin, inputs, extra, pictures, settings):
    inputs = dict(inputs)
    inputs.pop("mm_token_type_ids", None)
    stages = run(model, inputs)
    check_noise(model, twin, inputs, stages)
    images = extra.get("images", [])
    entries, tensors = picture_part(processor, images, pictures, False, inputs)
    ids = inputs["input_ids"][0]
    kept, stage_entries = thin(stages)
    manifest = {
        "case": name,
        "kind": kind,
        "checkpoint": spec.name,
        "adapter": adapter.name if adapter else None,
        "seed": seed,
        "processor": settings,
        **extra,
        "tiles": entries,
        "num_tokens": len(ids),
        "ids": run_lengths(ids.tolist()),
        "stages": stage_entries,
    }
    return manifest, {"input_ids": ids.contiguous(), **tensors, **kept}, stages["rows"]


def make_retriever(retrieval: Retrieval, seed: int, pictures: dict) -> None:
    spec = spec_named(retrieval.base)
    adapter: Adapter | None = next((a for a in ADAPTERS if a.name == retrieval.adapter), None)
    write_checkpoint(spec, seed)
    if adapter is not None:
        write_adapter(adapter, spec)
    model, twin = load_retriever(spec, adapter), load_retriever(spec, adapter, "sdpa")
    folder = adapter.folder if adapter else spec.folder
    group = adapter.name if adapter else spec.name
    processor = retriever_processor(folder, spec.image_seq_len, **processor_overrides(retrieval.processor))
    shutil.rmtree(CASES / group, ignore_errors=True)
    common = (spec, adapter, seed, processor, model, twin)
    rows = {}
    for page in retrieval.pages:
        name = "page-" + page.removesuffix(".png")
        inputs = processor.process_images([pictures[page]])
        extra = {
            "images": [page],
            "prompt_version": NEWEST,
            "prompt": DOCUMENT_PROMPTS[NEWEST],
            "prompt_versions": prompt_versions(processor, image=pictures[page]),
        }
        manifest, tensors, rows[page] = retrieval_case(
            "page", name, *common, inputs, extra, pictures, retrieval.processor
        )
        write_case(group, name, manifest, tensors)
    for index, query in enumerate(retrieval.queries):
        inputs = processor.process_queries(texts=[query])
        extra = {"query": query, "prompt_version": NEWEST, "prompt_versions": prompt_versions(processor, query=query)}
        manifest, tensors, rows[query] = retrieval_case(
            "query", f"query-{index + 1}", *common, inputs, extra, pictures, retrieval.processor
        )
        write_case(group, f"query-{index + 1}", manifest, tensors)
    batch_case(retrieval, group, processor, model, rows, pictures)


def batch_case(retrieval, group, processor, model, rows, pictures) -> None:
    """The pages as one left-padded batch: here it is checked that each page's rows are those of the page alone."""
    pages = list(retrieval.pages)
    inputs = dict(processor.process_images([pictures[page] for page in pages]))
    inputs.pop("mm_token_type_ids", None)
    with torch.no_grad():
        out = model(**inputs, use_cache=False)
    padding = []
    for index, page in enumerate(pages):
        mask = inputs["attention_mask"][index].bool()
        left = int((~mask).sum())
        assert not mask[:left].any() and bool((out[index, :left] == 0).all())
        cosine = torch.nn.functional.cosine_similarity(out[index, left:], rows[page], dim=-1)
        assert cosine.min() > 0.99999, f"{page}: batched differs from single, cosine {cosine.min()}"
        padding.append(left)
    scores = processor.score([rows[q] for q in retrieval.queries], [rows[p] for p in pages], device="cpu")
    write_json(
        CASES / group / "batch.json",
        {
            "case": "batch",
            "kind": "batch",
            "checkpoint": retrieval.base,
            "adapter": retrieval.adapter,
            "pages": ["page-" + page.removesuffix(".png") for page in pages],
            "num_tokens": int(inputs["input_ids"].shape[1]),
            "left_padding": padding,
            "frames": list(inputs["pixel_values"].shape[:2]),
            "queries": [f"query-{index + 1}" for index in range(len(retrieval.queries))],
            # MaxSim of the single rows; shorter pages are padded with zero rows in a batch of the reference,
            # which clamps a token's maximum at zero from below.
            "scores": [[round(float(value), 5) for value in line] for line in scores],
        },
    )
