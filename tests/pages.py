"""Run the commands of a documentation page, and compare their output with the page.

1. A ```python block whose first line is a comment with a file name is written to that file.
2. In a ```console block, a line after `$ ` is a command. The following lines are its output, standard output
   and error together. A line `...` matches any lines, `...` within a line matches any text.
3. `bothends serve` and `bothends impair` run in the background until the end of the page, as in a terminal of
   their own. Their output is waited for, and their exit status must be 0.
4. The ports of a page are replaced by free ones, and restored in the output. A port that the kernel chose is
   different in each run; it is shown as `#40672`, or as `:42517` from 40000 on, and matches any number.
5. `bothends connect` with `> ` in its output runs at a terminal of its own. Text after `> ` is typed at its
   prompt, `^D` and `^C` are keys. It runs until the end of the page, unless it exits by itself.
6. A block that does not start with `$ ` continues in the terminal that was opened last, or with a name, as in
   ```console second, in the terminal of that name. `^C` ends a server there.
7. `examples/` exists, as in a checkout.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bothends.sockets.free_port import free_port
from tests.cli.terminals import Terminal, terminal
from tests.interop.running import ROOT, Running

TIMEOUT = 30.0
_BLOCK = re.compile(r"^```(python|console|toml)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = "\x1b[?2004h"  # bracketed paste is on: the prompt accepts a line
_KEYS = {"^C": "\x03", "^D": "\x04"}
_LONG_RUNNING = re.compile(r"bothends (?:serve|impair(?! list| inspect| add| toxic| toggle| remove))\b")
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
    """One command and its output. An empty command continues in an open terminal."""

    command: str
    output: list[str] = field(default_factory=list)


def steps_of(block: str) -> list[Step]:
    """Return the steps of a console block."""
    steps: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:]))
            continue
        if not steps:
            steps.append(Step(""))
        steps[-1].output.append(line)
    return steps


def pattern_of(output: list[str]) -> re.Pattern[str]:
    """Return a pattern for the complete output of a step."""
    parts = []
    for line in output:
        if line == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        escaped = re.escape(line).replace(re.escape("..."), ".*")
        parts.append(re.sub(r"\\?(#\d|:4\d{4}\b)\d*", lambda port: rf"{port[1][0]}\d+", escaped) + r"\n")
    return re.compile("".join(parts))


class Prompt:
    """`bothends connect` at a terminal."""

    def __init__(self, screen: Terminal, substitute_ports: Callable[[str], str]) -> None:
        self._screen = screen
        self._substitute_ports = substitute_ports

    def replay(self, lines: list[str]) -> None:
        """Type the text after `> `, and wait for the other lines."""
        for line in lines:
            if line.startswith("> "):
                self._type(line[2:])
            elif line != "...":
                shown = pattern_of([self._substitute_ports(line)]).pattern.replace(r"\n", r"\r?\n")
                self._screen.expect_match(re.compile(shown.encode()))

    def _type(self, text: str) -> None:
        self._screen.expect(_PROMPT)
        self._screen.type(_KEYS.get(text, f"{text}\r"))
        if text not in _KEYS:
            self._screen.expect(f"> {text}\r\n")


class Page:
    """A page whose commands run in a folder of their own."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.folder = folder
        self.ports = {port: str(_free_port()) for port in set(_PORT.findall(self.text))}
        self.windows: dict[str, tuple[Step, Running] | Prompt] = {}
        self._exit_stack = contextlib.ExitStack()
        (folder / "examples").symlink_to(ROOT / "examples")

    def run(self) -> None:
        """Run all blocks, from top to bottom."""
        with self._exit_stack:
            for kind, window, block in _BLOCK.findall(self.text):
                if kind == "console":
                    for step in steps_of(block):
                        self._run_step(step, window)
                elif file := re.match(r"# (\S+\.(?:py|toml))\n", block):
                    (self.folder / file[1]).write_text(self._substitute_ports(block), encoding="utf-8")
            for name in list(self.windows):
                if not isinstance(self.windows[name], Prompt):
                    self._stop(name, signal.SIGTERM)

    def _run_step(self, step: Step, window: str) -> None:
        command = self._substitute_ports(step.command)
        if not step.command:
            self._continue(window or list(self.windows)[-1], step.output)
        elif _LONG_RUNNING.match(step.command) and not _expects_error(step):
            server = Running(["/bin/sh", "-c", f"exec {command}"], cwd=self.folder, env=_ENVIRONMENT)
            self._exit_stack.enter_context(server)
            server.error_line(rb"  engine .*|impair  .*")
            name = window or step.command
            self.windows[name] = Step(step.command), server
            self._continue(name, step.output)
        elif step.command.startswith("bothends connect") and _has_prompt(step):
            arguments = shlex.split(command)[1:]
            screen = terminal(*arguments, state=self.folder / ".state", cwd=self.folder)
            prompt = Prompt(self._exit_stack.enter_context(screen), self._substitute_ports)
            self.windows[window or step.command] = prompt
            prompt.replay(step.output)
        else:
            self._run_to_completion(command, step)

    def _run_to_completion(self, command: str, step: Step) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
        self._check(step, done.stdout.decode())

    def _continue(self, name: str, shown: list[str]) -> None:
        match self.windows[name]:
            case Prompt() as prompt:
                prompt.replay(shown)
            case step, _:
                step.output += [line for line in shown if line != "^C"]
                if "^C" in shown:
                    self._stop(name, signal.SIGINT)

    def _stop(self, name: str, number: signal.Signals) -> None:
        """Stop a server, and compare its output with the page."""
        window = self.windows.pop(name)
        assert not isinstance(window, Prompt)
        step, server = window
        server.process.send_signal(number)
        assert server.wait() == 0, f"{step.command}: {server.stderr}"
        server.stdout.close()  # waits until all output has been read
        server.stderr.close()
        self._check(step, f"{server.stdout}{server.stderr}", merged=True)

    def _check(self, step: Step, shown: str, *, merged: bool = False) -> None:
        shown = shown.replace("\r\n", "\n")  # the same on a terminal
        for port, actual in self.ports.items():
            shown = re.sub(rf"\b{actual}\b", port, shown)
        if merged:  # two streams of a server: each line must be there, in any order
            for line in step.output:
                assert line == "..." or pattern_of([line]).search(shown), (
                    f"$ {step.command}\nnever prints {line!r}, but:\n{shown}"
                )
            return
        if shown and not shown.endswith("\n"):
            shown += "\n"
        expected = "\n".join(step.output)
        assert pattern_of(step.output).fullmatch(shown), (
            f"$ {step.command}\nprints:\n{shown}\nthe page has:\n{expected}"
        )

    def _substitute_ports(self, text: str) -> str:
        for port, actual in self.ports.items():
            text = re.sub(rf"\b{port}\b", actual, text)
        return text


def _expects_error(step: Step) -> bool:
    return any(line.startswith("bothends: ") for line in step.output) or "--check" in step.command


def _has_prompt(step: Step) -> bool:
    return any(line.startswith("> ") for line in step.output)


def _free_port() -> int:
    """Return a free port whose byte-swapped number is unused too, because a page connects to it."""
    while True:
        port = free_port()
        swapped = socket.ntohs(port)
        with socket.socket() as sock:
            if swapped != port and sock.connect_ex(("127.0.0.1", swapped)):
                return port
