"""The process of one run: it enters the sandbox, builds the programs, runs and traces them, and tells all.

    python -m bothends.lab.run [--save FILE]

Requests are on standard input, replies on standard output: a line each. FILE gets the trace, at the end and
whenever nothing moves.

1. It is a process of its own, because entering a network namespace is for good and needs a single thread, and
   because TraceSession needs the main thread. It is started ahead of its run, which so begins at once.
2. A second thread, with an event loop, has what must not wait for the tracing: requests, the programs'
   terminals, their limits.
3. It ends when its standard input does: the server has closed the page, or was killed. The kernel and the
   reaper then kill all programs.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from bothends.check.sandbox.launcher import Sandbox, SandboxLimits, enter
from bothends.errors import BothendsError, Unavailable
from bothends.escaping import escape_controls
from bothends.lab.attendant import Attendant
from bothends.lab.messages import (
    Built,
    Diagnostic,
    Ended,
    Exited,
    Failed,
    Prepared,
    Program,
    Reply,
    Start,
    Started,
    decode_request,
    encode,
)
from bothends.lab.picture import Picture, finding_to_json
from bothends.lab.sandboxed import SandboxedProgram, SandboxLauncher
from bothends.lab.source_lines.records import HOOK, LineRecords
from bothends.osutil.private_files import open_private
from bothends.osutil.scratch import scratch_folder
from bothends.source_programs import find_file_recipe
from bothends.trace.capture.packets import Capture, PacketSource
from bothends.trace.capture.tracees import TracedProgram, split_words
from bothends.trace.findings import run_rules
from bothends.trace.model import Trace
from bothends.trace.session import TraceSession
from bothends.trace.trace_file import TraceFileWriter

LIMITS: Final = SandboxLimits(memory=512 << 20, processes=128, disk=16 << 20, files=1024, cpu=30)
"""The limits of each program."""

_BUILD_LIMITS: Final = SandboxLimits(memory=1 << 30, processes=256, disk=64 << 20, files=4096, cpu=60)
_BUILD_TIMEOUT: Final = 60.0  # seconds
_MAX_BUILD_OUTPUT: Final = 64 << 10  # bytes
_MAX_PROBLEMS: Final = 100
_MAX_POINTS: Final = 60_000  # of the trace of a run
_MAX_DESCRIPTORS: Final = 512
# gcc, clang and rustc's short form: FILE:LINE:COLUMN: SEVERITY: TEXT. javac: FILE:LINE: SEVERITY: TEXT.
_PROBLEM: Final = re.compile(r"[^\s:]*?([\w-]+\.\w+):(\d+):(?:\d+:)? ((?:fatal )?error|warning|note):? (.*)")


class _Replies:
    """Writes replies to the server. Safe from every thread, because one write(2) has one line at most."""

    def __init__(self) -> None:
        import threading

        self._descriptor = os.dup(1)
        os.dup2(2, 1)  # nothing else may write there
        self._lock = threading.Lock()

    def send(self, reply: Reply) -> None:
        """Write a reply. If the server is gone, this process ends."""
        data = memoryview(encode(reply) + b"\n")
        with self._lock:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BrokenPipeError:
                    os._exit(1)


class Run:
    """One run of programs."""

    def __init__(
        self, sandbox: Sandbox, capture: PacketSource | None, replies: _Replies, saved: Path | None = None
    ) -> None:
        self._sandbox = sandbox
        self._saved = saved
        self._capture = capture
        self._replies = replies
        self._trace = Trace(_MAX_POINTS)
        self._programs: list[SandboxedProgram] = []
        self._reported: set[int] = set()

    def run(self, start: Start, attendant: Attendant, folder: Path) -> None:
        """Build and run the programs, and send everything about them."""
        roles = _roles(start.programs)
        built = [
            self._prepare(number, each, role, folder)
            for number, (each, role) in enumerate(zip(start.programs, roles, strict=True))
        ]
        if not all(built):
            self._replies.send(Ended("a program could not be built", [], [], [], 0.0))
            return
        launcher = SandboxLauncher(self._sandbox, self._programs, attendant.add)
        began = time.monotonic()
        picture = Picture(self._trace, roles, self._replies.send)
        traced: list[TracedProgram] = []

        def on_idle() -> None:
            picture.idle()
            self._report_exits(traced, attendant, is_over=session.stopped_by is not None)

        def on_stall(requested: bool) -> None:
            self._save()
            picture.on_stall(requested)

        session = TraceSession(
            picture.write,
            on_idle=on_idle,
            trace=self._trace,
            launcher=launcher,
            on_stall=on_stall,
            time_limit=start.time_limit,
        )
        session.capture = self._capture
        for kind in ("server", "client"):
            for each, program in zip(self._programs, start.programs, strict=True):
                if program.kind != kind:
                    continue
                add = session.add_server if kind == "server" else _client_adder(session)
                traced.append(add(each.role, each.argv))
        traced.sort(key=lambda each: roles.index(each.role))
        picture.set_lines(list(zip(self._programs, traced, strict=True)))
        self._replies.send(Started(roles))
        session.run()
        picture.end()
        self._report_exits(traced, attendant, is_over=True, is_final=True)
        self._finish(session, picture, time.monotonic() - began)

    def _finish(self, session: TraceSession, picture: Picture, seconds: float) -> None:
        notes = self._trace.notes
        for role in session.servers_exited_early:
            notes.append(f"{role} exited before it listened, so no client was started")
        for role in session.programs_without_sockets:
            notes.append(f"{role} made no call on a socket")
        findings = run_rules(
            self._trace, lambda name, error: notes.append(f"the rule {name} failed: {error}")
        )
        waits = picture.waits_at_end() if self._trace.ended_by else []
        self._save()
        reason = "the time limit" if session.reached_time_limit else "Stop" if session.stopped_by else ""
        self._replies.send(
            Ended(reason, [finding_to_json(each) for each in findings], waits, notes, round(seconds, 3))
        )

    def _save(self) -> None:
        """Write the trace as far as it is known, if a file was given: a new one, in place of the old."""
        if self._saved is None:
            return
        partial = self._saved.with_suffix(".part")
        with os.fdopen(open_private(partial), "w", encoding="utf-8") as file:
            writer = TraceFileWriter(file, self._trace)
            for point in self._trace.points:
                writer.write(point)
            writer.write_end()
            writer.flush()
        partial.rename(self._saved)

    def _report_exits(
        self, traced: list[TracedProgram], attendant: Attendant, *, is_over: bool, is_final: bool = False
    ) -> None:
        for number, each in enumerate(traced):
            if number in self._reported or not (each.has_ended or is_final):
                continue
            self._reported.add(number)
            killed_for = attendant.kill_reason(self._programs[number])
            self._replies.send(Exited(number, _how(each.status, killed_for, is_over=is_over)))

    # Sources ------------------------------------------------------------------------------------------

    def _prepare(self, number: int, program: Program, role: str, folder: Path) -> bool:
        """Write the program's file, and build it. Returns: whether it can run."""
        own, scratch = folder / str(number), folder / f"{number}-scratch"
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
            self._replies.send(Built(number, False, escape_controls(str(error)), []))
            return False
        for command in recipe.build:
            if not self._build(number, program, command, own):
                return False
        lines = None
        environment: dict[str, str] = {}
        if recipe.language == "Python":
            hook = own / ".lab"
            hook.mkdir()
            (hook / HOOK.name).write_bytes(HOOK.read_bytes())
            lines = LineRecords()
            environment = lines.variables(program.file, str(hook))
        # The short name, as a student types it: it is in tracebacks.
        argv = [program.file if word == str(file) else word for word in recipe.run]
        self._programs.append(
            SandboxedProgram(number, role, [*argv, *arguments], own, scratch, lines, environment)
        )
        return True

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
            self._replies.send(Built(number, status == 0, shown or f"status {status}", problems))
        return status == 0


def _client_adder(session: TraceSession):  # type: ignore[no-untyped-def]
    def add(role: str, argv: list[str]) -> TracedProgram:
        return session.add_client(role, argv, inherit_stdin=False)

    return add


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


def _roles(programs: list[Program]) -> list[str]:
    """Return the names of the lanes: server, server 2, client and so on."""
    seen: dict[str, int] = {}
    roles = []
    for each in programs:
        seen[each.kind] = number = seen.get(each.kind, 0) + 1
        roles.append(each.kind if number == 1 else f"{each.kind} {number}")
    return roles


def _how(status: int | None, killed_for: str, *, is_over: bool) -> str:
    if killed_for:
        return f"killed: {killed_for}"
    if status is None:
        return "not started"
    if status >= 0:
        return f"exit status {status}"
    if is_over and -status in (signal.SIGTERM, signal.SIGKILL):
        return "ended with the run"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _open_capture() -> Capture | None:
    try:
        return Capture()
    except Unavailable:
        return None


def _exit(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)


def main() -> int:
    """Wait for `Start`, and run it. Returns the exit status."""
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C at the terminal is for the server
    replies = _Replies()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sandbox = enter(LIMITS)
        capture = _open_capture()
    except BothendsError as error:
        replies.send(Failed(escape_controls(str(error))))
        return error.exit_status
    replies.send(Prepared(sandbox.note))
    # Unbuffered: what follows the first line is for the other thread.
    line = bytearray()
    while not line.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            return 0
        line += data
    try:
        start = decode_request(bytes(line))
    except msgspec.DecodeError as error:
        replies.send(Failed(str(error)))
        return 2
    if not isinstance(start, Start):
        return 0
    try:
        with contextlib.ExitStack() as stack:
            packets: PacketSource | None = capture
            if start.path is not None:
                from bothends.lab.path import ImpairedPath

                packets = stack.enter_context(ImpairedPath(start.path))
            folder = stack.enter_context(scratch_folder("lab"))
            attendant = stack.enter_context(Attendant(LIMITS, replies.send))
            saved = Path(sys.argv[2]) if sys.argv[1:2] == ["--save"] else None
            Run(sandbox, packets, replies, saved).run(start, attendant, folder)
    except BothendsError as error:
        replies.send(Failed(escape_controls(str(error))))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
