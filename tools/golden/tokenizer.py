"""Two small byte-level BPE tokenizers with the structure of SmolVLM's, trained on `corpus.txt`.

Variant "single": image tags are single special tokens (SmolVLM-256M and 500M).
Variant "text": only three tokens are added, tags are ordinary text (SmolVLM-Instruct 2.2B).
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from paths import HERE, write_text

# The seventeen specials that SmolLM2 keeps inside its base vocabulary, in its order.
BASE_SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>",
    "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>",
    "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>",
]  # fmt: skip
BASE_VOCABULARY = 592
RESERVED = 8

FAKE = "<fake_token_around_image>"
IMAGE = "<image>"
END = "<end_of_utterance>"

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# SmolVLM-Base ends a turn with the end-of-text token instead.
BASE_CHAT_TEMPLATE = CHAT_TEMPLATE.replace("message['role'] | capitalize", "message['role'].capitalize()").replace(
    "<end_of_utterance>", "<|endoftext|>"
)


def added_after_base(variant: str) -> list[str]:
    if variant == "text":
        return [FAKE, IMAGE, END]
    tags = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    reserved = [f"<|reserved_special_token_{index}|>" for index in range(RESERVED)]
    return ["<global-img>", *tags, FAKE, IMAGE, *reserved, END]


def pre_tokenizer():
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def train_base() -> tuple[dict[str, int], list]:
    """Vocabulary (token → id) and merges of the base, 592 entries with the specials first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCABULARY,
        special_tokens=BASE_SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = (HERE / "corpus.txt").read_text(encoding="utf-8")
    # The regex gives "\n\n" as one word only where nothing follows it, as between two special tokens;
    # prompts need it as one token, so it is shown often enough to be learnt.
    tokenizer.train_from_iterator([corpus] + ["\n\n"] * 64, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    return state["vocab"], state["merges"]


def added_token(index: int, content: str) -> dict:
    return {
        "id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }  # fmt: skip


def specials(variant: str) -> dict[str, int]:
    table = {content: index for index, content in enumerate(BASE_SPECIALS)}
    for offset, content in enumerate(added_after_base(variant)):
        table[content] = BASE_VOCABULARY + offset
    return table


def vocabulary_size(variant: str) -> int:
    return BASE_VOCABULARY + len(added_after_base(variant))


def tokenizer_json(variant: str) -> str:
    vocabulary, merges = train_base()
    state = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(index, content) for content, index in specials(variant).items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
            "merges": merges,
        },
    }  # fmt: skip
    text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
    tokenizer = Tokenizer.from_str(text)
    assert len(tokenizer.encode("\n\n").ids) == 1, "a blank line must be one token"
    assert tokenizer.get_vocab_size() == vocabulary_size(variant)
    return text


def plain(content: str) -> dict:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def write_tokenizer(folder: Path, variant: str, template_in: str, template: str = CHAT_TEMPLATE,
                    processor_class: str = "Idefics3Processor") -> None:  # fmt: skip
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and the chat template.

    `template_in`: "chat_template.json", "chat_template.jinja" or "tokenizer_config.json", the three places
    where published checkpoints keep it.
    """
    write_text(folder / "tokenizer.json", tokenizer_json(variant))
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(index): {**plain(content), "special": True} for content, index in specials(variant).items()
        },
        "additional_special_tokens": [FAKE, IMAGE, END],
        "bos_token": "<|im_start|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "legacy": False,
        "model_max_length": 8192,
        "pad_token": "<|im_end|>",
        "processor_class": processor_class,
        "tokenizer_class": "GPT2Tokenizer",
        "truncation_side": "left",
        "unk_token": "<|endoftext|>",
        "vocab_size": vocabulary_size(variant),
    }
    if template_in == "tokenizer_config.json":
        config["chat_template"] = template
    elif template_in == "chat_template.jinja":
        write_text(folder / "chat_template.jinja", template)
    else:
        assert template_in == "chat_template.json", template_in
        write_text(folder / "chat_template.json", json.dumps({"chat_template": template}, indent=2) + "\n")
    write_text(folder / "tokenizer_config.json", json.dumps(config, separators=(",", ":")) + "\n")
    write_text(
        folder / "special_tokens_map.json",
        json.dumps(
            {
                "additional_special_tokens": [plain(FAKE), plain(IMAGE), plain(END)],
                # As published: this file names another end token than tokenizer_config.json does.
                "bos_token": plain("<|im_start|>"),
                "eos_token": plain("<|im_end|>"),
                "pad_token": plain("<|im_end|>"),
                "unk_token": plain("<|endoftext|>"),
            },
            separators=(",", ":"),
        )
        + "\n",
    )
