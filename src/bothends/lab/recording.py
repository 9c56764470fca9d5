"""Files of the lab: programs, the path and perhaps a run of them; and what is made of a run. Pure.

    run.lab  {"bothends-lab": 1, "programs": [...], "path": {...}, "seconds": 30, "run": {...}}

`render_page` makes a page that shows the run without a server and without a network, `render_picture` a
picture. A file is not trusted: `parse` checks it as requests are checked, and all that it holds is shown as
text.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from bothends.escaping import escape_line
from bothends.foreign_text import markup
from bothends.lab.messages import (
    DEFAULT_TIME_LIMIT,
    MAX_PROGRAMS,
    MAX_TIME_LIMIT,
    Path,
    Program,
    decode_with,
)
from bothends.trace.rendering.layout import Arrow, ArrowPart, Bar, Cell, Style
from bothends.trace.rendering.layout import Row as LaidOutRow
from bothends.trace.rendering.svg import render_svg

MAX_FILE: Final = 16 << 20  # bytes
_MAX_ROWS: Final = 4_000
_MAX_TIME: Final = 2**53  # nanoseconds, 104 days: what JavaScript counts exactly
_STATIC: Final = FilePath(__file__).with_name("static")
# The modules of the page, each after those that it imports.
_MODULES: Final = (
    "dom.js", "path.js", "timeline.js", "explanation.js", "moment.js", "player.js", "viewer.js",
    "splitter.js", "source_view.js", "replay.js",
)  # fmt: skip
_IMPORT: Final = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=(?:async )?(?:const|class|function) )", re.MULTILINE)
_Time = Annotated[int, Meta(ge=0, le=_MAX_TIME)]
_Lane = Annotated[int, Meta(ge=0, lt=100)]


class RecordedRow(Struct):
    """A row of a timeline, as `Rows` has it."""

    at: _Time | None
    bars: Annotated[list[Bar], Meta(max_length=100)]
    cells: Annotated[list[tuple[_Lane, str, Style]], Meta(max_length=100)]
    event: int | None
    header: bool = False
    arrow: tuple[_Lane, _Lane, str, Style, ArrowPart, str] | None = None
    states: list[Any] = field(default_factory=list)


class RecordedRun(Struct):
    """A run that has ended: what its replies have said. `output`: program, microseconds, text and kind."""

    roles: Annotated[list[str], Meta(max_length=MAX_PROGRAMS)]
    rows: Annotated[list[RecordedRow], Meta(max_length=_MAX_ROWS)]
    events: dict[int, dict[str, Any]]
    sockets: dict[int, dict[str, Any]]
    began: int
    output: list[tuple[int, int, str, Literal["", "how", "how bad", "compiler"]]]
    ended: dict[str, Any]


class LabFile(Struct):
    """What a file of the lab holds. Fields that are not known are left out."""

    version: Literal[1] = field(name="bothends-lab")
    programs: Annotated[list[Program], Meta(min_length=1, max_length=MAX_PROGRAMS)]
    path: Path | None = None
    seconds: Annotated[float, Meta(ge=0, le=MAX_TIME_LIMIT)] = DEFAULT_TIME_LIMIT
    run: RecordedRun | None = None


_decoder: Final = msgspec.json.Decoder(LabFile)


def parse(data: bytes) -> LabFile:
    """Return what a file of the lab holds. Raises msgspec.DecodeError: it is none, or is damaged."""
    if len(data) > MAX_FILE:
        raise msgspec.DecodeError(f"more than {MAX_FILE >> 20} MiB")
    found: LabFile = decode_with(_decoder, data)
    return found


def of_programs(texts: Mapping[str, bytes]) -> LabFile:
    """Return a file with programs, by their names. Raises msgspec.DecodeError: one of them is none.

    A program whose name says neither server nor client is the server, if it is the first one.
    """
    programs = []
    for number, (name, text) in enumerate(texts.items()):
        is_server = "server" in name.lower() or (number == 0 and "client" not in name.lower())
        source = text.decode("utf-8", "replace")
        programs.append({"kind": "server" if is_server else "client", "file": name, "text": source})
    return msgspec.convert({"bothends-lab": 1, "programs": programs}, LabFile)


def to_json(file: LabFile) -> Any:
    """Return a file as what JSON can hold."""
    return msgspec.to_builtins(file, str_keys=True)


def render_picture(run: RecordedRun, title: str = "") -> str:
    """Return the timeline of a run as SVG."""
    return render_svg([_laid_out(row) for row in run.rows], title)


def _laid_out(row: RecordedRow) -> LaidOutRow:
    arrow = Arrow(*row.arrow) if row.arrow is not None else None
    cells = tuple(Cell(lane, escape_line(text), style) for lane, text, style in row.cells)
    return LaidOutRow(row.at, tuple(row.bars), cells, arrow, row.event, row.header)


def render_page(file: LabFile) -> str:
    """Return a page that shows a run again: HTML that needs no server, no network and no other file.

    Its Content-Security-Policy allows its own script and style only, identified by their hashes.
    """
    script, style = _script(), (_STATIC / "lab.css").read_text(encoding="utf-8")
    data = base64.b64encode(zlib.compress(msgspec.json.encode(file), 9)).decode()
    title = " and ".join(each.file for each in file.programs[:2])
    return _PAGE.format(
        script_hash=_hash(script), style_hash=_hash(style), title=markup(title), style=style, script=script,
        icon=(_STATIC / "page.html").read_text(encoding="utf-8").partition("<h1>")[2].partition("<span")[0],
        data=data,
    )  # fmt: skip


def _script() -> str:
    """Return the modules of the page as one classic script: pages of files cannot load modules."""
    texts = [(_STATIC / each).read_text(encoding="utf-8") for each in _MODULES]
    return (
        '"use strict";\n(() => {\n'
        + "".join(_EXPORT.sub("", _IMPORT.sub("", each)) for each in texts)
        + "})();\n"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{style_hash}';
script-src '{script_hash}'; base-uri 'none'; form-action 'none'">
<title>{title}: a recorded run</title>
<style>{style}</style>
</head>
<body class="replay">
<header class="bar">
<h1>{icon}<span class="name">bothends</span> lab</h1>
<span class="muted">a recorded run</span>
<span class="space"></span>
<span id="path" class="muted"></span>
<span id="state" class="state"></span>
</header>
<main id="panels">
<div class="view" id="view-run">
<section id="programs" aria-label="Programs"></section>
<section id="picture" aria-label="What happened"></section>
</div>
</main>
<noscript>This page needs its script, which draws the run.</noscript>
<script type="application/octet-stream" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
