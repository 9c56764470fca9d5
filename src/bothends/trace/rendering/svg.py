"""Render rows as an SVG picture, for pages and slides. Pure. The picture has no scripts and loads nothing.

It is dark or light according to the reader's setting (prefers-color-scheme).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from bothends.foreign_text import markup
from bothends.trace.rendering import formatting
from bothends.trace.rendering.layout import Arrow, Cell, Row

LANE_WIDTH: Final = 400  # pixels
TIME_WIDTH: Final = 76
LINE_HEIGHT: Final = 20
HEADER_HEIGHT: Final = 30
MARGIN: Final = 16
MAX_ROWS: Final = 20_000  # image viewers fail with larger pictures
_CHAR_WIDTH: Final = 7.23  # pixels, in the fonts below at 12 pixels

STYLE: Final = """
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1b1f24; }
.background { fill: #ffffff; } .bar { stroke: #c4cad2; } .waits { stroke-dasharray: 2 4; stroke: #8a94a3; }
.lane { font-weight: bold; font-size: 13px; } .quiet, .time { fill: #68717d; } .error { fill: #b3261e; }
.data { fill: #1a7f37; } .open { fill: #0b6a88; } .end { fill: #8f5a00; }
.reset { fill: #b3261e; font-weight: bold; }
.state { fill: #2f5bb7; } .note { fill: #7d3c98; }
line.arrow { stroke-width: 1.5; } line.quiet { stroke: #68717d; } line.data { stroke: #1a7f37; }
line.open { stroke: #0b6a88; } line.end { stroke: #8f5a00; } line.reset, line.error { stroke: #b3261e; }
@media (prefers-color-scheme: dark) {
text { fill: #e6e9ee; } .background { fill: #101418; } .bar { stroke: #39424e; } .waits { stroke: #66717f; }
.quiet, .time { fill: #98a2b0; } .error, .reset { fill: #ff8a80; } .data { fill: #6fdd8b; }
.open { fill: #6fd3ee; } .end { fill: #f2bf5e; } .state { fill: #9db9ff; } .note { fill: #dba6f2; }
line.quiet { stroke: #98a2b0; } line.data { stroke: #6fdd8b; } line.open { stroke: #6fd3ee; }
line.end { stroke: #f2bf5e; } line.reset, line.error { stroke: #ff8a80; }
}
"""


def render_svg(rows: Iterable[Row], title: str = "") -> str:
    """Return the picture as SVG. `title` is for screen readers. Shows `MAX_ROWS` rows at most."""
    drawn = list(rows)
    lanes = max((len(row.bars) for row in drawn), default=1)
    width = TIME_WIDTH + lanes * LANE_WIDTH + 2 * MARGIN
    parts: list[str] = []
    y = MARGIN
    for row in drawn[:MAX_ROWS]:
        height = HEADER_HEIGHT if row.is_header else LINE_HEIGHT
        parts += _bars(row, y, height)
        parts += _row(row, y + height - 6)
        y += height
    if len(drawn) > MAX_ROWS:
        parts.append(
            _text(MARGIN, y + LINE_HEIGHT - 6, f"{len(drawn) - MAX_ROWS} more rows are not shown", "note")
        )
        y += LINE_HEIGHT
    height = y + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>{markup(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="background" width="{width}" height="{height}" rx="8"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _x(lane: int) -> float:
    return MARGIN + TIME_WIDTH + lane * LANE_WIDTH


def _bars(row: Row, y: int, height: int) -> Iterator[str]:
    if row.is_header:
        return
    for lane, bar in enumerate(row.bars):
        if bar != "none":
            x, waits = _x(lane), " waits" if bar == "waits" else ""
            yield f'<line class="bar{waits}" x1="{x}" y1="{y}" x2="{x}" y2="{y + height}"/>'


def _row(row: Row, baseline: int) -> Iterator[str]:
    if row.at is not None:
        yield _text(MARGIN, baseline, f"{row.at / 1e9:8.4f}", "time")
    if row.fold:
        lanes = max(len(row.bars), 1)
        text = formatting.truncate(row.fold, int((lanes * LANE_WIDTH - 22) / _CHAR_WIDTH))
        yield _text(_x(0) + 10, baseline, text, "note")
    if row.arrow is not None:
        yield from _arrow(row.arrow, baseline)
    for cell in row.cells:
        yield _text(_x(cell.lane) + (0 if row.is_header else 10), baseline, _fit(cell, row.bars), cell.style)


def _fit(cell: Cell, bars: Sequence[object]) -> str:
    return (
        formatting.truncate(cell.text, int((LANE_WIDTH - 22) / _CHAR_WIDTH)) if len(bars) > 1 else cell.text
    )


def _arrow(arrow: Arrow, baseline: int) -> Iterator[str]:
    start, end = _x(arrow.from_lane), _x(arrow.to_lane)
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


def _text(x: float, y: float, text: str, style: str) -> str:
    css_class = f' class="{style}"' if style else ""
    return f'<text{css_class} x="{x}" y="{y}" xml:space="preserve">{markup(text)}</text>'
