"""Where the words come from.

English words (Debian's `wamerican` list, or the short list below where it is missing), names made of syllables so that a
held-out page holds names no training page had, companies, places, numbers, money, dates, times and codes. Everything takes a
`random.Random` and is a pure function of it.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

WORD_LIST = Path("/usr/share/dict/words")

#: Words that carry no meaning of their own in a question: the retriever is taught to give them no weight.
STOP_WORDS = frozenset(
    "a an and are as at be been but by did do does for from had has have he her his how i if in into is it its many me much my no not of on "
    "or our she so some than that the their them then there these they this to under up us was we were what when where which who whom whose "
    "why will with would you your according about over per each any all was's page document shown".split()
)

COMMON = (
    "the of and to in is for that on with as by at from it an be this are was or which have has not its were been their more one all they "
    "other than when there can will new two after first also over into between most only some such may these about many then during where "
    "through under each both three year years time work company market report sales order price cost growth result plan team service project "
    "customer product quarter month week day number total amount average rate value share increase decrease high low early late north south "
    "east west water energy road city school health building office paper study method data model system test level group area study case "
    "point line change need part long great small large public local national general open end side head hand house room book letter page "
    "table figure list name date address phone account payment invoice contract offer budget income profit loss tax net gross balance bank "
    "loan interest board member meeting agenda minutes decision review summary annual monthly weekly daily season winter summer spring autumn "
    "river lake sea harbour bridge station train ship truck engine machine tool part repair storage garden forest farm field wheat milk bread "
    "coffee tea sugar wood steel glass stone cotton wool leather paint light sound picture music film sport club hotel hospital library "
    "museum church street square park village town region country world people person child family student teacher doctor nurse driver "
    "manager director engineer officer clerk author editor said made found given taken sent paid sold bought built used shown held kept moved"
).split()

FIRST = (
    "Anna Boris Carla David Elena Farid Greta Hugo Irene Jonas Karin Leon Maria Nadia Oscar Paula Quentin Rosa Stefan Tara Ulrich Vera Walter "
    "Ximena Yusuf Zoe Amir Bella Cyrus Dora Emil Fiona Gavin Hanna Isaac Julia Kofi Laura Marcus Nina Omar Petra Rafael Sonia Tomas Ursula "
    "Victor Wanda Aisha Bruno Clara Diego Esther Felix Gloria Henry Ivana Jakob Leila Martin Noemi Otto Priya Robert Samira Thea Viktor Yara "
    "Ada Bernard Cecil Dinah Edgar Frida Gustav Hilda Igor Joan Kwame Lydia Milan Norah Owen Pia Ronan Selma Tobias Una Vincent Willa"
).split()

ONSET = "b br c ch cl cr d dr f fl fr g gl gr h j k kl kn l m n p pl pr qu r s sc sh sk sl sm sn sp st str t th tr v w wh y z".split()
VOWEL = "a e i o u ai ea ee ie oa oo ou au ei".split()
CODA = "b ck d g k l ll ld lm ln lt m mp n nd ng nk nt p r rd rk rl rm rn rt s sh sk ss st t th x z".split()
SURNAME_END = "son man ley ton ford berg feld stein well wood worth field ham by er ard ini ez ov ska ic well land more ings".split()
PLACE_END = "ton ville burg ford port field haven mouth dale stead wick bury mere bridge minster by holm gate".split()

INDUSTRY = (
    "Freight Foods Marine Textiles Optics Energy Logistics Ceramics Software Timber Plastics Motors Pharma Media Robotics Paper Steel Travel "
    "Insurance Printing Electric Chemicals Furniture Brewing Dairy Glass Mining Airways Bakery Seeds Tools Design Telecom Shipping Water "
    "Solar Cycles Watches Books Coffee Leather Gardens Capital Metals Instruments Films Studios Clinics Hotels Farms"
).split()
SUFFIX = ["Ltd", "Inc", "GmbH", "Group", "Co", "and Sons", "Partners", "Works", "Union", "Holdings"]
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ITEMS = (
    "desk lamp|office chair|paper roll|steel bolt|copper wire|garden hose|wool blanket|coffee beans|glass bottle|oak table|brass valve|water pump|"
    "rubber seal|printer ink|solar panel|cotton shirt|leather belt|canvas bag|ceramic tile|floor wax|safety helmet|work gloves|pine shelf|"
    "wall clock|metal hinge|drill bit|paint brush|plastic crate|fuel filter|brake pad|battery pack|light bulb|power cable|phone case|"
    "tea kettle|bread knife|soup bowl|silver spoon|linen towel|candle holder|door handle|window frame|roof tile|cement bag|sand bucket|"
    "rope coil|tent pole|camp stove|rain coat|winter boots|silk scarf|felt hat|note book|ball pen|file folder|stapler|envelope box"
).split("|")


@lru_cache(maxsize=1)
def dictionary() -> tuple[str, ...]:
    """Plain lower-case English words of 3 to 12 letters."""
    if not WORD_LIST.exists():
        return tuple(sorted(set(COMMON)))
    words = (line.strip() for line in WORD_LIST.read_text().splitlines())
    return tuple(w for w in words if w.isascii() and w.isalpha() and w.islower() and 3 <= len(w) <= 12)


def syllables(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(ONSET) + rng.choice(VOWEL) + (rng.choice(CODA) if rng.random() < 0.45 else "") for _ in range(count))


def surname(rng: random.Random) -> str:
    stem = syllables(rng, 1 if rng.random() < 0.7 else 2)
    return (stem + rng.choice(SURNAME_END)).capitalize()[:12]


def person(rng: random.Random) -> str:
    return f"{rng.choice(FIRST)} {surname(rng)}"


def place(rng: random.Random) -> str:
    return (syllables(rng, 1) + rng.choice(PLACE_END)).capitalize()[:12]


def company(rng: random.Random) -> str:
    stem = surname(rng) if rng.random() < 0.5 else rng.choice(dictionary())[:9].capitalize() if rng.random() < 0.5 else place(rng)
    name = f"{stem} {rng.choice(INDUSTRY)}"
    return f"{name} {rng.choice(SUFFIX)}" if rng.random() < 0.3 else name


def english(rng: random.Random) -> str:
    return rng.choice(COMMON) if rng.random() < 0.55 else rng.choice(dictionary())


def number(rng: random.Random) -> str:
    value = rng.randrange(1, 10 ** rng.randint(1, 6))
    return f"{value:,}" if rng.random() < 0.5 else str(value)


def money(rng: random.Random, low: int = 5, high: int = 99999) -> str:
    value = int(low * (high / low) ** rng.random())
    cents = f".{rng.randrange(0, 100, 5):02d}" if rng.random() < 0.5 else ""
    return f"{rng.choice('$$$€£') if rng.random() < 0.3 else '$'}{value:,}{cents}"


def date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randrange(12), rng.randint(1990, 2029)
    style = rng.random()
    if style < 0.6:
        return f"{day} {MONTHS[month]} {year}"
    if style < 0.8:
        return f"{MONTHS[month]} {day}, {year}"
    return f"{year}-{month + 1:02d}-{day:02d}"


def code(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
    return f"{letters}-{rng.randrange(100, 99999)}" if rng.random() < 0.6 else str(rng.randrange(10000, 999999))


def percent(rng: random.Random) -> str:
    return f"{rng.randrange(1, 1000) / 10:.1f}%" if rng.random() < 0.5 else f"{rng.randrange(1, 100)}%"


def scribble(rng: random.Random) -> str:
    """A string no language has: keeps the tower from guessing words it should read."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(rng.randint(2, 9)))


def token(rng: random.Random) -> str:
    """One thing that may stand in a line: mostly words, then names, figures and punctuation."""
    kind = rng.random()
    if kind < 0.52:
        word = english(rng)
        style = rng.random()
        word = word.capitalize() if style < 0.2 else word.upper() if style < 0.26 else word
    elif kind < 0.66:
        word = surname(rng) if rng.random() < 0.6 else rng.choice(FIRST) if rng.random() < 0.5 else place(rng)
    elif kind < 0.72:
        word = number(rng)
    elif kind < 0.79:
        word = money(rng)
    elif kind < 0.82:
        word = percent(rng)
    elif kind < 0.85:
        word = code(rng)
    elif kind < 0.89:
        word = rng.choice(MONTHS + DAYS)
    elif kind < 0.93:
        word = str(rng.randint(1900, 2035))
    elif kind < 0.95:
        word = f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"
    else:
        word = scribble(rng)
    return word + (rng.choice(",.,.:;)?!") if rng.random() < 0.13 else "")


def bare(word: str) -> str:
    """The form in which words are compared: lower case, without punctuation at the edges."""
    return word.strip(".,:;!?()[]\"'“”‘’*-–/|").lower()
