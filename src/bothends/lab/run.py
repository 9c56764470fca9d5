"""The process of one run: it enters the sandbox, builds the programs, runs and traces them, and tells all.

    python -m bothends.lab.run      requests on standard input, replies on standard output: a line each

1. It is a process of its own, because entering a network namespace is for good and needs a single thread, and
   because TraceSession needs the main thread. It is started ahead of its run, which so begins at once.
2. A second thread, with an event loop, has what must not wait for the tracing: requests, the programs'
   terminals, their limits.
3. It ends when its standard input does: the server has closed the page, or was killed. The kernel then kills
   all programs.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from bothends.check.sandbox.launcher import Sandbox, SandboxLimits, enter
from bothends.errors import BothendsError, Unavailable
from bothends.escaping import escape_controls
from bothends.lab.attendant import Attendant
from bothends.lab.messages import (
    Ended,
    Exited,
    Failed,
    Judge,
    Measure,
    Prepared,
    Start,
    Started,
    decode_request,
)
from bothends.lab.picture import Picture, finding_to_json
from bothends.lab.replies import ReplyWriter
from bothends.lab.sandboxed import SandboxedProgram, SandboxLauncher, add_program, set_priority
from bothends.lab.sources import Sources, roles_of
from bothends.osutil.private_files import open_private
from bothends.osutil.scratch import scratch_folder
from bothends.trace.capture.packets import Capture, PacketSource
from bothends.trace.capture.tracees import TracedProgram
from bothends.trace.comparison import sequence
from bothends.trace.findings import run_rules
from bothends.trace.model import Trace
from bothends.trace.session import TraceSession
from bothends.trace.trace_file import TraceFileWriter

LIMITS: Final = SandboxLimits(memory=512 << 20, processes=128, disk=16 << 20, files=1024, cpu=30)
"""The limits of each program."""

CLASS_LIMITS: Final = SandboxLimits(memory=320 << 20, processes=48, disk=8 << 20, files=512, cpu=10)
"""The same in a class, whose programs run at a lower priority, too."""

_CLASS_NICE: Final = 5  # of programs in a class: the lab and its tracers come first

_MAX_POINTS: Final = 60_000  # of the trace of a run
COLLECT: Final = 0.002  # seconds: too short to be seen on the page
_MAX_STEPS: Final = 4_000  # for a comparison


class Run:
    """One run of programs."""

    def __init__(
        self, sandbox: Sandbox, capture: PacketSource | None, replies: ReplyWriter, saved: Path | None = None
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
        roles = roles_of(start.programs)
        sources = Sources(self._sandbox, folder, self._replies.send)
        built = [
            sources.prepare(number, each, role)
            for number, (each, role) in enumerate(zip(start.programs, roles, strict=True))
        ]
        self._programs = [each for each in built if each is not None]
        if len(self._programs) < len(built):
            self._replies.send(Ended("a program could not be built", [], [], [], 0.0))
            return
        launcher = SandboxLauncher(self._sandbox, self._programs, attendant.add)
        began = time.monotonic()
        picture = Picture(self._trace, roles, self._replies.send)
        traced: list[TracedProgram] = []

        def on_idle() -> None:
            picture.idle()
            is_over = session.stopped_by is not None or self._trace.frozen_at is not None
            self._report_exits(traced, attendant, is_over=is_over)

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
            collect=COLLECT,
        )
        session.capture = self._capture
        for kind in ("server", "client"):
            for each, program in zip(self._programs, start.programs, strict=True):
                if program.kind != kind:
                    continue
                traced.append(add_program(session, kind, each.role, each.argv))
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
            Ended(
                reason,
                [finding_to_json(each) for each in findings],
                waits,
                notes,
                round(seconds, 3),
                sequence(self._trace)[:_MAX_STEPS],
            )
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
            how = _how(each.status, killed_for, is_over=is_over)
            self._replies.send(Exited(number, how, time.time_ns() // 1000))


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


def _saved_trace() -> Path | None:
    """Return the file for the trace, of --save-in FOLDER."""
    from bothends.lab.runs import SAVE_IN, saved_trace

    if SAVE_IN not in sys.argv[:-1]:
        return None
    return saved_trace(Path(sys.argv[sys.argv.index(SAVE_IN) + 1]), os.getpid())


def _exit(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)


def main(*, is_proven: bool = False) -> int:
    """Wait for `Start`, and run it. Returns the exit status.

    `is_proven`: whether an earlier process has had a sandbox that works.
    """
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C at the terminal is for the server
    replies = ReplyWriter()
    limits = CLASS_LIMITS if "--class" in sys.argv[1:] else LIMITS
    set_priority(_CLASS_NICE if limits is CLASS_LIMITS else 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sandbox = enter(limits, is_proven=is_proven)
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
    if not isinstance(start, Start | Judge | Measure):
        return 0
    try:
        with contextlib.ExitStack() as stack:
            packets: PacketSource | None = capture
            if isinstance(start, Start) and start.path is not None:
                from bothends.lab.path import ImpairedPath

                packets = stack.enter_context(ImpairedPath(start.path))
            folder = stack.enter_context(scratch_folder("lab"))
            attendant = stack.enter_context(Attendant(limits, replies.send))
            match start:
                case Start():
                    Run(sandbox, packets, replies, _saved_trace()).run(start, attendant, folder)
                case Judge():
                    from bothends.lab.judging import judge

                    judge(start, sandbox, packets, replies, folder)
                case Measure():
                    from bothends.lab.measuring import measure_all

                    measure_all(start, sandbox, attendant, replies, folder)
    except BothendsError as error:
        replies.send(Failed(escape_controls(str(error))))
        return 1
    except ModuleNotFoundError as error:
        replies.send(Failed(f"{error.name} isn't installed: install bothends again"))
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
