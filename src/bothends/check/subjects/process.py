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

from bothends.check.sandbox.launcher import Sandbox, Watch, with_hosts
from bothends.errors import SystemRefused
from bothends.escaping import escape
from bothends.osutil import reaper
from bothends.osutil.reexec import itself

MOST_OUTPUT: Final = 64 << 20  # bytes: reading without end would hold up all other cases
_KEPT: Final = 16_384  # bytes of output from the beginning, and as many from the end
_MOST_LOOKED_AT: Final = 4096  # processes of one program
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
_MARK: Final = "BOTHENDS_CHECK"  # in the environment of all that it starts, whatever their parents become


class Output:
    """One stream that a program writes to; its beginning and its end are kept."""

    def __init__(self, descriptor: int, flooded: Callable[[], None]) -> None:
        self.size = 0
        self._flooded = flooded
        self._first = bytearray()
        self._last: deque[int] = deque(maxlen=_KEPT)
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
        if self.size > MOST_OUTPUT:
            self.close()
            self._flooded()
            return
        room = _KEPT - len(self._first)
        self._first += data[:room]
        self._last.extend(data[room:][-_KEPT:])

    @property
    def data(self) -> bytes:
        """What was kept."""
        gap = self.size - len(self._first) - len(self._last)
        middle = f"\n... {gap:,} bytes left out ...\n".encode() if gap else b""
        return bytes(self._first) + middle + bytes(self._last)

    async def wait(self, until: Callable[[bytes], bool], within: float) -> bool:
        """Whether what was printed comes to fit `until` within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not until(self.data) and not self._closed.is_set():
                    self._changed.clear()
                    await self._changed.wait()
        return until(self.data)

    async def end(self, within: float) -> None:
        """Wait until nobody can write any more, but not for ever: a grandchild may hold it open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), within)

    def close(self) -> None:
        """Read no more. Idempotent."""
        if not self._closed.is_set():
            self._closed.set()
            self._changed.set()
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)


class Program:
    """One running program. Start it with `start`, end it with `end`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        mark: str,
        sandbox: Sandbox | None = None,
        folder: Path | None = None,
    ) -> None:
        self.process = process
        self.leader = process.pid
        self.ended_for = ""
        self._confined = sandbox is not None
        self._found: int | None = None if sandbox else process.pid
        self._mark = mark
        self._watch = Watch(sandbox.limits, self.family, self._end_for, folder) if sandbox else None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout = Output(os.dup(process.stdout.fileno()), self._end_flood)
        self.stderr = Output(os.dup(process.stderr.fileno()), self._end_flood)
        process.stdout.close()
        process.stderr.close()
        self._gone = asyncio.Event()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        self.process.poll()
        self._close_pidfd()
        self._gone.set()

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    @property
    def pid(self) -> int:
        """The process of the program itself; in the sandbox it is the launcher's grandchild."""
        if self._found is None:
            line = [self.leader, *_descendants(self.leader)]
            if len(line) < 3:
                return self.leader
            self._found = line[2]
        return self._found

    def _end_for(self, reason: str) -> None:
        """End it at once; in the sandbox process 1 is of this group, and takes the others with it."""
        self.ended_for = reason
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.leader, signal.SIGKILL)

    def _end_flood(self) -> None:
        self._end_for(f"it printed more than {MOST_OUTPUT >> 20} MiB")

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        status = self.process.poll()
        # bubblewrap, as a shell, leaves with 128 and the signal that ended the program.
        return 128 - status if status is not None and self._confined and status > 128 else status

    @property
    def ending(self) -> str:
        """How it ended, in words; "" while it runs."""
        status = self.status
        if status is None:
            return ""
        if self.ended_for:
            return f"stopped: {self.ended_for}"
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-status).name}"
            return f"killed by signal {-status}"
        return f"exit status {status}"

    @property
    def complaint(self) -> str:
        """The last lines of its standard error, escaped; "" where there are none."""
        lines = self.stderr.data.strip().splitlines()[-12:]
        return "\n".join(escape(line) for line in lines)

    async def wait(self, within: float) -> bool:
        """Whether it ends within so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), within)
        return self._gone.is_set()

    async def feed(self, data: bytes) -> None:
        """Write to its standard input and end that; it may have gone, or not read."""
        if self.process.stdin is None:
            return
        stdin, self.process.stdin = self.process.stdin, None
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_write_all, stdin.fileno(), data)
        with contextlib.suppress(OSError):
            stdin.close()

    def family(self, *, strays: bool = False) -> list[int]:
        """It and what descends from it. `strays` (it means a look at every process there is): also what has
        left it since, found by its session or by the mark in its environment.
        """
        found = {self.leader, *_descendants(self.leader)}
        if strays or not self.running:
            found |= set(_marked(self._mark, self.leader))
        return sorted(found)

    async def draw(self) -> None:
        """It is being traced: let the tracer finish its page."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader, signal.SIGINT)
        await self.wait(10.0)

    def asleep(self) -> bool:
        """Whether it and what it started do nothing but wait, in every thread."""
        states = [stat_of(pid, f"task/{tid}/")[:1] for pid in self.family() for tid in _tasks(pid)]
        return bool(states) and all(state in (["S"], ["Z"], []) for state in states)

    async def end(self) -> None:
        """End it and all that it started, and wait until they are gone."""
        for _ in range(400):  # who forks while we look is found the next time, and dying takes a moment
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader, signal.SIGKILL)
            left = [pid for pid in self.family(strays=True) if _kill(pid)]
            if not left:
                break
            await asyncio.sleep(0.005)
        if self._watch is not None:
            self._watch.stop()
        await self.wait(5.0)
        self.process.poll()
        self._close_pidfd()
        self.stdout.close()
        self.stderr.close()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


def traced(command: Sequence[str], page: Path | None) -> list[str]:
    """The command that draws what this one calls, and its packets, on a page, and saves them beside it for
    `bothends trace --open`; or itself.
    """
    if page is None:
        return list(command)
    places = ("--html", str(page), "--save", str(page.with_suffix(".trace")))
    return [*itself(), "trace", *places, "--", *command]


def start(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] = {},
    stdin: bool = False,
    sandbox: Sandbox | None = None,
    room: Path | None = None,
    writable: bool = False,
    hosts: Path | None = None,
) -> Program:
    """Start a program. `stdin`: we will `feed` it, else it has none. `folder` is its current directory.

    In a `sandbox`, `room` is the folder that is its own, and `writable` whether it may write there. `hosts`
    stands in for /etc/hosts.

    Raises:
        SystemRefused: it can't be started.
    """
    mark = reaper.mark(secrets.token_hex(8))
    if sandbox is not None and room is not None:
        command = sandbox.wrap(command, room, writable=writable, hosts=hosts)
    elif hosts is not None and room is not None:
        command = with_hosts(command, room, hosts)
    try:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**os.environ, **environment, _MARK: mark},
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        number = error.errno or 0 if isinstance(error, OSError) else 22
        raise SystemRefused("start", command[0], number, "is the command right?") from error
    return Program(process, mark, sandbox, room if writable else None)


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
    """While this lasts, whoever loses his parent gets this process for one (prctl(2)), and is ended after it.

    A daemon that has cleared its environment would be found by nothing else. Should this process be killed
    meanwhile, its heir ends all that it has started.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with reaper.Heir() as ours:
            ours.inherits_marked(_MARK)
            yield
    finally:
        for _ in range(100):  # the children of who is killed come to us in turn
            for pid in _descendants(os.getpid()):
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
    if not _is_alive(pid):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] not in "ZX"


def _descendants(pid: int) -> Iterator[int]:
    """All that descend from a process (proc(5), /proc/PID/task/TID/children); of very many, the first.

    Bounded, because who forks for ever does so faster than we look.
    """
    found = [pid]
    for each in found:  # grows meanwhile
        if len(found) > _MOST_LOOKED_AT:
            return
        with contextlib.suppress(OSError):
            for tid in os.listdir(f"/proc/{each}/task"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{each}/task/{tid}/children").read_text(encoding="ascii")
                    children = [int(word) for word in text.split()]
                    yield from children
                    found += children


def _marked(mark: str, session: int) -> Iterator[int]:
    """Processes of a session, or with our mark in the environment they were started with."""
    wanted = f"{_MARK}={mark}".encode()
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(entry)) == session or reaper.is_marked(int(entry), [wanted]):
                yield int(entry)


def _tasks(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    return []


def stat_of(pid: int, task: str = "") -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/{task}stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def times_of(pid: int) -> tuple[float, float]:
    """Seconds in which the threads of a process ran, and in which others held them up (proc(5))."""
    ran = waited = 0
    for tid in _tasks(pid):
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{pid}/task/{tid}/schedstat").read_text(encoding="ascii").split()
            ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return ran / 1e9, waited / 1e9
