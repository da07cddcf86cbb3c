"""Strings that break tokenizers, and what the small tokenizers make of them.

For each: the ids with special tokens recognised, the ids with special tokens read as plain text
(`encode_special_tokens`, what user text must become), and the two decodings of the first ids.
"""

from pathlib import Path

from tokenizers import Tokenizer

from checkpoints import spec_named
from paths import OUT, run_lengths, write_lines

STRINGS = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\n\n\n",
    " \n \n\n  \n",
    "\t\ttabs\tand  spaces   of    every     length      ",
    "line one\r\nline two\rline three\n",
    "\u00a0no-break\u2003em\u200bzero-width\ufeffbom\u3000ideographic",
    "Describe the image.",
    "How does the latency between ColPali and standard retrieval methods compare?",
    "don't can't I'm you're they've we'll he'd DON'T I'M o'clock 'tis",
    "0123456789 3.14159 1,234,567.89 1e-5 0x1F 12:34:56 2024-02-29 +49 (0)30 123",
    "१२३ ٤٥٦ ７８９ Ⅳ ½ x² ①",
    "Ünïcödé naïve façade Ångström straße ŒUVRE İstanbul",
    "e\u0301 versus \u00e9, n\u0303 versus \u00f1, Å versus \u212b",
    "Привет, мир! Καλημέρα κόσμε. שלום עולם مرحبا بالعالم",
    "日本語のテキスト。汉字和標點，한국어 문장입니다。ไทยไม่มีช่องว่าง",
    "😀 👍🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️ 🏳️‍🌈 #️⃣",
    "a\u0000b\u0001c\u007fd\u0085e\u2028f",
    "def f(x):\n    return {k: v for k, v in x.items() if v != None}  # done\n\n\nclass A:\n\tpass\n",
    "<div class=\"a\">&amp; <br/></div> https://example.org/a?b=c&d=%20#e user@example.org",
    "$\\frac{a_1^2}{\\sqrt{b}}$ ∑∫≤≥≠∞ → ⇒ ±0.5 µm 25 °C €1.00 £5 ¥",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case path/to/file.rs C:\\dir\\x.txt",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "a" * 300,
    "ab" * 120,
    "!" * 70 + "?" * 35 + "." * 100 + "-" * 80 + "=" * 33,
    " " * 100 + "x",
    "x" + "\n" * 40 + "y",
    "<row_1_col_1><global-img><row_7_col_1><row_1_col_7>",
    "<image>",
    "a<image>b <image> c<end_of_utterance>\nUser: x<|im_start|><|im_end|><|endoftext|>",
    "<fake_token_around_image><row_2_col_3><image><image>\n\n<fake_token_around_image><global-img>",
    "<|im_start|>User:<image>Describe the image.<end_of_utterance>\nAssistant:",
    "< image > <Image> <IMAGE> <image <image/> image>",
    "<end_of_utterance><end_of_utterance>\n",
    "<|reserved_special_token_0|><|reserved_special_token_87|><|reserved_special_token_88|>",
    "<repo_name><reponame><file_sep><filename><gh_stars><issue_start><jupyter_text><empty_output>",
    "\ud7ff\ue000\uffff\U0001f9ff\U0010ffff",
]  # fmt: skip


def string_entries(file: Path) -> list[dict]:
    special = Tokenizer.from_file(str(file))
    plain = Tokenizer.from_file(str(file))
    plain.encode_special_tokens = True
    out = []
    for text in STRINGS:
        ids = special.encode(text, add_special_tokens=False).ids
        entry = {"text": text, "ids": run_lengths(ids)}
        as_text = plain.encode(text, add_special_tokens=False).ids
        if as_text != ids:
            entry["plain_ids"] = run_lengths(as_text)
        assert special.decode(ids, skip_special_tokens=False) == text, text
        skipped = special.decode(ids, skip_special_tokens=True)
        if skipped != text:
            entry["decoded"] = skipped
        out.append(entry)
    return out


def make() -> None:
    for name in ("smolvlm-single", "smolvlm-text"):
        write_lines(OUT / "tokenizers" / f"{name}.json", string_entries(spec_named(name).folder / "tokenizer.json"))
