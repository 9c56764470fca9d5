"""Render rows as a recording of a terminal: asciicast version 2, which asciinema plays. Pure.

The first line is an object with the size of the terminal, each further line is [seconds, "o", text]
(docs.asciinema.org, "asciicast v2").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

from bothends.trace.rendering.layout import Row
from bothends.trace.rendering.pace import END_PAUSE, start_times
from bothends.trace.rendering.terminal import Painter

HEIGHT: Final = 32  # lines


def render_cast(rows: Iterable[Row], title: str, width: int, comments: Sequence[Row] = ()) -> str:
    """Return the recording, for a terminal of `width` columns. `comments` come last."""
    drawn = [*rows, *comments]
    painter = Painter(width, colour=True)
    header = {"version": 2, "width": width, "height": HEIGHT, "title": title}
    lines = [json.dumps(header)]
    times = start_times(drawn)
    for row, at in zip(drawn, times, strict=True):
        text = "".join(f"{line}\r\n" for line in painter.lines(row))
        lines.append(json.dumps([round(at, 3), "o", text]))
    lines.append(json.dumps([round((times[-1] if times else 0) + END_PAUSE, 3), "o", ""]))
    return "".join(f"{line}\n" for line in lines)
