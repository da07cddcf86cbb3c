"""A generator's own mistakes, given to it to go on from.

Told the true pieces before, a generator learns to find its place by them; reading aloud by itself it goes on from what it said, and one wrong
letter costs the rest of the line. So a batch that comes again (`replay.py`) has, in place of some pieces of its answers, what was said there
the time before (scheduled sampling, Bengio et al. 2015, at no cost: those passes are made anyhow). Only what stands for the true piece is
taken, so that the rest of the answer is still what has to be said: not a part of it, and not what comes a little later.
"""

from __future__ import annotations

import torch

#: So many characters further on a piece that was said counts as said too early.
EARLY = 3


class Slips:
    """`share` of the places where a mistake can be gone on from get one."""

    def __init__(self, tokenizer, share: float) -> None:
        self.share = share
        self.texts = ["" if any(c in text for c in "\n\ufffd") else text for text in (tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size()))]

    def into(self, batch: dict) -> torch.Tensor:
        """The ids of a packed batch, with the mistakes noted the last time it came in some of their places."""
        if "slips" not in batch:
            return batch["ids"]
        taken = (batch["slips"] >= 0) & (torch.rand(batch["ids"].shape, device=batch["ids"].device) < self.share)
        return torch.where(taken, batch["slips"], batch["ids"])

    def note(self, batch: dict, said: torch.Tensor) -> torch.Tensor:
        """What was said (logits where a next piece is `wanted`, in order) in place of the pieces of a packed batch as it was drawn, where it is a
        mistake: (row, slot), -1 elsewhere."""
        wanted, ids, best = batch["wanted"], batch["ids"], said.argmax(-1).cpu()
        found, said_at = torch.full_like(ids, -1), wanted >= 0
        wrong = best != wanted[said_at]
        for piece, (row, slot) in zip(best[wrong].tolist(), said_at.nonzero()[wrong].tolist()):
            meant, *after = [self.texts[i] if i >= 0 else "" for i in wanted[row, slot : slot + 5].tolist()]
            if instead(self.texts[piece], meant, "".join(after), self.texts[ids[row, slot]]):
                found[row, slot + 1] = piece
        return found


def instead(said: str, meant: str, after: str, before: str) -> bool:
    """Whether what was said stands for what was meant, between what stands before and after it; "" is what is no plain text (special tokens, line
    breaks, parts of characters)."""
    bare = said.strip()
    if not bare or not meant.strip() or said.startswith(" ") != meant.startswith(" "):
        return False
    return bare not in (meant + after)[: len(said) + EARLY] and not before.endswith(bare)
