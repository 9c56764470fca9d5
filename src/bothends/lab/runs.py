"""Start the process of a run, pass requests and replies on, and end it.

A process is started ahead of its run: its start and the sandbox take half a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from bothends.errors import Unavailable
from bothends.lab.messages import (
    DEFAULT_TIME_LIMIT,
    MAX_REPLY,
    MAX_TIME_LIMIT,
    Failed,
    Prepared,
    Request,
    Start,
    encode,
)

_START_TIMEOUT: Final = 30.0  # seconds until a process has its sandbox
_EXIT_TIMEOUT: Final = 12.0  # seconds from the end of its requests to SIGKILL
_OVERTIME: Final = 90.0  # seconds beyond a run's time limit, for building and for findings

_COMMAND: Final = (sys.executable, "-P", "-m", "bothends.lab.run")
_first_reply: Final = msgspec.json.Decoder(Prepared | Failed)


class RunProcess:
    """The process of one run. Start it with `RunProcess.start`, and end it with `close`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.sandbox = ""
        self.time_limit = DEFAULT_TIME_LIMIT

    @classmethod
    async def start(cls, *, save: Path | None = None) -> RunProcess:
        """Start a process, and wait until it has its sandbox. `save`: the file for the trace of its run.

        Raises:
            Unavailable: there is no sandbox.
        """
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            *([] if save is None else ["--save", str(save)]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_REPLY,
            start_new_session=True,
        )
        run = cls(process)
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
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(encode(request) + b"\n")

    async def read(self) -> bytes:
        """Return the next reply, a line; b"" at the end."""
        assert self._process.stdout is not None
        try:
            return (await self._process.stdout.readuntil(b"\n"))[:-1]
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return b""

    @property
    def max_seconds(self) -> float:
        """How long the run may take at most, with everything around it."""
        return min(self.time_limit, MAX_TIME_LIMIT) + _OVERTIME

    async def close(self) -> None:
        """End the run, if it is not over, and all its programs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        drain = asyncio.ensure_future(self._drain())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _EXIT_TIMEOUT)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drain

    async def _drain(self) -> None:
        """Read what is left and not wanted any longer, so that the process can write it and exit."""
        assert self._process.stdout is not None
        while await self._process.stdout.read(1 << 16):
            pass


class RunPool:
    """Keeps one process ready for the next run."""

    def __init__(self) -> None:
        self._next: asyncio.Task[RunProcess] | None = None

    async def prepare(self) -> RunProcess:
        """Start the first process. Returns: it, which stays in the pool. Raises Unavailable."""
        self._next = asyncio.create_task(RunProcess.start())
        return await self._next

    async def take(self) -> RunProcess:
        """Return a process for a run, and start the next one. Raises Unavailable."""
        task, self._next = self._next, None
        if task is None:
            task = asyncio.create_task(RunProcess.start())
        try:
            return await task
        finally:
            if self._next is None:
                self._next = asyncio.create_task(RunProcess.start())

    async def close(self) -> None:
        """End the process that is ready."""
        task, self._next = self._next, None
        if task is not None:
            with contextlib.suppress(Unavailable):
                await (await task).close()
