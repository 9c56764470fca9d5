"""Start the process of a run, pass requests and replies on, and end it.

A process is started ahead of its run, and forked from one that has imported everything: its start and the
sandbox would take a third of a second, and more on a busy machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from bothends.errors import Unavailable
from bothends.lab.messages import (
    DEFAULT_TIME_LIMIT,
    LAST_REPLIES,
    MAX_REPLY,
    Failed,
    Job,
    Judge,
    Measure,
    Prepared,
    Request,
    Start,
    encode,
)
from bothends.osutil.reexec import self_command

_START_TIMEOUT: Final = 30.0  # seconds until a process has its sandbox
_EXIT_TIMEOUT: Final = 12.0  # seconds from the end of its requests to SIGKILL
_OVERTIME: Final = 90.0  # seconds beyond a run's time limit, for building and for findings
_JOB_SECONDS: Final = 300.0  # for judging and measuring

PID: Final = struct.Struct("i")
"""The answer of the process that forks runs."""

_IN_CLASS: Final = "--class"  # with the limits of a class
SAVE_IN: Final = "--save-in"
_first_reply: Final = msgspec.json.Decoder(Prepared | Failed)


def saved_trace(folder: Path, pid: int) -> Path:
    """Return the file in which the process of a run saves its trace."""
    return folder / f"{pid}.trace"


class RunForks:
    """The process that forks those of runs (`run_forks.py`). `in_class`: with the limits of a class.

    `save_in`: the folder in which a run's process saves its trace, in the file of `saved_trace`.
    """

    def __init__(self, *, in_class: bool = False, save_in: Path | None = None) -> None:
        self._in_class = in_class
        self._save_in = save_in
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()

    async def fork(self) -> tuple[int, int, socket.socket]:
        """Return the id and the descriptor of a new process, and the socket that it reads and writes.

        Raises:
            ConnectionError: it cannot be started.
        """
        async with self._lock:
            for is_last in (False, True):  # it may have been killed since the last time
                own, channel = socket.socketpair()
                try:
                    with channel:
                        pid, handle = await self._ask(channel)
                except OSError:
                    own.close()
                    await self.close()
                    if is_last:
                        raise
                else:
                    own.setblocking(False)
                    return pid, handle, own
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, channel: socket.socket) -> tuple[int, int]:
        if self._control is None:
            self._control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control.setblocking(False)
            with inner:
                self._process = await asyncio.create_subprocess_exec(
                    *self_command("bothends.lab.run_forks"),
                    *([_IN_CLASS] if self._in_class else []),
                    *([SAVE_IN, str(self._save_in)] if self._save_in is not None else []),
                    stdin=inner.fileno(),
                    start_new_session=True,
                )
        socket.send_fds(self._control, [b"1"], [channel.fileno()])
        await asyncio.wait_for(_readable(self._control), _START_TIMEOUT)
        data, handles, _, _ = socket.recv_fds(self._control, PID.size, 1)
        if len(data) < PID.size:
            raise ConnectionError("the process that forks runs has ended")
        return PID.unpack(data)[0], handles[0]

    async def close(self) -> None:
        """End it. Processes that it has forked go on."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            control.close()
        if process is not None:
            await process.wait()


class RunProcess:
    """The process of one run. Start it with `RunProcess.start`, and end it with `close`."""

    def __init__(
        self, pid: int, handle: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self._handle = handle
        self._reader = reader
        self._writer = writer
        self.sandbox = ""
        self.time_limit = DEFAULT_TIME_LIMIT

    @classmethod
    async def start(cls, forks: RunForks) -> RunProcess:
        """Start a process, and wait until it has its sandbox.

        Raises:
            Unavailable: there is no sandbox.
        """
        try:
            pid, handle, channel = await forks.fork()
        except (OSError, TimeoutError) as error:
            raise Unavailable("run", "programs in the sandbox", reason=str(error)) from error
        run = cls(pid, handle, *await asyncio.open_unix_connection(sock=channel, limit=MAX_REPLY))
        reason = "its process has ended"
        try:
            line = await asyncio.wait_for(run.read(), _START_TIMEOUT)
            if line:
                match _first_reply.decode(line):
                    case Prepared(sandbox):
                        run.sandbox = sandbox
                        return run
                    case Failed(text):
                        reason = text
        except TimeoutError:
            reason = f"it wasn't ready after {_START_TIMEOUT:.0f} s"
        except BaseException:
            await run.close()
            raise
        await run.close()
        raise Unavailable("run", "programs in the sandbox", reason=reason)

    def send(self, request: Request) -> None:
        """Pass a request on, which is checked."""
        if isinstance(request, Start):
            self.time_limit = request.time_limit
        elif isinstance(request, Judge | Measure):
            self.time_limit = _JOB_SECONDS
        if not self._writer.is_closing():
            self._writer.write(encode(request) + b"\n")

    async def carry_out(self, job: Job, on_reply: Callable[[bytes], Awaitable[None]]) -> bool:
        """Send a job, and call a function with each reply. Returns: whether it has come to its end."""
        self.send(job)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.max_seconds):
                while line := await self.read():
                    await on_reply(line)
                    if line.startswith(LAST_REPLIES):
                        return True
        return False

    async def read(self) -> bytes:
        """Return the next reply, a line; b"" at the end."""
        try:
            return (await self._reader.readuntil(b"\n"))[:-1]
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return b""

    @property
    def max_seconds(self) -> float:
        """How long the run may take at most, with everything around it."""
        return self.time_limit + _OVERTIME

    async def close(self) -> None:
        """End the run, if it is not over, and all its programs."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()
        drain = asyncio.ensure_future(self._drain())
        try:
            await asyncio.wait_for(_readable(self._handle), _EXIT_TIMEOUT)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await _readable(self._handle)
        os.close(self._handle)
        drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drain
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _drain(self) -> None:
        """Read what is left and not wanted any longer, so that the process can write it and exit."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(1 << 16):
                pass


async def _readable(descriptor: int | socket.socket) -> None:
    """Wait until a descriptor is readable: a pidfd, when its process has exited."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


class RunPool:
    """Keeps processes ready for the next runs: `size` of them. `in_class`: with the limits of a class."""

    def __init__(self, size: int = 1, *, in_class: bool = False) -> None:
        self._size = size
        self._forks = RunForks(in_class=in_class)
        self._ready: deque[asyncio.Task[RunProcess]] = deque()

    async def prepare(self) -> RunProcess:
        """Start the processes. Returns: the first, which stays in the pool. Raises Unavailable."""
        self._fill()
        return await self._ready[0]

    async def take(self) -> RunProcess:
        """Return a process for a run, and start the next one. Raises Unavailable."""
        self._fill(self._size + 1)
        task = self._ready.popleft()
        return await task

    def _fill(self, size: int | None = None) -> None:
        for _ in range(len(self._ready), self._size if size is None else size):
            self._ready.append(asyncio.create_task(RunProcess.start(self._forks)))

    async def close(self) -> None:
        """End the processes that are ready."""
        while self._ready:
            with contextlib.suppress(Unavailable):
                await (await self._ready.popleft()).close()
        await self._forks.close()
