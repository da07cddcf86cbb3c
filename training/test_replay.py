"""What `--replay` promises, without drawing anything: `python -m unittest` in this folder."""

import itertools
import unittest
from collections import Counter

import torch

from replay import Replay

ROUND, TIMES, HOLD = 3, 4, 5


def order(calls: int, times: int = TIMES, seed: int = 1) -> list[int]:
    """The numbers of the first batches."""
    source = ({"number": torch.tensor(n)} for n in itertools.count())
    return [int(batch["number"]) for batch in itertools.islice(Replay(source, ROUND, times, HOLD, seed), calls)]


class Order(unittest.TestCase):
    def test_rounds_stay_together_and_never_come_twice_running(self) -> None:
        numbers = order(900)
        rounds = [numbers[i : i + ROUND] for i in range(0, len(numbers), ROUND)]
        self.assertTrue(all(r[0] % ROUND == 0 and r == list(range(r[0], r[0] + ROUND)) for r in rounds))
        self.assertTrue(all(a != b for a, b in zip(rounds, rounds[1:])))

    def test_every_batch_comes_as_often_as_wanted(self) -> None:
        counts = Counter(order(9000))
        self.assertEqual(max(counts.values()), TIMES)
        early = [n for n in counts if n < max(counts) // 2]
        self.assertGreater(sum(counts[n] == TIMES for n in early), 0.99 * len(early))
        # After the first rounds one in four is new.
        self.assertAlmostEqual(len(counts) / 9000, 1 / TIMES, delta=0.01)

    def test_order_follows_the_seed(self) -> None:
        self.assertEqual(order(300), order(300))
        self.assertNotEqual(order(300), order(300, seed=2))

    def test_once_is_the_source_itself(self) -> None:
        self.assertEqual(order(50, times=1), list(range(50)))

    def test_what_is_put_into_a_batch_is_there_again(self) -> None:
        source = ({"number": torch.tensor(n)} for n in itertools.count())
        seen = set()
        for batch in itertools.islice(Replay(source, ROUND, TIMES, HOLD, 1), 300):
            self.assertEqual("mark" in batch, int(batch["number"]) in seen)
            batch["mark"] = True
            seen.add(int(batch["number"]))

    def test_a_round_cannot_be_held_alone(self) -> None:
        with self.assertRaises(SystemExit):
            Replay(iter([]), ROUND, TIMES, 1, 1)


if __name__ == "__main__":
    unittest.main()
