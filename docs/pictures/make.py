"""Draws docs/pictures/both-ends.svg from a real run: a server and its clients, as a terminal shows them.

    .venv/bin/python docs/pictures/make.py

Needs nothing but the package. The ports and addresses are those of the run.
"""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

HERE = Path(__file__).parent
BOTHENDS = [sys.executable, "-m", "bothends"]
PORT = 12000

# rich's own frame loads a font from a server; a picture in a repository should load nothing.
FRAME = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
<rect fill="#101418" x="1" y="1" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def seen(reader: int, until: bytes = b"") -> bytes:
    """What a terminal shows until these bytes, or until the program ends."""
    data = b""
    while not until or until not in data:
        try:
            more = os.read(reader, 65536)
        except OSError:
            break
        if not more:
            break
        data += more
    return data


def run(command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a program on a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    return process, ours


def main() -> None:
    server, screen = run([*BOTHENDS, "serve", "upper", f"tcp://127.0.0.1:{PORT}", f"udp://127.0.0.1:{PORT}"])
    shown = seen(screen, b"connect udp://")
    said = b""
    for line in (
        f"bothends connect --send 'any port in a storm' tcp://127.0.0.1:{PORT}",
        f"bothends connect --send 'größe, naïveté' udp://127.0.0.1:{PORT}",
        f"printf 'one\\ntwo\\n' | bothends connect 127.0.0.1 {PORT}",
    ):
        ours = line.replace("bothends", " ".join(BOTHENDS), 1)
        client, window = run(["/bin/sh", "-c", ours])
        said += b"\x1b[1m$\x1b[0m " + line.encode() + b"\n" + seen(window)
        client.wait()
    server.terminate()
    shown = b"\x1b[1m$\x1b[0m bothends serve upper tcp://127.0.0.1:12000 udp://127.0.0.1:12000\r\n" + shown
    shown += seen(screen)
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    for title, data in (("one end", shown), ("the other end", said)):
        text = Text.from_ansi(data.decode().replace("\r\n", "\n").rstrip())
        console.print(Columns([Panel(text, title=title, title_align="left", border_style="cyan", width=112)]))
    (HERE / "both-ends.svg").write_text(console.export_svg(title="", code_format=FRAME, unique_id="be"))


if __name__ == "__main__":
    main()
