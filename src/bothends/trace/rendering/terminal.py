"""Render rows as lines of text for a terminal. Pure.

          server 4711                            client 4712
  0.0100  │ accept4(3) waits                     │
  0.0500  ┆                                      │ connect(3, 127.0.0.1:12000)
  0.0500  ┆◀───────────────── SYN ───────────────┆

If there are too many lanes for the width, each is a narrow column, and the text is beside all of them, after
the name of its lane:

  0.0500  │ ┆ │ ● │  client 3: connect(3, 127.0.0.1:12000)
  0.0500  ◀─────┤ │  client 3 → server: SYN

A dotted lane is blocked in a call. A packet on a wire is drawn when it is sent, and when it arrives or is
lost. A line is built from pieces of styled text, so that it can be drawn with or without colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from bothends.escaping import escape_line
from bothends.trace.rendering import formatting
from bothends.trace.rendering.layout import Arrow, Bar, Cell, Row, Style

StyledText: TypeAlias = tuple[str, Style]

TIME_WIDTH: Final = 10  # columns
MIN_LANE_WIDTH: Final = 23  # columns: in narrower lanes, calls are illegible
MIN_TEXT_WIDTH: Final = 44  # columns of the text beside narrow lanes

# SGR parameters by style (ECMA-48, 8.3.117).
SGR_CODES: Final[dict[Style, str]] = {
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
    """Renders rows as lines of `width` columns."""

    def __init__(self, width: int, *, colour: bool) -> None:
        self._width = width
        self._colour = colour
        self._names: dict[int, str] = {}  # of the lanes, as far as they have been announced

    def lines(self, row: Row) -> Iterator[str]:
        """Return the lines of a row: one, unless its text wraps."""
        if TIME_WIDTH + len(row.bars) * MIN_LANE_WIDTH > self._width and len(row.bars) > 1 and not row.fold:
            yield from map(self._join_pieces, self._narrow_lines(row))
            return
        if row.is_header:
            self._names = {cell.lane: cell.text for cell in row.cells}
        if row.cells and row.cells[0].wraps:
            (cell,) = row.cells
            for part in textwrap.wrap(cell.text, max(self._lane_width(row) - 6, 20)):
                yield self._join_pieces(self._cells(row, (Cell(cell.lane, f"  {part}", cell.style),)))
        elif row.fold:
            yield self._join_pieces(self._fold(row))
        elif row.arrow is not None:
            yield self._join_pieces(self._arrow(row, row.arrow))
        else:
            yield self._join_pieces(self._cells(row, row.cells))

    def _narrow_lines(self, row: Row) -> Iterator[list[StyledText]]:
        """Yield the lines of a row with narrow lanes: first the lanes, then the texts."""
        step = 2 if TIME_WIDTH + 2 * len(row.bars) + MIN_TEXT_WIDTH <= self._width else 1
        has_lanes = TIME_WIDTH + step * len(row.bars) + MIN_TEXT_WIDTH <= self._width
        lanes = [_BARS[bar] + " " * (step - 1) for bar in row.bars] if has_lanes else [""] * len(row.bars)
        room = max(self._width - TIME_WIDTH - sum(map(len, lanes)) - 2, 20)
        if row.is_header:
            for cell in row.cells:
                if self._names.get(cell.lane) != cell.text:
                    self._names[cell.lane] = cell.text
                    marked = _with_mark(lanes, cell.lane, "┬")
                    yield [
                        ("", ""),
                        (" " * TIME_WIDTH, ""),
                        (marked, "quiet"),
                        (" ", ""),
                        (cell.text, "lane"),
                    ]
            return
        if row.arrow is not None:
            arrow = row.arrow
            names = self._name(arrow.from_lane), self._name(arrow.to_lane)
            lost = f"  ✗ {arrow.lost}" if arrow.lost else ""
            text = formatting.truncate(f"{names[0]} → {names[1]}: {arrow.text}{lost}", room)
            drawn = _narrow_arrow(lanes, arrow, step) if has_lanes else ""
            yield [(_time(row.at), "quiet"), (drawn, arrow.style), ("  ", ""), (text, arrow.style)]
            return
        for cell in row.cells:
            text = f"{self._name(cell.lane)}: {cell.text}"
            parts = textwrap.wrap(text, room) if cell.wraps else [formatting.truncate(text, room)]
            for part in parts:
                drawn = _with_mark(lanes, cell.lane, "●")
                yield [(_time(row.at), "quiet"), (drawn, "quiet"), ("  ", ""), (part, cell.style)]

    def _name(self, lane: int) -> str:
        """Return the name of a lane without the pid."""
        name, _, pid = self._names.get(lane, "").partition(" in ")[0].rpartition(" ")
        return name if name and pid.isdigit() else self._names.get(lane, f"lane {lane + 1}")

    def _fold(self, row: Row) -> Iterator[StyledText]:
        yield _time(row.at), "quiet"
        text = formatting.truncate(row.fold, max(self._width - TIME_WIDTH - 4, 20))
        yield f"┊ {text} ┊", "note"

    def _lane_width(self, row: Row) -> int:
        """Return the columns of a lane."""
        return max((self._width - TIME_WIDTH) // max(len(row.bars), 1), MIN_LANE_WIDTH)

    def _cells(self, row: Row, cells: tuple[Cell, ...]) -> Iterator[StyledText]:
        yield _time(row.at), "quiet"
        column, lane, last = TIME_WIDTH, self._lane_width(row), len(row.bars) - 1
        texts = {cell.lane: cell for cell in cells}
        if not row.bars:  # a packet before any process
            yield from ((cell.text, cell.style) for cell in cells)
        for index, bar in enumerate(row.bars):
            start = TIME_WIDTH + index * lane
            yield " " * (start - column), ""
            yield " " if row.is_header else _BARS[bar], "quiet"
            column = start + 1
            if index in texts:
                cell = texts[index]
                text = formatting.truncate(
                    cell.text, max(self._width - column - 1, 8) if index == last else lane - 3
                )
                yield ("" if row.is_header else " "), ""
                yield text, cell.style
                column += formatting.display_width(text) + (not row.is_header)

    def _arrow(self, row: Row, arrow: Arrow) -> Iterator[StyledText]:
        yield _time(row.at), "quiet"
        column, lane = TIME_WIDTH, self._lane_width(row)
        left, right = sorted((arrow.from_lane, arrow.to_lane))
        line = _shaft(arrow, (right - left) * lane - 1)
        for index, bar in enumerate(row.bars):
            start = TIME_WIDTH + index * lane
            if left < index < right:
                continue
            yield " " * (start - column), ""
            yield _BARS[bar], "quiet"
            column = start + 1
            if index == left:
                yield line, arrow.style
                column += (right - left) * lane - 1

    def _join_pieces(self, pieces: Iterable[StyledText]) -> str:
        if not self._colour:
            return "".join(escape_line(text) for text, _ in pieces).rstrip()
        return "".join(
            f"\x1b[{SGR_CODES[style]}m{escape_line(text)}\x1b[0m"
            if style and text.strip()
            else escape_line(text)
            for text, style in pieces
        ).rstrip()


def _with_mark(lanes: list[str], lane: int, mark: str) -> str:
    return "".join(mark + text[1:] if index == lane and text else text for index, text in enumerate(lanes))


def _narrow_arrow(lanes: list[str], arrow: Arrow, step: int) -> str:
    """Return narrow lanes with an arrow between two of them."""
    left, right = sorted((arrow.from_lane, arrow.to_lane))
    to_right = arrow.from_lane == left
    ends = ("├", "▶") if to_right else ("◀", "┤")
    if arrow.part in ("sent", "lost"):
        ends = ("├", "┄") if to_right else ("┄", "┤")
    shaft = ends[0] + "─" * ((right - left) * step - 1) + ends[1]
    return "".join(lanes[:left]) + shaft + lanes[right][1:] + "".join(lanes[right + 1 :])


def _shaft(arrow: Arrow, columns: int) -> str:
    """Return an arrow, or a part of one, in a number of columns."""
    to_right = arrow.from_lane < arrow.to_lane
    head = "▶" if to_right else "◀"
    long = columns if arrow.part == "whole" else columns * 2 // 3
    label = f" {formatting.truncate(arrow.text, long - 8)} "
    shaft = max(long - formatting.display_width(label) - 1, 2)
    line = "─" * (shaft // 2) + label + "─" * (shaft - shaft // 2)
    match arrow.part:
        case "whole":
            return line + head if to_right else head + line
        case "arrived":
            drawn = f"┄{line[1:]}{head}" if to_right else f"{head}{line[:-1]}┄"
            at_left = not to_right
        case "sent":
            drawn = f"{line}┄" if to_right else f"┄{line}"
            at_left = to_right
        case "lost":
            lost = formatting.truncate(arrow.lost, columns - long - 3)
            drawn = f"{line}✗ {lost}" if to_right else f"{lost} ✗{line}"
            at_left = to_right
    blank = " " * (columns - formatting.display_width(drawn))
    return drawn + blank if at_left else blank + drawn


def _time(at: int | None) -> str:
    return " " * TIME_WIDTH if at is None else f"{at / 1e9:8.4f}  "
