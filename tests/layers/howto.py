"""What the pages in docs/how-to hold: commands that are run here as a reader would type them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.interop.running import TIMEOUT, Running

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """A line after `$`, and what should be shown."""

    line: str
    expected_output: tuple[str, ...]


def code_blocks(page: str, language: str) -> list[str]:
    """The code blocks of a language."""
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> Iterator[Command]:
    """Every command of a page, in order."""
    for block in code_blocks(page, "console"):
        line, shown = "", list[str]()
        for each in block.splitlines():
            if each.startswith("$ "):
                if line:
                    yield Command(line, tuple(shown))
                line, shown = each[2:], []
            else:
                shown.append(each)
        yield Command(line, tuple(shown))


class PageRunner:
    """Types commands in a folder. Servers run on; every port becomes one that is free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, str] = {}
        self.servers: dict[str, Running] = {}
        self.environment = {**os.environ, "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"
        self._stack = ExitStack()

    def __enter__(self) -> PageRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def serve(self, line: str) -> Running:
        """Run a server in the background; one before it on that port has ended."""
        (port,) = re.findall(r":(12\d\d\d)\b", line)
        if port in self.servers:
            self.servers[port].__exit__(None, None, None)
        command = ["bash", "-c", f"cd {self.folder} && exec {line.replace(port, '0')}"]
        command[2] = f"PATH={self.environment['PATH']}; {command[2]}"
        server = self._stack.enter_context(Running(command))
        self.servers[port] = server
        self.ports[port] = server.error_line(rb"  \S+?:(\d+)(?:\?\S+)?").group(1).decode()
        return server

    def run(self, line: str) -> list[str]:
        """Run a command to its end; the lines that it shows, results first."""
        done = subprocess.run(
            ["bash", "-c", self.substitute_ports(line)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        shown = done.stdout + (b"" if line.startswith("openssl") else done.stderr)
        return shown.decode().splitlines()

    def substitute_ports(self, text: str) -> str:
        """The same text with the real ports."""
        for written, real in self.ports.items():
            text = text.replace(written, real)
        return text
