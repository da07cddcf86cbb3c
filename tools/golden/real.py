"""Goldens over the published tokenizer and processor files, which are read from `../shared/models` beside the
checkout and never copied. Tests compare where that folder exists. Without it this job is skipped.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from colpali_engine.models import ColIdefics3Processor
from PIL import Image
from transformers import AutoTokenizer, Idefics3ImageProcessorPil, Idefics3Processor, PreTrainedTokenizerFast

from paths import REAL, REAL_MODELS, run_lengths, write_json, write_lines
from prompts import DOCUMENT_PROMPTS, NEWEST, prompt_versions
from strings import string_entries
from tokenizer import END, FAKE, IMAGE

# Every size of the table of frames and tokens.
SIZES = [
    (1700, 2200), (1240, 1754), (595, 842), (800, 600), (3000, 500), (512, 512), (100, 100), (2048, 2048),
    (20, 20), (1, 1), (1, 300), (300, 1), (4097, 13), (5000, 400),
]  # fmt: skip
QUERIES = [
    "How does the latency between ColPali and standard retrieval methods compare?",
    "revenue 2023",
    "Où est la bibliothèque ?",
    "",
]


@dataclass(frozen=True)
class Real:
    name: str
    folder: str
    tokenizer: str
    preprocessor: str


REALS = [
    Real("smolvlm-256m", "HuggingFaceTB__SmolVLM-256M-Instruct", "tokenizer.json", "preprocessor_config.json"),
    # Its tokenizer.json is not published here in full: the base of the other with its three added tokens.
    Real("smolvlm-instruct", "HuggingFaceTB__SmolVLM-Instruct", "tokenizer.derived.json", "preprocessor_config.json"),
]
TEMPLATE_FOLDERS = [
    "HuggingFaceTB__SmolVLM-256M-Instruct",
    "HuggingFaceTB__SmolVLM-500M-Instruct",
    "HuggingFaceTB__SmolVLM-Instruct",
    "HuggingFaceTB__SmolVLM-Base",
    "HuggingFaceTB__SmolVLM2-2.2B-Instruct",
    "HuggingFaceTB__SmolVLM2-500M-Video-Instruct",
    "HuggingFaceM4__Idefics3-8B-Llama3",
    "vidore__colSmol-256M",
    "vidore__colsmolvlm-alpha",
]


def image() -> dict:
    return {"type": "image"}


def text(value: str) -> dict:
    return {"type": "text", "text": value}


def message(role: str, *content: dict) -> dict:
    return {"role": role, "content": list(content)}


CONVERSATIONS = [
    ([message("user", image(), text("Describe the image."))], [(800, 600)]),
    ([message("user", text("Describe the image."), image())], [(800, 600)]),
    ([message("user", text("What is the capital of France?"))], []),
    ([message("user", image(), image(), text("What changed between the two?"))], [(1700, 2200), (3000, 500)]),
    (
        [message("user", text("First: "), image(), text(" second: "), image(), text(". Compare.\n\nBriefly."))],
        [(100, 100), (595, 842)],
    ),
    (
        [
            message("system", text("You answer from the pages that you are given.")),
            message("user", image(), text("How many rows are there?")),
            message("assistant", text(" There are 12 rows.")),
            message("user", text("And columns? "), image()),
        ],
        [(1240, 1754), (800, 600)],
    ),
    (
        [
            message("user", text("Hello!")),
            message("assistant", text(" Hello, how can I help?")),
            message("user", text("  leading spaces, trailing newline\n")),
        ],
        [],
    ),
    ([message("user", image())], [(512, 512)]),
    ([message("tool", text("")), message("UPPER case", text("x"))], []),
]


def load_tokenizer(folder: Path, file: str):
    if file == "tokenizer.json":
        return AutoTokenizer.from_pretrained(folder)
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / file),
        bos_token="<|im_start|>",
        eos_token=END,
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=[FAKE, IMAGE, END],
        clean_up_tokenization_spaces=False,
    )


def template_of(folder: Path) -> str:
    return json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]


def sized(sizes: list[tuple[int, int]]) -> list[Image.Image]:
    return [Image.new("RGB", size, (200, 180, 160)) for size in sizes]


def ids_of(processor, prompt: str, sizes: list[tuple[int, int]]) -> list[int]:
    images = [sized(sizes)] if sizes else None
    return processor(text=[prompt], images=images, return_tensors="np")["input_ids"][0].tolist()


def conversation_entries(processor, folder: Path) -> list[dict]:
    out = []
    for messages, sizes in CONVERSATIONS:
        for generate in (True, False):
            prompt = processor.apply_chat_template(messages, add_generation_prompt=generate)
            ids = ids_of(processor, prompt, sizes)
            out.append(
                {
                    "messages": messages,
                    "sizes": [list(size) for size in sizes],
                    "add_generation_prompt": generate,
                    "prompt": prompt,
                    "num_tokens": len(ids),
                    "ids": run_lengths(ids),
                }
            )
    return out


def expansion_entries(processor, splitting: bool) -> list[dict]:
    """The newest document prompt over each size: frames, split, tokens."""
    out = []
    image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE)
    for size in SIZES if splitting else SIZES[:3]:
        pictures = sized([size])
        done = processor(
            text=[DOCUMENT_PROMPTS[NEWEST]],
            images=[pictures],
            do_image_splitting=splitting,
            return_tensors="np",
        )
        grid = processor.image_processor(
            pictures, do_image_splitting=splitting, return_row_col_info=True, return_tensors="np"
        )
        ids = done["input_ids"][0].tolist()
        out.append(
            {
                "size": list(size),
                "do_image_splitting": splitting,
                "frames": int(done["pixel_values"].shape[1]),
                "rows": grid["rows"][0][0],
                "cols": grid["cols"][0][0],
                "num_tokens": len(ids),
                "num_image_tokens": ids.count(image_id),
                "ids": run_lengths(ids),
            }
        )
    return out


def make_one(real: Real) -> None:
    folder = REAL_MODELS / real.folder
    tokenizer = load_tokenizer(folder, real.tokenizer)
    image_processor = Idefics3ImageProcessorPil.from_pretrained(folder)
    sequence = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))["image_seq_len"]
    template = template_of(folder)
    generator = Idefics3Processor(image_processor, tokenizer, image_seq_len=sequence, chat_template=template)
    conversations = conversation_entries(generator, folder)
    expansions = expansion_entries(generator, True) + expansion_entries(generator, False)
    retriever = ColIdefics3Processor(image_processor, load_tokenizer(folder, real.tokenizer), image_seq_len=sequence)
    page = (800, 600)
    documents = prompt_versions(retriever, image=sized([page])[0])
    queries = [{"query": query, "versions": prompt_versions(retriever, query=query)} for query in QUERIES]
    name = REAL / real.name
    write_json(
        name / "settings.json",
        {
            "folder": real.folder,
            "tokenizer": real.tokenizer,
            "preprocessor": real.preprocessor,
            "image_seq_len": sequence,
            "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE),
            "vocabulary": len(tokenizer),
        },
    )
    write_lines(name / "conversations.json", conversations)
    write_lines(name / "expansions.json", expansions)
    write_json(name / "retrieval.json", {"page_size": list(page), "documents": documents, "queries": queries})
    write_lines(name / "strings.json", string_entries(folder / real.tokenizer))


def templates() -> None:
    """What each published chat template makes of the conversations: strings only."""
    tokenizer = load_tokenizer(REAL_MODELS / REALS[0].folder, REALS[0].tokenizer)
    out = []
    for folder in TEMPLATE_FOLDERS:
        template = template_of(REAL_MODELS / folder)
        for index, (messages, _) in enumerate(CONVERSATIONS):
            for generate in (True, False):
                prompt = tokenizer.apply_chat_template(
                    messages, chat_template=template, add_generation_prompt=generate, tokenize=False
                )
                out.append(
                    {"folder": folder, "conversation": index, "add_generation_prompt": generate, "prompt": prompt}
                )
    write_json(REAL / "template-conversations.json", [messages for messages, _ in CONVERSATIONS])
    write_lines(REAL / "templates.json", out)


def check_known() -> None:
    """Figures that the specification gives, so that a changed package is noticed here and not in Rust."""
    lines = json.loads((REAL / "smolvlm-256m" / "expansions.json").read_text(encoding="utf-8"))
    found = {tuple(line["size"]): line for line in lines if line["do_image_splitting"]}
    for size, frames, tokens, images in (
        ((1700, 2200), 17, 1139, 1088),
        ((1240, 1754), 13, 875, 832),
        ((595, 842), 13, 875, 832),
        ((800, 600), 13, 874, 832),
        ((3000, 500), 5, 344, 320),
        ((100, 100), 17, 1139, 1088),
    ):
        line = found[size]
        assert (line["frames"], line["num_tokens"], line["num_image_tokens"]) == (frames, tokens, images), line
    retrieval = json.loads((REAL / "smolvlm-256m" / "retrieval.json").read_text(encoding="utf-8"))
    query = retrieval["queries"][0]["versions"]
    assert (query["0.3.11"]["num_tokens"], query["0.3.5"]["num_tokens"]) == (24, 27)


def make() -> None:
    if not REAL_MODELS.is_dir():
        print(f"skipped: no {REAL_MODELS}")
        return
    for real in REALS:
        make_one(real)
    templates()
    check_known()
