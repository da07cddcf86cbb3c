"""Attention of the text model over packed sheets, watched: what chosen heads look at is worked out for the tokens asked about alone.

Whole maps of attention cost three times the rest of a step on sequences as long as a page. Here the picture runs torch's fused causal
attention, the turns (a few hundred tokens that see the picture and their own turn) the plain product, and the rows that are supervised
are computed once more beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import repeat_kv

#: Which layer and head does which kind of looking; heads of a layer lie in two groups of three that share keys.
HEADS = {"next": (2, 0), "last": (1, 0), "key": (1, 3), "named": (1, 1)}


@dataclass
class Watch:
    """The plan of one pass: `picture` tokens at the beginning of every row are the picture's; `owner` says whose each token is (0: the
    picture, -1: padding); `looks` are (row, from, to, group) of every kind. Afterwards `seen` has, for every kind, the share of its
    head's attention that falls on all places of a group together."""

    picture: int = 0
    owner: torch.Tensor | None = None
    looks: dict[str, torch.Tensor] = field(default_factory=dict)
    seen: dict[str, torch.Tensor] = field(default_factory=dict)

    def allowed(self, row: slice | int, tokens: torch.Tensor) -> torch.Tensor:
        """(…, tokens, length) of bool: what tokens may see: earlier ones of the picture or of their own turn."""
        owner = self.owner[row]
        earlier = torch.arange(owner.shape[-1], device=owner.device) <= tokens[:, None]
        return ((owner[..., tokens, None] == owner[..., None, :]) | (owner[..., None, :] == 0)) & earlier


WATCH = Watch()


def watched(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask, scaling: float, **_) -> tuple[torch.Tensor, None]:
    """Query (batch, head, token, dim), key and value (batch, group, token, dim) -> (batch, token, head, dim)."""
    key, value = repeat_kv(key, module.num_key_value_groups), repeat_kv(value, module.num_key_value_groups)
    cut = WATCH.picture
    picture = F.scaled_dot_product_attention(query[:, :, :cut], key[:, :, :cut], value[:, :, :cut], is_causal=True, scale=scaling)
    turns = torch.arange(cut, query.shape[2], device=query.device)
    scores = (query[:, :, cut:] @ key.transpose(2, 3) * scaling).float().masked_fill(~WATCH.allowed(slice(None), turns)[:, None], -1e9)
    said = scores.softmax(-1).to(value.dtype) @ value
    for name, (layer, head) in HEADS.items():
        looks = WATCH.looks.get(name)
        if layer == module.layer_idx and looks is not None and len(looks):
            WATCH.seen[name] = share(query[:, head], key[:, head], scaling, looks)
    return torch.cat([picture, said], 2).transpose(1, 2).contiguous(), None


def share(query: torch.Tensor, key: torch.Tensor, scaling: float, looks: torch.Tensor) -> torch.Tensor:
    """One head's attention, summed over the places of each group: (group,)."""
    group, numbers = torch.unique(looks[:, 3], return_inverse=True)
    total = torch.zeros(len(group), device=query.device)
    for row in looks[:, 0].unique().tolist():
        mine = looks[:, 0] == row
        tokens, back = torch.unique(looks[mine, 1], return_inverse=True)
        scores = (query[row, tokens] @ key[row].T * scaling).float().masked_fill(~WATCH.allowed(row, tokens), -1e9)
        total = total.index_add(0, numbers[mine], scores.softmax(-1)[back, looks[mine, 2]])
    return total


AttentionInterface.register("watched", watched)
