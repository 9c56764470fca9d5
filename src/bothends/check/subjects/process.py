"""A program under test: started as a session of its own, listened to, and ended with all that it started.

What it prints is read all the time, so that it never hangs in a full pipe, and kept within bounds. Its end is
learnt from a pidfd (pidfd_open(2)), which names this very process whatever becomes of its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bothends.check.sandbox.launcher import ResourceMonitor, Sandbox, with_hosts_file
from bothends.errors import SystemCallFailed
from bothends.escaping import escape
from bothends.osutil import reaper
from bothends.osutil.process_info import all_pids, descendants, is_running, read_stat, thread_ids
from bothends.osutil.reexec import self_command

MAX_OUTPUT: Final = 64 << 20  # bytes: reading without end would hold up all other cases
_RETAINED: Final = 16_384  # bytes of output from the beginning, and as many from the end
_MAX_PROCESSES: Final = 4096  # processes of one program
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
_TAG_VARIABLE: Final = (
    "BOTHENDS_CHECK"  # in the environment of all that it starts, whatever their parents become
)


class OutputCapture:
    """One stream that a program writes to; its beginning and its end are kept."""

    def __init__(self, descriptor: int, on_overflow: Callable[[], None]) -> None:
        self.size = 0
        self._on_overflow = on_overflow
        self._head = bytearray()
        self._tail: deque[int] = deque(maxlen=_RETAINED)
        self._descriptor = descriptor
        self._closed = asyncio.Event()
        self._changed = asyncio.Event()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._changed.set()
        if not data:
            self.close()
            return
        self.size += len(data)
        if self.size > MAX_OUTPUT:
            self.close()
            self._on_overflow()
            return
        room = _RETAINED - len(self._head)
        self._head += data[:room]
        self._tail.extend(data[room:][-_RETAINED:])

    @property
    def data(self) -> bytes:
        """What was kept."""
        gap = self.size - len(self._head) - len(self._tail)
        middle = f"\n... {gap:,} bytes left out ...\n".encode() if gap else b""
        return bytes(self._head) + middle + bytes(self._tail)

    async def wait_for(self, predicate: Callable[[bytes], bool], timeout: float) -> bool:
        """Whether what was printed comes to fit `until` within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not predicate(self.data) and not self._closed.is_set():
                    self._changed.clear()
                    await self._changed.wait()
        return predicate(self.data)

    async def wait_eof(self, timeout: float) -> None:
        """Wait until nobody can write any more, but not for ever: a grandchild may hold it open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), timeout)

    def close(self) -> None:
        """Read no more. Idempotent."""
        if not self._closed.is_set():
            self._closed.set()
            self._changed.set()
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)


class ProgramProcess:
    """One running program. Start it with `start`, end it with `end`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        tag: str,
        sandbox: Sandbox | None = None,
        writable_dir: Path | None = None,
    ) -> None:
        self.process = process
        self.leader = process.pid
        self.kill_reason = ""
        self._sandboxed = sandbox is not None
        self._program_pid: int | None = None if sandbox else process.pid
        self._tag = tag
        self._monitor = (
            ResourceMonitor(sandbox.limits, self.process_tree, self._kill_group, writable_dir)
            if sandbox
            else None
        )
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout = OutputCapture(os.dup(process.stdout.fileno()), self._kill_on_overflow)
        self.stderr = OutputCapture(os.dup(process.stderr.fileno()), self._kill_on_overflow)
        process.stdout.close()
        process.stderr.close()
        self._exited = asyncio.Event()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        self.process.poll()
        self._close_pidfd()
        self._exited.set()

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    @property
    def pid(self) -> int:
        """The process of the program itself; in the sandbox it is the launcher's grandchild."""
        if self._program_pid is None:
            line = [self.leader, *descendants(self.leader, _MAX_PROCESSES)]
            if len(line) < 3:
                return self.leader
            self._program_pid = line[2]
        return self._program_pid

    def _kill_group(self, reason: str) -> None:
        """End it at once; in the sandbox process 1 is of this group, and takes the others with it."""
        self.kill_reason = reason
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.leader, signal.SIGKILL)

    def _kill_on_overflow(self) -> None:
        self._kill_group(f"it printed more than {MAX_OUTPUT >> 20} MiB")

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        status = self.process.poll()
        # bubblewrap, as a shell, leaves with 128 and the signal that ended the program.
        return 128 - status if status is not None and self._sandboxed and status > 128 else status

    @property
    def exit_description(self) -> str:
        """How it ended, in words; "" while it runs."""
        status = self.status
        if status is None:
            return ""
        if self.kill_reason:
            return f"stopped: {self.kill_reason}"
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-status).name}"
            return f"killed by signal {-status}"
        return f"exit status {status}"

    @property
    def stderr_tail(self) -> str:
        """The last lines of its standard error, escaped; "" where there are none."""
        lines = self.stderr.data.strip().splitlines()[-12:]
        return "\n".join(escape(line) for line in lines)

    async def wait(self, timeout: float) -> bool:
        """Whether it ends within so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), timeout)
        return self._exited.is_set()

    async def feed_stdin(self, data: bytes) -> None:
        """Write to its standard input and end that; it may have gone, or not read."""
        if self.process.stdin is None:
            return
        stdin, self.process.stdin = self.process.stdin, None
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_write_all, stdin.fileno(), data)
        with contextlib.suppress(OSError):
            stdin.close()

    def process_tree(self, *, include_detached: bool = False) -> list[int]:
        """It and what descends from it. `strays` (it means a look at every process there is): also what has
        left it since, found by its session or by the mark in its environment.
        """
        found = {self.leader, *descendants(self.leader, _MAX_PROCESSES)}
        if include_detached or not self.running:
            found |= set(_tagged_processes(self._tag, self.leader))
        return sorted(found)

    async def finish_trace(self) -> None:
        """It is being traced: let the tracer finish its page."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader, signal.SIGINT)
        await self.wait(10.0)

    def is_idle(self) -> bool:
        """Whether it and what it started do nothing but wait, in every thread."""
        states = [read_stat(pid, tid)[1:2] for pid in self.process_tree() for tid in thread_ids(pid)]
        return bool(states) and all(state in (["S"], ["Z"], []) for state in states)

    async def kill_tree(self) -> None:
        """End it and all that it started, and wait until they are gone."""
        for _ in range(400):  # who forks while we look is found the next time, and dying takes a moment
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader, signal.SIGKILL)
            left = [pid for pid in self.process_tree(include_detached=True) if _kill(pid)]
            if not left:
                break
            await asyncio.sleep(0.005)
        if self._monitor is not None:
            self._monitor.stop()
        await self.wait(5.0)
        self.process.poll()
        self._close_pidfd()
        self.stdout.close()
        self.stderr.close()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


def trace_command(command: Sequence[str], page: Path | None) -> list[str]:
    """The command that draws what this one calls, and its packets, on a page, and saves them beside it for
    `bothends trace --open`; or itself.
    """
    if page is None:
        return list(command)
    places = ("--html", str(page), "--save", str(page.with_suffix(".trace")))
    return [*self_command(), "trace", *places, "--", *command]


def start_program(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] = {},
    stdin: bool = False,
    sandbox: Sandbox | None = None,
    scratch_dir: Path | None = None,
    writable: bool = False,
    hosts_file: Path | None = None,
) -> ProgramProcess:
    """Start a program. `stdin`: we will `feed` it, else it has none. `folder` is its current directory.

    In a `sandbox`, `room` is the folder that is its own, and `writable` whether it may write there. `hosts`
    stands in for /etc/hosts.

    Raises:
        SystemRefused: it can't be started.
    """
    mark = reaper.process_tag(secrets.token_hex(8))
    if sandbox is not None and scratch_dir is not None:
        command = sandbox.wrap(command, scratch_dir, writable=writable, hosts_file=hosts_file)
    elif hosts_file is not None and scratch_dir is not None:
        command = with_hosts_file(command, scratch_dir, hosts_file)
    try:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**os.environ, **environment, _TAG_VARIABLE: mark},
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        number = error.errno or 0 if isinstance(error, OSError) else 22
        raise SystemCallFailed("start", command[0], number, "is the command right?") from error
    return ProgramProcess(process, mark, sandbox, scratch_dir if writable else None)


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """While this lasts, whoever loses his parent gets this process for one (prctl(2)), and is ended after it.

    A daemon that has cleared its environment would be found by nothing else. Should this process be killed
    meanwhile, its heir ends all that it has started.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with reaper.Reaper() as ours:
            ours.kill_tagged(_TAG_VARIABLE)
            yield
    finally:
        for _ in range(100):  # the children of who is killed come to us in turn
            for pid in descendants(os.getpid(), _MAX_PROCESSES):
                _kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
                continue
            break
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:65_536]) :]


def _kill(pid: int) -> bool:
    """Kill a process; whether there was one that still ran."""
    if not is_running(pid):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _tagged_processes(tag: str, session: int) -> Iterator[int]:
    """Processes of a session, or with our mark in the environment they were started with."""
    wanted = f"{_TAG_VARIABLE}={tag}".encode()
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session or reaper.has_tag(pid, [wanted]):
                yield pid
