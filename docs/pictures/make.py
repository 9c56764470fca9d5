"""Draw docs/pictures/both-ends.svg from a real run: the terminals of a server and its clients.

    .venv/bin/python docs/pictures/make.py

It needs only the package. The ports and addresses are those of the run.
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

# rich's default template loads a font from a server, but a picture in a repository must not load anything.
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
"""  # noqa: E501


def read_terminal(terminal: int, until: bytes = b"") -> bytes:
    """Read a terminal's output up to these bytes, or until the program exits."""
    data = b""
    while not until or until not in data:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # EIO: the program has exited
            break
        if not chunk:
            break
        data += chunk
    return data


def start_on_terminal(command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a program on a new pseudoterminal. Returns the process and the terminal's descriptor."""
    terminal, program_side = pty.openpty()
    process = subprocess.Popen(
        command, stdin=program_side, stdout=program_side, stderr=program_side, start_new_session=True
    )
    os.close(program_side)
    return process, terminal


def main() -> None:
    """Run a server and three clients, and draw their output."""
    server, server_terminal = start_on_terminal(
        [*BOTHENDS, "serve", "upper", f"tcp://127.0.0.1:{PORT}", f"udp://127.0.0.1:{PORT}"]
    )
    server_output = read_terminal(server_terminal, b"connect udp://")
    client_output = b""
    for line in (
        f"bothends connect --send 'any port in a storm' tcp://127.0.0.1:{PORT}",
        f"bothends connect --send 'größe, naïveté' udp://127.0.0.1:{PORT}",
        f"printf 'one\\ntwo\\n' | bothends connect 127.0.0.1 {PORT}",
    ):
        command = line.replace("bothends", " ".join(BOTHENDS), 1)
        client, client_terminal = start_on_terminal(["/bin/sh", "-c", command])
        client_output += b"\x1b[1m$\x1b[0m " + line.encode() + b"\n" + read_terminal(client_terminal)
        client.wait()
    server.terminate()
    command = "bothends serve upper tcp://127.0.0.1:12000 udp://127.0.0.1:12000"
    server_output = f"\x1b[1m$\x1b[0m {command}\r\n".encode() + server_output + read_terminal(server_terminal)
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    for title, data in (("one end", server_output), ("the other end", client_output)):
        text = Text.from_ansi(data.decode().replace("\r\n", "\n").rstrip())
        console.print(Columns([Panel(text, title=title, title_align="left", border_style="cyan", width=112)]))
    (HERE / "both-ends.svg").write_text(console.export_svg(title="", code_format=FRAME, unique_id="be"))


if __name__ == "__main__":
    main()
