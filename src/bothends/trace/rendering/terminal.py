"""Rows as lines of a terminal. Pure; `layout.py` says what stands where.

          server 4711                            client 4712
  0.0100  │ accept4(3) waits                     │
  0.0500  ┆                                      │ connect(3, 127.0.0.1:12000)
  0.0500  ┆◀───────────────── SYN ───────────────┆

A dotted lane waits. A packet on a wire of ours is drawn as it leaves and as it arrives, or is lost. A line is
built from pieces with a style each, so that the same line can be painted, or not.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from bothends.trace.rendering import formatting
from bothends.trace.rendering.layout import Arrow, Bar, Cell, Row, Style

Piece: TypeAlias = tuple[str, Style]

TIME: Final = 10  # columns
NARROWEST: Final = 28  # columns of a lane: with less, nothing of a call can be read

# What a style looks like (ECMA-48, 8.3.117).
PAINT: Final[dict[Style, str]] = {
    "quiet": "2",
    "error": "31",
    "data": "32",
    "open": "36",
    "end": "33",
    "reset": "1;31",
    "state": "34",
    "note": "35",
    "lane": "1",
}
_BARS: Final[dict[Bar, str]] = {"none": " ", "runs": "│", "waits": "┆"}


class Painter:
    """Paints rows as lines of so many columns (more, if there are too many lanes for it)."""

    def __init__(self, width: int, *, colour: bool) -> None:
        self._width = width
        self._colour = colour

    def lines(self, row: Row) -> Iterator[str]:
        """The lines of a row: one, unless it holds prose."""
        if row.cells and row.cells[0].folds:
            (cell,) = row.cells
            for part in textwrap.wrap(cell.text, max(self._lane(row) - 6, 20)):
                yield self._painted(self._cells(row, (Cell(cell.lane, f"  {part}", cell.style),)))
        elif row.arrow is not None:
            yield self._painted(self._arrow(row, row.arrow))
        else:
            yield self._painted(self._cells(row, row.cells))

    def _lane(self, row: Row) -> int:
        """Columns of a lane."""
        return max((self._width - TIME) // max(len(row.bars), 1), NARROWEST)

    def _cells(self, row: Row, cells: tuple[Cell, ...]) -> Iterator[Piece]:
        yield _time(row.at), "quiet"
        column, lane, last = TIME, self._lane(row), len(row.bars) - 1
        texts = {cell.lane: cell for cell in cells}
        if not row.bars:  # a packet before any process
            yield from ((cell.text, cell.style) for cell in cells)
        for index, bar in enumerate(row.bars):
            start = TIME + index * lane
            yield " " * (start - column), ""
            yield " " if row.is_head else _BARS[bar], "quiet"
            column = start + 1
            if index in texts:
                cell = texts[index]
                text = formatting.cut(
                    cell.text, max(self._width - column - 1, 8) if index == last else lane - 3
                )
                yield ("" if row.is_head else " "), ""
                yield text, cell.style
                column += formatting.width(text) + (not row.is_head)

    def _arrow(self, row: Row, arrow: Arrow) -> Iterator[Piece]:
        yield _time(row.at), "quiet"
        column, lane = TIME, self._lane(row)
        left, right = sorted((arrow.here, arrow.there))
        line = _shaft(arrow, (right - left) * lane - 1)
        for index, bar in enumerate(row.bars):
            start = TIME + index * lane
            if left < index < right:
                continue
            yield " " * (start - column), ""
            yield _BARS[bar], "quiet"
            column = start + 1
            if index == left:
                yield line, arrow.style
                column += (right - left) * lane - 1

    def _painted(self, pieces: Iterable[Piece]) -> str:
        if not self._colour:
            return "".join(text for text, _ in pieces).rstrip()
        return "".join(
            f"\x1b[{PAINT[style]}m{text}\x1b[0m" if style and text.strip() else text for text, style in pieces
        ).rstrip()


def _shaft(arrow: Arrow, room: int) -> str:
    """An arrow, or a part of one, in so many columns."""
    to_right = arrow.here < arrow.there
    head = "▶" if to_right else "◀"
    long = room if arrow.part == "whole" else room * 2 // 3
    label = f" {formatting.cut(arrow.text, long - 8)} "
    shaft = max(long - formatting.width(label) - 1, 2)
    line = "─" * (shaft // 2) + label + "─" * (shaft - shaft // 2)
    match arrow.part:
        case "whole":
            return line + head if to_right else head + line
        case "arrives":
            drawn = f"┄{line[1:]}{head}" if to_right else f"{head}{line[:-1]}┄"
            at_left = not to_right
        case "leaves":
            drawn = f"{line}┄" if to_right else f"┄{line}"
            at_left = to_right
        case "lost":
            lost = formatting.cut(arrow.lost, room - long - 3)
            drawn = f"{line}✗ {lost}" if to_right else f"{lost} ✗{line}"
            at_left = to_right
    blank = " " * (room - formatting.width(drawn))
    return drawn + blank if at_left else blank + drawn


def _time(at: int | None) -> str:
    return " " * TIME if at is None else f"{at / 1e9:8.4f}  "
