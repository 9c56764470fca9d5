"""Programs that are traced: each under a strace of its own, which writes what it sees into a pipe to us.

1. A program keeps the terminal, its standard output and its standard error. Servers get no keyboard and a
   process group of their own, so that ^C reaches the client, whose keyboard it is, and us.
2. strace reads and writes nothing of ours but a named pipe, so no descriptor of ours leaks into a program.
   When we read slowly strace waits, and the program with it: nothing is lost.
3. If strace died first, its programs would go on, and with `--seccomp-bpf` every call that was traced would
   fail (ENOSYS). So the programs are ended, and strace ends by itself after the last of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bothends.errors import SystemCallFailed, Unavailable, UsageError
from bothends.trace.capture.calls import CallDecoder
from bothends.trace.capture.strace import OPTIONS, StraceParser
from bothends.trace.model import Point, Socket

GRACE_PERIOD: Final = 2.0  # seconds from SIGTERM to SIGKILL
_PIPE_SIZE: Final = 1 << 20  # bytes that strace may be ahead of us
_READ_SIZE: Final = 1 << 18


@dataclass(eq=False, repr=False)
class NoSuchProgram(UsageError):
    """A command line that can't be run. Fields: `text`, `reason`."""

    text: str
    reason: str

    def __str__(self) -> str:
        return f"command {self.text!r}: {self.reason}"


def split_command(text: str) -> list[str]:
    """A command line cut into words as a shell would, with quotes but without variables, pipes and such.

    Raises:
        NoSuchProgram: there is nothing to run, or no such program.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise NoSuchProgram(text, f"{str(error).lower()}; quotes come in pairs, as in a shell") from error
    check_program(words, text)
    return words


def check_program(argv: Sequence[str], text: str = "") -> None:
    """Look whether a program is there. Raises NoSuchProgram."""
    text = text or shlex.join(argv)
    if not argv:
        raise NoSuchProgram(text, "no program is named")
    if shutil.which(argv[0]) is None:
        raise NoSuchProgram(text, f"there is no program {argv[0]!r}; for a shell's syntax: sh -c '...'")


def find_strace() -> str:
    """Where strace is. Raises Unavailable."""
    found = shutil.which("strace")
    if found is None:
        raise Unavailable("trace", "programs", reason="strace isn't installed", hint="apt install strace")
    return found


class ProcessHandle(Protocol):
    """A strace that was started; the face of subprocess.Popen."""

    @property
    def returncode(self) -> int | None:
        """As Popen has it."""

    def poll(self) -> int | None:
        """What it left with, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Signal it alone."""

    def kill(self) -> None:
        """End it by force."""


class ProgramLauncher(Protocol):
    """Where programs run. Their processes have the numbers that strace shows."""

    def start(
        self, role: str, argv: Sequence[str], *, inherit_stdin: bool, output: int | None
    ) -> ProcessHandle:
        """Run a command line. Raises OSError, BothendsError."""

    def signal(self, processes: Sequence[int], number: int) -> None:
        """Signal processes, as many as there still are."""


class _LocalLauncher:
    """On this machine, as our children."""

    def start(
        self, role: str, argv: Sequence[str], *, inherit_stdin: bool, output: int | None
    ) -> ProcessHandle:
        return subprocess.Popen(
            argv,
            stdin=None if inherit_stdin else subprocess.DEVNULL,
            stdout=output,
            process_group=None if inherit_stdin else 0,
        )

    def signal(self, processes: Sequence[int], number: int) -> None:
        for each in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, number)


LOCAL_LAUNCHER: Final = _LocalLauncher()


class TracedProgram:
    """One program, or a process that runs already, with all its children, under strace.

    Args:
        role: the name of its lane.
        words: the command line; or none, and `pid` says what to attach to.
        reader: gets the lines.
        keyboard: whether it keeps our standard input.
        output: where its standard output goes: None for ours, or a descriptor.
        starter: where it runs.
    """

    def __init__(
        self,
        role: str,
        argv: Sequence[str],
        decoder: CallDecoder,
        *,
        pid: int | None = None,
        inherit_stdin: bool = False,
        output: int | None = None,
        launcher: ProgramLauncher = LOCAL_LAUNCHER,
    ) -> None:
        self.role = role
        self.argv = list(argv)
        self.pid = pid
        self.decoder = decoder
        self.parser = StraceParser()
        self.is_ready = False
        self.listener: Socket | None = None
        self.has_ended = False
        self._inherit_stdin = inherit_stdin
        self._output = output
        self._launcher = launcher
        self._process: ProcessHandle | None = None
        self._pipe = -1
        self._began = False

    @property
    def is_running(self) -> bool:
        """Whether it has begun and has not ended."""
        return self._process is not None and not self.has_ended

    @property
    def status(self) -> int | None:
        """What it left with, as Popen.returncode has it; None while it runs."""
        return self._process.returncode if self._process is not None else None

    @property
    def was_strace_killed(self) -> bool:
        """Whether strace was killed under the programs that it had started."""
        was_killed = self.has_ended and self.pid is None and (self.status or 0) < 0
        return was_killed and bool(self.decoder.live_pids)

    @property
    def strace_pid(self) -> int | None:
        """The process that is strace; None where it runs in another tree of processes."""
        return self._process.pid if isinstance(self._process, subprocess.Popen) else None

    def fileno(self) -> int:
        """The descriptor that turns readable when strace has written something."""
        return self._pipe

    def start(self) -> Iterator[Point]:
        """Begin; what is known at once.

        Raises:
            SystemRefused: there is no such process to attach to.
            Unavailable: strace can't be run.
        """
        strace = find_strace()
        threads = _thread_ids(self.pid) if self.pid is not None else []
        with tempfile.TemporaryDirectory(prefix="bothends-") as folder:
            path = Path(folder, "strace")
            os.mkfifo(path, 0o600)
            self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # more than the system allows to one user
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            target = ["-p", str(self.pid)] if self.pid is not None else ["--seccomp-bpf", "--", *self.argv]
            try:
                self._process = self._launcher.start(
                    self.role,
                    [strace, *OPTIONS, "-o", str(path), *target],
                    inherit_stdin=self._inherit_stdin,
                    output=self._output,
                )
            except OSError as error:
                raise Unavailable("run", strace, error.errno or 0) from error
            # strace opens the pipe before it starts anything: then its name is no longer needed.
            self._wait_for_strace()
        if self.pid is not None:
            yield from self.decoder.add_attached(self.pid, threads, time.time_ns())

    def _wait_for_strace(self) -> None:
        import select

        assert self._process is not None
        poller = select.poll()
        poller.register(self._pipe, select.POLLIN)
        while not poller.poll(20) and self._process.poll() is None:
            pass

    def read(self, max_bytes: int = 1 << 20) -> Iterator[Point]:
        """What strace has written, so much at most. Never blocks. After the end `has_ended` is true."""
        while max_bytes > 0 and not self.has_ended:
            try:
                data = os.read(self._pipe, _READ_SIZE)
            except BlockingIOError:
                break
            if not data:
                self._on_eof()
                yield from self.decoder.decode(self.parser.feed_eof())
                yield from self.decoder.finish()
                return
            max_bytes -= len(data)
            yield from self.decoder.decode(self.parser.feed(data))
        began = self.parser.unfinished_call()
        if began is not None:
            yield from self.decoder.decode([began])

    def _on_eof(self) -> None:
        self.has_ended = True
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_PERIOD)
        if self.was_strace_killed:
            self._launcher.signal(sorted(self.decoder.live_pids), signal.SIGKILL)  # rule 3

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of it that we know. What we attached to is never signalled: it is
        let go.
        """
        if self._process is None or self.has_ended:
            return
        if self.pid is not None:
            self._process.send_signal(signal.SIGINT)
            return
        pids = self.decoder.live_pids
        self._launcher.signal(sorted(pids), number)
        if not pids and number == signal.SIGKILL:
            self._process.kill()  # it has not begun yet, or strace can't trace it

    def close(self) -> None:
        """End it and all its children, by force where they don't end by themselves. Idempotent."""
        deadline = time.monotonic() + GRACE_PERIOD
        if self.is_running:
            self.signal(signal.SIGTERM)
        while self.is_running and time.monotonic() < deadline + GRACE_PERIOD:
            self._drain_pipe()
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
            time.sleep(0.01)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _drain_pipe(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._pipe, _READ_SIZE):
                pass
            self._on_eof()


def _thread_ids(pid: int) -> list[int]:
    try:
        return [int(each) for each in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208  (proc(5))
    except OSError as error:
        raise SystemCallFailed("trace", f"process {pid}", errno.ESRCH, "ps -e lists them") from error
