"""What processes that train together agree on: `python -m unittest`."""

import quiet  # noqa: F401  (first)
import unittest

import torch
from torch import nn

import together


def learn(us: together.Together) -> None:
    torch.manual_seed(us.rank)
    model = nn.Linear(3, 1)
    us.same(model)
    first = torch.tensor(us.agree(*model.weight.flatten().tolist()))
    assert torch.allclose(first.float(), model.weight.flatten()), "the weights are not those of the first"
    if us.rank == 0:  # the other has no gradient at all
        model(torch.tensor([[2.0, 4.0, 6.0]])).sum().backward()
    us.average(model)
    assert torch.equal(model.weight.grad, torch.tensor([[1.0, 2.0, 3.0]])), f"the mean gradient is {model.weight.grad}"
    assert us.agree(us.rank + 5.0) == [5.0]


class Processes(unittest.TestCase):
    def test_two_processes_hold_one_model(self):
        together.run(2, learn)

    def test_a_process_that_fails_fails_the_run(self):
        with self.assertRaises(Exception):
            together.run(2, wrong)

    def test_one_process_needs_no_others(self):
        model = nn.Linear(2, 1)
        us = together.Together()
        us.same(model)
        us.average(model)
        self.assertIsNone(model.weight.grad)
        self.assertEqual(us.agree(1.5), [1.5])


def wrong(us: together.Together) -> None:
    assert us.rank == 0, "the second process fails"


if __name__ == "__main__":
    unittest.main()
