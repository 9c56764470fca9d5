"""Render pictures as a PDF file, a page for each. Pure.

A page is the SVG picture of `svg.py`, drawn again with the operators of PDF (ISO 32000-1): rectangles, lines,
polygons and text, which is all that such a picture has. Its size is that of the picture, so that it can be
included in slides. The fonts are the standard ones, which every reader has (9.6.2.2): nothing is embedded,
and a character that they lack is drawn as "?".
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from bothends.trace.rendering import formatting
from bothends.trace.rendering.layout import Bar, Row
from bothends.trace.rendering.picture_style import COLOUR_OF, PALETTES, PictureStyle
from bothends.trace.rendering.svg import render_svg

ROWS_PER_PAGE: Final = 40
LARGE_ROWS_PER_PAGE: Final = 18  # a slide of 16:9, with two lanes

_ADVANCE: Final = 0.6  # of Courier, in units of the font size
_FONTS: Final = ("Courier", "Courier-Bold", "Symbol", "ZapfDingbats")
# Characters of the pictures that are in none of the code pages of Courier: the font, and the code (annex D).
_SPECIAL: Final = {
    "→": (2, 0xAE),
    "←": (2, 0xAC),
    "≤": (2, 0xA3),
    "≥": (2, 0xB3),
    "✓": (3, 0x33),
    "✗": (3, 0x37),
}


class _Run(NamedTuple):
    """Characters of one font, and their column in the text."""

    font: int
    column: int
    codes: bytes


_DEFAULT: Final = PictureStyle()


def render_pdf(
    rows: Iterable[Row], title: str = "", style: PictureStyle = _DEFAULT, comments: Sequence[Row] = ()
) -> bytes:
    """Return a PDF file of the rows, with the names of the lanes on each page. Arguments as for `render_svg`.

    The theme "auto" is light, because a page may be printed.
    """
    theme = "light" if style.theme == "auto" else style.theme
    still = PictureStyle(theme, style.is_large)
    drawn = [*rows]
    pages = _pages(drawn, LARGE_ROWS_PER_PAGE if style.is_large else ROWS_PER_PAGE)
    pictures = [render_svg(page, title, still) for page in pages]
    if comments:
        none: Bar = "none"
        blank = (none,) * max((len(row.bars) for row in drawn), default=1)
        pictures.append(render_svg([Row(None, blank)], title, still, comments))
    return _document([_page(picture, PALETTES[theme]) for picture in pictures])


def _pages(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """Divide rows into pages. Each begins with the names of the lanes, as they are there."""
    pages: list[list[Row]] = [[]]
    header: Row | None = None
    for row in rows:
        if len(pages[-1]) >= size:
            pages.append([header] if header is not None and not row.is_header else [])
        if row.is_header:
            header = row
        pages[-1].append(row)
    return pages


# Drawing a picture ------------------------------------------------------------------------------------


def _page(picture: str, palette: dict[str, str]) -> tuple[int, int, bytes]:
    """Return the size of a picture in points, and its content stream."""
    root = ElementTree.fromstring(picture)
    width, height = map(int, root.attrib["viewBox"].split()[2:])
    operators: list[str] = []
    for element in root:
        kind = element.tag.rpartition("}")[2]
        if kind in _DRAWERS:
            style = element.get("class", "").split()[-1:]
            colour = palette[COLOUR_OF.get(style[0], style[0]) if style else "text"]
            operators += _DRAWERS[kind](element, height, _rgb(colour))
    return width, height, "\n".join(operators).encode("latin-1")


def _rgb(colour: str) -> str:
    return " ".join(f"{int(colour[index : index + 2], 16) / 255:.3f}" for index in (1, 3, 5))


def _numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.get(name, "0")) for name in names]


def _rectangle(element: ElementTree.Element, height: int, colour: str) -> Iterator[str]:
    x, y, width, tall = _numbers(element, "x", "y", "width", "height")
    yield f"{colour} rg {x:g} {height - y - tall:g} {width:g} {tall:g} re f"


def _line(element: ElementTree.Element, height: int, colour: str) -> Iterator[str]:
    x1, y1, x2, y2 = _numbers(element, "x1", "y1", "x2", "y2")
    dashes = element.get("stroke-dasharray", "2 4" if "waits" in element.get("class", "").split() else "")
    width = 1.5 if "arrow" in element.get("class", "").split() else 1
    yield f"{colour} RG {width} w [{dashes}] 0 d {x1:g} {height - y1:g} m {x2:g} {height - y2:g} l S"


def _polygon(element: ElementTree.Element, height: int, colour: str) -> Iterator[str]:
    points = [tuple(map(float, point.split(","))) for point in element.get("points", "").split()]
    path = " l ".join(f"{x:g} {height - y:g}" for x, y in points).replace(" l ", " m ", 1)
    yield f"{colour} rg {path} l h f"


def _text(element: ElementTree.Element, height: int, colour: str) -> Iterator[str]:
    styles = element.get("class", "").split()
    size = 13 if "lane" in styles else 12
    is_bold = "lane" in styles or "reset" in styles
    text = element.text or ""
    x, y = _numbers(element, "x", "y")
    share = {"middle": 0.5, "end": 1.0}.get(element.get("text-anchor", "start"), 0.0)
    x -= share * formatting.display_width(text) * _ADVANCE * size
    for run in _runs(text, is_bold=is_bold):
        at = x + run.column * _ADVANCE * size
        yield f"BT {colour} rg /F{run.font} {size} Tf {at:g} {height - y:g} Td <{run.codes.hex()}> Tj ET"


_DRAWERS: Final = {"rect": _rectangle, "line": _line, "polygon": _polygon, "text": _text}


def _runs(text: str, *, is_bold: bool) -> Iterator[_Run]:
    column = 0
    run = _Run(int(is_bold), 0, b"")
    for character in text:
        font, code = _SPECIAL.get(character, (int(is_bold), -1))
        codes = bytes([code]) if code >= 0 else character.encode("cp1252", "replace")
        if font != run.font:
            yield run
            run = _Run(font, column, b"")
        run = run._replace(codes=run.codes + codes)
        column += max(formatting.display_width(character), 1)
    yield run


# The file ---------------------------------------------------------------------------------------------


def _document(pages: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Return the file (7.5): the objects, their offsets, and the trailer."""
    objects: list[bytes] = []  # object 1 is the catalogue, 2 the tree of pages, then the fonts
    first = 3 + len(_FONTS)
    fonts = " ".join(f"/F{index} {3 + index} 0 R" for index in range(len(_FONTS)))
    kids = " ".join(f"{first + 2 * index} 0 R" for index in range(len(pages)))
    objects.append(b"<< /Type /Catalog /Pages 2 0 R >>")
    objects.append(f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>".encode())
    for index, name in enumerate(_FONTS):
        encoding = " /Encoding /WinAnsiEncoding" if index < 2 else ""
        objects.append(f"<< /Type /Font /Subtype /Type1 /BaseFont /{name}{encoding} >>".encode())
    for index, (width, height, content) in enumerate(pages):
        stream = zlib.compress(content, 9)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}]"
            f" /Contents {first + 2 * index + 1} 0 R /Resources << /Font << {fonts} >> >> >>".encode()
        )
        head = f"<< /Length {len(stream)} /Filter /FlateDecode >>\nstream\n".encode()
        objects.append(head + stream + b"\nendstream")
    data = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(data)
