"""A trace row by row, as screens of a terminal: for a lecture, or to think about each call. Pure.

A screen has the rows up to the current one, which is marked, what the current one means, and a line that says
where it is. Each finding is a step after the last row.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bothends.trace.findings.base import Finding
from bothends.trace.model import Trace
from bothends.trace.rendering import formatting
from bothends.trace.rendering.comments import finding_rows
from bothends.trace.rendering.details import details_of
from bothends.trace.rendering.layout import Row
from bothends.trace.rendering.terminal import Painter

MIN_WIDTH: Final = 40  # columns
MIN_HEIGHT: Final = 8  # lines
_HELP: Final = "→ ← step  PgDn PgUp 10  f finding  Home End  q quit"
_CURRENT, _OTHER = "▶ ", "  "


@dataclass(frozen=True, slots=True)
class _Step:
    """Rows that appear together, and the event that they show."""

    rows: tuple[Row, ...]
    event: int | None = None
    is_finding: bool = False


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The lines of a step, of which the first ones are headers, and the names of the lanes from then on."""

    lines: tuple[str, ...]
    headers: int
    names: tuple[str, ...]


class Steps:
    """The screens of a trace. `rows` are those of its picture, `found` its findings.

    A row is drawn once, as long as the width stays the same.
    """

    def __init__(self, trace: Trace, rows: Sequence[Row], found: Sequence[Finding], *, colour: bool) -> None:
        self._trace = trace
        self._colour = colour
        self._steps: list[_Step] = []
        self._width = 0  # columns in which the steps below are drawn
        self._painter = Painter(0, colour=colour)
        self._drawn: list[_Drawn] = []
        self._findings: dict[int, list[str]] = {}  # the titles of findings, by events that show them
        headers: list[Row] = []
        for row in rows:
            if row.is_header:
                headers.append(row)
            else:
                self._steps.append(_Step((*headers, row), row.event))
                headers = []
        self._steps += [_Step(tuple(finding_rows(each)), is_finding=True) for each in found]
        for finding in found:
            for event in finding.evidence:
                self._findings.setdefault(event, []).append(finding.title)

    def __len__(self) -> int:
        return len(self._steps)

    def next_finding(self, position: int) -> int:
        """Return the next step that is a finding or part of one; the same position if there is none."""
        for index in range(position + 1, len(self._steps)):
            step = self._steps[index]
            if step.is_finding or step.event in self._findings:
                return index
        return position

    def screen(self, position: int, width: int, height: int) -> list[str]:
        """Return the `height` lines of the screen at a position, from 0 to the number of steps minus 1."""
        width, height = max(width, MIN_WIDTH), max(height, MIN_HEIGHT)
        below = self._comment(position, width, max(3, height // 3))
        room = height - len(below) - 1
        lines = self._picture(position, width, room)
        lines += [""] * (room - len(lines))
        return [*lines, *below, self._status(position, width)]

    def _picture(self, position: int, width: int, room: int) -> list[str]:
        """Return the last lines up to the current step, below the names of the lanes."""
        self._draw(position, width)
        current = self._drawn[position]
        blocks = [self._current_block(position)]
        count = len(blocks[0])
        for index in range(position - 1, -1, -1):
            if count > room:
                break
            if not self._steps[index].is_finding:
                blocks.append([_OTHER + line for line in self._drawn[index].lines])
                count += len(blocks[-1])
        lines = [line for block in reversed(blocks) for line in block]
        if count <= room:
            return lines
        top = [_OTHER + line for line in current.names][: max(room // 3, 1)]
        rest = room - len(top)
        marked = count - len(blocks[0]) + self._steps[position].is_finding + current.headers
        start = min(count - rest, marked)
        return [*top, *lines[start : start + rest]]

    def _current_block(self, position: int) -> list[str]:
        """Return the lines of the current step; the first one that is no header is marked."""
        drawn = self._drawn[position]
        lines = [
            self._marked(line) if at == drawn.headers else _OTHER + line
            for at, line in enumerate(drawn.lines)
        ]
        return ["", *lines] if self._steps[position].is_finding else lines

    def _draw(self, position: int, width: int) -> None:
        """Draw the steps up to a position that are not drawn yet in this width."""
        if width != self._width:
            self._width, self._drawn = width, []
            self._painter = Painter(width - len(_CURRENT), colour=self._colour)
        names = self._drawn[-1].names if self._drawn else ()
        for step in self._steps[len(self._drawn) : position + 1]:
            lines: list[str] = []
            headers = 0
            for row in step.rows:
                drawn = tuple(self._painter.lines(row))
                lines += drawn
                if row.is_header:
                    names, headers = drawn, len(lines)
            self._drawn.append(_Drawn(tuple(lines), headers, names))

    def _marked(self, line: str) -> str:
        return f"\x1b[1m{_CURRENT}\x1b[0m{line}" if self._colour else _CURRENT + line

    def _comment(self, position: int, width: int, limit: int) -> list[str]:
        """Return what the current step means: `limit` lines at most, and a rule above."""
        step = self._steps[position]
        lines: list[str] = []
        if step.event is not None:
            details = details_of(self._trace, step.event)
            texts = [str(details[name]) for name in ("explanation", "summary") if details.get(name)]
            texts = list(dict.fromkeys(texts))  # a call without a circumstance has its summary as explanation
            texts += [f"C: {details['c']}"] if details.get("c") else []
            lines += [part for text in texts for part in textwrap.wrap(text, width - 2)]
            named = [f"finding: {title}" for title in self._findings.get(step.event, ())]
            lines = [part for text in named for part in textwrap.wrap(text, width - 2)] + lines
        shown = [f"  {line}" for line in lines[:limit]]
        return ["─" * width, *shown, *[""] * (limit - len(shown))]

    def _status(self, position: int, width: int) -> str:
        at = next((row.at for row in self._steps[position].rows if row.at is not None), None)
        time = f"  {at / 1e9:.4f} s" if at is not None else ""
        text = formatting.truncate(f" {position + 1}/{len(self)}{time}  {_HELP}", width)
        return f"\x1b[7m{text.ljust(width)}\x1b[0m" if self._colour else text
