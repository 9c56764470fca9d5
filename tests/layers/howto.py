"""Extract the commands of the pages in docs/how-to and run them as a reader would type them."""

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
    """A line after `$`, and its expected output."""

    line: str
    expected_output: tuple[str, ...]


def code_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> Iterator[Command]:
    """Yield every command of a page, in order."""
    for block in code_blocks(page, "console"):
        line, output = "", list[str]()
        for each in block.splitlines():
            if each.startswith("$ "):
                if line:
                    yield Command(line, tuple(output))
                line, output = each[2:], []
            else:
                output.append(each)
        yield Command(line, tuple(output))


class PageRunner:
    """Run commands in a folder. Servers stay in the background; every port is replaced by a free one."""

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
        """Run a server in the background, after stopping an earlier one on the same port."""
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
        """Run a command until it exits. Returns its lines of output, standard output first."""
        completed = subprocess.run(
            ["bash", "-c", self.substitute_ports(line)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        output = completed.stdout + (b"" if line.startswith("openssl") else completed.stderr)
        return output.decode().splitlines()

    def substitute_ports(self, text: str) -> str:
        """Replace the ports of the page by the actual ports."""
        for port, actual in self.ports.items():
            text = text.replace(port, actual)
        return text
