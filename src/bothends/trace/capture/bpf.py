"""Calls seen by eBPF programs in the kernel: a second source beside strace, for root.

    kernel: raw tracepoints ──> ring buffer ──> `_bpf.Source` ──> lines as of strace ──> BpfProgram.read()

1. The programs in native/bpf see the calls of a set of threads, to which the kernel adds a child process when
   it is created. So nothing is stopped, no call is missed after fork(), and the programs run at almost their
   own speed. They are not pinned: the kernel removes them with this process.
2. Records come out as lines in the form of strace, so that both sources have one decoder, and a trace does
   not depend on its source. Forming a line costs a small part of decoding it.
3. A slow reader does not stop a program. What waits is kept in memory, up to `MAX_WAITING`; what does not
   fit is counted. When much of it waits, it is read only while a processor is idle, as long as programs
   run: a program that is observed keeps its speed, and the drawing comes later.
4. `BpfSource.horizon` is the time up to which all lines have been read. Later packets have to wait, because
   the calls that caused them are not known yet (`session.py`, rule 1).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from bothends.errors import SystemCallFailed, Unavailable
from bothends.osutil.reaper import Reaper, process_tag
from bothends.socket_table.owners import process_name
from bothends.trace.capture.calls import CallDecoder
from bothends.trace.capture.running_processes import read_open_files
from bothends.trace.capture.tracees import LocalLauncher, TracedProgram, last_time, thread_ids
from bothends.trace.model import Point

MAX_WAITING: Final = 1 << 30  # bytes of records that wait to be read, and not above a quarter of the memory
# Reading yields the processors to the programs when it is this late (nanoseconds) and this many records wait.
# On a machine that others keep busy few records wait: they are soon read.
LAG: Final = 100_000_000
BACKLOG: Final = 5_000
SEARCH_INTERVAL: Final = 0.5  # seconds between two searches for processes to follow
_READ_SIZE: Final = 1 << 18
_TAG: Final = "BOTHENDS_TRACED"  # the variable by which the reaper finds the programs


def _open_source() -> Any:
    """Return a `_bpf.Source`. Raises OSError, Unavailable."""
    try:
        module = importlib.import_module("bothends.trace.capture._bpf")
    except ModuleNotFoundError as error:
        raise Unavailable(
            "trace",
            "with bpf",
            reason="bothends was built without eBPF",
            hint="install clang, libbpf-dev, libelf-dev and zlib1g-dev, and install bothends again",
        ) from error
    except ImportError as error:  # a shared library is missing
        raise Unavailable("trace", "with bpf", reason=str(error), hint="apt install libbpf1") from error
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return module.Source(min(MAX_WAITING, memory // 4))


@dataclass(frozen=True, slots=True)
class FollowedProcesses:
    """Processes that run already. `find` returns their pids, and is called again and again.

    `port`: each process that connects to it is followed, too; 0 for none. `ends`: the trace ends with the
    last of them.
    """

    find: Callable[[], Iterable[int]]
    port: int = 0
    ends: bool = False


class BpfSource:
    """The programs in the kernel, and what they have seen. Close it, or use it in a with statement.

    Raises:
        Unavailable: missing privilege, an older kernel, or an extension that was not built.
    """

    def __init__(self) -> None:
        try:
            self._source = _open_source()
        except OSError as error:
            is_denied = error.errno in (errno.EPERM, errno.EACCES)
            hint = "run as root" if is_denied else "it needs Linux 6.1 with CONFIG_DEBUG_INFO_BTF"
            raise Unavailable("trace", "with bpf", error.errno or 0, hint=hint) from error
        self._programs = 0
        self._policy = os.sched_getscheduler(0), os.sched_getparam(0)
        self._yields = False

    def __enter__(self) -> BpfSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach from the kernel. Idempotent."""
        self._yield_processors(False)
        self._source.close()

    def _yield_processors(self, wanted: bool) -> None:
        """Run this thread when a processor is idle (SCHED_IDLE of sched(7)), or as before: rule 3."""
        if wanted != self._yields:
            with contextlib.suppress(OSError):  # EPERM: the policy stays
                idle = os.SCHED_IDLE, os.sched_param(0)
                os.sched_setscheduler(0, *(idle if wanted else self._policy))
                self._yields = wanted

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are new records."""
        return int(self._source.fileno())

    def horizon(self) -> int:
        """Return the time up to which all lines have been read, in nanoseconds."""
        horizon = int(self._source.horizon())
        is_late = time.time_ns() - horizon > LAG and self._source.waiting() > BACKLOG
        self._yield_processors(is_late and bool(self._source.is_alive()))
        return horizon

    def add_program(self) -> int:
        """Return the number of a new program."""
        self._programs += 1
        return self._programs - 1

    @contextlib.contextmanager
    def spawning(self, number: int) -> Iterator[None]:
        """Follow the processes that this thread starts, as those of a program."""
        self._yield_processors(False)  # a child process inherits the priority
        self._source.spawn(number)
        try:
            yield
        finally:
            self._source.spawn(-1)

    def adopt(self, number: int, pid: int) -> None:
        """Follow a process that runs already, as one of a program."""
        self._source.adopt(number, pid)

    def follow_port(self, number: int, port: int) -> None:
        """Follow each process that connects to a port from now on, as one of a program."""
        self._source.follow_port(number, port)

    def skip(self) -> int:
        """Drop what has been seen so far. Returns the time, in nanoseconds."""
        return int(self._source.skip())

    def release(self, number: int) -> None:
        """Follow a program no further."""
        self._source.release(number)

    def read(self, number: int, max_bytes: int) -> tuple[bytes, list[int]]:
        """Return the next lines of a program, and the processes that have been added to it."""
        lines, pids = self._source.read(number, max_bytes)
        return lines, pids

    def has_ended(self, number: int) -> bool:
        """Return whether a program has exited, and all its lines have been read."""
        return bool(self._source.has_ended(number))

    def describe_lost(self) -> list[str]:
        """Return what is missing, for the user."""
        records, threads, repeated = self._source.count_lost()
        found = []
        if records:
            found.append(f"{records:,} calls are missing: they came faster than they were read")
        if threads:
            found.append(f"{threads:,} threads were not traced: there were too many")
        if repeated:
            found.append(f"{repeated:,} calls that repeat earlier ones without moving data were left out")
        return found


class BpfProgram(TracedProgram):
    """A program with all its child processes, or processes that run already, seen by a `BpfSource`.

    Args:
        source: sees the calls.
        role, argv, decoder, pid, inherit_stdin, output: as of `TracedProgram`.
        followed: processes that run already, in place of `argv` and `pid`.
        variables: what the program's environment has in addition.
    """

    def __init__(
        self,
        source: BpfSource,
        role: str,
        argv: Sequence[str],
        decoder: CallDecoder,
        *,
        pid: int | None = None,
        inherit_stdin: bool = False,
        output: int | None = None,
        followed: FollowedProcesses | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        launcher = LocalLauncher({_TAG: process_tag(str(source.fileno())), **(variables or {})})
        super().__init__(
            role, argv, decoder, pid=pid, inherit_stdin=inherit_stdin, output=output, launcher=launcher
        )
        self._source = source
        self._number = source.add_program()
        if pid is not None and followed is None:
            followed = FollowedProcesses(lambda: [pid], ends=True)
        self._followed = followed
        self._is_following = False
        self._known: set[int] = set()  # processes that are followed
        self._next_search = 0.0

    @property
    def is_attached(self) -> bool:
        """Whether its processes ran before the trace, and go on after it."""
        return self._followed is not None

    @property
    def has_own_lane(self) -> bool:
        """Whether its role is that of a process: not of those that are followed together."""
        return self._followed is None or self.pid is not None

    @property
    def is_running(self) -> bool:
        """Whether it has started and has not ended."""
        return (self._process is not None or self._is_following) and not self.has_ended

    @property
    def has_failed_to_attach(self) -> bool:
        """Whether the process cannot be followed: never, if it exists."""
        return False

    @property
    def was_strace_killed(self) -> bool:
        """There is no strace."""
        return False

    @property
    def has_local_pids(self) -> bool:
        """The kernel's records have the pids of this PID namespace."""
        return True

    def guard(self, reaper: Reaper) -> None:
        """Let the reaper end the program if bothends is killed."""
        if self._followed is None:
            reaper.kill_tagged(_TAG)

    def start(self) -> Iterator[Point]:
        """Start the program, or follow the processes. Returns the points known at once.

        Raises:
            SystemCallFailed: the process does not exist.
            Unavailable: the program cannot be run.
        """
        self._pipe = os.dup(self._source.fileno())
        if self._followed is not None:
            if self.pid is not None:
                thread_ids(self.pid)  # raises SystemCallFailed
            if self._followed.port:
                self._source.follow_port(self._number, self._followed.port)
            self._is_following = True
            yield from self._find_processes()
            return
        try:
            with self._source.spawning(self._number):
                self._process = self._launcher.start(
                    self.role, [], self.argv, inherit_stdin=self._inherit_stdin, output=self._output
                )
        except OSError as error:
            raise Unavailable("run", self.argv[0], error.errno or 0) from error

    def _find_processes(self) -> Iterator[Point]:
        """Follow the processes that are to be followed and are not yet."""
        assert self._followed is not None
        self._next_search = time.monotonic() + SEARCH_INTERVAL
        for pid in self._followed.find():
            if pid not in self._known:
                with contextlib.suppress(OSError):  # too many, which is counted
                    self._source.adopt(self._number, pid)
                yield from self._add_process(pid)

    def _add_process(self, pid: int) -> Iterator[Point]:
        if pid in self._known or pid in self.decoder.live_pids:
            return  # a child of one that is followed
        try:
            threads = thread_ids(pid)
        except SystemCallFailed:
            threads = [pid]  # it has exited: its calls are still to be read
        self._known.add(pid)
        if self.pid is None:
            self.decoder.names[pid] = self._role_of(pid)
        at = time.time_ns()
        yield from self.decoder.add_attached(pid, threads, at)
        files = read_open_files(pid)
        self.decoder.add_open_files(pid, files)
        if self.recorder is not None:
            self.recorder.add_process(pid, threads, at, self.decoder.names.get(pid, ""), files)

    def _role_of(self, pid: int) -> str:
        name, taken = process_name(pid) or self.role, set(self.decoder.names.values())
        return next(
            each for number in count(1) if (each := f"{name}/{number}" if number > 1 else name) not in taken
        )

    def read(self, max_bytes: int = 1 << 20) -> Iterator[Point]:
        """Decode the next lines, up to about `max_bytes`. Never blocks. At the end sets `has_ended`."""
        if self._is_following and time.monotonic() > self._next_search:
            yield from self._find_processes()
        self.read_up_to = None
        while max_bytes > 0 and not self.has_ended:
            data, added = self._source.read(self._number, _READ_SIZE)
            for pid in added:
                yield from self._add_process(pid)
            if not data:
                if self._is_over():
                    self._on_eof()
                    yield from self._decode_end()
                return
            max_bytes -= len(data)
            yield from self._decode(data)
            if max_bytes <= 0:
                self.read_up_to = last_time(data)

    def _is_over(self) -> bool:
        """Return whether nothing more can come, when all lines have been read."""
        if self._followed is None:
            return self._source.has_ended(self._number)
        if not self._is_following:
            return True
        return self._followed.ends and not any(Path(f"/proc/{each}").exists() for each in self._known)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its known processes. Processes that ran before are followed no further."""
        if not self.is_running:
            return
        if self._followed is not None:
            self._source.release(self._number)
            self._is_following = False
            self.has_ended = True
            return
        pids = self.decoder.live_pids
        self._launcher.signal(sorted(pids), number)
        if not pids and isinstance(self._process, subprocess.Popen):
            self._process.send_signal(number)  # its first line has not been read

    def _drain_pipe(self) -> None:
        while self._source.read(self._number, _READ_SIZE)[0]:
            pass
        if self._is_over():
            self._on_eof()
