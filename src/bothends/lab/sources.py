"""Write the programs of a page into files, and build them in the sandbox."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bothends.check.sandbox.launcher import Sandbox, SandboxLimits
from bothends.errors import BothendsError
from bothends.escaping import escape_controls
from bothends.lab.messages import Built, Diagnostic, Program, Reply
from bothends.lab.sandboxed import SandboxedProgram
from bothends.lab.source_lines.records import HOOK, LineRecords
from bothends.source_programs import find_file_recipe
from bothends.trace.capture.tracees import split_words

_BUILD_LIMITS: Final = SandboxLimits(memory=1 << 30, processes=256, disk=64 << 20, files=4096, cpu=60)
_BUILD_TIMEOUT: Final = 60.0  # seconds
_MAX_BUILD_OUTPUT: Final = 64 << 10  # bytes
_MAX_PROBLEMS: Final = 100
# gcc, clang and rustc's short form: FILE:LINE:COLUMN: SEVERITY: TEXT. javac: FILE:LINE: SEVERITY: TEXT.
_PROBLEM: Final = re.compile(r"[^\s:]*?([\w-]+\.\w+):(\d+):(?:\d+:)? ((?:fatal )?error|warning|note):? (.*)")


class Sources:
    """The programs of one run, in a folder. `send` is called with `Built` for what a compiler prints."""

    def __init__(self, sandbox: Sandbox, folder: Path, send: Callable[[Reply], None]) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._send = send

    def prepare(
        self, number: int, program: Program, role: str, *, with_lines: bool = True
    ) -> SandboxedProgram | None:
        """Write a program's file, and build it. Returns: None if it cannot run; the page has the reason.

        `with_lines`: a Python program records which line makes a call, which makes it slower.
        """
        own, scratch = self._folder / str(number), self._folder / f"{number}-scratch"
        own.mkdir()
        scratch.mkdir()
        file = own / program.file
        file.write_text(program.text, encoding="utf-8")
        output = own / "built"
        output.mkdir()
        try:
            recipe = find_file_recipe(file, output)
            arguments = split_words(program.arguments)
        except BothendsError as error:
            self._send(Built(number, False, escape_controls(str(error)), []))
            return None
        for command in recipe.build:
            if not self._build(number, program, command, own):
                return None
        lines = None
        environment: dict[str, str] = {}
        if recipe.language == "Python" and with_lines:
            hook = own / ".lab"
            hook.mkdir()
            (hook / HOOK.name).write_bytes(HOOK.read_bytes())
            lines = LineRecords()
            environment = lines.variables(program.file, str(hook))
        # The short name, as a student types it: it is in tracebacks.
        argv = [program.file if word == str(file) else word for word in recipe.run]
        return SandboxedProgram(number, role, [*argv, *arguments], own, scratch, lines, environment)

    def _build(self, number: int, program: Program, command: tuple[str, ...], folder: Path) -> bool:
        sandbox = replace(self._sandbox, limits=_BUILD_LIMITS, folder=folder)
        start = sandbox.prepare(command, folder, cwd=folder, build=True)
        text, status = b"", 0
        try:
            with subprocess.Popen(
                start.command,
                cwd=folder,
                env=start.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=start.inherited,
                start_new_session=True,
            ) as process:
                text, status = _read_bounded(process)
        finally:
            os.close(start.plan)
            if start.group is not None:
                start.group.remove()
        shown = escape_controls(text.decode("utf-8", "replace"))
        shown = shown.replace(f"{folder}/", "")
        if shown or status:
            problems = list(_problems(shown, program.file))
            self._send(Built(number, status == 0, shown or f"status {status}", problems))
        return status == 0


def roles_of(programs: Sequence[Program]) -> list[str]:
    """Return the names of the lanes: server, server 2, client and so on."""
    seen: dict[str, int] = {}
    roles = []
    for each in programs:
        seen[each.kind] = number = seen.get(each.kind, 0) + 1
        roles.append(each.kind if number == 1 else f"{each.kind} {number}")
    return roles


def _read_bounded(process: subprocess.Popen[bytes]) -> tuple[bytes, int]:
    """Return the output of a compiler, and its status. Kills one that takes too long or writes too much."""
    import select

    assert process.stdout is not None
    deadline, text = time.monotonic() + _BUILD_TIMEOUT, b""
    try:
        while (left := deadline - time.monotonic()) > 0 and len(text) < _MAX_BUILD_OUTPUT:
            if select.select([process.stdout], [], [], left)[0]:
                data = os.read(process.stdout.fileno(), 65_536)
                if not data:
                    return text, process.wait()
                text += data
        return text[:_MAX_BUILD_OUTPUT] + b"\nended: it took too long, or wrote too much\n", 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _problems(text: str, file: str) -> Iterator[Diagnostic]:
    found = 0
    for line in text.splitlines():
        match = _PROBLEM.match(line)
        if match is not None and match[1] == file and found < _MAX_PROBLEMS and len(match[2]) < 8:
            found += 1
            yield Diagnostic(int(match[2]), match[3].removeprefix("fatal "), match[4][:500])
