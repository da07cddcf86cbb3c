"""A layer more says what was said before; a lower rank is the nearest."""

import unittest

import torch

from grow import grown, lowered
from model import Colibri, config


class Few:
    """A tokenizer of a few pieces."""

    def get_vocab_size(self) -> int:
        return 40

    def token_to_id(self, _: str) -> int:
        return 3


def model(layers: int) -> Colibri:
    cfg = config(Few())
    cfg.text_config.num_hidden_layers, cfg.text_config.layer_types = layers, None
    torch.manual_seed(layers)
    return Colibri(cfg).eval()


class TestGrow(unittest.TestCase):
    def test_another_layer_changes_nothing_at_first(self) -> None:
        small, large = model(2), model(3)
        with torch.no_grad():
            for lora in small.adapters:
                lora.lora_B.normal_(std=0.1)
        large.load_state_dict(grown(small.state_dict(), 3))
        ids = torch.tensor([[1, 5, 7, 9, 11]])
        with torch.no_grad():
            torch.testing.assert_close(large.states(ids, None), small.states(ids, None), msg="with the adapter")
            with small.generating(), large.generating():
                torch.testing.assert_close(large.states(ids, None), small.states(ids, None), msg="without")
        looks = large.model.text_model.layers[2].self_attn.q_proj.base.weight
        torch.testing.assert_close(looks, small.model.text_model.layers[1].self_attn.q_proj.base.weight, msg="it looks where the last one does")

    def test_a_layer_less_is_refused(self) -> None:
        with self.assertRaisesRegex(SystemExit, "has 3 text layers"):
            grown(model(3).state_dict(), 2)

    def test_what_has_no_layers_stays_as_it_is(self) -> None:
        self.assertEqual(grown({}, 2), {})

    def test_an_adapter_of_lower_rank_is_the_nearest(self) -> None:
        torch.manual_seed(0)
        a, b = torch.randn(8, 12), torch.randn(10, 8)
        product = b @ a
        kept = lowered({"x.lora_A": a, "x.lora_B": b}, 8)
        self.assertIs(kept["x.lora_A"], a, "no higher rank than wanted is left alone")
        cut = lowered({"x.lora_A": a, "x.lora_B": b}, 3)
        self.assertEqual((cut["x.lora_A"].shape, cut["x.lora_B"].shape), ((3, 12), (10, 3)))
        left = torch.linalg.svdvals(product)[3:].norm()
        torch.testing.assert_close((product - cut["x.lora_B"] @ cut["x.lora_A"]).norm(), left)


if __name__ == "__main__":
    unittest.main()
