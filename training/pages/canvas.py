"""A picture that remembers every character drawn on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont


@dataclass
class Word:
    """A word as drawn: its text, the x of each character's left edge and of the last one's right edge, and the height of its body.

    `top` and `bottom` bound the letters' body (from the top of a capital to below the baseline), not the line.
    """

    text: str
    edges: list[float]
    top: float
    bottom: float

    @property
    def left(self) -> float:
        return self.edges[0]

    @property
    def right(self) -> float:
        return self.edges[-1]

    def scaled(self, sx: float, sy: float) -> "Word":
        """The word where it stands once the picture is so many times as wide and as high."""
        return Word(self.text, [e * sx for e in self.edges], self.top * sy, self.bottom * sy)


@dataclass
class Canvas:
    """A picture (RGB, or grey after `grey`) and the words on it, in drawing order."""

    image: Image.Image
    words: list[Word] = field(default_factory=list)

    @classmethod
    def blank(cls, width: int, height: int, paper: tuple[int, int, int] = (255, 255, 255)) -> "Canvas":
        return cls(Image.new("RGB", (width, height), paper))

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)

    def grey(self) -> "Canvas":
        """The same picture in shades of grey, as most scanners and many files have it: a third of the work for all that follows."""
        return Canvas(self.image.convert("L"), self.words)

    def text(self, x: float, baseline: float, string: str, font: ImageFont.FreeTypeFont, ink=(0, 0, 0)) -> float:
        """Draws a line of text starting at x on a baseline; returns the x after it."""
        em = font.size
        space = font.getlength(" ")
        for part in string.split(" "):
            if part:
                self.draw.text((x, baseline), part, font=font, fill=ink, anchor="ls")
                edges = [x + font.getlength(part[:n]) for n in range(len(part) + 1)]
                self.words.append(Word(part, edges, baseline - 0.74 * em, baseline + 0.2 * em))
                x = edges[-1]
            x += space
        return x - space

    def right(self, x: float, baseline: float, string: str, font: ImageFont.FreeTypeFont, ink=(0, 0, 0)) -> None:
        """Draws a line that ends at x."""
        self.text(x - font.getlength(string), baseline, string, font, ink)

    def centre(self, x: float, baseline: float, string: str, font: ImageFont.FreeTypeFont, ink=(0, 0, 0)) -> None:
        """Draws a line centred on x."""
        self.text(x - font.getlength(string) / 2, baseline, string, font, ink)

    def scaled(self, width: int, height: int, resample=Image.Resampling.LANCZOS) -> "Canvas":
        """The same picture at another size, its words with it."""
        if (width, height) == self.image.size:
            return self
        sx, sy = width / self.image.width, height / self.image.height
        return Canvas(self.image.resize((width, height), resample), [w.scaled(sx, sy) for w in self.words])

    def crop(self, left: int, top: int, side: int) -> "Canvas":
        """A square window. Characters that lie mostly outside are dropped, so a word at the edge keeps its visible part."""
        words = []
        for word in self.words:
            middle = (word.top + word.bottom) / 2 - top
            if not 0 <= middle < side:
                continue
            seen = [i for i in range(len(word.text)) if 0 <= (word.edges[i] + word.edges[i + 1]) / 2 - left < side]
            if seen:
                edges = [min(max(e - left, 0.0), float(side)) for e in word.edges[seen[0] : seen[-1] + 2]]
                words.append(Word(word.text[seen[0] : seen[-1] + 1], edges, word.top - top, word.bottom - top))
        return Canvas(self.image.crop((left, top, left + side, top + side)), words)
