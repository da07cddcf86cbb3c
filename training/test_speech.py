"""Where the pieces of an answer are said to stand: `python -m unittest` in this folder, with the tokenizer that is shipped."""

import unittest
from pathlib import Path

from model import load_tokenizer
from pages.canvas import Word
from speech import Turn, turn_ids

TOKENIZER = load_tokenizer(Path(__file__).parent.parent / "builtin" / "base")


def line(top: float, *texts: str) -> list[Word]:
    """Words of 16 px a character on one line of a tile."""
    words, x = [], 0.0
    for text in texts:
        words.append(Word(text, [x + 16 * i for i in range(len(text) + 1)], top, top + 20))
        x += 16 * (len(text) + 1)
    return words


class Places(unittest.TestCase):
    def said(self, answer: str, words: list[Word]) -> list[tuple[str, int]]:
        turn = turn_ids(TOKENIZER, Turn("What?", answer, words), 1, 1)
        return [(TOKENIZER.decode([i]), place) for i, place in zip(turn["ids"][turn["answer"] : -1], turn["places"], strict=False)]

    def test_a_figure_begins_where_its_first_digit_stands(self) -> None:
        # The space before a figure is a piece of its own, and the one an answer begins with.
        self.assertEqual(self.said("1975", line(0, "1975")), [(" ", 0), ("1", 0), ("9", 0), ("7", 1), ("5", 1)])

    def test_a_line_ends_at_the_beginning_of_the_next(self) -> None:
        said = self.said("19\n75", line(0, "19") + line(64, "75"))
        self.assertEqual([place for piece, place in said if piece == "\n"], [16])

    def test_reading_ends_where_its_last_piece_stands(self) -> None:
        turn = turn_ids(TOKENIZER, Turn("What?", "1975", line(0, "1975")), 1, 1)
        self.assertEqual(turn["places"][-2:], [1, 1])
        self.assertIn(len(turn["places"]) - 1, turn["blanks"], "the end itself is nothing on the page that was said")
        self.assertEqual(turn_ids(TOKENIZER, Turn("What?", "1975", line(0, "1975"), kind="table"), 1, 1)["places"][-1], -1)

    def test_punctuation_that_is_read_aloud_has_a_place(self) -> None:
        self.assertEqual(self.said("19.", line(0, "19."))[-1], (".", 1))
        self.assertEqual(self.said("19", line(0, "19.")), [(" ", 0), ("1", 0), ("9", 0)], "an answer may leave it out")


if __name__ == "__main__":
    unittest.main()
