"""One case under way: its server, its sockets, its messages, and what it writes down.

The verbs here are what the tables of `suites/` are made of. Each raises `Failed` in words that stand alone.
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

from bothends.check.case import Failed
from bothends.check.contract import Contract
from bothends.check.oracle import Answers, Reply
from bothends.check.subjects.listening import listeners
from bothends.check.subjects.process import Program, stat_of, times_of
from bothends.check.subjects.recorded_socket import Talk, place_of
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint

_SPINS: Final = 0.7  # of the time: who wants to run so much does nothing else


@dataclass
class Server:
    """One server to ask: `program` is None where it isn't ours. `told_port`: what PORT said to it."""

    endpoint: Endpoint
    program: Program | None
    folder: Path | None = None
    told_port: int = 0


class Trial:
    """What a case works with. `patience`: seconds that only a wrong program takes to the end."""

    def __init__(
        self,
        contract: Contract,
        server: Server,
        answers: Answers,
        transcript: Transcript,
        patience: float,
        scale: float,
        restart: Callable[[Server], Awaitable[Server]],
    ) -> None:
        self.contract = contract
        self.server = server
        self._restart = restart
        self.answers = answers
        self.transcript = transcript
        self.patience = patience
        self.scale = scale
        self.ended_on_purpose = False
        self._talks: list[Talk] = []

    # Messages ------------------------------------------------------------------------------------

    def message(self, number: int = 0, size: int | None = None) -> bytes:
        """The `number`-th message, different from all others where the contract lets us choose; of `size`
        bytes where that is given.
        """
        if not self.answers.free:
            return self.answers.questions[number % len(self.answers.questions)]
        start = b"message %d of the check" % number
        if size is None:
            return start
        return (start + b" " + b"abcdefghijklmnopqrstuvwxyz" * (size // 26 + 1))[:size]

    def request(self, message: bytes) -> bytes:
        """A message as it goes over the wire; nothing where the server speaks first."""
        return b"" if self.contract.speaks_first else self.contract.encode(message)

    def reply(self, *messages: bytes) -> Reply:
        """What is right for these messages, one after the other."""
        return Reply.joined([self.answers.reply(each) for each in messages])

    # Talking -------------------------------------------------------------------------------------

    async def connect(
        self,
        who: str = "client",
        *,
        deaf: bool = False,
        patience: float | None = None,
        at: Endpoint | None = None,
    ) -> Talk:
        """A connection, or a datagram socket that talks to the server only. Closed when the case ends.

        `deaf`: with the smallest receive buffer there is (on Linux 2,304 bytes: SOCK_MIN_RCVBUF). `at`:
        another place than the server's.
        """
        talk, address = self._talk(who, at or self.server.endpoint, patience or self.patience, deaf=deaf)
        await talk.connect(address)
        return talk

    def begin_connecting(self, who: str, *, deaf: bool = False) -> Talk:
        """As `connect`, but nothing is waited for."""
        talk, address = self._talk(who, self.server.endpoint, self.patience, deaf=deaf)
        talk.begin_connecting(address)
        return talk

    def _talk(self, who: str, at: Endpoint, patience: float, *, deaf: bool = False) -> tuple[Talk, Any]:
        family, kind, address = place_of(at)
        sock = socket.socket(family, kind)
        sock.setblocking(False)
        if deaf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            sock.bind("")  # an abstract name of its own (unix(7)): replies need somewhere to go
        talk = Talk(sock, who, self.transcript, patience)
        self._talks.append(talk)
        return talk, address

    async def ask(self, talk: Talk, *messages: bytes) -> None:
        """Send messages, on a stream in one write, and hear their replies."""
        if self.contract.is_datagram:
            for each in messages:
                await talk.say(each)
                await talk.hear_datagram(self.reply(each))
            return
        await talk.say(b"".join(map(self.request, messages)))
        await talk.hear(self.reply(*messages))

    async def serves(self, who: str = "next", number: int = 900) -> None:
        """A new client is served as ever. Raises Failed."""
        talk = await self.connect(who)
        await self.ask(talk, self.message(number))
        talk.close()

    async def still_serves(self, after: str) -> None:
        """As `serves`; what goes wrong is put down to what has just been done."""
        try:
            await self.serves()
        except Failed as failed:
            await asyncio.sleep(0)
            end = await self.ending()
            raise Failed(
                f"the next client to be served after {after}",
                f"{failed.happened}{f'; the server has ended: {end}' if end else ''}",
                late=failed.late,
            ) from failed

    async def ending(self) -> str:
        """How the server has ended; "" while it runs, or where it isn't ours."""
        program = self.server.program
        if program is None:
            return ""
        await program.wait(0.05)
        return program.ending

    async def evidence(self, failed: Failed) -> tuple[Failed, str]:
        """See Attempt."""
        program = self.server.program
        if program is None or self.ended_on_purpose:
            return failed, ""
        ending = await self.ending()
        if ending:
            self.transcript.add("server", f"has ended: {ending}")
            await program.stderr.end(0.5)
            known = ending in failed.happened or "has ended" in failed.happened
            happened = failed.happened if known else f"{failed.happened} (the server has ended: {ending})"
            return Failed(failed.expected, happened), program.complaint
        if failed.late and self.asleep():
            failed = Failed(failed.expected, f"{failed.happened} (the server waits too)")
        return failed, program.complaint

    # The process ---------------------------------------------------------------------------------

    @property
    def program(self) -> Program:
        """The server's process; only for cases that ask for one."""
        assert self.server.program is not None
        return self.server.program

    def signal(self, number: int, name: str) -> None:
        """Send the server a signal."""
        self.transcript.add("check", f"sends {name} to the server")
        with suppress(ProcessLookupError):
            os.kill(self.program.pid, number)

    def descriptors(self) -> int:
        """How many descriptors the server and what it started hold."""
        count = 0
        for pid in self.program.family():
            with suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
        return count

    def zombies(self) -> int:
        """How many of its children are dead and not waited for."""
        return sum(stat_of(pid)[:1] == ["Z"] for pid in self.program.family())

    def memory(self) -> int:
        """Bytes that the server and what it started hold in memory (RSS)."""
        pages = sum(int(stat[21]) for pid in self.program.family() if len(stat := stat_of(pid)) > 21)
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> dict[int, tuple[float, float]]:
        """For each of its processes the seconds in which it ran, and in which it ran or waited to."""
        times = {pid: times_of(pid) for pid in self.program.family()}
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

    def asleep(self) -> bool:
        """Whether all of the server waits: what hasn't come by now won't come, however long we wait.

        Of one that isn't ours nobody knows.
        """
        return self.server.program is None or self.program.asleep()

    async def busy(self, windows: int = 3, seconds: float = 1.0) -> float:
        """The least share of some windows of time in which it ran, from 0 to 1 or more.

        A busy loop on a busy machine runs little, and yet wants to all the time: then that is the share. (Who
        wakes up now and then wants to run for some time too where others hold it up, but never most of it. So
        each process is looked at by itself: many that wake up now and then are no loop.)
        """
        loop = asyncio.get_running_loop()
        least = float("inf")
        for _ in range(windows):
            before, began = self.cpu(), loop.time()
            await asyncio.sleep(seconds)
            took = loop.time() - began
            grown = [
                ((now[0] - then[0]) / took, (now[1] - then[1]) / took)
                for now, then in ((now, before.get(pid, (0.0, 0.0))) for pid, now in self.cpu().items())
            ]
            ran = sum(each for each, _ in grown)
            wanted = max((each for _, each in grown), default=0.0)
            least = min(least, wanted if wanted > _SPINS else ran)
            if least < 0.05:
                break
        return max(0.0, least)

    def listens(self) -> bool:
        """Whether the server, or something it left behind, still listens."""
        program = self.program
        return bool(listeners(program.family(strays=True), self.contract.transport))

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether a condition comes true within so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not condition():
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def kill(self) -> None:
        """End the server by SIGKILL, and all that it started. That it has ended is then no evidence."""
        self.ended_on_purpose = True
        await self.program.end()

    async def restart(self) -> None:
        """Start the server again at the same place.

        Raises:
            NotReady: it doesn't come to listen.
            SystemRefused: it can't be started.
        """
        self.transcript.add("check", "starts the server again at the same place")
        self.server = await self._restart(self.server)
        self.ended_on_purpose = False

    def close(self) -> None:
        """Close all sockets of the case."""
        for talk in self._talks:
            with suppress(OSError):
                talk.socket.close()
