"""Attention of the text model over packed sheets, watched: what chosen heads look at is worked out for the tokens asked about alone.

Whole maps of attention cost three times the rest of a step on sequences as long as a page. Here the picture runs torch's fused causal
attention, the turns (a few hundred tokens that see the picture and their own turn) a masked one, and the rows that are supervised
are computed once more beside them. A CPU that trains has kernels of its own for both (`fused.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import repeat_kv

import fused

#: Which layers and heads do which kind of looking; heads of a layer lie in four groups of two that share keys. One head carries 32 numbers of the
#: place it looks at, too few to spell a piece from, so several look at the piece to be said next. What was said last is looked for twice: the first
#: layer that does knows the piece alone, the second what stood before it.
HEADS = {
    "next": ((3, 0), (3, 1), (4, 0), (4, 2), (5, 0), (5, 2), (5, 4), (5, 6)),
    "last": ((1, 0), (2, 1)),
    "key": ((2, 4),),
    "named": ((2, 0),),
    "column": ((2, 6),),
    "said": ((2, 2),),
}


@dataclass
class Looks:
    """Who must look where, of one kind: `tokens` (row, slot) are the tokens that look, `picks` (row, slot, to, group) the places; the
    places of a group count together."""

    tokens: torch.Tensor
    picks: torch.Tensor
    groups: int


@dataclass
class Watch:
    """The plan of one pass: `picture` tokens at the beginning of every row are the picture's; `owner` says whose each token is (0: the
    picture, -1: padding). Afterwards `seen` has, for every kind of looks, the share of each of its heads' attention that falls on each group."""

    picture: int = 0
    owner: torch.Tensor | None = None
    looks: dict[str, Looks] = field(default_factory=dict)
    seen: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    full: torch.Tensor | None = None

    def allowed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (row, slot) -> (row, slot, length) of bool: what they may see: earlier ones of the picture or of their own turn."""
        every = self.owner[:, None, :]
        earlier = torch.arange(every.shape[-1], device=tokens.device) <= tokens[..., None]
        return ((self.owner.gather(1, tokens)[..., None] == every) | (every == 0)) & earlier

    def plan(self) -> torch.Tensor:
        """What every token may see, worked out once for all layers: (row, length, length)."""
        if self.full is None:
            self.full = self.allowed(torch.arange(self.owner.shape[1], device=self.owner.device).expand_as(self.owner))
        return self.full


WATCH = Watch()


def watched(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask, scaling: float, **_) -> tuple[torch.Tensor, None]:
    """Query (batch, head, token, dim), key and value (batch, group, token, dim) -> (batch, token, head, dim)."""
    if fused.here(query):
        out = fused.attend(query, key, value, scaling, WATCH.plan())
        key = repeat_kv(key, module.num_key_value_groups)
    else:
        key, value = repeat_kv(key, module.num_key_value_groups), repeat_kv(value, module.num_key_value_groups)
        cut = WATCH.picture
        picture = attend(query[:, :, :cut], key[:, :, :cut], value[:, :, :cut], scaling)
        turns = torch.arange(cut, query.shape[2], device=query.device).expand(len(query), -1)
        said = attend(query[:, :, cut:], key, value, scaling, WATCH.allowed(turns)[:, None])
        out = torch.cat([picture, said], 2).transpose(1, 2).contiguous()
    for name, heads in HEADS.items():
        looks = WATCH.looks.get(name)
        for layer, head in heads:
            if layer == module.layer_idx and looks is not None and looks.groups:
                WATCH.seen.setdefault(name, []).append(share(query[:, head], key[:, head], scaling, looks))
    return out, None


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, allowed: torch.Tensor | None = None) -> torch.Tensor:
    """Attention where it is allowed, or to what stands before."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, is_causal=allowed is None, scale=scaling)


def share(query: torch.Tensor, key: torch.Tensor, scaling: float, looks: Looks) -> torch.Tensor:
    """One head's attention (query and key: row, token, dim), summed over the places of each group: (group,)."""
    asked = query.gather(1, looks.tokens[..., None].expand(-1, -1, query.shape[-1]))
    scores = (asked @ key.transpose(1, 2) * scaling).float().masked_fill(~WATCH.allowed(looks.tokens), -1e9).softmax(-1)
    row, slot, to, group = looks.picks.unbind(1)
    return torch.zeros(looks.groups, device=query.device).index_add(0, group, scores[row, slot, to])


AttentionInterface.register("watched", watched)
