"""Draws the project's own example documents into `examples/documents/`.

Five documents of one fictional company, Kestrel Bay Ferries, made so that each asks something else of the program:

* `report.pdf`: two pages with a text layer, a table, a bar chart and a line chart;
* `invoice.pdf`: one page with a text layer, a form with key-value fields and a table of items;
* `slides.pdf`: three landscape slides;
* `scan.pdf`: a letter as a scanner leaves it: one grey picture, turned by half a degree, noisy, no text layer;
* `chart.png`: a picture of a bar chart, nothing else.

Everything is drawn from the constants below and a fixed seed; the same command writes the same pages.
Fonts: Liberation (SIL OFL 1.1) and Lato (SIL OFL 1.1), from the Debian packages named in the README; subsets of them are
embedded in the PDFs, which that licence allows.

    python documents.py --out ../examples/documents
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
from pathlib import Path

import numpy as np
from fpdf import FPDF
from PIL import Image, ImageDraw, ImageFilter, ImageFont

LIBERATION = Path("/usr/share/fonts/truetype/liberation2")
if not LIBERATION.exists():  # Debian 13 renamed the folder
    LIBERATION = Path("/usr/share/fonts/truetype/liberation")
LATO = Path("/usr/share/fonts/truetype/lato")

PASSENGERS = [("2020", 212), ("2021", 268), ("2022", 341), ("2023", 389), ("2024", 427)]
FUEL = [("Q1", 118), ("Q2", 109), ("Q3", 131), ("Q4", 96)]
ROUTES = [
    ("Route", "Trips", "Passengers", "Revenue"),
    ("Harbour Island", "2,910", "184,300", "$1,842,000"),
    ("Saltmarsh", "1,480", "121,750", "$1,096,500"),
    ("Cape Orlin", "960", "84,200", "$1,178,800"),
    ("Night Loop", "310", "36,750", "$404,250"),
]
TICKETS = [("Monday", 640), ("Tuesday", 580), ("Wednesday", 710), ("Thursday", 690), ("Friday", 1120), ("Saturday", 1480), ("Sunday", 1260)]

NAVY, TEAL, SAND, GREY = (22, 45, 84), (24, 128, 132), (236, 228, 212), (96, 100, 108)

QUESTIONS = [
    ("report.pdf", 1, "Which route had the most passengers?", "Harbour Island"),
    ("report.pdf", 1, "What is the revenue of the Cape Orlin route?", "$1,178,800"),
    ("report.pdf", 1, "Who is the managing director of Kestrel Bay Ferries?", "Ingrid Falk"),
    ("report.pdf", 2, "How many thousand passengers were carried in 2022?", "341"),
    ("report.pdf", 2, "In which quarter was fuel use lowest?", "Q4"),
    ("invoice.pdf", 1, "What is the total of the invoice from Osprey Print Works?", "$2,346.00"),
    ("invoice.pdf", 1, "What is the invoice number?", "20417"),
    ("invoice.pdf", 1, "When is the Osprey invoice due?", "14 March 2025"),
    ("slides.pdf", 1, "Who presented the winter timetable?", "Tomas Berglund"),
    ("slides.pdf", 2, "At what time does the first boat leave Saltmarsh in winter?", "06:40"),
    ("slides.pdf", 3, "What does the new electric ferry cost?", "$8.4 million"),
    ("scan.pdf", 1, "Who signed the letter about the broken pier light?", "Marguerite Oduya"),
    ("scan.pdf", 1, "When will the pier light be repaired?", "9 June 2025"),
    ("chart.png", 1, "On which day were the most tickets sold?", "Saturday"),
    ("chart.png", 1, "How many tickets were sold on Friday?", "1120"),
]


class Pdf(FPDF):
    """A PDF with our fonts and without a clock: the same bytes every time."""

    def __init__(self, orientation: str, title: str) -> None:
        super().__init__(orientation=orientation, unit="pt", format="letter")
        self.set_auto_page_break(False)
        self.set_title(title)
        self.set_creation_date(datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc))
        self.add_font("sans", "", LIBERATION / "LiberationSans-Regular.ttf")
        self.add_font("sans", "B", LIBERATION / "LiberationSans-Bold.ttf")
        self.add_font("serif", "", LIBERATION / "LiberationSerif-Regular.ttf")
        self.add_font("lato", "", LATO / "Lato-Regular.ttf")
        self.add_font("lato", "B", LATO / "Lato-Bold.ttf")

    def put(self, x: float, y: float, text: str, font: str = "sans", style: str = "", size: float = 14, colour=(20, 20, 24)) -> None:
        """One line of text, its top left corner at (x, y)."""
        self.set_font(font, style, size)
        self.set_text_color(*colour)
        self.set_xy(x, y)
        self.cell(text=text)

    def put_right(self, x: float, y: float, text: str, font: str = "sans", style: str = "", size: float = 14, colour=(20, 20, 24)) -> None:
        """One line of text that ends at x."""
        self.set_font(font, style, size)
        self.put(x - self.get_string_width(text) - 2 * self.c_margin, y, text, font, style, size, colour)

    def paragraph(self, x: float, y: float, width: float, text: str, font: str = "sans", size: float = 14, pitch: float = 20) -> float:
        """Flowing text; returns the y below it."""
        self.set_font(font, "", size)
        self.set_text_color(20, 20, 24)
        self.set_xy(x, y)
        self.multi_cell(width, pitch, text, align="L")
        return self.get_y()


def report(path: Path) -> None:
    pdf = Pdf("P", "Kestrel Bay Ferries: Annual Report 2024")
    pdf.add_page()
    pdf.set_fill_color(*NAVY)
    pdf.rect(0, 0, 612, 96, "F")
    pdf.put(48, 24, "Kestrel Bay Ferries", style="B", size=30, colour=(255, 255, 255))
    pdf.put(48, 62, "Annual Report 2024", size=17, colour=(220, 228, 240))
    y = pdf.paragraph(48, 118, 516, (
        "Kestrel Bay Ferries carried 427,000 passengers in 2024, the most since the company was founded in 1931. "
        "Revenue rose to $4,521,550. The Harbour Island route remained the busiest; the Night Loop, opened in May, "
        "already pays its own way."))
    pdf.put(48, y + 16, "Routes in 2024", style="B", size=20, colour=NAVY)
    top, columns = y + 48, (56, 300, 430, 556)
    for row, cells in enumerate(ROUTES):
        line = top + row * 30
        if row == 0:
            pdf.set_fill_color(*SAND)
            pdf.rect(48, line - 5, 516, 30, "F")
        pdf.put(columns[0], line + 2, cells[0], style="B" if row == 0 else "", size=15)
        for column, cell in zip(columns[1:], cells[1:]):
            pdf.put_right(column, line + 2, cell, style="B" if row == 0 else "", size=15)
        pdf.set_draw_color(170, 170, 176)
        pdf.line(48, line + 25, 564, line + 25)
    y = top + len(ROUTES) * 30 + 20
    pdf.put(48, y, "People", style="B", size=20, colour=NAVY)
    for row, (key, value) in enumerate((("Managing director", "Ingrid Falk"), ("Chief engineer", "Samuel Adeyemi"), ("Employees", "138"), ("Home port", "Port Wexcombe"))):
        pdf.put(56, y + 34 + row * 26, f"{key}:", size=15, colour=GREY)
        pdf.put(250, y + 34 + row * 26, value, style="B", size=15)
    y = pdf.paragraph(48, y + 154, 516, (
        "The auditors, Brennick and Sons, found the accounts in good order. A dividend of $1.20 a share is proposed "
        "to the general meeting on 22 April 2025."))
    pdf.put_right(564, 756, "1", size=12, colour=GREY)

    pdf.add_page()
    pdf.put(48, 40, "Passengers and fuel", style="B", size=26, colour=NAVY)
    pdf.put(48, 84, "Passengers carried (thousands)", style="B", size=16)
    base, left, width = 360, 90, 60
    pdf.set_draw_color(60, 60, 66)
    pdf.line(72, base, 552, base)
    for bar, (year, value) in enumerate(PASSENGERS):
        height = value * 0.5
        x = left + bar * 92
        pdf.set_fill_color(*TEAL)
        pdf.rect(x, base - height, width, height, "F")
        pdf.put(x + 12, base - height - 20, str(value), style="B", size=15)
        pdf.put(x + 10, base + 6, year, size=15)
    pdf.put(48, 404, "Fuel used in 2024 (tonnes)", style="B", size=16)
    base = 620
    pdf.line(72, base, 552, base)
    points = [(120 + i * 120, base - (value - 60) * 2.2) for i, (_, value) in enumerate(FUEL)]
    pdf.set_draw_color(176, 58, 46)
    pdf.set_line_width(2.5)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        pdf.line(x0, y0, x1, y1)
    pdf.set_line_width(0.6)
    for (x, y), (quarter, value) in zip(points, FUEL):
        pdf.set_fill_color(176, 58, 46)
        pdf.ellipse(x - 4, y - 4, 8, 8, "F")
        pdf.put(x - 14, y - 26, str(value), style="B", size=15)
        pdf.put(x - 14, base + 6, quarter, size=15)
    pdf.paragraph(48, 664, 516, (
        "Slower winter sailings and two rebuilt engines brought fuel use in the fourth quarter down to 96 tonnes. "
        "The electric ferry ordered in November will lower it further."))
    pdf.put_right(564, 756, "2", size=12, colour=GREY)
    pdf.output(str(path))


def invoice(path: Path) -> None:
    pdf = Pdf("P", "Invoice 20417")
    pdf.add_page()
    pdf.put(48, 44, "Osprey Print Works", font="lato", style="B", size=28, colour=TEAL)
    pdf.put(48, 84, "18 Tannery Lane, Port Wexcombe", font="lato", size=14, colour=GREY)
    pdf.put_right(564, 44, "INVOICE", font="lato", style="B", size=26)
    for row, (key, value) in enumerate((("Invoice number", "20417"), ("Invoice date", "12 February 2025"), ("Due date", "14 March 2025"), ("Customer", "Kestrel Bay Ferries"), ("Contact", "Ingrid Falk"))):
        pdf.put(48, 136 + row * 28, f"{key}:", font="lato", size=16, colour=GREY)
        pdf.put(220, 136 + row * 28, value, font="lato", style="B", size=16)
    rows = [("Description", "Qty", "Price", "Amount"), ("Timetable booklets", "1,200", "$0.85", "$1,020.00"), ("Route maps, folded", "800", "$1.10", "$880.00"), ("Pier posters", "24", "$9.50", "$228.00")]
    for row, cells in enumerate(rows):
        y = 310 + row * 34
        if row == 0:
            pdf.set_fill_color(*SAND)
            pdf.rect(48, y - 6, 516, 32, "F")
        pdf.put(56, y, cells[0], font="lato", style="B" if row == 0 else "", size=16)
        for right, cell in zip((336, 436, 556), cells[1:]):
            pdf.put_right(right, y, cell, font="lato", style="B" if row == 0 else "", size=16)
        pdf.set_draw_color(170, 170, 176)
        pdf.line(48, y + 26, 564, y + 26)
    for row, (key, value) in enumerate((("Subtotal", "$2,128.00"), ("Tax", "$218.00"), ("Total", "$2,346.00"))):
        y = 466 + row * 32
        style, size = ("B", 20) if key == "Total" else ("", 16)
        pdf.put(330, y, key, font="lato", style=style, size=size)
        pdf.put_right(556, y, value, font="lato", style=style, size=size)
    pdf.paragraph(48, 600, 516, "Please pay within 30 days to account 44-7781-902, Wexcombe Savings Bank. Thank you for your order.", font="lato", size=15, pitch=22)
    pdf.output(str(path))


def slides(path: Path) -> None:
    pdf = Pdf("L", "Winter timetable")
    pdf.add_page()
    pdf.set_fill_color(*NAVY)
    pdf.rect(0, 0, 792, 612, "F")
    pdf.put(70, 190, "The Winter Timetable", font="lato", style="B", size=54, colour=(255, 255, 255))
    pdf.put(70, 270, "What changes for passengers in November", font="lato", size=28, colour=(220, 228, 240))
    pdf.put(70, 400, "Presented by Tomas Berglund", font="lato", size=26, colour=(255, 214, 130))
    pdf.put(70, 440, "Kestrel Bay Ferries, 3 October 2024", font="lato", size=24, colour=(220, 228, 240))

    pdf.add_page()
    pdf.put(60, 46, "First and last boats", font="lato", style="B", size=42, colour=NAVY)
    rows = [("Pier", "First boat", "Last boat"), ("Port Wexcombe", "06:10", "22:30"), ("Saltmarsh", "06:40", "21:50"), ("Harbour Island", "07:05", "23:15"), ("Cape Orlin", "08:20", "19:45")]
    for row, cells in enumerate(rows):
        y = 140 + row * 66
        if row == 0:
            pdf.set_fill_color(*SAND)
            pdf.rect(60, y - 12, 672, 58, "F")
        for x, cell in zip((80, 380, 580), cells):
            pdf.put(x, y, cell, font="lato", style="B" if row == 0 else "", size=28)
    pdf.put(60, 520, "On Sundays the first boat leaves one hour later.", font="lato", size=24, colour=GREY)

    pdf.add_page()
    pdf.put(60, 46, "The electric ferry", font="lato", style="B", size=42, colour=NAVY)
    for row, (key, value) in enumerate((("Name", "Lumen"), ("Price", "$8.4 million"), ("Seats", "220"), ("Range", "46 kilometres"), ("In service", "May 2026"), ("Shipyard", "Varberg Marine"))):
        y = 136 + row * 62
        pdf.put(80, y, f"{key}:", font="lato", size=30, colour=GREY)
        pdf.put(300, y, value, font="lato", style="B", size=30)
    pdf.put(60, 530, "One charge in Port Wexcombe lasts for nine trips.", font="lato", size=24, colour=GREY)
    pdf.output(str(path))


def scan(path: Path) -> None:
    """A letter, drawn at 150 dpi, then turned, blurred, shaded and speckled, and stored as one JPEG in a PDF."""
    width, height = 1275, 1650
    paper = Image.new("L", (width, height), 246)
    draw = ImageDraw.Draw(paper)
    bold = ImageFont.truetype(str(LIBERATION / "LiberationSerif-Bold.ttf"), 46)
    body = ImageFont.truetype(str(LIBERATION / "LiberationSerif-Regular.ttf"), 34)
    italic = ImageFont.truetype(str(LIBERATION / "LiberationSerif-Italic.ttf"), 50)
    draw.text((120, 110), "Wexcombe Harbour Office", font=bold, fill=30)
    draw.text((120, 168), "7 Customs Quay, Port Wexcombe", font=body, fill=40)
    draw.text((1155, 260), "21 May 2025", font=body, fill=30, anchor="ra")
    lines = [
        "To: Kestrel Bay Ferries", "Attention: Samuel Adeyemi", "Subject: Broken light on Pier 4", "",
        "Dear Mr Adeyemi,", "",
        "the green light at the end of Pier 4 has been dark since",
        "the storm of 17 May. Our electrician found water in the",
        "lamp housing and has ordered a new one from the maker.", "",
        "The light will be repaired on 9 June 2025. Until then a",
        "lamp on a post marks the pier; please ask your captains",
        "to come in slowly after dark. The repair costs $640 and",
        "is paid by the harbour.", "",
        "We are sorry for the trouble.", "", "Yours sincerely,",
    ]
    for row, line in enumerate(lines):
        draw.text((120, 350 + row * 48), line, font=body, fill=30)
    draw.text((120, 1240), "Marguerite Oduya", font=italic, fill=60)
    draw.text((120, 1316), "Harbour Master", font=body, fill=30)
    paper = paper.rotate(0.5, resample=Image.Resampling.BICUBIC, fillcolor=244).filter(ImageFilter.GaussianBlur(0.7))
    noise = np.random.default_rng(4)
    grey = np.asarray(paper, dtype=np.float32)
    grey += np.linspace(-10, 6, width, dtype=np.float32)[None, :]  # the lid lets light in on one side
    grey += noise.normal(0, 3.5, grey.shape).astype(np.float32)
    specks = noise.random(grey.shape) < 0.00008
    grey[specks] = 60
    paper = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    jpeg = io.BytesIO()
    paper.save(jpeg, "JPEG", quality=45, optimize=True)
    pdf = FPDF(unit="pt", format="letter")
    pdf.set_creation_date(datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc))
    pdf.set_margin(0)
    pdf.add_page()
    pdf.image(io.BytesIO(jpeg.getvalue()), 0, 0, 612, 792)
    pdf.output(str(path))


def chart(path: Path) -> None:
    width, height = 1024, 768
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    title = ImageFont.truetype(str(LATO / "Lato-Bold.ttf"), 40)
    label = ImageFont.truetype(str(LATO / "Lato-Regular.ttf"), 24)
    value_font = ImageFont.truetype(str(LATO / "Lato-Bold.ttf"), 26)
    draw.text((60, 36), "Tickets sold by day of the week", font=title, fill=NAVY)
    draw.text((60, 92), "Kestrel Bay Ferries, first week of July 2024", font=label, fill=GREY)
    base, top = 660, 180
    for step in range(0, 1601, 400):
        y = base - step * (base - top) / 1600
        draw.line((110, y, 990, y), fill=(222, 224, 228), width=2)
        draw.text((100, y), str(step), font=label, fill=GREY, anchor="rm")
    for bar, (day, value) in enumerate(TICKETS):
        x = 130 + bar * 124
        y = base - value * (base - top) / 1600
        draw.rectangle((x, y, x + 84, base), fill=TEAL if day != "Saturday" else (204, 92, 46))
        draw.text((x + 42, y - 6), str(value), font=value_font, fill=(20, 20, 24), anchor="mb")
        draw.text((x + 42, base + 12), day, font=ImageFont.truetype(str(LATO / "Lato-Regular.ttf"), 22), fill=(20, 20, 24), anchor="mt")
    draw.line((110, base, 990, base), fill=(60, 60, 66), width=3)
    image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "examples" / "documents")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    report(out / "report.pdf")
    invoice(out / "invoice.pdf")
    slides(out / "slides.pdf")
    scan(out / "scan.pdf")
    chart(out / "chart.png")
    with (out / "questions.jsonl").open("w") as file:
        for doc, page, question, answer in QUESTIONS:
            file.write(json.dumps({"doc": doc, "page": page, "question": question, "answer": answer}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
