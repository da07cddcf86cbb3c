"""Trains the byte-level BPE tokenizer on generated text and writes it in the layout of SmolVLM-256M.

2048 entries: the seventeen base special tokens at 0..16 as in SmolLM2, the byte alphabet and merges, then one special token
each for `<global-img>`, the 36 tile tags, `<fake_token_around_image>`, `<image>` and `<end_of_utterance>`.
Pre-tokenizer: digits one by one, then ByteLevel. No normaliser, no post-processor: nothing is ever added. `"\\n\\n"` is one
token, because the prompt of a split image contains it.

    python tokenizer.py --out runs/tokenizer
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from pages import words

VOCABULARY = 2048
BASE_SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <repo_name> <reponame> <file_sep> <filename> <gh_stars> <issue_start> <issue_comment> "
    "<issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <jupyter_script> <empty_output>"
).split()
IMAGE_SPECIAL = ["<global-img>"] + [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)] + ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def sample(rng: random.Random) -> str:
    """A line of text as pages, questions and prompts have them."""
    kind = rng.random()
    if kind < 0.25:
        return f"User: What is the {words.english(rng)} of {words.company(rng)}?\nAssistant: {words.token(rng)}"
    if kind < 0.4:
        return f"{words.person(rng)}, {words.company(rng)}, {words.place(rng)}, {words.date(rng)}: {rng.choice(words.ITEMS)} {words.money(rng)}"
    if kind < 0.45:
        return "Describe the image."
    return " ".join(words.token(rng) for _ in range(rng.randint(3, 14)))


def train(seed: int, lines: int) -> Tokenizer:
    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(IMAGE_SPECIAL), special_tokens=[AddedToken(t, normalized=False, special=True) for t in BASE_SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
    )
    tokenizer.train_from_iterator((sample(rng) + ("\n\n" if i % 3 == 0 else "\n") for i in range(lines)), trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in IMAGE_SPECIAL])
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    assert len(tokenizer.encode("\n\n").ids) == 1
    return tokenizer


def write(tokenizer: Tokenizer, out: Path) -> None:
    """`tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `chat_template.json`."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    ids = {t: tokenizer.token_to_id(t) for t in BASE_SPECIAL + IMAGE_SPECIAL}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": t, **flags, "special": True} for t, i in sorted(ids.items(), key=lambda x: x[1])},
        "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
        "bos_token": "<|im_start|>", "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False, "eos_token": "<end_of_utterance>",
        "legacy": False, "model_max_length": 8192, "pad_token": "<|im_end|>", "processor_class": "Idefics3Processor",
        "tokenizer_class": "PreTrainedTokenizerFast", "truncation_side": "left", "unk_token": "<|endoftext|>", "vocab_size": VOCABULARY,
    }
    entry = lambda text: {"content": text, **flags}
    special = {
        "additional_special_tokens": [entry(t) for t in ("<fake_token_around_image>", "<image>", "<end_of_utterance>")],
        "bos_token": entry("<|im_start|>"), "eos_token": entry("<|im_end|>"), "pad_token": entry("<|im_end|>"), "unk_token": entry("<|endoftext|>"),
    }
    for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", special), ("chat_template.json", {"chat_template": CHAT_TEMPLATE}),
                        ("added_tokens.json", {t: ids[t] for t in IMAGE_SPECIAL})):
        (out / name).write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runs" / "tokenizer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int, default=40000)
    options = parser.parse_args()
    write(train(options.seed, options.lines), options.out)


if __name__ == "__main__":
    main()
