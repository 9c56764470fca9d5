"""Runs the pages of the documentation: what stands there is typed, and what is shown must come.

1. A block of ```python whose first line is a comment with a file's name is written to that file.
2. In a block of ```console, a line after `$ ` is typed; what follows is what it shows, standard output and
   error together. A line `...` stands for any lines, `...` within a line for anything.
3. `bothends serve` goes on in the background to the end of the page, as in a window of its own. What it
   shows is waited for, and at the end it must leave with 0.
4. A page's ports are replaced by free ones, and put back in what is shown. The port that a client got,
   which is another one each time, is shown as `#40672` or so: any number will do.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.interop.running import Running

PATIENCE = 30.0
_BLOCK = re.compile(r"^```(python|console|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"\b(?:1[2-9]\d\d\d|9100)\b")
_ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "LC_ALL": "C.UTF-8",
    "NO_COLOR": "1",
    "COLUMNS": "1000",
    "PYTHONUTF8": "1",
}


@dataclass
class Step:
    """One line that is typed, and what is shown for it."""

    command: str
    shown: list[str] = field(default_factory=list)


def steps_of(block: str) -> list[Step]:
    """The steps of a console block."""
    steps: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:]))
        else:
            steps[-1].shown.append(line)
    return steps


def pattern_of(shown: list[str]) -> re.Pattern[str]:
    """What a step shows, as a pattern for the whole of it."""
    parts = []
    for line in shown:
        if line == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        escaped = re.escape(line).replace(re.escape("..."), ".*")
        parts.append(re.sub(r"\\#\d+|#\d+", r"#\\d+", escaped) + r"\n")
    return re.compile("".join(parts))


class Page:
    """A page that is being run in a folder of its own."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.folder = folder
        self.ports = {port: str(_free_port()) for port in set(_PORT.findall(self.text))}
        self.servers: list[tuple[Step, Running]] = []

    def run(self) -> None:
        """Everything, from top to bottom."""
        try:
            for kind, block in _BLOCK.findall(self.text):
                if kind == "console":
                    for step in steps_of(block):
                        self._take(step)
                elif name := re.match(r"# (\S+\.(?:py|toml))\n", block):
                    (self.folder / name[1]).write_text(self._with_our_ports(block), encoding="utf-8")
            for step, server in self.servers:
                server.process.terminate()
                assert server.end() == 0, f"{step.command}: {server.complained}"
                self._check(step, f"{server.shown}{server.complained}", merged=True)
        finally:
            for _, server in self.servers:
                server.__exit__(None, None, None)

    def _take(self, step: Step) -> None:
        command = self._with_our_ports(step.command)
        if step.command.startswith("bothends serve") and not _is_refused(step):
            server = Running(["/bin/sh", "-c", f"exec {command}"], cwd=self.folder, env=_ENVIRONMENT)
            self.servers.append((step, server))
            server.error_line(rb"  engine .*")
            return
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        self._check(step, done.stdout.decode())

    def _check(self, step: Step, shown: str, *, merged: bool = False) -> None:
        for port, ours in self.ports.items():
            shown = re.sub(rf"\b{ours}\b", port, shown)
        if merged:  # two streams of a server: what each line says must be there, in whatever order
            for line in step.shown:
                assert line == "..." or pattern_of([line]).search(shown), (
                    f"$ {step.command}\nnever shows {line!r}, but:\n{shown}"
                )
            return
        if shown and not shown.endswith("\n"):
            shown += "\n"
        expected = "\n".join(step.shown)
        assert pattern_of(step.shown).fullmatch(shown), (
            f"$ {step.command}\nshows:\n{shown}\nthe page says:\n{expected}"
        )

    def _with_our_ports(self, text: str) -> str:
        for port, ours in self.ports.items():
            text = re.sub(rf"\b{port}\b", ours, text)
        return text


def _is_refused(step: Step) -> bool:
    return any(line.startswith("bothends: ") for line in step.shown) or "--check" in step.command


def _free_port() -> int:
    """A port that is free for TCP and UDP now. Another program may take it before we do, which the
    system makes unlikely by handing out ports at random."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("", 0))
        port: int = tcp.getsockname()[1]
        udp.bind(("", port))
        return port
