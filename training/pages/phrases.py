"""Other words for the same question: people do not ask in one form.

A fact's `core` is how `kinds.py` asks; here are the ways it is asked besides, for training alone. All say the key in the words that
stand on the page, since a model this small knows no others.
"""

from __future__ import annotations

import random
import re

#: For every way `kinds.py` asks: a pattern of its core, and what else is said, with the pattern's groups.
FORMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"What is the (price) of the (.+)", ("How much does the {1} cost", "What does the {1} cost", "What is the {0} for the {1}", "{1} {0}")),
    (r"What is the (amount) of the (.+)", ("What is the {0} for the {1}", "What {0} is given for the {1}", "{1} {0}")),
    (r"What is the value of (.+) in (.+)", ("What is {0} in {1}", "What was {0} in {1}", "What is the {1} value of {0}", "How much is {0} in {1}", "What is the {1} of {0}", "What is the {1} for {0}", "{0} {1}")),
    (r"What is the ([^ ]+(?: use)?) for (.+)", ("How many {0} in {1}", "How many {0} were there in {1}", "What was the {0} in {1}", "How many {0} on {1}", "What is the {0} of {1}", "How much {0} was there in {1}", "{0} {1}")),
    (r"What is the (.+ date)", ("When is the {0}", "On which day is the {0}", "Which {0} is given", "{0}")),
    (r"What is the (.+)", ("Which {0} is given", "What {0} is stated", "Give the {0}", "Find the {0}", "Tell me the {0}", "What does it say for {0}", "{0}")),
    (r"Who is the (.+)", ("What is the name of the {0}", "Which person is the {0}", "{0}")),
    (r"Where is the (.+)", ("In which place is the {0}", "What is the place of the {0}")),
    (r"How many (.+) are", ("What is the number of {0}",)),
)


def phrased(core: str, others: tuple[str, ...], rng: random.Random) -> str:
    """A question's core in other words: one of the fact's own, or of those its form has; itself where there are none."""
    if others and rng.random() < 0.75:
        return rng.choice(others)
    for pattern, forms in FORMS:
        if found := re.fullmatch(pattern, core):
            said = rng.choice(forms).format(*found.groups())
            return said[0].upper() + said[1:]
    return rng.choice(others) if others else core
