"""Kinds of pages: each draws one page and says what is on it.

`invoice form letter report columns table slide bars lines pie`. All take a `Style` (fonts, unit, colours) and return a `Page`: the
canvas with every word, and facts with exact answers. Each page has a name of its own (a company, a person, a title) that its
questions mention, as people who search among many pages do. Sizes are in units `u` of 1/1024 of the longer side.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from . import effects, fonts, words
from .canvas import Canvas
from .crops import colours


@dataclass
class Fact:
    """A question and its answer. `core` asks within the page, `where` names the page; `kind` is for reports by question type; `others` ask
    the same in other words (`phrases.py`); `key` are the words on the page that the answer is found by, where the core does not say."""

    core: str
    where: str
    answer: str
    kind: str
    others: tuple[str, ...] = ()
    key: str = ""

    @property
    def question(self) -> str:
        return f"{self.core} {self.where}?"


@dataclass
class Page:
    kind: str
    canvas: Canvas
    facts: list[Fact] = field(default_factory=list)


@dataclass
class Style:
    """How a page looks: faces, the unit, colours, the body size in units."""

    rng: random.Random
    held_out: bool
    u: float
    body: float

    def __post_init__(self) -> None:
        self.regular, self.bold = fonts.choose(self.rng, self.held_out)
        self.paper, self.ink = ((255, 255, 255), (self.rng.randint(0, 60),) * 3) if self.rng.random() < 0.7 else colours(self.rng)
        self.accent = tuple(self.rng.randint(20, 150) for _ in range(3)) if sum(self.paper) > 380 else tuple(self.rng.randint(170, 255) for _ in range(3))

    def face(self, size: float, bold: bool = False):
        return fonts.font(self.bold if bold else self.regular, max(round(size * self.u), 6))

    def canvas(self, wide: float, high: float) -> Canvas:
        return Canvas.blank(round(wide * self.u), round(high * self.u), self.paper)


NOUNS = "company market report service project customer product plan team board station harbour machine road garden energy school hospital office contract budget price supply route season crew region city".split()
VERBS = "opened closed improved reported lost gained planned sold bought moved changed repaired reviewed delayed finished started reached approved rejected visited".split()
ADJECTIVES = "new large small late early strong weak local national annual heavy light clear rapid slow quiet open public northern southern eastern western modern".split()


def sentence(rng: random.Random) -> str:
    parts = [
        f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.choice(VERBS)} the {rng.choice(NOUNS)} in {rng.choice(words.MONTHS)}.",
        f"{words.person(rng)} {rng.choice(VERBS)} a {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} near {words.place(rng)}.",
        f"About {words.number(rng)} {words.english(rng)} were {rng.choice(VERBS)} for {words.money(rng)}.",
        f"In {rng.randint(1990, 2029)} the {words.english(rng)} {words.english(rng)} {rng.choice(VERBS)} by {words.percent(rng)}.",
        f"This {words.english(rng)} {rng.choice(VERBS)} the {words.english(rng)} and the {rng.choice(ADJECTIVES)} {words.english(rng)}.",
    ]
    return rng.choice(parts)


def event(rng: random.Random) -> tuple[str, Fact]:
    """A sentence that says one thing a person may ask, and that fact; its place in the world (`where`) is left open."""
    thing, doing = f"{rng.choice(ADJECTIVES + NOUNS)} {rng.choice(NOUNS)}", rng.choice("repaired opened closed replaced inspected delivered painted moved rebuilt tested sold finished cleaned renewed".split())
    kind = rng.random()
    if kind < 0.45:
        when = words.date(rng)
        told = rng.choice((f"The {thing} will be {doing} on {when}.", f"On {when} the {thing} will be {doing}."))
        return told, Fact(f"When will the {thing} be {doing}", "", when, "text", (f"On which day will the {thing} be {doing}", f"When is the {thing} {doing}"), thing)
    if kind < 0.75:
        cost = words.money(rng)
        return f"The {thing} costs {cost}.", Fact(f"How much does the {thing} cost", "", cost, "text", (f"What does the {thing} cost", f"What is the cost of the {thing}"), thing)
    who = words.person(rng)
    return f"The {thing} was {doing} by {who}.", Fact(f"Who {doing} the {thing}", "", who, "text", (f"By whom was the {thing} {doing}",), thing)


def paragraph(canvas: Canvas, style: Style, x: float, y: float, width: float, text: str, size: float, pitch: float = 1.4) -> float:
    """Flows text into a column (units); returns the y of the next line."""
    face, u = style.face(size), style.u
    line = ""
    for word in text.split():
        if line and face.getlength(f"{line} {word}") > width * u:
            canvas.text(x * u, y * u, line, face, style.ink)
            y += size * pitch
            line = word
        else:
            line = f"{line} {word}".strip()
    if line:
        canvas.text(x * u, y * u, line, face, style.ink)
        y += size * pitch
    return y


def fields(canvas: Canvas, style: Style, rng: random.Random, x: float, y: float, gap: float, entries: list[tuple[str, str]], size: float, pitch: float) -> float:
    """Key-value lines; returns the y below."""
    u, colon, boxed = style.u, ":" if rng.random() < 0.75 else "", rng.random() < 0.2
    key_bold, value_bold = rng.random() < 0.25, rng.random() < 0.4
    for key, value in entries:
        canvas.text(x * u, y * u, key + colon, style.face(size, key_bold), style.ink)
        canvas.text((x + gap) * u, y * u, value, style.face(size, value_bold), style.ink)
        if boxed:
            canvas.draw.rectangle(((x + gap - 8) * u, (y - size) * u, (x + gap + 320) * u, (y + size * 0.4) * u), outline=style.ink)
        y += size * pitch
    return y


def value_for(rng: random.Random, key: str) -> str:
    if any(k in key for k in ("date", "due")) and "amount" not in key:
        return words.date(rng)
    if any(k in key for k in ("number", "account", "reference", "phone", "model")):
        return words.code(rng)
    if any(k in key for k in ("contact", "manager", "supervisor", "director", "chairman", "author", "editor", "teacher", "treasurer", "signature")):
        return words.person(rng)
    if any(k in key for k in ("customer", "carrier", "publisher")):
        return words.company(rng)
    if any(k in key for k in ("city", "address", "location", "origin", "destination")):
        return words.place(rng)
    if any(k in key for k in ("weight", "length", "quantity", "employees", "members", "capacity", "founded", "room")):
        return str(rng.randint(1850, 2024)) if key == "founded" else words.number(rng)
    if any(k in key for k in ("status", "category", "department", "project", "grade", "warranty", "website")):
        return f"{rng.choice(words.COMMON).capitalize()} {rng.choice(words.dictionary())}"
    return words.money(rng)


def heading(key: str) -> str:
    return key[0].upper() + key[1:]


def table(canvas: Canvas, style: Style, rng: random.Random, x: float, y: float, width: float, rows: list[tuple[str, ...]], size: float, share: float = 0.42) -> float:
    """A table, first column left, the others right-aligned; returns the y below."""
    u, columns = style.u, len(rows[0])
    rights = [x + width * (share + (1 - share) * c / (columns - 1)) for c in range(1, columns)]
    pitch = size * rng.uniform(1.5, 1.9)
    lines, filled = rng.random() < 0.6, rng.random() < 0.5
    for number, cells in enumerate(rows):
        if number == 0 and filled:
            shade = tuple((a * 4 + b) // 5 for a, b in zip(style.paper, style.ink))
            canvas.draw.rectangle((x * u, (y - size * 1.15) * u, (x + width) * u, (y + size * 0.45) * u), fill=shade)
        face = style.face(size, number == 0)
        canvas.text((x + 6) * u, y * u, cells[0], face, style.ink)
        for right, cell in zip(rights, cells[1:]):
            canvas.right((right - 6) * u, y * u, cell, face, style.ink)
        if lines or number == 0:
            canvas.draw.line((x * u, (y + size * 0.5) * u, (x + width) * u, (y + size * 0.5) * u), fill=style.ink)
        y += pitch
    return y


def invoice(rng: random.Random, style: Style, wide: float, high: float) -> Page:
    canvas, size, u = style.canvas(wide, high), style.body, style.u
    seller, buyer = words.company(rng), words.company(rng)
    where = f"on the invoice from {seller}" if rng.random() < 0.7 else f"of the {seller} invoice"
    canvas.text(50 * u, 80 * u, seller, style.face(size * 1.8, True), style.accent)
    canvas.right((wide - 50) * u, 130 * u, rng.choice(("INVOICE", "Invoice", "BILL")), style.face(size * 1.5, True), style.ink)
    entries = [("Invoice number", words.code(rng)), ("Invoice date", words.date(rng)), ("Due date", words.date(rng)), ("Customer", buyer), ("Contact", words.person(rng))]
    rng.shuffle(entries)
    entries = entries[: rng.randint(3, 5)]
    y = fields(canvas, style, rng, 50, 190, 200 + size * 2, entries, size, rng.uniform(1.4, 1.8))
    items = rng.sample(words.ITEMS, rng.randint(2, 6))
    rows = [("Item", "Qty", "Price", "Amount")] + [(heading(i), str(rng.randint(1, 90)), words.money(rng, 2, 900), words.money(rng, 20, 9000)) for i in items]
    y = table(canvas, style, rng, 50, y + 40, wide - 100, rows, size, 0.38)
    totals = [("Subtotal", words.money(rng, 100, 90000)), ("Tax", words.money(rng, 10, 900)), ("Total", words.money(rng, 100, 90000))]
    for key, value in totals:
        y += size * 1.6
        face = style.face(size * (1.15 if key == "Total" else 1), key == "Total")
        canvas.text(wide * 0.55 * u, y * u, key, face, style.ink)
        canvas.right((wide - 56) * u, y * u, value, face, style.ink)
    facts = [Fact(f"What is the {k.lower()}", where, v, "key-value") for k, v in entries + totals]
    facts += [Fact(f"What is the {column.lower()} of the {row[0].lower()}", where, row[i], "table") for row in rows[1:] for i, column in ((2, "Price"), (3, "Amount"))]
    return Page("invoice", canvas, facts)


def form(rng: random.Random, style: Style, wide: float, high: float) -> Page:
    from .questions import KEYS

    canvas, size, u = style.canvas(wide, high), style.body, style.u
    name = words.company(rng) if rng.random() < 0.5 else words.person(rng)
    kind = rng.choice("Application|Registration|Order form|Delivery note|Inspection|Membership|Project record|Claim".split("|"))
    canvas.text(50 * u, 90 * u, kind, style.face(size * 1.8, True), style.accent)
    canvas.text(50 * u, 140 * u, name, style.face(size * 1.4, True), style.ink)
    entries = [(heading(k), value_for(rng, k)) for k in rng.sample(KEYS, rng.randint(5, 13))]
    fields(canvas, style, rng, 50, 210, 220 + size * 2, entries, size, rng.uniform(1.6, 2.4))
    where = rng.choice((f"of {name}", f"in the {kind.lower()} of {name}", f"for {name}"))
    return Page("form", canvas, [Fact(f"What is the {k[0].lower() + k[1:]}", where, v, "key-value") for k, v in entries])


def letter(rng: random.Random, style: Style, wide: float, high: float) -> Page:
    canvas, size, u = style.canvas(wide, high), style.body, style.u
    sender, to, signed, when, subject = words.company(rng), words.person(rng), words.person(rng), words.date(rng), f"{rng.choice(ADJECTIVES)} {words.english(rng)} in {words.place(rng)}"
    canvas.text(60 * u, 80 * u, sender, style.face(size * 1.4, True), style.accent)
    canvas.right((wide - 60) * u, 140 * u, when, style.face(size), style.ink)
    canvas.text(60 * u, 190 * u, f"To: {to}", style.face(size), style.ink)
    canvas.text(60 * u, (190 + size * 1.6) * u, f"Subject: {heading(subject)}", style.face(size, True), style.ink)
    y = paragraph(canvas, style, 60, 290, wide - 120, f"Dear {to},", size) + size * 0.6
    sent, facts = f"from {sender}", []
    for _ in range(rng.randint(1, 3)):
        parts = [sentence(rng) for _ in range(rng.randint(2, 4))]
        if rng.random() < 0.7:
            told, fact = event(rng)
            fact.where = f"according to the letter {sent}"
            facts.append(fact)
            parts[rng.randrange(len(parts))] = told
        text = " ".join(parts)
        y = paragraph(canvas, style, 60, y, wide - 120, text, size) + size * 0.7
    y = paragraph(canvas, style, 60, y, 400, rng.choice(("Yours sincerely,", "Kind regards,", "With best wishes,")), size) + size
    canvas.text(60 * u, y * u, signed, style.face(size * 1.2, rng.random() < 0.5), style.ink)
    return Page("letter", canvas, facts + [
        Fact("Who signed the letter", sent, signed, "letter", (f"Who signed the letter about the {subject}", "Who wrote the letter")),
        Fact("Who received the letter", sent, to, "letter", ("To whom is the letter", "Who is the letter to")),
        Fact("What is the date of the letter", sent, when, "letter", ("When was the letter written", "On which day was the letter written")),
        Fact("Who signed the letter", f"to {to}", signed, "letter")])


def report(rng: random.Random, style: Style, wide: float, high: float, columns: int = 1) -> Page:
    canvas, size, u = style.canvas(wide, high), style.body, style.u
    name = words.company(rng)
    title = f"{rng.choice(('Annual', 'Quarterly', 'Market', 'Safety', 'Travel', 'Field', 'Progress'))} report {rng.randint(1995, 2029)}"
    canvas.text(50 * u, 85 * u, name, style.face(size * 1.7, True), style.accent)
    canvas.text(50 * u, 130 * u, title, style.face(size * 1.2), style.ink)
    chief, seat, staff = words.person(rng), words.place(rng), words.number(rng)
    known = [f"{chief} is the director of {name}.", f"The head office is in {seat}.", f"The company has {staff} employees."]
    width = (wide - 100 - 30 * (columns - 1)) / columns
    events: list[Fact] = []
    for column in range(columns):
        x, y = 50 + column * (width + 30), 190.0
        while y < high - size * 8 and (y < 260 or rng.random() < 0.8):
            canvas.text(x * u, y * u, f"{rng.choice(ADJECTIVES).capitalize()} {words.english(rng)}", style.face(size * 1.15, True), style.accent)
            parts = [sentence(rng) for _ in range(rng.randint(2, 4))]
            if rng.random() < 0.3:
                told, fact = event(rng)
                fact.where = f"in the report of {name}"
                events.append(fact)
                parts.append(told)
            if known:
                parts.insert(rng.randint(0, len(parts)), known.pop(0))
            y = paragraph(canvas, style, x, y + size * 1.7, width, " ".join(parts), size) + size
    facts = [*events, Fact("Who is the director", f"of {name}", chief, "text", key="director")]
    if len(known) < 2:
        facts.append(Fact("Where is the head office", f"of {name}", seat, "text", key="head office"))
    if not known:
        facts.append(Fact("How many employees are", f"at {name}", staff, "text", key="employees"))
    return Page("columns" if columns > 1 else "report", canvas, facts)


def columns(rng: random.Random, style: Style, wide: float, high: float) -> Page:
    return report(rng, style, wide, high, 2)


def statistics(rng: random.Random, style: Style, wide: float, high: float) -> Page:
    canvas, size, u = style.canvas(wide, high), style.body, style.u
    name = words.company(rng) if rng.random() < 0.6 else words.place(rng)
    what = rng.choice("Sales|Rainfall|Visitors|Prices|Exports|Deliveries|Costs|Members|Accidents|Harvest".split("|"))
    canvas.text(50 * u, 85 * u, f"{what} of {name}", style.face(size * 1.6, True), style.accent)
    heads = tuple(str(rng.randint(1990, 2020) + i) for i in range(rng.randint(2, 4))) if rng.random() < 0.6 else tuple(rng.sample(words.MONTHS, 3))
    labels = [words.place(rng) if rng.random() < 0.5 else heading(rng.choice(words.ITEMS)) for _ in range(rng.randint(4, 12))]
    rows = [("Name", *heads)] + [(label, *(words.number(rng) for _ in heads)) for label in labels]
    table(canvas, style, rng, 50, 160, wide - 100, rows, size, 0.36)
    facts = [Fact(f"What is the value of {row[0]} in {head}", f"in the {what.lower()} table of {name}", row[i + 1], "table") for row in rows[1:] for i, head in enumerate(heads)]
    return Page("table", canvas, facts)


def slide(rng: random.Random, style: Style, wide: float, high: float) -> Page:
    canvas, size, u = style.canvas(wide, high), style.body * 1.45, style.u
    name = words.company(rng)
    title = f"{rng.choice(ADJECTIVES).capitalize()} {words.english(rng)} at {name}"
    canvas.text(60 * u, 110 * u, title, style.face(size * 1.3, True), style.accent)
    y, facts = 110 + size * 3, []
    who = words.person(rng)
    canvas.text(60 * u, (high - 40) * u, f"Presented by {who}", style.face(size * 0.8), style.ink)
    facts.append(Fact("Who presented the slides", f"about {name}", who, "text"))
    for _ in range(rng.randint(3, 6)):
        if y > high - 100:
            break
        key = rng.choice(("Price", "Seats", "Range", "Budget", "Start", "Team", "Cost", "Target", "Owner", "Goal"))
        value = words.money(rng) if key in ("Price", "Budget", "Cost", "Target") else words.person(rng) if key == "Owner" else words.number(rng)
        text, is_fact = (f"{key}: {value}", all(key.lower() not in f.core for f in facts)) if rng.random() < 0.6 else (f"{words.english(rng).capitalize()} {words.english(rng)} {words.english(rng)}", False)
        canvas.text(90 * u, y * u, text, style.face(size), style.ink)
        canvas.draw.ellipse((66 * u, (y - size * 0.45) * u, 78 * u, (y - size * 0.45 + 12) * u), fill=style.accent)
        if is_fact:
            facts.append(Fact(f"What is the {key.lower()}", f"on the slide of {name}", value, "key-value"))
        y += size * 1.7
    return Page("slide", canvas, facts)


def series(rng: random.Random) -> tuple[list[str], list[int], str]:
    """Labels, values, and what a label is called."""
    kind = rng.random()
    count = rng.randint(4, 7)
    if kind < 0.3:
        start = rng.randint(1990, 2022)
        labels, unit = [str(start + i) for i in range(count)], "year"
    elif kind < 0.5:
        start = rng.randrange(12 - count)
        labels, unit = [m[:3] for m in words.MONTHS[start : start + count]], "month"
    elif kind < 0.65:
        labels, unit = words.DAYS[:count], "day"
    elif kind < 0.75:
        count = 4
        labels, unit = ["Q1", "Q2", "Q3", "Q4"], "quarter"
    else:
        labels, unit = [words.place(rng)[:8] for _ in range(count)], "place"
    most = rng.choice((100, 1000, 1000, 2000))
    return labels, rng.sample(range(most // 50, most), count), unit


def chart(rng: random.Random, style: Style, wide: float, high: float, form_: str) -> Page:
    canvas, size, u = style.canvas(wide, high), style.body, style.u
    name = words.company(rng) if rng.random() < 0.6 else words.place(rng)
    what = rng.choice("Revenue|Passengers|Output|Visitors|Tickets|Costs|Orders|Profit|Rainfall|Energy use".split("|"))
    labels, values, unit = series(rng)
    highest = max(values) * rng.uniform(1.02, 1.6)
    canvas.text(50 * u, 70 * u, f"{what} of {name}", style.face(size * 1.4, True), style.ink)
    base, top, left, right = high - 90, 170.0, 90.0, wide - 50
    if form_ == "pie":
        radius = min(wide, high - 150) * 0.3
        cx, cy, angle, total = wide * 0.33, high * 0.55, rng.uniform(0, 360), sum(values)
        for i, (label, value) in enumerate(zip(labels, values)):
            colour = tuple(rng.randint(60, 230) for _ in range(3))
            sweep = 360 * value / total
            canvas.draw.pieslice(((cx - radius) * u, (cy - radius) * u, (cx + radius) * u, (cy + radius) * u), angle, angle + sweep, fill=colour)
            angle += sweep
            y = high * 0.28 + i * size * 2
            canvas.draw.rectangle((wide * 0.66 * u, (y - size * 0.8) * u, (wide * 0.66 + size * 0.9) * u, (y + size * 0.1) * u), fill=colour)
            canvas.text((wide * 0.66 + size * 1.5) * u, y * u, f"{label}: {value}", style.face(size), style.ink)
    else:
        canvas.draw.line((left * u, base * u, right * u, base * u), fill=style.ink, width=2)
        canvas.draw.line((left * u, top * u, left * u, base * u), fill=style.ink, width=2)
        step = (right - left) / len(labels)
        points = []
        for i, (label, value) in enumerate(zip(labels, values)):
            x, y = left + step * (i + 0.5), base - (base - top) * value / highest
            points.append((x * u, y * u))
            if form_ == "bars":
                canvas.draw.rectangle(((x - step * 0.33) * u, y * u, (x + step * 0.33) * u, base * u), fill=style.accent)
            canvas.centre(x * u, (y - 8) * u, str(value), style.face(size, True), style.ink)
            canvas.centre(x * u, (base + size * 1.3) * u, label, style.face(size * 0.95), style.ink)
        if form_ == "lines":
            canvas.draw.line(points, fill=style.accent, width=max(round(3 * u), 1))
            for x, y in points:
                canvas.draw.ellipse((x - 4 * u, y - 4 * u, x + 4 * u, y + 4 * u), fill=style.accent)
    where = f"in the chart of {name}"
    facts = [Fact(f"What is the {what.lower()} for {label}", where, str(value), "chart-value", key=label) for label, value in zip(labels, values)]
    said = what.lower()
    for word, few, value in (("highest", "most", max(values)), ("lowest", "fewest", min(values))):
        others = (f"Which {unit} has the {word} {said}", f"Which {unit} has the {few} {said}", f"When was the {said} {word}", f"{'On' if unit == 'day' else 'In'} which {unit} were the {few} {said}",
                  f"Which {unit} is the {word}", f"What is the {unit} with the {few} {said}", f"{'On' if unit == 'day' else 'In'} which {unit} was the {said} {word}")
        facts.append(Fact(f"Which {'bar' if form_ == 'bars' else 'value'} is the {word}", where, labels[values.index(value)], "chart-extreme", others))
    return Page(form_, canvas, facts)


#: Each kind with how often it comes and whether it is landscape.
KINDS = {"invoice": (3, False), "form": (3, False), "letter": (2, False), "report": (2, False), "columns": (1, False), "table": (2, False),
         "slide": (2, True), "bars": (1.5, True), "lines": (1, True), "pie": (1, True)}
DRAW = {"invoice": invoice, "form": form, "letter": letter, "report": report, "columns": columns, "table": statistics, "slide": slide}
#: Page shapes: width and height in units.
PORTRAIT = ((724, 1024), (791, 1024), (768, 1024))
LANDSCAPE = ((1024, 768), (1024, 576), (1024, 791))


def page(rng: random.Random, held_out: bool = False, kind: str | None = None, grey: bool = False, smallest: float = 17,
         scales: tuple[float, ...] = (1.0, 1.3, 1.6)) -> Page:
    """A page of a random kind, sometimes turned by up to a degree, sometimes scanned; its type is `smallest` to 25 units high, a unit one of `scales` in pixels."""
    kind = kind or rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    wide, high = rng.choice(LANDSCAPE if KINDS[kind][1] else PORTRAIT)
    style = Style(rng, held_out, rng.choice(scales), rng.uniform(smallest, 25))
    made = chart(rng, style, wide, high, kind) if kind in ("bars", "lines", "pie") else DRAW[kind](rng, style, wide, high)
    if grey:
        made.canvas = made.canvas.grey()
    if rng.random() < 0.15:
        made.canvas = effects.turn(made.canvas, rng.uniform(-1, 1))
    if rng.random() < 0.25:
        made.canvas = effects.scan(made.canvas, rng)
    return made
