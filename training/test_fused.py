"""The kernels say what torch says in f32, forwards and backwards, as nearly as bf16 can."""

import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

import fused
from test_grow import model

FOLDER = tempfile.TemporaryDirectory()
fused.KERNELS = fused.compiled(Path(FOLDER.name))


@unittest.skipUnless(fused.KERNELS, "no C++ compiler")
class TestFused(unittest.TestCase):
    def setUp(self) -> None:
        torch.manual_seed(3)

    def alike(self, kernel: Callable, plain: Callable, *shapes: tuple[int, ...], f32: tuple[int, ...] = ()) -> None:
        """Values and all gradients of a kernel (bf16 but for some of its inputs) and of plain torch in f32, relative to their size."""
        drawn = [torch.randn(shape) if n in f32 else torch.randn(shape).bfloat16() for n, shape in enumerate(shapes)]
        mine = [x.clone().requires_grad_() for x in drawn]
        theirs = [x.float().requires_grad_() for x in drawn]
        said, meant = kernel(*mine), plain(*theirs)
        self.assertEqual(said.shape, meant.shape)
        turn = torch.randn(meant.shape).bfloat16()
        said.backward(turn)
        meant.backward(turn.float())
        for name, a, b in [("value", said, meant), *((f"gradient {n}", a.grad, b.grad) for n, (a, b) in enumerate(zip(mine, theirs)))]:
            self.assertLess(float((a.float() - b).norm() / b.norm()), 0.012, name)

    def test_norms(self) -> None:
        self.alike(lambda x, w, b: fused.Norm.apply(x, w, b, 1e-6), lambda x, w, b: F.layer_norm(x, (48,), w, b, 1e-6), (3, 5, 48), (48,), (48,), f32=(0, 1, 2))
        self.alike(lambda x, w: fused.Norm.apply(x, w, None, 1e-5), lambda x, w: F.rms_norm(x, (48,), w, 1e-5), (3, 5, 48), (48,), f32=(0, 1))

    def test_activations(self) -> None:
        wide = lambda x: x * 4
        self.alike(lambda x: fused.Gelu.apply(wide(x)), lambda x: F.gelu(wide(x), approximate="tanh"), (7, 129))
        self.alike(lambda a, b: fused.SwiGlu.apply(wide(a), b), lambda a, b: F.silu(wide(a)) * b, (7, 129), (7, 129))

    def test_far_out(self) -> None:
        far = torch.tensor([-300.0, -80.0, -20.0, 0.0, 20.0, 80.0, 300.0]).bfloat16()
        torch.testing.assert_close(fused.Gelu.apply(far).float(), far.float().clamp(min=0))

    def test_heads_apart_and_turned(self) -> None:
        self.alike(lambda x: fused.Apart.apply(x), lambda x: x.transpose(1, 2), (2, 9, 3, 8))
        angle = torch.rand(2, 9, 4).mul(6).repeat(1, 1, 2)
        cos, sin = angle.cos(), angle.sin()
        plain = lambda x: apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), cos, sin)[0]
        self.alike(lambda x: fused.Apart.apply(x, cos, sin), plain, (2, 9, 3, 8))

    def plain(self, allowed: torch.Tensor | None) -> Callable:
        mask = None if allowed is None else allowed[:, None]
        return lambda q, k, v: F.scaled_dot_product_attention(q, repeat_kv(k, 2), repeat_kv(v, 2), attn_mask=mask, scale=0.3).transpose(1, 2)

    def test_attention(self) -> None:
        own = (torch.rand(2, 21, 21) < 0.6) | torch.eye(21, dtype=torch.bool)
        for allowed in (None, own, torch.ones(1, 21, 21, dtype=torch.bool).tril(), own.tril()):
            self.alike(lambda q, k, v: fused.Attend.apply(q, k, v, allowed, 0.3), self.plain(allowed), (2, 4, 21, 16), (2, 2, 21, 16), (2, 2, 21, 16))

    def test_attention_in_blocks(self) -> None:
        own = ((torch.rand(2, 21, 21) < 0.6) | torch.eye(21, dtype=torch.bool)).tril()
        with mock.patch.object(fused, "BLOCK", 8):
            for allowed in (own, torch.ones(1, 21, 21, dtype=torch.bool).tril()):
                self.alike(lambda q, k, v: fused.AttendLong.apply(q, k, v, allowed, 0.3), self.plain(allowed), (2, 4, 21, 16), (2, 2, 21, 16), (2, 2, 21, 16))

    def test_a_whole_model(self) -> None:
        """Close to its f32 self, no farther than autocast alone, and untouched outside autocast."""
        whole, pixels, ids = model(2), torch.randn(2, 3, 256, 256), torch.tensor([[1, *[3] * 64, 5, 7, 9]] * 2)

        def states() -> torch.Tensor:
            with torch.no_grad():
                return whole.states(ids, whole.look(pixels).flatten(0, 1)).float()

        exact = states()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            before = (states() - exact).norm()
        with mock.patch.object(fused.modeling_llama, "apply_rotary_pos_emb", fused.ROTARY):
            self.assertTrue(fused.fuse(whole, Path(FOLDER.name)))
            torch.testing.assert_close(states(), exact)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                self.assertLess((states() - exact).norm(), 1.5 * before)


if __name__ == "__main__":
    unittest.main()
