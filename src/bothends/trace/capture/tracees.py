"""The traced programs. Each runs under its own strace process, which writes to a named pipe.

1. A program keeps the terminal, standard output and standard error. Servers have no standard input and their
   own process group, so that ^C reaches only bothends and the client, which reads the terminal.
2. strace shares nothing but a named pipe with bothends, so programs inherit no descriptors. If bothends reads
   slowly, strace blocks, and the program with it: no data is lost.
3. If strace died first, its programs would continue, and with `--seccomp-bpf` every traced call would fail
   (ENOSYS). So the programs are terminated, and strace exits after the last of them.
4. ^\\ asks bothends what the programs wait for. The terminal sends SIGQUIT to the client as well, which
   starts with the signal ignored: it runs on, unless it installs a handler.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bothends.errors import SystemCallFailed, Unavailable, UsageError
from bothends.osutil.reaper import Reaper
from bothends.osutil.scratch import scratch_folder
from bothends.trace.capture.calls import CallDecoder
from bothends.trace.capture.running_processes import OpenFiles
from bothends.trace.capture.strace import OPTIONS, StraceParser
from bothends.trace.model import Point, Socket

GRACE_PERIOD: Final = 2.0  # seconds from SIGTERM to SIGKILL
_PIPE_SIZE: Final = 1 << 20  # bytes that strace can write before it blocks
_READ_SIZE: Final = 1 << 18
_TIME: Final = re.compile(rb"\d+ +(\d+)\.(\d{9}) ")  # how a line begins
_SHELL_SYNTAX: Final = frozenset("|&;<>()$`*")  # characters of a shell's operators and expansions
_SHELL_OPERATORS: Final = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1"})


@dataclass(eq=False, repr=False)
class NoSuchProgram(UsageError):
    """A command line cannot be run. Fields: `text`, `reason`."""

    text: str
    reason: str

    def __str__(self) -> str:
        return f"command {self.text!r}: {self.reason}"


def split_words(text: str) -> list[str]:
    """Split a command line as a shell does: it handles quotes, but no variables, pipes and so on.

    Raises:
        NoSuchProgram: the command line is malformed, or has a shell's operators.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise NoSuchProgram(text, f"{str(error).lower()}; close each quote, as in a shell") from error
    operators = _SHELL_OPERATORS.intersection(words, text.split())  # not the quoted ones
    if operators:
        raise NoSuchProgram(text, f"{min(operators)!r} is not understood; for shell syntax use sh -c '...'")
    return words


def check_program(argv: Sequence[str], text: str = "") -> None:
    """Check that a program exists. Raises NoSuchProgram."""
    text = text or shlex.join(argv)
    if not argv:
        raise NoSuchProgram(text, "the command line is empty")
    if shutil.which(argv[0]) is None:
        has_syntax = not _SHELL_SYNTAX.isdisjoint(text)
        hint = "for shell syntax use sh -c '...'" if has_syntax else "no command or file has this name"
        raise NoSuchProgram(text, f"program {argv[0]!r} not found; {hint}")


def find_strace() -> str:
    """Return the path of strace. Raises Unavailable."""
    found = shutil.which("strace")
    if found is None:
        raise Unavailable("trace", "programs", reason="strace isn't installed", hint="apt install strace")
    return found


class ProcessHandle(Protocol):
    """A running strace process, with the interface of subprocess.Popen.

    It has a `pid` if strace runs in this PID namespace.
    """

    @property
    def returncode(self) -> int | None:
        """As Popen.returncode."""

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has exited. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send a signal to strace only."""

    def kill(self) -> None:
        """Send SIGKILL to strace."""


class ProgramLauncher(Protocol):
    """Starts programs somewhere, under strace. `signal` takes the pids that strace shows there.

    `attaches`: strace attaches to a program that has not been executed yet, in a sandbox, whose processes end
    with this one. What its process does until then is not the program's.
    """

    attaches: bool

    def start(
        self,
        role: str,
        strace: Sequence[str],
        argv: Sequence[str],
        *,
        inherit_stdin: bool,
        output: int | None,
    ) -> ProcessHandle:
        """Start a program under strace.

        Args:
            role: the name of its lane.
            strace: strace's command line, without what it traces.
            argv: the program's command line; empty if `strace` attaches to a process.

        Raises:
            OSError, BothendsError: it cannot be started.
        """

    def signal(self, processes: Sequence[int], number: int) -> None:
        """Send a signal to the processes that are still running."""


class LineRecorder(Protocol):
    """Records what is read about a program, and selects what is decoded: `ProgramRecorder`."""

    @property
    def ports(self) -> set[int]:
        """The ports that lines have shown since others than those of processes are not decoded."""

    def select(self, rest: bytes) -> None:
        """From now on, select lines about processes only. `rest` is the start of the next line."""

    def select_all(self) -> None:
        """From now on, select all lines again."""

    def add_lines(self, data: bytes) -> bytes:
        """Add bytes that have been read. Returns those to be decoded."""

    def add_unfinished(self) -> None:
        """Note that the start of a call, at the end of what has been read, is decoded already."""

    def add_end(self) -> None:
        """Note that all has been read."""

    def add_process(
        self, pid: int, threads: Sequence[int], at: int, role: str, files: OpenFiles | None
    ) -> None:
        """Add a process that ran before the trace, and its open files if they are known."""


def traced_command(strace: Sequence[str], argv: Sequence[str]) -> list[str]:
    """Return the command line of an strace that starts a program, if there is one.

    Without strace, it is the program's own command line.
    """
    if not strace:
        return list(argv)
    return [*strace, "--seccomp-bpf", "--", *argv] if argv else [*strace]


class LocalLauncher:
    """Starts programs on this machine, as child processes.

    `variables` are added to their environment.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = variables

    attaches = False

    def start(
        self,
        role: str,
        strace: Sequence[str],
        argv: Sequence[str],
        *,
        inherit_stdin: bool,
        output: int | None,
    ) -> ProcessHandle:
        with _ignored_quit(inherit_stdin):
            return subprocess.Popen(
                traced_command(strace, argv),
                stdin=None if inherit_stdin else subprocess.DEVNULL,
                stdout=output,
                env={**os.environ, **self._variables} if self._variables else None,
                process_group=None if inherit_stdin else 0,
            )

    def signal(self, processes: Sequence[int], number: int) -> None:
        for each in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, number)


@contextlib.contextmanager
def _ignored_quit(is_wanted: bool) -> Iterator[None]:
    """Start a program with SIGQUIT ignored, if it is in the group that the terminal sends ^\\ to: rule 4."""
    if not is_wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGQUIT, previous)


LOCAL_LAUNCHER: Final = LocalLauncher()


class TracedProgram:
    """A program, or a running process, with all its child processes, under strace.

    Args:
        role: the name of its lane.
        argv: the command line; empty if `pid` is given.
        decoder: decodes strace's lines.
        pid: the running process to attach to.
        inherit_stdin: whether the program inherits standard input.
        output: a descriptor for its standard output; inherited by default.
        launcher: starts the program.
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
        self.parser = StraceParser(from_exec=launcher.attaches)
        self.from_exec = launcher.attaches
        self.recorder: LineRecorder | None = None
        self.is_ready = False
        self.listener: Socket | None = None
        self.has_ended = False
        self.read_up_to: int | None = None  # the time of the last line read, if more lines wait
        self._inherit_stdin = inherit_stdin
        self._output = output
        self._launcher = launcher
        self._process: ProcessHandle | None = None
        self._pipe = -1
        self._has_output = False  # whether strace has written anything

    @property
    def is_running(self) -> bool:
        """Whether it has started and has not ended."""
        return self._process is not None and not self.has_ended

    @property
    def status(self) -> int | None:
        """The exit status, as in Popen.returncode; None while it runs."""
        return self._process.returncode if self._process is not None else None

    @property
    def is_attached(self) -> bool:
        """Whether its process ran before the trace, and goes on after it."""
        return self.pid is not None

    @property
    def has_own_lane(self) -> bool:
        """Whether its role is that of a process."""
        return True

    @property
    def has_failed_to_attach(self) -> bool:
        """Whether strace has reported that it cannot attach to the process."""
        return self.pid is not None and self.has_ended and bool(self.status) and not self._has_output

    @property
    def was_strace_killed(self) -> bool:
        """Whether strace was killed while the programs it had started were running."""
        was_killed = self.has_ended and self.pid is None and (self.status or 0) < 0
        return was_killed and bool(self.decoder.live_pids)

    @property
    def has_local_pids(self) -> bool:
        """Whether its pids are those of this PID namespace."""
        return self._strace_pid is not None

    @property
    def local_pids(self) -> set[int]:
        """The pids of its running processes, and of strace; none if they are not of this PID namespace."""
        return self.decoder.live_pids | {self._strace_pid} if self._strace_pid is not None else set()

    @property
    def _strace_pid(self) -> int | None:
        """The pid of strace; None if it runs in another PID namespace."""
        pid: int | None = getattr(self._process, "pid", None)
        return pid

    def guard(self, reaper: Reaper) -> None:
        """Let the reaper end the program (or detach from the process) if bothends is killed.

        The kernel ends those in a sandbox, whose first process gets SIGKILL then (PR_SET_PDEATHSIG).
        """
        if self._strace_pid is not None and not self._launcher.attaches:
            reaper.kill_tracees(self._strace_pid, self._pipe, attached=self.pid is not None)

    def fileno(self) -> int:
        """Return the descriptor of the pipe. It is readable if strace has written something."""
        return self._pipe

    def start(self) -> Iterator[Point]:
        """Start strace, and the program. Returns the points known at once, for a process attached to.

        Raises:
            SystemCallFailed: the process to attach to does not exist.
            Unavailable: strace cannot be run.
        """
        strace = find_strace()
        threads = thread_ids(self.pid) if self.pid is not None else []
        with scratch_folder("trace") as folder:
            path = folder / "strace"
            os.mkfifo(path, 0o600)
            self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(
                OSError
            ):  # EPERM: above the user's limit (pipe(7)); the default works too
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            target = ["-p", str(self.pid)] if self.pid is not None else []
            try:
                self._process = self._launcher.start(
                    self.role,
                    [strace, *OPTIONS, "-o", str(path), *target],
                    self.argv if self.pid is None else [],
                    inherit_stdin=self._inherit_stdin,
                    output=self._output,
                )
            except OSError as error:
                raise Unavailable("run", strace, error.errno or 0) from error
            # strace opens the pipe before it starts the program. After that, the pipe's name can be removed.
            self._wait_for_strace()
        if self.pid is not None:
            at = time.time_ns()
            if self.recorder is not None:
                self.recorder.add_process(self.pid, threads, at, "", None)
            yield from self.decoder.add_attached(self.pid, threads, at)

    def _wait_for_strace(self) -> None:
        import select

        assert self._process is not None
        poller = select.poll()
        poller.register(self._pipe, select.POLLIN)
        while not poller.poll(20) and self._process.poll() is None:
            pass

    def read(self, max_bytes: int = 1 << 20) -> Iterator[Point]:
        """Decode what strace has written, up to about `max_bytes`. Never blocks. At EOF sets `has_ended`."""
        self.read_up_to = None
        while max_bytes > 0 and not self.has_ended:
            try:
                data = os.read(self._pipe, _READ_SIZE)
            except BlockingIOError:
                break
            if not data:
                self._on_eof()
                yield from self._decode_end()
                return
            self._has_output = True
            max_bytes -= len(data)
            yield from self._decode(data)
            if max_bytes <= 0:
                self.read_up_to = last_time(data)
        started = self.parser.unfinished_call()
        if started is not None:
            if self.recorder is not None:
                self.recorder.add_unfinished()
            yield from self.decoder.decode([started])

    def select_lines(self) -> None:
        """From now on, decode lines about processes only: the others are recorded."""
        if self.recorder is not None:
            self.recorder.select(self.parser.take_rest())

    def select_all_lines(self, decoder: CallDecoder, parser: StraceParser) -> None:
        """From now on, decode all lines again, with a decoder and a parser that have seen all so far."""
        self.decoder, self.parser = decoder, parser
        if self.recorder is not None:
            self.recorder.select_all()

    def _decode(self, data: bytes) -> Iterator[Point]:
        if self.recorder is not None:
            data = self.recorder.add_lines(data)
        return self.decoder.decode(self.parser.feed(data))

    def _decode_end(self) -> Iterator[Point]:
        if self.recorder is not None:
            self.recorder.add_end()
        yield from self.decoder.decode(self.parser.feed_eof())
        yield from self.decoder.finish()

    def _on_eof(self) -> None:
        self.has_ended = True
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_PERIOD)
        if self.was_strace_killed:
            self._launcher.signal(sorted(self.decoder.live_pids), signal.SIGKILL)  # rule 3

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its known processes. From a process attached to, strace detaches instead."""
        if self._process is None or self.has_ended:
            return
        if self.pid is not None:
            self._process.send_signal(signal.SIGINT)
            return
        pids = self.decoder.live_pids
        self._launcher.signal(sorted(pids), number)
        if not pids and number == signal.SIGKILL:
            self._process.kill()  # the program has not started yet, or strace cannot trace it

    def close(self) -> None:
        """Terminate it and all its child processes: SIGTERM, then SIGKILL. Idempotent."""
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


def last_time(lines: bytes) -> int:
    """Return the time of the last complete line, in nanoseconds; 0 if there is none that begins here."""
    for line in reversed(lines.split(b"\n")[:-1]):
        if found := _TIME.match(line):
            return int(found[1]) * 1_000_000_000 + int(found[2])
    return 0


def tracer_of(pid: int) -> int:
    """Return the pid of the process that traces another one; 0 if there is none, or it is not known."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("TracerPid:")), 0)


def thread_ids(pid: int) -> list[int]:
    """Return the ids of the threads of a process. Raises SystemCallFailed."""
    try:
        return [int(each) for each in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208  (proc(5))
    except OSError as error:
        raise SystemCallFailed("trace", f"process {pid}", errno.ESRCH, "ps -e lists them") from error
