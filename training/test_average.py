"""What means of weights promise: `python -m unittest`."""

import quiet  # noqa: F401  (first)
import tempfile
import unittest
from pathlib import Path

import torch
from torch import nn

from average import Mean, between


def holding(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


class Means(unittest.TestCase):
    def test_a_mean_is_of_the_steps_there_were_and_goes_on_where_it_was_kept(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path, layer = Path(folder) / "mean.pt", holding(7.0)
            mean = Mean(path, 4, {"model": layer})
            for value in (1.0, 2.0, 6.0):
                nn.init.constant_(layer.weight, value)
                mean.tick()
            self.assertAlmostEqual(float(mean.mean["model"]["weight"]), 3.0, places=6)
            mean.save()
            again = Mean(path, 4, {"model": layer})
            nn.init.constant_(layer.weight, 7.0)
            again.tick()
            again.tick()  # from the fourth step on every new one counts for a quarter
            self.assertAlmostEqual(float(again.mean["model"]["weight"]), 4.75, places=6)

    def test_a_point_between(self) -> None:
        found = between({"a": torch.tensor([0.0, 4.0])}, {"a": torch.tensor([4.0, 0.0])}, 0.25)
        self.assertTrue(torch.equal(found["a"], torch.tensor([1.0, 3.0])))

    def test_an_adapter_is_not_mixed(self) -> None:
        names = ("model.q_proj.lora_A", "linear.weight", "model.q_proj.base.weight")
        found = between({n: torch.zeros(1) for n in names}, {n: torch.ones(1) for n in names}, 0.25)
        self.assertEqual([float(found[n]) for n in names], [1.0, 1.0, 0.25])


if __name__ == "__main__":
    unittest.main()
