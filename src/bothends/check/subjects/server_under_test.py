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
from bothends.check.errors import NotListening
from bothends.check.oracle import Oracle
from bothends.check.sandbox.launcher import Sandbox
from bothends.check.subjects.listening import listeners
from bothends.check.subjects.process import ProgramProcess, start_program, trace_command
from bothends.check.subjects.server_context import RunningServer, ServerContext
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, UsageError
from bothends.sockets.free_port import free_port

_POLL_INTERVAL: Final = 0.01  # seconds between looks at whether it listens
STARTUP_TIMEOUT: Final = (
    15.0  # seconds that a program may take until it listens, on a machine that isn't busy
)


@dataclass
class ServerUnderTest:
    """How servers are come by. See Subject."""

    contract: Contract
    command: Sequence[str] = ()
    endpoint: str = ""
    cwd: Path | None = None
    """The program's current directory; ours unless told."""

    environment: Mapping[str, str] = field(default_factory=dict)
    sandbox: Sandbox | None = None
    trace: Path | None = None
    load_factor: float = 1.0  # how much slower this machine is than an idle one

    assigns_port: bool = False
    """The port (or path) is ours to choose."""

    fixed_endpoint: Endpoint | None = None
    """The only place where it listens, or where it runs already."""

    _reused: RunningServer | None = None

    @property
    def is_spawned(self) -> bool:
        """Whether we start it."""
        return bool(self.command)

    @property
    def parallel(self) -> bool:
        """Whether several can run at once."""
        return self.is_spawned and self.fixed_endpoint is None

    @property
    def title(self) -> str:
        """See Subject."""
        return " ".join(self.command) or self.endpoint

    @asynccontextmanager
    async def case_context(
        self, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> AsyncIterator[ServerContext]:
        """See Subject."""
        server = await self._acquire_server()
        one = ServerContext(
            self.contract, server, oracle, transcript, timeout, self.load_factor, self._restart_server
        )
        try:
            yield one
        finally:
            one.close()
            if self.trace is not None and one.server.program is not None:
                await one.server.program.finish_trace()
            await self._release_server(one.server)

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
                raise UsageError(
                    "check what? Give a command after --, or --endpoint for one that runs already"
                )
            self.fixed_endpoint = _resolve_endpoint(self.endpoint)
            return 0.0
        words = " ".join((*self.command, self.endpoint))
        self.assigns_port = any(word in words for word in ("{port}", "{path}"))
        if self.endpoint and "{" not in self.endpoint:
            self.fixed_endpoint = _resolve_endpoint(self.endpoint)
        began = asyncio.get_running_loop().time()
        first = await self._start_server()
        took = asyncio.get_running_loop().time() - began
        try:
            if self.assigns_port or self.fixed_endpoint is not None:
                return took
            if first.endpoint.port == first.assigned_port:
                self.assigns_port = True  # it took the variable PORT
                return took
        finally:
            await self._stop_server(first)
        second = await self._start_server()
        await self._stop_server(second)
        if second.endpoint == first.endpoint:
            self.fixed_endpoint = first.endpoint
        return took

    async def _acquire_server(self) -> RunningServer:
        """A server, new where that is possible."""
        if not self.is_spawned:
            assert self.fixed_endpoint is not None
            return RunningServer(self.fixed_endpoint, None)
        if self.fixed_endpoint is None:
            return await self._start_server()
        if self._reused is not None and not _is_running(self._reused):
            await self._stop_server(self._reused)
            self._reused = None
        if self._reused is None:
            self._reused = await self._start_server()
        return self._reused

    async def _release_server(self, server: RunningServer) -> None:
        """The case is over. A server at a fixed place is kept for the next as long as it lives."""
        if server is self._reused and _is_running(server):
            return
        await self._stop_server(server)

    async def _restart_server(self, server: RunningServer) -> RunningServer:
        """Start the same again at the same place, after `server` has been ended."""
        again = await self._start_server(endpoint=server.endpoint)
        if self._reused is server:
            self._reused = again
        return again

    async def close(self) -> None:
        """All cases are over."""
        if self._reused is not None:
            await self._stop_server(self._reused)
            self._reused = None

    async def _start_server(self, endpoint: Endpoint | None = None) -> RunningServer:
        if endpoint is None and self.assigns_port:
            try:
                return await self._start_once()
            except NotListening as error:
                if not error.exited:
                    raise
            # Another program may have taken the port just now: once more, at another.
        return await self._start_once(endpoint)

    async def _start_once(self, endpoint: Endpoint | None = None) -> RunningServer:
        folder = Path(tempfile.mkdtemp(prefix="bothends-check-"))
        _write_files(folder, self.contract.files)
        port = endpoint.port if endpoint is not None and endpoint.port else free_port()
        path = endpoint.path if endpoint is not None and endpoint.path else str(folder / "socket")
        values = {"host": "127.0.0.1", "port": str(port), "path": path, "dir": str(folder)}
        command = [fill_placeholders(word, values) for word in self.command]
        try:
            program = start_program(
                trace_command(command, self.trace),
                environment={**self.environment, "PORT": str(port)},
                cwd=self.cwd,
                sandbox=self.sandbox,
                scratch_dir=folder,
                writable=self.contract.transport.startswith("unix"),
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        wanted = _resolve_endpoint(fill_placeholders(self.endpoint, values)) if self.endpoint else None
        server = RunningServer(wanted or Endpoint("tcp", host="127.0.0.1", port=port), program, folder, port)
        try:
            told = port if wanted is None and "{port}" in " ".join(self.command) else None
            server.endpoint = await self._wait_listening(program, wanted, told)
        except BaseException:
            await self._stop_server(server)
            raise
        return server

    async def _wait_listening(
        self, program: ProgramProcess, expected: Endpoint | None, assigned_port: int | None
    ) -> Endpoint:
        """Where it listens: at the place that is `wanted`, at the port that it was `told`, or anywhere."""
        limit = STARTUP_TIMEOUT * self.load_factor
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        settled = False
        while True:
            found = listeners(program.process_tree(), self.contract.transport)
            places = [each for each in found if _matches_endpoint(each, expected, assigned_port)]
            told_of = _printed_endpoints(places, program.stdout.data + program.stderr.data)
            if places and (expected or len(places) == 1 or told_of or settled):
                return expected or (told_of or places)[0]
            settled = bool(places) and program.is_idle()  # what it had to say of its ports it has said
            if not program.running:
                await program.stdout.wait_eof(0.5)
                await program.stderr.wait_eof(0.5)
                hint = "; it must not go to the background" if program.status == 0 else ""
                reason = f"it ended before it listened ({program.exit_description}){hint}"
                raise NotListening(reason, program.stderr_tail, exited=True)
            # Who sleeps for so long isn't starting any more.
            if loop.time() > deadline or (loop.time() > deadline - limit * 2 / 3 and program.is_idle()):
                where = (
                    f" at {expected}" if expected else f" at port {assigned_port}" if assigned_port else ""
                )
                waited = loop.time() - deadline + limit
                raise NotListening(
                    f"it doesn't listen by {self.contract.transport}{where} after {waited:.0f} s"
                    + _wrong_port_hint(found, assigned_port),
                    program.stderr_tail,
                )
            await asyncio.sleep(_POLL_INTERVAL)

    async def _stop_server(self, server: RunningServer) -> None:
        try:
            if server.program is not None:
                await server.program.kill_tree()
        finally:  # ^C may come right now
            if server.scratch_dir is not None:
                shutil.rmtree(server.scratch_dir, ignore_errors=True)


def _write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


def fill_placeholders(word: str, values: Mapping[str, str]) -> str:
    """`{port}` and its kind replaced; other braces stay, for they may be the program's own."""
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


def _is_running(server: RunningServer) -> bool:
    return server.program is not None and server.program.running


def _matches_endpoint(found: Endpoint, expected: Endpoint | None, assigned_port: int | None) -> bool:
    if expected is not None:
        return found.path == expected.path if expected.is_unix else found.port == expected.port
    return assigned_port is None or found.port == assigned_port


def _wrong_port_hint(found: Sequence[Endpoint], assigned_port: int | None) -> str:
    """Where a program listens that was told another port."""
    if not found or assigned_port is None:
        return ""
    port = found[0].port or 0
    swapped = (
        ": the same with its bytes swapped, as without htons()" if port == socket.htons(assigned_port) else ""
    )
    return f", but at port {port}{swapped}"


def _printed_endpoints(endpoints: Sequence[Endpoint], output: bytes) -> list[Endpoint]:
    """The places whose port stands in what a program has printed."""
    return [each for each in endpoints if re.search(rb"(?<!\d)%d(?!\d)" % (each.port or 0), output)]


def _resolve_endpoint(text: str) -> Endpoint:
    """An endpoint whose host is an address: a name is looked up once, and the first address is taken."""
    endpoint = Endpoint.parse(text)
    if endpoint.is_unix:
        return endpoint
    try:
        found = socket.getaddrinfo(endpoint.host or "127.0.0.1", endpoint.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise EndpointError(text, f"its host has no address: {error.strerror}") from error
    return endpoint.with_host(str(found[0][4][0]))
