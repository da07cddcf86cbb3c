"""Facts of a drawn page with the places of their answers and of the words they are found by, as turns for the generator."""

from __future__ import annotations

import random

from model import LONGEST_EDGE, TILE
from pages import crops, effects, fonts, kinds, words
from pages.canvas import Canvas, Word
from pages.phrases import phrased
from pages.questions import KEYS
from speech import READ, Turn


def plain(word: str) -> str:
    return word.lower().rstrip(":.,")


def sequence(page_words: list[Word], text: str, start: int = 0) -> int:
    """The first place from `start` where the words of a text stand one after another in drawing order; -1 if nowhere."""
    sought = [plain(w) for w in text.split()]
    names = [plain(w.text) for w in page_words]
    for at in range(start, len(names) - len(sought) + 1):
        if names[at : at + len(sought)] == sought:
            return at
    return -1


def turn(page_words: list[Word], fact: kinds.Fact, whole: bool, core: str | None = None) -> Turn:
    """A fact as a turn; `whole` asks as a person does who searches many pages, otherwise about this page alone; `core` is the
    question in other words."""
    core = core or fact.core
    question = f"{core} {fact.where}?" if whole else f"{core}?"
    values = len(fact.answer.split())
    found = lambda at, keys, key: Turn(question, fact.answer, page_words[at : at + values], keys, asked(question, key), fact.kind)
    if fact.kind == "key-value":
        key = fact.core.removeprefix("What is the ")
        at = sequence(page_words, f"{key} {fact.answer}")
        if at >= 0:
            split = at + len(key.split())
            return found(split, page_words[at:split], key)
    if fact.kind == "table":
        in_invoice = " of the " in fact.core
        column, _, row = fact.core.removeprefix("What is the ").partition(" of the ") if in_invoice else reversed(fact.core.removeprefix("What is the value of ").partition(" in "))
        at, head = sequence(page_words, row), sequence(page_words, column)
        if at >= 0 and head >= 0:
            cells = at + len(row.split())
            if in_invoice:
                place = cells + (1 if column == "price" else 2)
            else:
                first = sequence(page_words, "name")
                place = cells + head - first - 1
            if place < len(page_words) and page_words[place].text == fact.answer:
                return Turn(question, fact.answer, page_words[place : place + 1], page_words[at:cells], asked(question, row), fact.kind, [page_words[head]], asked(question, column))
    if fact.key:
        key = sequence(page_words, fact.key)
        keys = page_words[key : key + len(fact.key.split())] if key >= 0 else []
        for text, skipped in ((f"{fact.answer} {fact.key}", 0), (f"{fact.key} {fact.answer}", len(fact.key.split()))):  # as charts have them
            at = sequence(page_words, text)
            if at >= 0:
                return found(at + skipped, keys, fact.key)
        at = sequence(page_words, fact.answer, max(key, 0))
        at = at if at >= 0 else sequence(page_words, fact.answer)
        if at >= 0:
            return found(at, keys, fact.key)
    at = sequence(page_words, fact.answer)
    return found(at, [], None) if at >= 0 else Turn(question, fact.answer, kind=fact.kind)


def asked(question: str, key: str | None) -> tuple[int, int] | None:
    """Where a key stands in a question."""
    at = question.lower().find(key.lower()) if key else -1
    return (at, at + len(key)) if at >= 0 else None


def page_turns(page: kinds.Page, rng: random.Random, most: int, whole: bool = False) -> list[Turn]:
    """Some of a page's facts as turns, half of them in other words and half of them (`whole`: all) with the page's name."""
    facts = rng.sample(page.facts, min(most, len(page.facts)))
    return [turn(page.canvas.words, fact, whole or rng.random() < 0.5, phrased(fact.core, fact.others, rng) if rng.random() < 0.45 else None) for fact in facts]


def lines_tile(rng: random.Random, lines: int, per_line: int, held_out: bool = False, height: int = TILE) -> tuple[Canvas, list[Turn]]:
    """A tile of whole words in whole lines, to be read aloud, or a strip that is as wide."""
    paper, ink = crops.colours(rng)
    stretch = rng.uniform(0.85, 1.32)
    canvas = Canvas.blank(round(TILE / stretch), height, paper)
    regular, bold = fonts.choose(rng, held_out)
    em = rng.randint(17 if held_out else 14, 36 if lines < 3 else 28)
    face = fonts.font(bold if rng.random() < 0.25 else regular, em)
    pitch = em * rng.uniform(1.2, 1.8)
    lines = max(min(lines, int((height - 26) / pitch)), 1)
    y = rng.uniform(em, max(height - 6 - pitch * (lines - 1), em + 1))
    spoken = []
    left = rng.uniform(2, 60)
    for _ in range(lines):
        x, said = left if lines > 1 else rng.uniform(2, 150), []
        for _ in range(per_line):
            token = words.token(rng)
            if x + face.getlength(token) > canvas.image.width - 2:
                break
            x = canvas.text(x, y, token, face, ink) + face.getlength(" ")
            said.append(token)
        y += pitch
        if said:
            spoken.append(" ".join(said))
    canvas = finish(canvas.scaled(TILE, height), rng, held_out)
    return canvas, [Turn(READ, "\n".join(spoken), canvas.words)] if spoken else []


def fields_tile(rng: random.Random, held_out: bool = False) -> tuple[Canvas, list[Turn]]:
    """A tile of key-value lines, each asked for."""
    paper, ink = crops.colours(rng)
    canvas = Canvas.blank(256, 256, paper)
    regular, bold = fonts.choose(rng, held_out)
    em = rng.randint(17, 24)
    y = rng.uniform(em, 50)
    column = rng.uniform(90, 125) if rng.random() < 0.6 else 0.0
    turns = []
    for key in rng.sample([k for k in KEYS if len(k) < 11], 8):
        value = kinds.value_for(rng, key)
        if len(value) > 12:
            value = value.split(" ")[-1]
        if y > 250:
            break
        begin = len(canvas.words)
        canvas.text(4, y, kinds.heading(key) + ":", fonts.font(regular, em), ink)
        middle = len(canvas.words)
        canvas.text(max(canvas.words[-1].right + em * 0.4, column), y, value, fonts.font(bold, em), ink)
        if canvas.words[-1].right < 254:
            question = f"What is the {key}?"
            turns.append(Turn(question, value, canvas.words[middle:], canvas.words[begin:middle], asked(question, key), "key-value"))
        y += em * rng.uniform(1.3, 1.9)
    rng.shuffle(turns)
    return finish(canvas, rng, held_out), turns


def table_tile(rng: random.Random, held_out: bool = False) -> tuple[Canvas, list[Turn]]:
    """A tile of a small table, every cell of which is asked for: on one tile a column is learnt at a tenth of a page's cost."""
    paper, ink = crops.colours(rng)
    canvas = Canvas.blank(256, 256, paper)
    regular, bold = fonts.choose(rng, held_out)
    em = rng.randint(15, 19)
    columns = rng.randint(2, 3)
    first = rng.randint(1990, 2020)
    heads = [str(first + i) for i in range(columns)] if rng.random() < 0.6 else [m[:3] if rng.random() < 0.5 else m for m in rng.sample(words.MONTHS[:8], columns)]
    rights = [110 + (140 * (i + 1)) // columns for i in range(columns)]
    y, pitch = rng.uniform(em, 40), em * rng.uniform(1.4, 1.9)
    face = fonts.font(bold if rng.random() < 0.6 else regular, em)
    begin = len(canvas.words)
    for right, head in zip(rights, heads):
        canvas.right(right, y, head, face, ink)
    tops, turns = canvas.words[begin:], []
    if any(a.right > b.left for a, b in zip(tops, tops[1:])):
        return canvas, []
    face = fonts.font(regular, em)
    while (y := y + pitch) < 250:
        row = rng.choice((words.place(rng)[:9], rng.choice(words.ITEMS).split()[-1], words.surname(rng)[:9]))
        begin = len(canvas.words)
        canvas.text(4, y, kinds.heading(row), face, ink)
        if canvas.words[-1].right > 100 or any(t.question.lower().find(row.lower()) >= 0 for t in turns):
            break
        for right, head, top in zip(rights, heads, tops):
            value = str(rng.randrange(1, 10 ** rng.randint(1, 4)))
            canvas.right(right, y, value, face, ink)
            core = f"What is the value of {kinds.heading(row)} in {head}"
            question = f"{phrased(core, (), rng) if not held_out and rng.random() < 0.45 else core}?"
            turns.append(Turn(question, value, canvas.words[-1:], canvas.words[begin : begin + 1], asked(question, row), "table", [top], asked(question, head)))
    rng.shuffle(turns)
    return finish(canvas, rng, held_out), turns[:8]


def finish(canvas: Canvas, rng: random.Random, held_out: bool) -> Canvas:
    """One in seven is scanned; in training most are grey, and some go the way on which the processor sends a picture that it does not cut:
    up to the longest edge and down again, which softens it. The words stay where they are."""
    if not held_out and rng.random() < 0.7:
        canvas = canvas.grey()
    canvas = effects.scan(canvas, rng) if rng.random() < 0.15 else canvas
    width, height, times = *canvas.image.size, LONGEST_EDGE // TILE
    return canvas if held_out or rng.random() < 0.8 else canvas.scaled(times * width, times * height).scaled(width, height)
