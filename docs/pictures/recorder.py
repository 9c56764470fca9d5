"""Record commands on a terminal, and draw them as one animated SVG picture.

The picture has no script and loads nothing, so it moves in an <img> too, and it is dark or light as the
reader's setting is. A command is shown as typed, then each line of its output when it came, with pauses of at
most MAX_PAUSE seconds.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
import xml.sax.saxutils
from pathlib import Path
from typing import Final, NamedTuple

TYPING: Final = 0.03  # seconds for each character of a command
MAX_PAUSE: Final = 0.6  # seconds between two lines
MIN_PAUSE: Final = 0.05
COMMAND_PAUSE: Final = 1.0  # seconds before a command is typed
END_PAUSE: Final = 6.0
CHAR_WIDTH: Final = 7.23
LINE_HEIGHT: Final = 18
MARGIN: Final = 14

# Colours by SGR parameter: light, dark.
COLOURS: Final = {
    "0": ("#1b1f24", "#e6e9ee"),
    "2": ("#68717d", "#98a2b0"),
    "31": ("#b3261e", "#ff8a80"),
    "32": ("#1a7f37", "#6fdd8b"),
    "33": ("#8f5a00", "#f2bf5e"),
    "34": ("#2f5bb7", "#9db9ff"),
    "35": ("#7d3c98", "#dba6f2"),
    "36": ("#0b6a88", "#6fd3ee"),
}
_SGR: Final = re.compile(r"\x1b\[([0-9;]*)m")
_OTHER: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")


class Line(NamedTuple):
    """A line of the recording, and the time since the line before it. `typed`: it is a command."""

    text: str
    pause: float
    typed: bool = False


def record(command: str, folder: Path, columns: int, *, shown: str = "") -> list[Line]:
    """Run a command on a terminal of `columns`. Returns the lines, first the command itself (or `shown`)."""
    terminal, program_side = pty.openpty()
    environment = {
        **os.environ,
        "COLUMNS": str(columns),
        "TERM": "xterm-256color",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    environment.pop("NO_COLOR", None)
    lines = [Line(shown or command, COMMAND_PAUSE, typed=True)]
    with subprocess.Popen(
        ["/bin/sh", "-c", f"stty cols {columns}; {command}"],
        cwd=folder,
        env=environment,
        stdin=program_side,
        stdout=program_side,
        stderr=program_side,
        start_new_session=True,
    ):
        os.close(program_side)
        last, partial = time.monotonic(), ""
        while True:
            select.select([terminal], [], [])
            try:
                data = os.read(terminal, 65536)
            except OSError:  # EIO: all programs have closed it
                break
            now = time.monotonic()
            *whole, partial = (partial + data.decode(errors="replace")).split("\n")
            for text in whole:
                lines.append(Line(text.rstrip("\r"), now - last))
                last = now
        os.close(terminal)
    return lines


def render(lines: list[Line], columns: int, title: str) -> str:
    """Return the picture."""
    width = int(columns * CHAR_WIDTH + 2 * MARGIN)
    height = len(lines) * LINE_HEIGHT + 2 * MARGIN
    now, starts = 0.3, []
    for line in lines:
        now += max(min(line.pause, COMMAND_PAUSE if line.typed else MAX_PAUSE), MIN_PAUSE)
        starts.append(now)
        now += TYPING * len(line.text) * line.typed
    total = now + END_PAUSE
    frames, parts = [], []
    for number, (line, at) in enumerate(zip(lines, starts, strict=True)):
        y = MARGIN + (number + 1) * LINE_HEIGHT - 5
        share = at / total * 100
        frames.append(f"@keyframes l{number} {{ 0% {{ opacity: 0; }} {share:.2f}% {{ opacity: 1; }} }}")
        text = f'<text x="{MARGIN}" y="{y}" xml:space="preserve">{_spans(line)}</text>'
        clip = ""
        if line.typed:
            characters = len(line.text) + 2
            end = (at + TYPING * len(line.text)) / total * 100
            frames.append(
                f"@keyframes t{number} {{ 0%, {share:.2f}% {{ width: {2 * CHAR_WIDTH:.1f}px; }} "
                f"{end:.2f}%, 100% {{ width: {characters * CHAR_WIDTH + 2:.1f}px; }} }}"
            )
            parts.append(
                f'<clipPath id="c{number}"><rect class="typed" style="animation-name:t{number};'
                f'animation-timing-function:steps({characters})" x="{MARGIN}" y="{y - 14}" '
                f'width="{characters * CHAR_WIDTH + 2:.1f}" height="{LINE_HEIGHT + 2}"/></clipPath>'
            )
            clip = f' clip-path="url(#c{number})"'
        parts.append(f'<g class="line" style="animation-name:l{number}"{clip}>{text}</g>')
    style = "\n".join(
        [
            'text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }',
            _colours(0),
            "@media (prefers-color-scheme: dark) {",
            _colours(1),
            "}",
            f".line {{ animation: {total:.2f}s step-end infinite; }}",
            f".typed {{ animation: {total:.2f}s infinite; }}",
            *frames,
            "@media (prefers-reduced-motion: reduce) { .line, .typed { animation: none; } }",
        ]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>{xml.sax.saxutils.escape(title)}</title>\n<style>\n{style}\n</style>\n"
        f'<rect class="back" width="{width}" height="{height}" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _colours(theme: int) -> str:
    rules = [f".back {{ fill: {('#ffffff', '#101418')[theme]}; }} text {{ fill: {COLOURS['0'][theme]}; }}"]
    rules += [f".c{code} {{ fill: {pair[theme]}; }}" for code, pair in COLOURS.items()]
    return " ".join([*rules, ".b { font-weight: bold; }"])


def _spans(line: Line) -> str:
    if line.typed:
        return f'<tspan class="c2">$ </tspan><tspan class="b">{xml.sax.saxutils.escape(line.text)}</tspan>'
    spans, colour, bold = [], "0", False
    last = line.text.rpartition("\r")[2]  # what is before it has been overwritten
    pieces = _SGR.split(_OTHER.sub("", last))
    for index, piece in enumerate(pieces):
        if index % 2:
            for code in piece.split(";") or ["0"]:
                bold = code == "1" or (bold and code not in ("", "0", "22"))
                colour = code if code in COLOURS else "0" if code in ("", "39") else colour
        elif piece:
            classes = " ".join([f"c{colour}"] * (colour != "0") + ["b"] * bold)
            text = xml.sax.saxutils.escape(piece)
            spans.append(f'<tspan class="{classes}">{text}</tspan>' if classes else text)
    return "".join(spans)
