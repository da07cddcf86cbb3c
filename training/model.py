"""The network: transformers' own Idefics3, made very small, with a LoRA on the text layers and a 128-d projection.

One object holds both jobs. With the adapter on it is ColIdefics3 (rows for late interaction), with the adapter off it is
Idefics3ForConditionalGeneration. `export.py` writes it as base, adapter and generator folders.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Idefics3Config
from transformers.models.idefics3.modeling_idefics3 import Idefics3Model

TILE, PATCH, SCALE = 256, 16, 2
#: The longest edge of a page: A4 becomes 3 x 4 tiles, US Letter 4 x 4, a slide 4 x 3; each and the overview 64 tokens.
LONGEST_EDGE = 1024
#: A picture smaller than that is made at most so many times as large. (transformers knows no such limit: ask it for `size` by hand.)
MOST_ENLARGED = 2
GRID = TILE // PATCH // SCALE
TOKENS = GRID * GRID
DIM = 128
#: An adapter of PEFT counts alpha / rank times: once, so that nothing has to be scaled here.
RANK = ALPHA = 16
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def config(tokenizer: Tokenizer) -> Idefics3Config:
    """A genuine Idefics3 configuration: 5.8 M parameters in the tower, 5.2 M in the text model."""
    vocabulary = tokenizer.get_vocab_size()
    return Idefics3Config(
        vision_config={"model_type": "idefics3_vision", "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 7, "num_attention_heads": 4,
                       "image_size": TILE, "patch_size": PATCH, "num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
                       "attention_dropout": 0.0, "initializer_range": 0.02},
        text_config={"model_type": "llama", "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 6, "num_attention_heads": 8,
                     "num_key_value_heads": 4, "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 8192,
                     "vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "attention_bias": False, "mlp_bias": False,
                     "tie_word_embeddings": False, "initializer_range": 0.05},
        image_token_id=tokenizer.token_to_id("<image>"), scale_factor=SCALE, pad_token_id=2, tie_word_embeddings=False,
    )


class Lora(nn.Module):
    """A linear layer with a low-rank addition that can be switched off."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(torch.randn(RANK, base.in_features) / RANK)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, RANK))
        self.active = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        if self.active:
            y = y + (x @ self.lora_A.to(x.dtype).T) @ self.lora_B.to(x.dtype).T
        return y


class Colibri(nn.Module):
    """Idefics3Model, `lm_head`, `linear`, and the adapter."""

    def __init__(self, cfg: Idefics3Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.model = Idefics3Model._from_config(cfg, attn_implementation="sdpa")
        hidden = cfg.text_config.hidden_size
        self.lm_head = nn.Linear(hidden, cfg.text_config.vocab_size, bias=False)
        self.linear = nn.Linear(hidden, DIM)
        self.prepare()
        self.adapters: list[Lora] = []
        for layer in self.model.text_model.layers:
            for part in (layer.self_attn, layer.mlp):
                for name in ADAPTED:
                    if hasattr(part, name):
                        lora = Lora(getattr(part, name))
                        setattr(part, name, lora)
                        self.adapters.append(lora)

    @torch.no_grad()
    def prepare(self) -> None:
        """Starting weights for a narrow tower: variance kept by every layer, and positions that begin as two-dimensional waves.
        transformers' own (0.02 everywhere) leave positions seventeen times weaker than pixels and the blocks close to nothing."""
        vision = self.model.vision_model
        for module in vision.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.8 * module.in_features**-0.5)
        nn.init.normal_(vision.embeddings.patch_embedding.weight, std=(3 * PATCH * PATCH) ** -0.5)
        side, width = TILE // PATCH, self.cfg.vision_config.hidden_size
        angle = torch.arange(side)[:, None] * (2 * math.pi / 32) * 6 ** torch.linspace(1, -1, width // 4)[None, :]
        wave = torch.cat([angle.sin(), angle.cos()], 1) * 0.4
        table = torch.cat([wave[:, None].expand(side, side, -1), wave[None, :].expand(side, side, -1)], -1)
        vision.embeddings.position_embedding.weight.copy_(table.reshape(side * side, width))

    @contextlib.contextmanager
    def generating(self):
        """Inside, the adapter is off."""
        for lora in self.adapters:
            lora.active = False
        try:
            yield
        finally:
            for lora in self.adapters:
                lora.active = True

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        """(tile, 3, 256, 256) in [-1, 1] -> (tile, patch, hidden)."""
        return self.model.vision_model(pixel_values=pixels, patch_attention_mask=None).last_hidden_state

    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        """(tile, 3, 256, 256) -> visual tokens (tile, 64, hidden)."""
        return self.model.connector(self.tower(pixels))

    def states(self, ids: torch.Tensor, visual: torch.Tensor | None, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Token ids (batch, seq) and visual tokens (tile, 64, hidden), in order -> last hidden states after the norm."""
        x = self.model.text_model.embed_tokens(ids)
        if visual is not None:
            places = (ids == self.cfg.image_token_id).unsqueeze(-1).expand_as(x)
            x = x.masked_scatter(places, visual.to(x.dtype))
        return self.model.text_model(inputs_embeds=x, attention_mask=mask, use_cache=False).last_hidden_state

    def rows(self, states: torch.Tensor) -> torch.Tensor:
        """Unit rows of the retriever."""
        return nn.functional.normalize(self.linear(states).float(), dim=-1)


def unpacked(batch: dict) -> torch.Tensor:
    """What `processing.packed` packed -> f32 (tile, 3, height, width) in [-1, 1]."""
    grey = normalise(batch["grey"][..., None]).expand(-1, 3, -1, -1)
    return torch.cat([grey, normalise(batch["colour"])])[batch["order"]]


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (tile, height, width, channel) -> f32 (tile, channel, height, width) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.5)


def load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
