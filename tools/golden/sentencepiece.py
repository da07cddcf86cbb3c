"""Small tokenizers with the structure of Gemma's and of Mistral's: SentencePiece vocabularies in `tokenizer.json`."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from paths import HERE, write_text
from tokenizer import END, FAKE, IMAGE, added_token, plain

MERGED = 330

GEMMA_SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
MISTRAL_SPECIALS = ["<unk>", "<s>", "</s>"]


def train(specials: list[str]) -> tuple[dict[str, int], list]:
    """Specials, 256 bytes, then characters and merges of our own prose, spaces as `▁`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=MERGED, show_progress=False, limit_alphabet=90)
    corpus = (HERE / "corpus.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator([corpus.replace("\n", " ")], trainer)
    state = json.loads(tokenizer.to_str())["model"]
    pieces = [piece for piece, _ in sorted(state["vocab"].items(), key=lambda item: item[1])]
    names = [*specials, *[f"<0x{byte:02X}>" for byte in range(256)], *pieces]
    return {name: index for index, name in enumerate(names)}, state["merges"]


def model(vocabulary: dict[str, int], merges: list) -> dict:
    return {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": vocabulary, "merges": merges,
    }  # fmt: skip


def bos_before(token: str, index: int) -> dict:
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }  # fmt: skip


def decoder(strip: bool) -> dict:
    steps = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    ]  # fmt: skip
    if strip:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def write(folder: Path, state: dict, config: dict) -> None:
    text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
    Tokenizer.from_str(text)
    write_text(folder / "tokenizer.json", text)
    write_text(folder / "tokenizer_config.json", json.dumps(config, separators=(",", ":")) + "\n")


def write_gemma(folder: Path) -> int:
    """Writes a tokenizer like PaliGemma's and returns the id of `<image>`, the last one."""
    vocabulary, merges = train(GEMMA_SPECIALS)
    image = len(vocabulary)
    added = [added_token(index, name) for index, name in enumerate(GEMMA_SPECIALS)] + [added_token(image, IMAGE)]
    state = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        # As published: it is the processors that switch it off.
        "post_processor": bos_before("<bos>", GEMMA_SPECIALS.index("<bos>")),
        "decoder": decoder(strip=False), "model": model(vocabulary, merges),
    }  # fmt: skip
    write(
        folder,
        state,
        {
            "add_bos_token": True, "add_eos_token": False, "additional_special_tokens": [IMAGE],
            "bos_token": "<bos>", "clean_up_tokenization_spaces": False, "eos_token": "<eos>",
            "pad_token": "<pad>", "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>",
        },
    )  # fmt: skip
    return image


def write_mistral(folder: Path, modern: bool) -> dict[str, int]:
    """Writes a tokenizer like Idefics2's and returns the ids of its added tokens.

    `modern` is what transformers 5 saves (Metaspace, the mark of a word at the very start only); otherwise what is
    published (a normalizer that puts the mark before every piece of text between special tokens).
    """
    vocabulary, merges = train(MISTRAL_SPECIALS)
    added = {FAKE: len(vocabulary), IMAGE: len(vocabulary) + 1, END: len(vocabulary) + 2}
    entries = [added_token(index, name) for index, name in enumerate(MISTRAL_SPECIALS)]
    entries += [added_token(index, name) for name, index in added.items()]
    old = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    new = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    state = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": entries,
        "normalizer": None if modern else old, "pre_tokenizer": new if modern else None,
        "post_processor": bos_before("<s>", 1), "decoder": decoder(strip=True), "model": model(vocabulary, merges),
    }  # fmt: skip
    write(
        folder,
        state,
        {
            "add_bos_token": True, "add_eos_token": False,
            "added_tokens_decoder": {str(index): {**plain(name), "special": True} for name, index in added.items()},
            "additional_special_tokens": [FAKE, IMAGE, END], "bos_token": "<s>", "clean_up_tokenization_spaces": False,
            "eos_token": "</s>", "legacy": not modern, "model_max_length": 4096, "pad_token": "<unk>",
            "processor_class": "Idefics2Processor",
            # transformers 5 makes a tokenizer of its own from the class: `legacy` decides what it puts before words
            # behind special tokens, and its processor's space behind a closing fake makes up for the rest.
            "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
        },
    )  # fmt: skip
    return added
