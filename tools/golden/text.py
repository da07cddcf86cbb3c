"""Greedy generation with transformers, and the rules by which a seed is refused."""

from dataclasses import dataclass

import torch

NEW_TOKENS = 32
# A lead of 1e-3 is what rounding might overturn; five times that leaves room for other processors.
MIN_MARGIN = 5e-3
MIN_DISTINCT = 8


class Refused(Exception):
    """This seed gives a case that would test nothing, or not reliably."""


@dataclass
class Answer:
    ids: list[int]
    margins: list[float]
    text: str
    stopped: str  # "length" or "eos"

    def entry(self) -> dict:
        return {
            "ids": self.ids,
            "stopped": self.stopped,
            "min_margin": round(min(self.margins), 4),
            "margins": [round(margin, 4) for margin in self.margins],
            "text": self.text,
        }


def greedy(model, tokenizer, inputs: dict, expect: str) -> Answer:
    """At most 32 new ids; refuses narrow margins, repetition, and another end than expected."""
    with torch.no_grad():
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=NEW_TOKENS, output_logits=True, return_dict_in_generate=True
        )
    ids = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    margins = []
    for step, logits in enumerate(out.logits):
        top = logits[0].topk(2)
        assert top.indices[0].item() == ids[step]
        margins.append((top.values[0] - top.values[1]).item())
    eos = model.generation_config.eos_token_id
    eos = eos if isinstance(eos, list) else [eos]
    stopped = "eos" if ids[-1] in eos else "length"
    if stopped != expect:
        raise Refused(f"stopped by {stopped} after {len(ids)} ids, expected {expect}")
    if min(margins) < MIN_MARGIN:
        raise Refused(f"margin {min(margins):.2e}")
    if expect == "length" and len(set(ids)) < MIN_DISTINCT:
        raise Refused(f"{len(set(ids))} distinct ids")
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answer(ids, margins, text, stopped)
