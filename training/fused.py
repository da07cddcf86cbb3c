"""What lies between the matrix products of a training step, on a CPU, in a few passes over memory (`kernels.cpp`).

A core with AMX multiplies bf16 matrices at one to two TFLOPS, and three quarters of a step went to norms, activations, softmax and copies, each a
pass or two over memory in f32. `fuse` puts one kernel in the place of each, with its gradient; products stay torch's. Only under autocast on a CPU:
elsewhere, and where there is no C++ compiler, everything is as transformers has it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama import modeling_llama

SOURCE = Path(__file__).with_name("kernels.cpp")
#: -ffast-math without what it does to the whole process (denormals).
FLAGS = ("-O3", "-march=native", *(("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()), "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffinite-math-only", "-shared", "-fPIC")


def processor() -> str:
    """What its instructions are, so that what was compiled for another is not run."""
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.platform()


def compiled(folder: Path) -> ctypes.CDLL | None:
    """The kernels, compiled once for each processor and each state of their source and kept in a folder; None where there is no compiler."""
    path = folder / f"kernels-{hashlib.sha256(SOURCE.read_bytes() + ' '.join((*FLAGS, processor())).encode()).hexdigest()[:16]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False) as new:
            try:
                subprocess.run([os.environ.get("CXX", "g++"), *FLAGS, "-o", new.name, str(SOURCE)], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                os.unlink(new.name)
                print(f"no kernels, training is slower: {error}", flush=True)
                return None
        os.replace(new.name, path)
    return ctypes.CDLL(str(path))


#: Queries in a block, and the length from which on there are blocks.
BLOCK, LONG = 320, 400

KERNELS: ctypes.CDLL | None = None


def call(name: str, *arguments: torch.Tensor | int | float | bool | None) -> None:
    """A kernel on contiguous tensors and numbers (whole ones are int64_t, others float, None is no tensor)."""
    given = []
    for a in arguments:
        if torch.is_tensor(a):
            assert a.is_contiguous(), f"{name} takes contiguous tensors"
            given.append(ctypes.c_void_p(a.data_ptr()))
        else:
            given.append(ctypes.c_void_p(0) if a is None else ctypes.c_bool(a) if isinstance(a, bool) else ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_float(a))
    getattr(KERNELS, name)(*given)


def here(x: torch.Tensor) -> bool:
    return KERNELS is not None and x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class Norm(torch.autograd.Function):
    """x (..., n) in f32 -> bf16; without a bias it is RMSNorm."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        x = x.float().contiguous()
        rows, n = x.numel() // x.shape[-1], x.shape[-1]
        y, stat = torch.empty(x.shape, dtype=torch.bfloat16), torch.empty(rows, 2)
        call("norm_forward", x, weight, bias, y, stat, rows, n, float(eps))
        ctx.save_for_backward(x, weight, stat)
        ctx.biased = bias is not None
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, stat = ctx.saved_tensors
        dx, dweight = torch.empty_like(x), torch.zeros_like(weight)
        dbias = torch.zeros_like(weight) if ctx.biased else None
        call("norm_backward", x, dy.to(torch.bfloat16).contiguous(), weight, stat, dx, dweight, dbias, len(stat), x.shape[-1])
        return dx, dweight, dbias, None


class Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.contiguous()
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        call("gelu_forward", x, y, x.numel())
        return y

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        call("gelu_backward", x, dy.contiguous(), dx, x.numel())
        return dx


class SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        y = torch.empty_like(gate)
        call("swiglu_forward", gate, up, y, gate.numel())
        return y

    @staticmethod
    def backward(ctx, dy):
        gate, up = ctx.saved_tensors
        dgate, dup = torch.empty_like(gate), torch.empty_like(up)
        call("swiglu_backward", gate, up, dy.contiguous(), dgate, dup, gate.numel())
        return dgate, dup


class Apart(torch.autograd.Function):
    """x (batch, token, head, dim) -> (batch, head, token, dim), turned by the angles of its positions if there are any."""

    @staticmethod
    def forward(ctx, x, cos=None, sin=None):
        batch, tokens, heads, dim = x.shape
        y = torch.empty(batch, heads, tokens, dim, dtype=x.dtype)
        ctx.angles = cos, sin
        if cos is None:
            call("heads_apart", x.contiguous(), y, batch, tokens, heads, dim, False)
        else:
            call("rotary", x.contiguous(), y, cos, sin, batch, tokens, heads, dim, False)
        return y

    @staticmethod
    def backward(ctx, dy):
        batch, heads, tokens, dim = dy.shape
        dx = torch.empty(batch, tokens, heads, dim, dtype=dy.dtype)
        cos, sin = ctx.angles
        if cos is None:
            call("heads_apart", dx, dy.contiguous(), batch, tokens, heads, dim, True)
        else:
            call("rotary", dx, dy.contiguous(), cos, sin, batch, tokens, heads, dim, True)
        return dx, None, None


class Attend(torch.autograd.Function):
    """Query (batch, head, token, dim), key and value (batch, group, token, dim), `allowed` (batch or 1, token, token) of bool or None
    -> (batch, token, head, dim). The heads of a group are one product."""

    @staticmethod
    def forward(ctx, query, key, value, allowed, scaling):
        batch, heads, tokens, dim = query.shape
        groups, others = key.shape[1:3]
        q, k, v = query.view(batch * groups, -1, dim), key.view(batch * groups, others, dim), value.view(batch * groups, others, dim)
        looked = torch.bmm(q, k.transpose(1, 2))
        call("softmax_forward", looked, allowed, batch, heads, tokens, others, allowed is not None and len(allowed) == 1, float(scaling))
        ctx.save_for_backward(q, k, v, looked)
        ctx.shape, ctx.scaling = (batch, heads, tokens, dim), float(scaling)
        out = torch.empty(batch, tokens, heads, dim, dtype=query.dtype)
        call("heads_apart", out, torch.bmm(looked, v), batch, tokens, heads, dim, True)
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, looked = ctx.saved_tensors
        batch, heads, tokens, dim = ctx.shape
        apart = torch.empty(batch, heads, tokens, dim, dtype=dout.dtype)
        call("heads_apart", dout.contiguous(), apart, batch, tokens, heads, dim, False)
        apart = apart.view(q.shape)
        grad = torch.bmm(apart, v.transpose(1, 2))
        call("softmax_backward", looked, grad, grad.shape[0] * grad.shape[1], grad.shape[2], ctx.scaling)
        apart_v = torch.bmm(looked.transpose(1, 2), apart)
        dq, dk = torch.bmm(grad, k), torch.bmm(grad.transpose(1, 2), q)
        shape = (batch, -1, k.shape[1], dim)
        return dq.view(ctx.shape), dk.view(shape), apart_v.view(shape), None, None


class AttendLong(torch.autograd.Function):
    """The same for long sequences with a causal `allowed`: a block of queries at a time, against what does not stand behind them, so that nearly half of
    the products are left out and none is larger than the cache likes."""

    @staticmethod
    def forward(ctx, query, key, value, allowed, scaling):
        batch, heads, tokens, dim = query.shape
        q, k, v = (x.repeat_interleave(heads // x.shape[1], 1).view(batch * heads, tokens, dim) for x in (query, key, value))
        size = -(-tokens // -(-tokens // BLOCK))
        out, kept = torch.empty_like(q), []
        for begin in range(0, tokens, size):
            end = min(begin + size, tokens)
            looked = torch.bmm(q[:, begin:end], k[:, :end].transpose(1, 2))
            may = allowed[:, begin:end, :end].contiguous()
            call("softmax_forward", looked, may, batch, heads, end - begin, end, len(may) == 1, float(scaling))
            out[:, begin:end] = torch.bmm(looked, v[:, :end])
            kept.append(looked)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.shape, ctx.groups, ctx.scaling = (batch, heads, tokens, dim), key.shape[1], float(scaling)
        together = torch.empty(batch, tokens, heads, dim, dtype=query.dtype)
        call("heads_apart", together, out, batch, tokens, heads, dim, True)
        return together

    @staticmethod
    def backward(ctx, dout):
        q, k, v, *kept = ctx.saved_tensors
        batch, heads, tokens, dim = ctx.shape
        apart = torch.empty_like(q)
        call("heads_apart", dout.contiguous(), apart, batch, tokens, heads, dim, False)
        dq, dk, dv = torch.empty_like(q), torch.zeros(k.shape), torch.zeros(v.shape)
        begin = 0
        for looked in kept:
            end = begin + looked.shape[1]
            mine = apart[:, begin:end]
            grad = torch.bmm(mine, v[:, :end].transpose(1, 2))
            call("softmax_backward", looked, grad, grad.shape[0] * grad.shape[1], grad.shape[2], ctx.scaling)
            dv[:, :end] += torch.bmm(looked.transpose(1, 2), mine)
            dk[:, :end] += torch.bmm(grad.transpose(1, 2), q[:, begin:end])
            dq[:, begin:end] = torch.bmm(grad, k[:, :end])
            begin = end
        grouped = lambda x: x.view(batch, ctx.groups, -1, tokens, dim).sum(2).to(q.dtype)
        return dq.view(ctx.shape), grouped(dk), grouped(dv), None, None


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, allowed: torch.Tensor | None) -> torch.Tensor:
    """As transformers hands them over: (batch, head, token, dim), which may be views -> (batch, token, head, dim)."""
    apart = lambda x: x if x.is_contiguous() else Apart.apply(x.transpose(1, 2))
    kind = Attend if allowed is None or query.shape[2] <= LONG else AttendLong
    return kind.apply(apart(query), apart(key), apart(value), allowed, scaling)


class LayerNorm(nn.LayerNorm):
    def forward(self, x):
        return Norm.apply(x, self.weight, self.bias, self.eps) if here(x) else super().forward(x)


class RmsNorm(modeling_llama.LlamaRMSNorm):
    def forward(self, x):
        return Norm.apply(x, self.weight, None, self.variance_epsilon) if here(x) else super().forward(x)


class Mlp(modeling_llama.LlamaMLP):
    def forward(self, x):
        return self.down_proj(SwiGlu.apply(self.gate_proj(x), self.up_proj(x))) if here(x) else super().forward(x)


class Activation(nn.Module):
    def forward(self, x):
        return Gelu.apply(x) if here(x) else nn.functional.gelu(x, approximate="tanh")


def vision(module, query, key, value, mask, scaling, **more):
    if here(query) and mask is None:
        return attend(query, key, value, scaling, None), None
    return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **more)


@functools.lru_cache(maxsize=1)
def earlier(length: int) -> torch.Tensor:
    """What stands before each token, and itself: (1, length, length), once for all layers of a pass."""
    return torch.ones(1, length, length, dtype=torch.bool).tril()


def causal(module, query, key, value, mask, scaling, **more):
    """For sequences whose padding stands at the end."""
    if here(query):
        return attend(query, key, value, scaling, earlier(query.shape[2])), None
    return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **more)


ROTARY = modeling_llama.apply_rotary_pos_emb


def rotated(q, k, cos, sin, unsqueeze_dim=1):
    if not (here(q) and q.dtype == torch.bfloat16 and unsqueeze_dim == 1):
        return ROTARY(q, k, cos, sin, unsqueeze_dim)
    cos, sin = (x.float().expand(len(q), -1, -1).contiguous() for x in (cos, sin))
    return Apart.apply(q.transpose(1, 2), cos, sin), Apart.apply(k.transpose(1, 2), cos, sin)


def fuse(model: nn.Module, folder: Path) -> bool:
    """Puts the kernels into a `Colibri`, if they can be compiled into the folder."""
    global KERNELS
    KERNELS = KERNELS or compiled(folder)
    if KERNELS is None:
        return False
    for module in list(model.modules()):
        if type(module) is nn.LayerNorm:
            module.__class__ = LayerNorm
        elif type(module) is modeling_llama.LlamaRMSNorm:
            module.__class__ = RmsNorm
        elif type(module) is modeling_llama.LlamaMLP:
            module.__class__ = Mlp
        elif hasattr(module, "activation_fn"):
            module.activation_fn = Activation()
    model.model.vision_model.config._attn_implementation = "fused_vision"
    model.model.text_model.config._attn_implementation = "fused_causal"
    modeling_llama.apply_rotary_pos_emb = rotated
    return True


AttentionInterface.register("fused_vision", vision)
AttentionInterface.register("fused_causal", causal)
