"""How people ask: templates for the facts of a page, and free queries for the question side alone."""

from __future__ import annotations

import random

from . import words

KEYS = (
    "total|subtotal|tax|amount due|due date|invoice number|invoice date|order number|customer|contact|price|quantity|revenue|profit|net income|"
    "expenses|budget|status|department|address|city|phone|delivery date|start date|end date|location|supervisor|manager|director|project|"
    "reference|account|discount|balance|category|warranty|weight|length|capacity|serial number|model|origin|destination|carrier|signature|"
    "employees|members|founded|chairman|treasurer|author|editor|publisher|website|insurance|deposit|rent|salary|grade|teacher|room"
).split("|")


def any_query(rng: random.Random) -> str:
    """A question, a phrase, or a few words."""
    kind = rng.random()
    key = rng.choice(KEYS)
    name = words.company(rng) if rng.random() < 0.5 else words.person(rng) if rng.random() < 0.6 else words.place(rng)
    if kind < 0.12:
        return f"What is the {key} of {name}?"
    if kind < 0.2:
        return f"What is the {key} on the {rng.choice(('invoice', 'form', 'page', 'report', 'slide'))} from {name}?"
    if kind < 0.26:
        return f"Who signed the letter to {name}?"
    if kind < 0.32:
        return f"How much does the {rng.choice(words.ITEMS)} cost at {name}?"
    if kind < 0.38:
        return f"What was the {key} in {rng.choice(words.MONTHS)} {rng.randint(1990, 2030)}?"
    if kind < 0.44:
        return f"Which {rng.choice(('month', 'year', 'city', 'product', 'route', 'department', 'quarter'))} has the {rng.choice(('highest', 'lowest'))} {rng.choice(words.COMMON)} at {name}?"
    if kind < 0.5:
        return f"{rng.choice(('When', 'Where', 'Why', 'How'))} {rng.choice(('did', 'does', 'will', 'was'))} {name} {words.english(rng)} the {words.english(rng)} {words.english(rng)}?"
    text = " ".join(words.token(rng) for _ in range(rng.randint(1, 8)))
    return text + "?" if kind < 0.6 else text
