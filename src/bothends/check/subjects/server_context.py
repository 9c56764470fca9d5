"""One case under way: its server, its sockets, its messages, and what it writes down.

The verbs here are what the tables of `suites/` are made of. Each raises `ServiceFailed` in words that stand alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bothends.check.case import CheckFailed
from bothends.check.contract import Contract
from bothends.check.oracle import ExpectedReply, Oracle
from bothends.check.subjects.listening import listeners
from bothends.check.subjects.process import ProgramProcess
from bothends.check.subjects.recorded_socket import RecordedSocket, socket_address
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint
from bothends.osutil.process_info import read_process, read_stat, scheduling_times

_BUSY_LOOP_SHARE: Final = 0.7  # of the time: who wants to run so much does nothing else


@dataclass
class RunningServer:
    """One server to ask: `program` is None where it isn't ours. `assigned_port`: what PORT said to it."""

    endpoint: Endpoint
    program: ProgramProcess | None
    scratch_dir: Path | None = None
    assigned_port: int = 0


class ServerContext:
    """What a case works with. `patience`: seconds that only a wrong program takes to the end."""

    def __init__(
        self,
        contract: Contract,
        server: RunningServer,
        oracle: Oracle,
        transcript: Transcript,
        timeout: float,
        load_factor: float,
        restart: Callable[[RunningServer], Awaitable[RunningServer]],
    ) -> None:
        self.contract = contract
        self.server = server
        self._restart = restart
        self.oracle = oracle
        self.transcript = transcript
        self.timeout = timeout
        self.load_factor = load_factor
        self.killed_by_case = False
        self._sockets: list[RecordedSocket] = []

    # Messages ------------------------------------------------------------------------------------

    def message(self, number: int = 0, size: int | None = None) -> bytes:
        """The `number`-th message, different from all others where the contract lets us choose; of `size`
        bytes where that is given.
        """
        if not self.oracle.accepts_any_message:
            return self.oracle.messages[number % len(self.oracle.messages)]
        start = b"message %d of the check" % number
        if size is None:
            return start
        return (start + b" " + b"abcdefghijklmnopqrstuvwxyz" * (size // 26 + 1))[:size]

    def request(self, message: bytes) -> bytes:
        """A message as it goes over the wire; nothing where the server speaks first."""
        return b"" if self.contract.speaks_first else self.contract.encode(message)

    def reply(self, *messages: bytes) -> ExpectedReply:
        """What is right for these messages, one after the other."""
        return ExpectedReply.concatenate([self.oracle.reply(each) for each in messages])

    # Talking -------------------------------------------------------------------------------------

    async def connect(
        self,
        name: str = "client",
        *,
        small_rcvbuf: bool = False,
        timeout: float | None = None,
        endpoint: Endpoint | None = None,
    ) -> RecordedSocket:
        """A connection, or a datagram socket that talks to the server only. Closed when the case ends.

        `deaf`: with the smallest receive buffer there is (on Linux 2,304 bytes: SOCK_MIN_RCVBUF). `at`:
        another place than the server's.
        """
        talk, address = self._open_socket(
            name, endpoint or self.server.endpoint, timeout or self.timeout, small_rcvbuf=small_rcvbuf
        )
        await talk.connect(address)
        return talk

    def start_connect(self, name: str, *, small_rcvbuf: bool = False) -> RecordedSocket:
        """As `connect`, but nothing is waited for."""
        talk, address = self._open_socket(name, self.server.endpoint, self.timeout, small_rcvbuf=small_rcvbuf)
        talk.start_connect(address)
        return talk

    def _open_socket(
        self, name: str, endpoint: Endpoint, timeout: float, *, small_rcvbuf: bool = False
    ) -> tuple[RecordedSocket, Any]:
        family, kind, address = socket_address(endpoint)
        sock = socket.socket(family, kind)
        sock.setblocking(False)
        if small_rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            sock.bind("")  # an abstract name of its own (unix(7)): replies need somewhere to go
        talk = RecordedSocket(sock, name, self.transcript, timeout)
        self._sockets.append(talk)
        return talk, address

    async def exchange(self, conn: RecordedSocket, *messages: bytes) -> None:
        """Send messages, on a stream in one write, and hear their replies."""
        if self.contract.is_datagram:
            for each in messages:
                await conn.send(each)
                await conn.expect_datagram(self.reply(each))
            return
        await conn.send(b"".join(map(self.request, messages)))
        await conn.expect_reply(self.reply(*messages))

    async def expect_served(self, name: str = "next", number: int = 900) -> None:
        """A new client is served as ever. Raises Failed."""
        talk = await self.connect(name)
        await self.exchange(talk, self.message(number))
        talk.close()

    async def expect_still_served(self, event: str) -> None:
        """As `expect_served`; what goes wrong is put down to what has just been done."""
        try:
            await self.expect_served()
        except CheckFailed as failed:
            await asyncio.sleep(0)
            end = await self.exit_description()
            raise CheckFailed(
                f"the next client to be served after {event}",
                f"{failed.happened}{f'; the server has ended: {end}' if end else ''}",
                timed_out=failed.timed_out,
            ) from failed

    async def exit_description(self) -> str:
        """How the server has ended; "" while it runs, or where it isn't ours."""
        program = self.server.program
        if program is None:
            return ""
        await program.wait(0.05)
        return program.exit_description

    async def diagnose(self, failure: CheckFailed) -> tuple[CheckFailed, str]:
        """See Attempt."""
        program = self.server.program
        if program is None or self.killed_by_case:
            return failure, ""
        ending = await self.exit_description()
        if ending:
            self.transcript.add("server", f"has ended: {ending}")
            await program.stderr.wait_eof(0.5)
            known = ending in failure.happened or "has ended" in failure.happened
            happened = failure.happened if known else f"{failure.happened} (the server has ended: {ending})"
            return CheckFailed(failure.expected, happened), program.stderr_tail
        if failure.timed_out and self.is_idle():
            failure = CheckFailed(failure.expected, f"{failure.happened} (the server waits too)")
        return failure, program.stderr_tail

    # The process ---------------------------------------------------------------------------------

    @property
    def program(self) -> ProgramProcess:
        """The server's process; only for cases that ask for one."""
        assert self.server.program is not None
        return self.server.program

    def signal(self, number: int, name: str) -> None:
        """Send the server a signal."""
        self.transcript.add("check", f"sends {name} to the server")
        with suppress(ProcessLookupError):
            os.kill(self.program.pid, number)

    def fd_count(self) -> int:
        """How many descriptors the server and what it started hold."""
        count = 0
        for pid in self.program.process_tree():
            with suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
        return count

    def zombie_count(self) -> int:
        """How many of its children are dead and not waited for."""
        return sum(read_stat(pid)[1:2] == ["Z"] for pid in self.program.process_tree())

    def memory_usage(self) -> int:
        """Bytes that the server and what it started hold in memory (RSS)."""
        return sum(process.rss for pid in self.program.process_tree() if (process := read_process(pid)))

    def cpu_times(self) -> dict[int, tuple[float, float]]:
        """For each of its processes the seconds in which it ran, and in which it ran or waited to."""
        times = {pid: scheduling_times(pid) for pid in self.program.process_tree()}
        return {pid: (ran, ran + waited) for pid, (ran, waited) in times.items()}

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The server is stopped meanwhile, and only the kernel does its part; one that isn't ours goes on."""
        ours = self.server.program is not None
        if ours:
            self.signal(signal.SIGSTOP, "SIGSTOP")
        try:
            yield
        finally:
            if ours:
                self.signal(signal.SIGCONT, "SIGCONT")

    def is_idle(self) -> bool:
        """Whether all of the server waits: what hasn't come by now won't come, however long we wait.

        Of one that isn't ours nobody knows.
        """
        return self.server.program is None or self.program.is_idle()

    async def cpu_share(self, windows: int = 3, seconds: float = 1.0) -> float:
        """The least share of some windows of time in which it ran, from 0 to 1 or more.

        A busy loop on a busy machine runs little, and yet wants to all the time: then that is the share. (Who
        wakes up now and then wants to run for some time too where others hold it up, but never most of it. So
        each process is looked at by itself: many that wake up now and then are no loop.)
        """
        loop = asyncio.get_running_loop()
        least = float("inf")
        for _ in range(windows):
            before, began = self.cpu_times(), loop.time()
            await asyncio.sleep(seconds)
            took = loop.time() - began
            grown = [
                ((now[0] - then[0]) / took, (now[1] - then[1]) / took)
                for now, then in ((now, before.get(pid, (0.0, 0.0))) for pid, now in self.cpu_times().items())
            ]
            ran = sum(each for each, _ in grown)
            wanted = max((each for _, each in grown), default=0.0)
            least = min(least, wanted if wanted > _BUSY_LOOP_SHARE else ran)
            if least < 0.05:
                break
        return max(0.0, least)

    def is_listening(self) -> bool:
        """Whether the server, or something it left behind, still listens."""
        program = self.program
        return bool(listeners(program.process_tree(include_detached=True), self.contract.transport))

    async def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Whether a condition comes true within so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not condition():
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def kill(self) -> None:
        """End the server by SIGKILL, and all that it started. That it has ended is then no evidence."""
        self.killed_by_case = True
        await self.program.kill_tree()

    async def restart(self) -> None:
        """Start the server again at the same place.

        Raises:
            NotReady: it doesn't come to listen.
            SystemRefused: it can't be started.
        """
        self.transcript.add("check", "starts the server again at the same place")
        self.server = await self._restart(self.server)
        self.killed_by_case = False

    def close(self) -> None:
        """Close all sockets of the case."""
        for talk in self._sockets:
            with suppress(OSError):
                talk.socket.close()
