"""What is judged: a server that is started for each case, or one that runs already.

A case may ruin the server, so where it can be each case has one of its own, and several run at once. That
takes a port that can be chosen: by `{port}` on the command line, by the variable PORT, or because the program
lets the system pick. A program that insists on one port has its cases one after another, and is started anew
only when it has to be.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bothends.check.contract import Contract
from bothends.check.errors import NotReady
from bothends.check.oracle import Answers
from bothends.check.sandbox.launcher import Sandbox
from bothends.check.subjects.listening import listeners
from bothends.check.subjects.process import Program, start, traced
from bothends.check.subjects.server_context import Server, Trial
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint
from bothends.errors import CallerError, EndpointError
from bothends.sockets.free_port import free_port

_POLL: Final = 0.01  # seconds between looks at whether it listens
READY: Final = 15.0  # seconds that a program may take until it listens, on a machine that isn't busy


@dataclass
class Target:
    """How servers are come by. See Subject."""

    contract: Contract
    command: Sequence[str] = ()
    endpoint: str = ""
    folder: Path | None = None
    """The program's current directory; ours unless told."""

    environment: Mapping[str, str] = field(default_factory=dict)
    sandbox: Sandbox | None = None
    trace: Path | None = None
    scale: float = 1.0  # how much slower this machine is than an idle one

    chooses: bool = False
    """The port (or path) is ours to choose."""

    fixed: Endpoint | None = None
    """The only place where it listens, or where it runs already."""

    _kept: Server | None = None

    @property
    def started(self) -> bool:
        """Whether we start it."""
        return bool(self.command)

    @property
    def parallel(self) -> bool:
        """Whether several can run at once."""
        return self.started and self.fixed is None

    @property
    def title(self) -> str:
        """See Subject."""
        return " ".join(self.command) or self.endpoint

    @asynccontextmanager
    async def attempt(
        self, answers: Answers, transcript: Transcript, patience: float
    ) -> AsyncIterator[Trial]:
        """See Subject."""
        server = await self._open()
        one = Trial(self.contract, server, answers, transcript, patience, self.scale, self._restart)
        try:
            yield one
        finally:
            one.close()
            if self.trace is not None and one.server.program is not None:
                await one.server.program.draw()
            await self._close(one.server)

    async def prepare(self) -> float:
        """Find out how it is come by; seconds that it takes until it listens (0 where it runs already).

        Raises:
            NotReady: it can't be started, or doesn't listen.
            CallerError: neither a command nor an endpoint.
        """
        if self.endpoint and (scheme := self.endpoint.partition("://")[0]) != self.contract.transport:
            raise EndpointError(
                self.endpoint, f"the contract is for {self.contract.transport}, and this is {scheme}"
            )
        if not self.command:
            if not self.endpoint:
                raise CallerError(
                    "check what? Give a command after --, or --endpoint for one that runs already"
                )
            self.fixed = _numeric(self.endpoint)
            return 0.0
        words = " ".join((*self.command, self.endpoint))
        self.chooses = any(word in words for word in ("{port}", "{path}"))
        if self.endpoint and "{" not in self.endpoint:
            self.fixed = _numeric(self.endpoint)
        began = asyncio.get_running_loop().time()
        first = await self._start()
        took = asyncio.get_running_loop().time() - began
        try:
            if self.chooses or self.fixed is not None:
                return took
            if first.endpoint.port == first.told_port:
                self.chooses = True  # it took the variable PORT
                return took
        finally:
            await self._stop(first)
        second = await self._start()
        await self._stop(second)
        if second.endpoint == first.endpoint:
            self.fixed = first.endpoint
        return took

    async def _open(self) -> Server:
        """A server, new where that is possible."""
        if not self.started:
            assert self.fixed is not None
            return Server(self.fixed, None)
        if self.fixed is None:
            return await self._start()
        if self._kept is not None and not _healthy(self._kept):
            await self._stop(self._kept)
            self._kept = None
        if self._kept is None:
            self._kept = await self._start()
        return self._kept

    async def _close(self, server: Server) -> None:
        """The case is over. A server at a fixed place is kept for the next as long as it lives."""
        if server is self._kept and _healthy(server):
            return
        await self._stop(server)

    async def _restart(self, server: Server) -> Server:
        """Start the same again at the same place, after `server` has been ended."""
        again = await self._start(at=server.endpoint)
        if self._kept is server:
            self._kept = again
        return again

    async def finish(self) -> None:
        """All cases are over."""
        if self._kept is not None:
            await self._stop(self._kept)
            self._kept = None

    async def _start(self, at: Endpoint | None = None) -> Server:
        if at is None and self.chooses:
            try:
                return await self._start_once()
            except NotReady as error:
                if not error.ended:
                    raise
            # Another program may have taken the port just now: once more, at another.
        return await self._start_once(at)

    async def _start_once(self, at: Endpoint | None = None) -> Server:
        folder = Path(tempfile.mkdtemp(prefix="bothends-check-"))
        _fill_folder(folder, self.contract.files)
        port = at.port if at is not None and at.port else free_port()
        path = at.path if at is not None and at.path else str(folder / "socket")
        values = {"host": "127.0.0.1", "port": str(port), "path": path, "dir": str(folder)}
        command = [fill(word, values) for word in self.command]
        try:
            program = start(
                traced(command, self.trace),
                environment={**self.environment, "PORT": str(port)},
                folder=self.folder,
                sandbox=self.sandbox,
                room=folder,
                writable=self.contract.transport.startswith("unix"),
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        wanted = _numeric(fill(self.endpoint, values)) if self.endpoint else None
        server = Server(wanted or Endpoint("tcp", host="127.0.0.1", port=port), program, folder, port)
        try:
            told = port if wanted is None and "{port}" in " ".join(self.command) else None
            server.endpoint = await self._until_it_listens(program, wanted, told)
        except BaseException:
            await self._stop(server)
            raise
        return server

    async def _until_it_listens(
        self, program: Program, wanted: Endpoint | None, told: int | None
    ) -> Endpoint:
        """Where it listens: at the place that is `wanted`, at the port that it was `told`, or anywhere."""
        limit = READY * self.scale
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        settled = False
        while True:
            found = listeners(program.family(), self.contract.transport)
            places = [each for each in found if _is_there(each, wanted, told)]
            told_of = _printed(places, program.stdout.data + program.stderr.data)
            if places and (wanted or len(places) == 1 or told_of or settled):
                return wanted or (told_of or places)[0]
            settled = bool(places) and program.asleep()  # what it had to say of its ports it has said
            if not program.running:
                await program.stdout.end(0.5)
                await program.stderr.end(0.5)
                hint = "; it must not go to the background" if program.status == 0 else ""
                reason = f"it ended before it listened ({program.ending}){hint}"
                raise NotReady(reason, program.complaint, ended=True)
            # Who sleeps for so long isn't starting any more.
            if loop.time() > deadline or (loop.time() > deadline - limit * 2 / 3 and program.asleep()):
                where = f" at {wanted}" if wanted else f" at port {told}" if told else ""
                waited = loop.time() - deadline + limit
                raise NotReady(
                    f"it doesn't listen by {self.contract.transport}{where} after {waited:.0f} s"
                    + _elsewhere(found, told),
                    program.complaint,
                )
            await asyncio.sleep(_POLL)

    async def _stop(self, server: Server) -> None:
        try:
            if server.program is not None:
                await server.program.end()
        finally:  # ^C may come right now
            if server.folder is not None:
                shutil.rmtree(server.folder, ignore_errors=True)


def _fill_folder(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


def fill(word: str, values: Mapping[str, str]) -> str:
    """`{port}` and its kind replaced; other braces stay, for they may be the program's own."""
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


def _healthy(server: Server) -> bool:
    return server.program is not None and server.program.running


def _is_there(found: Endpoint, wanted: Endpoint | None, told: int | None) -> bool:
    if wanted is not None:
        return found.path == wanted.path if wanted.is_unix else found.port == wanted.port
    return told is None or found.port == told


def _elsewhere(found: Sequence[Endpoint], told: int | None) -> str:
    """Where a program listens that was told another port."""
    if not found or told is None:
        return ""
    port = found[0].port or 0
    swapped = ": the same with its bytes swapped, as without htons()" if port == socket.htons(told) else ""
    return f", but at port {port}{swapped}"


def _printed(places: Sequence[Endpoint], output: bytes) -> list[Endpoint]:
    """The places whose port stands in what a program has printed."""
    return [each for each in places if re.search(rb"(?<!\d)%d(?!\d)" % (each.port or 0), output)]


def _numeric(text: str) -> Endpoint:
    """An endpoint whose host is an address: a name is looked up once, and the first address is taken."""
    endpoint = Endpoint.parse(text)
    if endpoint.is_unix:
        return endpoint
    try:
        found = socket.getaddrinfo(endpoint.host or "127.0.0.1", endpoint.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise EndpointError(text, f"its host has no address: {error.strerror}") from error
    return endpoint.with_host(str(found[0][4][0]))
