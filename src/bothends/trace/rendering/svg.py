"""Render rows as an SVG picture, for pages and slides. Pure. The picture has no scripts and loads nothing.

It is dark or light according to the reader's setting (prefers-color-scheme), unless a theme is given. An
animated picture is CSS only, so it moves in an `<img>` too; a reader who prefers no motion sees its end.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bothends.foreign_text import markup
from bothends.trace.rendering import formatting
from bothends.trace.rendering.layout import Arrow, Cell, Row
from bothends.trace.rendering.pace import END_PAUSE, start_times
from bothends.trace.rendering.picture_style import COLOUR_OF, PALETTES, PictureStyle, Theme

TIME_WIDTH: Final = 76
LINE_HEIGHT: Final = 20
HEADER_HEIGHT: Final = 30
MARGIN: Final = 16
MAX_ROWS: Final = 20_000  # image viewers fail with larger pictures
_CHAR_WIDTH: Final = 7.23  # pixels, in the fonts below at 12 pixels

_FONTS: Final = """
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.lane { font-weight: bold; font-size: 13px; } .reset { font-weight: bold; }
.waits { stroke-dasharray: 2 4; } line.arrow { stroke-width: 1.5; }
"""
_DEFAULT: Final = PictureStyle()


def render_svg(
    rows: Iterable[Row], title: str = "", style: PictureStyle = _DEFAULT, comments: Sequence[Row] = ()
) -> str:
    """Return the picture as SVG. Shows `MAX_ROWS` rows at most.

    `title` is for screen readers. `comments` are rows below the picture, which come last.
    """
    drawn = [*rows]
    hidden = len(drawn) - MAX_ROWS
    del drawn[MAX_ROWS:]
    if hidden > 0:
        drawn.append(Row(None, (), (Cell(0, f"{hidden} more rows are not shown", "note"),)))
    picture = _Picture(style, max((len(row.bars) for row in drawn), default=1))
    drawn += [wrapped for row in comments for wrapped in picture.wrapped(row)]
    return picture.render(drawn, title)


def style_sheet(theme: Theme) -> str:
    """Return the style sheet of a picture."""
    if theme != "auto":
        return _FONTS + _colours(PALETTES[theme])
    dark = f"@media (prefers-color-scheme: dark) {{\n{_colours(PALETTES['dark'])}}}\n"
    return _FONTS + _colours(PALETTES["light"]) + dark


def _colours(palette: Mapping[str, str]) -> str:
    text, background, bar, waits, *_ = palette.values()
    lines = [
        f"text {{ fill: {text}; }} .background {{ fill: {background}; }} .bar {{ stroke: {bar}; }}",
        f".waits {{ stroke: {waits}; }}",
    ]
    for style in ("quiet", "time", "error", "reset", "data", "open", "end", "state", "note"):
        colour = palette[COLOUR_OF.get(style, style)]
        lines.append(f".{style} {{ fill: {colour}; }} line.{style} {{ stroke: {colour}; }}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Picture:
    """Draws rows with `lanes` lanes."""

    style: PictureStyle
    lanes: int

    @property
    def width(self) -> int:
        return TIME_WIDTH + self.lanes * self.style.lane_width + 2 * MARGIN

    def render(self, rows: Sequence[Row], title: str) -> str:
        parts: list[str] = []
        y = MARGIN
        for number, row in enumerate(rows):
            height = HEADER_HEIGHT if row.is_header else LINE_HEIGHT
            drawn = [*self._bars(row, y, height), *self._row(row, y + height - 6)]
            if self.style.is_animated and drawn:
                drawn = [f'<g class="row" style="animation-name:r{number}">', *drawn, "</g>"]
            parts += drawn
            y += height
        height = y + MARGIN
        sheet = style_sheet(self.style.theme) + (_animation(rows) if self.style.is_animated else "")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height}" role="img">\n'
            f"<title>{markup(title)}</title>\n<style>{sheet}</style>\n"
            f'<rect class="background" width="{self.width}" height="{height}" rx="8"/>\n'
            + "\n".join(parts)
            + "\n</svg>\n"
        )

    def wrapped(self, row: Row) -> Iterator[Row]:
        """Wrap the prose of a row to the width of the picture."""
        if not row.cells or not row.cells[0].wraps:
            yield row
            return
        columns = int((self.lanes * self.style.lane_width - 22) / _CHAR_WIDTH)
        cell = row.cells[0]
        for line in textwrap.wrap(cell.text, columns, subsequent_indent="  ", break_on_hyphens=False) or [""]:
            yield Row(row.at, row.bars, (Cell(cell.lane, line, cell.style),))

    def _x(self, lane: int) -> float:
        return MARGIN + TIME_WIDTH + lane * self.style.lane_width

    def _bars(self, row: Row, y: int, height: int) -> Iterator[str]:
        if row.is_header:
            return
        for lane, bar in enumerate(row.bars):
            if bar != "none":
                x, waits = self._x(lane), " waits" if bar == "waits" else ""
                yield f'<line class="bar{waits}" x1="{x}" y1="{y}" x2="{x}" y2="{y + height}"/>'

    def _row(self, row: Row, baseline: int) -> Iterator[str]:
        if row.at is not None:
            yield _text(MARGIN, baseline, f"{row.at / 1e9:8.4f}", "time")
        if row.fold:
            lanes = max(len(row.bars), 1)
            text = formatting.truncate(row.fold, int((lanes * self.style.lane_width - 22) / _CHAR_WIDTH))
            yield _text(self._x(0) + 10, baseline, text, "note")
        if row.arrow is not None:
            yield from self._arrow(row.arrow, baseline)
        for cell in row.cells:
            yield _text(
                self._x(cell.lane) + (0 if row.is_header else 10),
                baseline,
                self._fit(cell, row.bars),
                cell.style,
            )

    def _fit(self, cell: Cell, bars: Sequence[object]) -> str:
        return (
            formatting.truncate(cell.text, int((self.style.lane_width - 22) / _CHAR_WIDTH))
            if len(bars) > 1
            else cell.text
        )

    def _arrow(self, arrow: Arrow, baseline: int) -> Iterator[str]:
        start, end = self._x(arrow.from_lane), self._x(arrow.to_lane)
        y, sign = baseline - 4, 1 if end > start else -1
        third = (end - start) / 3
        if arrow.part == "arrived":
            start += third
        elif arrow.part != "whole":
            end -= third
        has_head = arrow.part in ("whole", "arrived")
        x2 = end - 6 * sign if has_head else end
        dashes = "" if arrow.part == "whole" else ' stroke-dasharray="6 3"'
        yield f'<line class="arrow {arrow.style}" x1="{start:g}" y1="{y}" x2="{x2:g}" y2="{y}"{dashes}/>'
        if has_head:
            points = f"{end - sign:g},{y} {end - 9 * sign:g},{y - 4} {end - 9 * sign:g},{y + 4}"
            yield f'<polygon class="{arrow.style}" points="{points}"/>'
        elif arrow.part == "lost":
            position = f'x="{end + 2 * sign:g}" y="{baseline}" text-anchor="{"start" if sign > 0 else "end"}"'
            lost = f"✗ {arrow.lost}" if sign > 0 else f"{arrow.lost} ✗"
            yield f'<text class="{arrow.style}" {position}>{markup(lost)}</text>'
        text = formatting.truncate(arrow.text, int(abs(end - start) / _CHAR_WIDTH) - 8)
        width = formatting.display_width(text) * _CHAR_WIDTH + 12
        middle = (start + end) / 2
        left = middle - width / 2
        yield f'<rect class="background" x="{left:.1f}" y="{y - 8}" width="{width:.1f}" height="16"/>'
        position = f'x="{middle:.1f}" y="{baseline}" text-anchor="middle"'
        yield f'<text class="{arrow.style}" {position}>{markup(text)}</text>'


def _animation(rows: Sequence[Row]) -> str:
    """Return the style sheet of an animation in which the rows appear one after another, again and again."""
    times = start_times(rows)
    total = (times[-1] if times else 0) + END_PAUSE
    lines = [f".row {{ animation: {total:.2f}s step-end infinite; }}"]
    for number, at in enumerate(times):
        percent = at / total * 100
        lines.append(f"@keyframes r{number} {{ 0% {{ opacity: 0; }} {percent:.2f}% {{ opacity: 1; }} }}")
    lines.append("@media (prefers-reduced-motion: reduce) { .row { animation: none; } }")
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, style: str) -> str:
    css_class = f' class="{style}"' if style else ""
    return f'<text{css_class} x="{x}" y="{y}" xml:space="preserve">{markup(text)}</text>'
