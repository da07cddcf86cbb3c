"""Own mistakes: what is taken for one, and where it goes."""

import unittest

import torch

from slips import Slips, instead


class Letters:
    """A tokenizer of a few pieces."""

    pieces = ["", "a", "b", "ab", "cd", " b", "\n", "\ufffd", "x"]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.pieces[i] for i in ids)

    def get_vocab_size(self) -> int:
        return len(self.pieces)


def said(*pieces: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(pieces), len(Letters.pieces)).float()


class TestSlips(unittest.TestCase):
    def batch(self) -> dict:
        # Said are "cd", "b", a line break and the end (0); the first two tokens are the question's.
        return {"ids": torch.tensor([[1, 1, 4, 2, 6, 0]]), "wanted": torch.tensor([[-100, 4, 2, 6, 0, -100]])}

    def test_a_mistake_is_taken_at_its_place(self) -> None:
        self.assertEqual(Slips(Letters(), 1.0).note(self.batch(), said(8, 1, 6, 0)).tolist(), [[-1, -1, 8, 1, -1, -1]])

    def test_what_is_right_or_no_plain_text_is_not(self) -> None:
        slips = Slips(Letters(), 1.0)
        self.assertEqual(slips.note(self.batch(), said(4, 5, 1, 1)).tolist(), [[-1] * 6], "nor is a word that begins, or anything for a line's end")
        self.assertEqual(slips.note(self.batch(), said(6, 7, 6, 0)).tolist(), [[-1] * 6])

    def test_they_go_into_the_ids_and_the_batch_stays_as_it_was(self) -> None:
        batch, slips = self.batch(), Slips(Letters(), 1.0)
        self.assertEqual(slips.into(batch).tolist(), batch["ids"].tolist(), "none yet")
        batch["slips"] = slips.note(batch, said(8, 1, 6, 0))
        self.assertEqual(slips.into(batch).tolist(), [[1, 1, 8, 1, 6, 0]])
        self.assertEqual(batch["ids"].tolist(), self.batch()["ids"].tolist())
        self.assertEqual(Slips(Letters(), 0.0).into(batch).tolist(), batch["ids"].tolist())

    def test_parts_and_what_comes_a_little_later_do_not_stand_for_a_piece(self) -> None:
        self.assertTrue(instead("in", "im", "position", "be"))
        self.assertTrue(instead(" sea", " used", " by", "4"), "longer or shorter is no matter")
        self.assertFalse(instead("i", "im", "position", "be"), "its beginning: what follows is the rest of it")
        self.assertFalse(instead("imp", "im", "position", "be"))
        self.assertFalse(instead("pos", "im", "position", "be"), "two letters left out: they will not come any more")
        self.assertFalse(instead("e", "im", "position", "be"), "said once more")
        self.assertFalse(instead(" im", "im", "position", "be"))


if __name__ == "__main__":
    unittest.main()
