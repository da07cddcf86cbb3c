"""What the generator is asked about a picture, with everything known about it: a picture and several turns, packed into one sequence.

A *sheet* is a single tile or a whole page (tiles and overview, as the processor cuts it) and a list of turns, each a question and its
answer. The picture stands once at the beginning and every turn sees it and itself alone (`attention.py`), at the positions it would have
if it were the only one: one pass over a page teaches all its facts. For every piece of an answer we know the visual token under it,
for a key-value fact also where the key stands on the page and in the question.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

import processing
from model import GRID, TILE, TOKENS
from pages.canvas import Canvas, Word

CELL = TILE // GRID
READ = "Read the text."
#: The kinds of looking (`attention.py` tells which head does which): at the piece to be said next, at the one just said, of a value at its key, of
#: the last token before an answer at the key's words in the question, and in tables the same two for the head of the column.
LOOKS = ("next", "last", "key", "named", "column", "said")
END = "<end_of_utterance>"
#: Pieces that are found in another row of visual tokens, or another tile, than the one before: where a line goes on behind the edge of a tile, or the next
#: one begins. They are few, and whoever misses one reads a wrong line: they count as so many.
JUMP = 3


@dataclass
class Turn:
    """A question and its answer; `where` are the words of the answer, `keys` the words on the page by which it is found, `asked`
    the part of the question that names them (start and end in characters), `kind` for reports by question type; in a table `keys` name
    the row, `heads` the column, and `said` is where the question does."""

    question: str
    answer: str
    where: list[Word] = field(default_factory=list)
    keys: list[Word] = field(default_factory=list)
    asked: tuple[int, int] | None = None
    kind: str = "reading"
    heads: list[Word] = field(default_factory=list)
    said: tuple[int, int] | None = None


def visual_token(x: float, y: float, rows: int, columns: int) -> int:
    """The visual token over a point of the cut page, in the order of the prompt; -1 outside."""
    row, column = int(y // TILE), int(x // TILE)
    if not (0 <= row < rows and 0 <= column < columns) or x < 0 or y < 0:
        return -1
    return (row * columns + column) * TOKENS + int(y % TILE // CELL) * GRID + int(x % TILE // CELL)


def under_piece(word: Word, start: int, end: int, rows: int, columns: int) -> int:
    """The visual token under the middle of some characters of a word."""
    return visual_token((word.edges[start] + word.edges[end]) / 2, (word.top + word.bottom) / 2, rows, columns)


def under_word(word: Word, rows: int, columns: int) -> list[int]:
    """The visual tokens over the middle line of a word."""
    y, steps = (word.top + word.bottom) / 2, max(int((word.right - word.left) // CELL), 1)
    points = [word.left + (word.right - word.left) * (i + 0.5) / steps for i in range(steps)]
    return sorted({at for at in (visual_token(x, y, rows, columns) for x in points) if at >= 0})


def page_sheet(tokenizer, canvas: Canvas, turns: list[Turn]) -> dict:
    """A whole page, or a smaller picture, enlarged and cut; the words of the turns stand where those of `canvas` do."""
    tiles, rows, columns = processing.split(canvas)
    sx, sy = columns * TILE / canvas.image.width, rows * TILE / canvas.image.height
    there = lambda found: [w.scaled(sx, sy) for w in found]
    moved = [replace(t, where=there(t.where), keys=there(t.keys), heads=there(t.heads)) for t in turns]
    prefix = processing.document_ids(tokenizer, rows, columns, TOKENS, after="")
    return sheet(tokenizer, tiles, prefix, rows, columns, there(canvas.words), moved)


def tile_sheet(tokenizer, canvas: Canvas, turns: list[Turn]) -> dict:
    """A single tile, as the processor treats a picture that is not cut."""
    prefix = tokenizer.encode(f"<|im_start|>User:<fake_token_around_image><global-img>{'<image>' * TOKENS}<fake_token_around_image>").ids
    return sheet(tokenizer, [canvas], prefix, 1, 1, canvas.words, turns)


def sheet(tokenizer, tiles: list[Canvas], prefix: list[int], rows: int, columns: int, words: list[Word], turns: list[Turn]) -> dict:
    """`under`: for each visual token the piece of text under it, or -100. Each turn: ids, where the answer begins in them, and the
    places known."""
    under = np.full(len(tiles) * TOKENS, -100)
    share = np.zeros(len(tiles) * TOKENS)
    for word in words:
        pieces = tokenizer.encode(" " + word.text)
        for piece, (start, end) in zip(pieces.ids, pieces.offsets):
            start, end = max(start - 1, 0), end - 1
            if end > start:
                at, width = under_piece(word, start, end, rows, columns), word.edges[end] - word.edges[start]
                if at >= 0 and width > share[at]:
                    under[at], share[at] = piece, width
    return {"canvases": tiles, "rows": rows, "columns": columns, "prefix": prefix, "under": under, "turns": [turn_ids(tokenizer, t, rows, columns) for t in turns]}


def turn_ids(tokenizer, turn: Turn, rows: int, columns: int) -> dict:
    asked = tokenizer.encode(f"{turn.question}{END}\nAssistant:")
    answer = " " + turn.answer
    said = tokenizer.encode(answer)
    places, starts, cursor = [-1] * (len(said.ids) + 1), [], 0
    for word in turn.where:
        text = word.text if word.text in answer[cursor:] else word.text.rstrip(":.,") or word.text
        cursor = answer.find(text, cursor)
        if cursor < 0:
            break
        starts.append((cursor, cursor + len(text), word))
        cursor += len(text)
    for number, (start, end) in enumerate(said.offsets):
        for first, last, word in starts:
            low, high = max(start, first), min(end, last)
            if low < high:
                places[number] = under_piece(word, low - first, high - first, rows, columns)
                break
    # A space or the end of a line is said by who sees what comes next. (A figure begins with a space of its own: without a place for that a
    # table's columns are never shown.)
    blanks = {number for number, (start, end) in enumerate(said.offsets) if answer[start:end].isspace()}
    for number in sorted(blanks, reverse=True):
        places[number] = places[number + 1]
    # Who has read everything stays where he is. (Without a place to look at, the last line was often said twice.)
    if turn.kind == "reading" and said.ids:
        places[-1] = places[-2]
        blanks.add(len(said.ids))
    within = lambda part: [i for i, (start, end) in enumerate(asked.offsets) if part and end > start and end > part[0] and start < part[1]]
    over = lambda words: [at for word in words for at in under_word(word, rows, columns)]
    return {"ids": asked.ids + said.ids + [tokenizer.token_to_id(END)], "answer": len(asked.ids), "places": places, "blanks": blanks, "named": within(turn.asked), "said": within(turn.said),
            "keys": over(turn.keys), "heads": over(turn.heads), "kind": turn.kind, "question": turn.question, "text": turn.answer}


def pack(sheets: list[dict], image_token: int) -> dict:
    """One batch of tensors: `picture` (tokens at the beginning that are the picture's, padded), `ids`, `positions`, `owner` (0: picture, k:
    the k-th turn, -1: padding), `wanted` (next tokens of answers), `weight` and `turn_of` them, `under` the visual tokens, and for every kind of looks who must look where
    (`attention.py`): `NAME_tokens`, `NAME_picks`, `NAME_groups`."""
    picture = max(len(s["prefix"]) for s in sheets)
    longest = picture + max(sum(len(t["ids"]) for t in s["turns"]) for s in sheets)
    longest += -longest % (64 if torch.cuda.is_available() else 8)  # few lengths, so that a GPU's memory is used again and again
    ids = torch.full((len(sheets), longest), 2)
    positions = torch.zeros((len(sheets), longest), dtype=torch.long)
    owner = torch.full((len(sheets), longest), -1)
    wanted = torch.full((len(sheets), longest), -100)
    turn_of = torch.full((len(sheets), longest), -1)
    weight = torch.ones((len(sheets), longest))
    looks: dict[str, list[tuple[int, int, int, int]]] = {name: [] for name in LOOKS}
    groups, turns = 0, 0
    for row, one in enumerate(sheets):
        prefix = one["prefix"]
        visual = [i for i, t in enumerate(prefix) if t == image_token]
        ids[row, : len(prefix)] = torch.tensor(prefix)
        positions[row, : len(prefix)] = torch.arange(len(prefix))
        owner[row, : len(prefix)] = 0
        at = picture
        for number, turn in enumerate(one["turns"], 1):
            length, begin = len(turn["ids"]), at + turn["answer"]
            span = slice(at, at + length)
            ids[row, span] = torch.tensor(turn["ids"])
            positions[row, span] = len(prefix) + torch.arange(length)
            owner[row, span] = number
            wanted[row, begin - 1 : at + length - 1] = ids[row, begin : at + length]
            turn_of[row, begin - 1 : at + length - 1] = turns
            turns += 1
            for i, place in enumerate(turn["places"]):
                if place >= 0:
                    if i not in turn["blanks"]:
                        looks["last"].append((row, begin + i, visual[place], groups))
                    before = turn["places"][i - 1] if i else -1
                    times = JUMP if before >= 0 and before // GRID != place // GRID else 1
                    weight[row, begin - 1 + i] = times
                    for _ in range(times):
                        looks["next"].append((row, begin - 1 + i, visual[place], groups))
                        groups += 1
            value = turn["places"][0]
            for key in turn["keys"]:
                # Whichever comes later looks at the other: the value at its key, or the key at a value above it.
                if 0 <= value and visual[key] != visual[value]:
                    late, early = max(visual[key], visual[value]), min(visual[key], visual[value])
                    looks["key"].append((row, late, early, groups if late == visual[value] else groups + 2 + key))
            looks["column"] += [(row, visual[value], visual[head], groups) for head in turn["heads"] if 0 <= value and visual[head] < visual[value]]
            for name in ("named", "said"):
                looks[name] += [(row, begin - 1, at + token, groups + 1) for token in turn[name]]
            groups += 2 + max(turn["keys"], default=0) + 1
            at += length
    batch = {"picture": picture, "ids": ids, "positions": positions, "owner": owner, "wanted": wanted, "weight": weight, "turn_of": turn_of, "turns": turns,
             "under": torch.from_numpy(np.concatenate([s["under"] for s in sheets])).long()}
    for name, found in looks.items():
        batch[f"{name}_tokens"], batch[f"{name}_picks"], batch[f"{name}_groups"] = slots(found, len(sheets))
    return batch


def slots(looks: list[tuple[int, int, int, int]], rows: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(row, from, to, group) of looks as the tokens that look, (row, slot), padded with 0, and (row, slot, to, group) with groups counted from 0."""
    places: list[dict[int, int]] = [{} for _ in range(rows)]
    groups: dict[int, int] = {}
    picks = [(row, places[row].setdefault(start, len(places[row])), to, groups.setdefault(group, len(groups))) for row, start, to, group in looks]
    tokens = torch.zeros((rows, max(max(len(p) for p in places), 1)), dtype=torch.long)
    for row, found in enumerate(places):
        tokens[row, : len(found)] = torch.tensor(list(found), dtype=torch.long)
    return tokens, torch.tensor(picks, dtype=torch.long).view(-1, 4), len(groups)
