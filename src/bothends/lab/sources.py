"""Write the programs of a page into files, and build them in the sandbox."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from bothends.check.sandbox.launcher import Sandbox, SandboxLimits
from bothends.errors import BothendsError
from bothends.escaping import escape_controls
from bothends.lab import own_servers
from bothends.lab.messages import Built, Diagnostic, Program, Reply
from bothends.lab.sandboxed import SandboxedProgram, kill_group
from bothends.lab.source_lines.addresses import (
    AUDITOR,
    JAVA_AGENT,
    build_command,
    java_headers,
    parse_table,
    table_command,
)
from bothends.lab.source_lines.records import HOOK, LineRecords
from bothends.source_programs import Recipe, find_file_recipe
from bothends.trace.capture.tracees import split_words

_BUILD_LIMITS: Final = SandboxLimits(memory=1 << 30, processes=256, disk=64 << 20, files=4096, cpu=60)
_BUILD_TIMEOUT: Final = 60.0  # seconds
_MAX_BUILD_OUTPUT: Final = 64 << 10  # bytes
_MAX_TABLE: Final = 4 << 20  # bytes of the lines of a compiled program
_MAX_PROBLEMS: Final = 100
# gcc, clang and rustc's short form: FILE:LINE:COLUMN: SEVERITY: TEXT. javac: FILE:LINE: SEVERITY: TEXT.
# The linker: FILE:LINE: undefined reference to ...
_PROBLEM: Final = re.compile(
    r"(?:\S*ld: )?[^\s:]*?([\w-]+\.\w+):(\d+):(?:\d+:)? (?:((?:fatal )?error|warning|note):? )?"
    r"((?(3).*|undefined reference to .*))"
)
_Reporting: TypeAlias = tuple[LineRecords | None, Mapping[str, str], tuple[str, ...]]
_NO_LINES: Final[_Reporting] = (None, {}, ())


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

        `with_lines`: a program records which line makes a call, which makes it slower.
        """
        own, scratch = self._folder / str(number), self._folder / f"{number}-scratch"
        own.mkdir()
        scratch.mkdir()
        file = own / program.file
        file.write_text(program.text, encoding="utf-8")
        output = own / "built"
        output.mkdir()
        if file.suffix == own_servers.SUFFIX:
            return self._prepare_server(number, program, role)
        try:
            recipe = find_file_recipe(file, output)
            arguments = split_words(program.arguments)
        except BothendsError as error:
            self._send(Built(number, False, escape_controls(str(error)), []))
            return None
        for command in recipe.build:
            if not self._build(number, program, command, own):
                return None
        lines, environment, options = self._report_lines(program, recipe, own) if with_lines else _NO_LINES
        # The short name, as a student types it: it is in tracebacks.
        words = [program.file if word == str(file) else word for word in recipe.run]
        argv = [words[0], *options, *words[1:], *arguments]
        return SandboxedProgram(number, role, argv, own, scratch, lines, dict(environment))

    def _prepare_server(self, number: int, program: Program, role: str) -> SandboxedProgram | None:
        """Prepare a server of bothends."""
        own = self._folder / str(number)
        try:
            argv = own_servers.command_of(program.text) + split_words(program.arguments)
            environment = own_servers.copy_packages(own / ".lab")
        except (BothendsError, OSError) as error:
            self._send(Built(number, False, escape_controls(str(error)), []))
            return None
        return SandboxedProgram(
            number, role, argv, own, self._folder / f"{number}-scratch", None, environment
        )

    def _report_lines(self, program: Program, recipe: Recipe, folder: Path) -> _Reporting:
        """Let a program report its lines. Returns: records, environment, and options of its interpreter."""
        hook = folder / ".lab"
        if recipe.language == "Python":
            hook.mkdir()
            (hook / HOOK.name).write_bytes(HOOK.read_bytes())
            lines = LineRecords()
            return lines, lines.variables(program.file, PYTHONPATH=str(hook)), ()
        if recipe.language in ("C", "C++"):
            library = self._build_library(AUDITOR, recipe.build[0][0], hook)
            table, _ = self._run_tool(table_command(recipe.run[0]), folder, _MAX_TABLE)
            if library is not None and table:
                lines = LineRecords(parse_table(table.decode("utf-8", "replace"), program.file))
                return lines, lines.variables(program.file, LD_AUDIT=str(library)), ()
        if recipe.language == "Java" and recipe.build and (headers := java_headers()):
            library = self._build_library(JAVA_AGENT, "cc", hook, headers)
            if library is not None:
                lines = LineRecords()
                return lines, lines.variables(program.file), (f"-agentpath:{library}",)
        return _NO_LINES

    def _build_library(
        self, source: Path, compiler: str, folder: Path, headers: Sequence[Path] = ()
    ) -> Path | None:
        """Compile code that reports lines. Returns: the library, or None."""
        folder.mkdir()
        library = folder / source.with_suffix(".so").name
        library.with_suffix(".c").write_bytes(source.read_bytes())
        _, status = self._run_tool(build_command(compiler, library, headers), folder)
        return library if status == 0 else None

    def _build(self, number: int, program: Program, command: tuple[str, ...], folder: Path) -> bool:
        text, status = self._run_tool(command, folder)
        shown = escape_controls(text.decode("utf-8", "replace"))
        shown = shown.replace(f"{folder}/", "")
        if shown or status:
            problems = list(_problems(shown, program.file))
            self._send(Built(number, status == 0, shown or f"status {status}", problems))
        return status == 0

    def _run_tool(
        self, command: tuple[str, ...], folder: Path, max_output: int = _MAX_BUILD_OUTPUT
    ) -> tuple[bytes, int]:
        """Run a compiler, or another tool, in the sandbox. Returns: its output and its status."""
        sandbox = replace(self._sandbox, limits=_BUILD_LIMITS, folder=folder)
        start = sandbox.prepare(command, folder, cwd=folder, build=True)
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
                return _read_bounded(process, max_output)
        finally:
            os.close(start.plan)
            if start.group is not None:
                start.group.remove()


def roles_of(programs: Sequence[Program]) -> list[str]:
    """Return the names of the lanes: server, server 2, client and so on."""
    seen: dict[str, int] = {}
    roles = []
    for each in programs:
        seen[each.kind] = number = seen.get(each.kind, 0) + 1
        roles.append(each.kind if number == 1 else f"{each.kind} {number}")
    return roles


def _read_bounded(process: subprocess.Popen[bytes], max_output: int) -> tuple[bytes, int]:
    """Return the output of a compiler, and its status. Kills one that takes too long or writes too much."""
    import select

    assert process.stdout is not None
    deadline, text = time.monotonic() + _BUILD_TIMEOUT, b""
    try:
        while (left := deadline - time.monotonic()) > 0 and len(text) < max_output:
            if select.select([process.stdout], [], [], left)[0]:
                data = os.read(process.stdout.fileno(), 65_536)
                if not data:
                    return text, process.wait()
                text += data
        return text[:max_output] + b"\nended: it took too long, or wrote too much\n", 1
    finally:
        kill_group(process.pid)
        process.wait()


def _problems(text: str, file: str) -> Iterator[Diagnostic]:
    found = 0
    for line in text.splitlines():
        match = _PROBLEM.match(line)
        if match is not None and match[1] == file and found < _MAX_PROBLEMS and len(match[2]) < 8:
            found += 1
            severity = (match[3] or "error").removeprefix("fatal ")
            yield Diagnostic(int(match[2]), severity, match[4][:500])
