"""A server under test: started for each case, or already running.

A case may break the server, so each case gets its own if possible, and several run at the same time. That
requires a port that can be chosen: with `{port}` on the command line, with the environment variable PORT, or
by the kernel, if the program binds port 0. A program with a fixed port runs its cases one after another, and
is restarted only after it has exited.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bothends.check.case import NotListening
from bothends.check.contract import Contract
from bothends.check.oracle import Oracle
from bothends.check.sandbox.launcher import Sandbox, make_scratch_dir, remove_scratch_dir
from bothends.check.subjects.listening import listeners
from bothends.check.subjects.placeholders import fill_placeholders
from bothends.check.subjects.process import ProgramProcess, start_program, trace_command
from bothends.check.subjects.server_context import RunningServer, ServerContext
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, UsageError
from bothends.sockets.free_port import free_port

_POLL_INTERVAL: Final = 0.01  # seconds between looks at the socket table
STARTUP_TIMEOUT: Final = 15.0  # seconds until a program must listen, on an idle machine


@dataclass
class ServerUnderTest:
    """A server, and how it is started. See ProgramUnderTest."""

    contract: Contract
    command: Sequence[str] = ()
    endpoint: str = ""
    cwd: Path | None = None
    """The program's working directory, if not the checker's."""

    environment: Mapping[str, str] = field(default_factory=dict)
    sandbox: Sandbox | None = None
    trace: Path | None = None
    load_factor: float = 1.0  # how much slower this machine is than an idle one

    assigns_port: bool = False
    """The checker chooses the port or path."""

    fixed_endpoint: Endpoint | None = None
    """The endpoint of a running server, or of one that always listens on the same."""

    _reused: RunningServer | None = None

    @property
    def is_spawned(self) -> bool:
        """Whether the checker starts the server."""
        return bool(self.command)

    @property
    def parallel(self) -> bool:
        """Whether several instances can run at the same time."""
        return self.is_spawned and self.fixed_endpoint is None

    @property
    def title(self) -> str:
        """The server's command, or its endpoint if it is already running."""
        return " ".join(self.command) or self.endpoint

    @asynccontextmanager
    async def case_context(
        self, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> AsyncIterator[ServerContext]:
        """Run one attempt at one case. See ProgramUnderTest."""
        server = await self._acquire_server()
        context = ServerContext(
            self.contract, server, oracle, transcript, timeout, self.load_factor, self._restart_server
        )
        try:
            yield context
        finally:
            context.close()
            if self.trace is not None and context.server.program is not None:
                await context.server.program.finish_trace()
            await self._release_server(context.server)

    async def prepare(self) -> float:
        """Start the server once or twice to find out where it listens.

        Returns: seconds from its start until it listened; 0 for a server that is already running.

        Raises:
            NotListening: it exits, or does not listen.
            SystemCallFailed: it cannot be started.
            UsageError: neither a command nor an endpoint is given.
            EndpointError: the endpoint is of another transport than the contract, or its host has no address.
        """
        if self.endpoint and (scheme := self.endpoint.partition("://")[0]) != self.contract.transport:
            raise EndpointError(self.endpoint, f"the contract is for {self.contract.transport}, not {scheme}")
        if not self.command:
            if not self.endpoint:
                raise UsageError(
                    "no program to check: give its command after --, or --endpoint of a running server"
                )
            self.fixed_endpoint = _resolve_endpoint(self.endpoint)
            return 0.0
        words = " ".join((*self.command, self.endpoint))
        self.assigns_port = any(word in words for word in ("{port}", "{path}"))
        if self.endpoint and "{" not in self.endpoint:
            self.fixed_endpoint = _resolve_endpoint(self.endpoint)
        started_at = asyncio.get_running_loop().time()
        first = await self._start_server()
        startup = asyncio.get_running_loop().time() - started_at
        try:
            if self.assigns_port or self.fixed_endpoint is not None:
                return startup
            if first.endpoint.port == first.assigned_port:
                self.assigns_port = True  # it obeys the variable PORT
                return startup
        finally:
            await self._stop_server(first)
        second = await self._start_server()
        await self._stop_server(second)
        if second.endpoint == first.endpoint:
            self.fixed_endpoint = first.endpoint
        return startup

    async def _acquire_server(self) -> RunningServer:
        """Return a server for one case: a new one, unless its endpoint is fixed and it is still running."""
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
        """Stop the server of a finished case, unless the next case can use it."""
        if server is self._reused and _is_running(server):
            server.used = True
            return
        await self._stop_server(server)

    async def _restart_server(self, server: RunningServer) -> RunningServer:
        """Start the server again on the endpoint of `server`, which has exited."""
        restarted = await self._start_server(endpoint=server.endpoint)
        if self._reused is server:
            self._reused = restarted
        return restarted

    async def close(self) -> None:
        """Stop the server that several cases used."""
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
            # Another program may have bound the port in the meantime: try another port.
        return await self._start_once(endpoint)

    async def _start_once(self, endpoint: Endpoint | None = None) -> RunningServer:
        folder = make_scratch_dir(self.sandbox, writable=self.contract.transport.startswith("unix"))
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
            )
        except BaseException:
            remove_scratch_dir(folder)
            raise
        expected = _resolve_endpoint(fill_placeholders(self.endpoint, values)) if self.endpoint else None
        default = Endpoint("tcp", host="127.0.0.1", port=port)
        server = RunningServer(expected or default, program, folder, port)
        try:
            assigned_port = port if expected is None and "{port}" in " ".join(self.command) else None
            server.endpoint = await self._wait_listening(program, expected, assigned_port)
        except BaseException:
            await self._stop_server(server)
            raise
        return server

    async def _wait_listening(
        self, program: ProgramProcess, expected: Endpoint | None, assigned_port: int | None
    ) -> Endpoint:
        """Wait until the program listens on `expected`, on `assigned_port`, or anywhere, if both are None.

        If it listens on several endpoints, one whose port it has printed is preferred.
        """
        limit = STARTUP_TIMEOUT * self.load_factor
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        settled = False
        while True:
            found = listeners(program.process_tree(), self.contract.transport)
            matching = [each for each in found if _matches_endpoint(each, expected, assigned_port)]
            printed = _printed_endpoints(matching, program.stdout.data + program.stderr.data)
            if matching and (expected or len(matching) == 1 or printed or settled):
                return expected or (printed or matching)[0]
            settled = bool(matching) and program.is_idle()  # an idle program prints no more ports
            if not program.running:
                await program.stdout.wait_eof(0.5)
                await program.stderr.wait_eof(0.5)
                hint = "; a server must stay in the foreground" if program.status == 0 else ""
                reason = f"exited before listening ({program.exit_description}){hint}"
                raise NotListening(reason, program.stderr_tail, exited=True)
            # A program that is asleep after a third of the limit is not starting up any more.
            if loop.time() > deadline or (loop.time() > deadline - limit * 2 / 3 and program.is_idle()):
                transport = self.contract.transport
                where = expected or (f"{transport} port {assigned_port}" if assigned_port else transport)
                waited = loop.time() - deadline + limit
                raise NotListening(
                    f"does not listen on {where} after {waited:.0f} s"
                    + _wrong_port_hint(found, assigned_port),
                    program.stderr_tail,
                )
            await asyncio.sleep(_POLL_INTERVAL)

    async def _stop_server(self, server: RunningServer) -> None:
        try:
            if server.program is not None:
                await server.program.kill_tree()
        finally:  # ^C may interrupt the wait
            if server.scratch_dir is not None:
                remove_scratch_dir(server.scratch_dir)


def _write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _is_running(server: RunningServer) -> bool:
    return server.program is not None and server.program.running


def _matches_endpoint(found: Endpoint, expected: Endpoint | None, assigned_port: int | None) -> bool:
    if expected is not None:
        return found.path == expected.path if expected.is_unix else found.port == expected.port
    return assigned_port is None or found.port == assigned_port


def _wrong_port_hint(found: Sequence[Endpoint], assigned_port: int | None) -> str:
    """Return a description of the port on which the program listens instead of the assigned one."""
    if not found or assigned_port is None:
        return ""
    port = found[0].port or 0
    swapped = port == socket.htons(assigned_port)
    return f", but on port {port}{': the same port without htons(), bytes swapped' if swapped else ''}"


def _printed_endpoints(endpoints: Sequence[Endpoint], output: bytes) -> list[Endpoint]:
    """Return the endpoints whose port the program has printed."""
    return [each for each in endpoints if re.search(rb"(?<!\d)%d(?!\d)" % (each.port or 0), output)]


def _resolve_endpoint(text: str) -> Endpoint:
    """Return an endpoint with an address as its host: the first address of its name."""
    endpoint = Endpoint.parse(text)
    if endpoint.is_unix:
        return endpoint
    try:
        found = socket.getaddrinfo(endpoint.host or "127.0.0.1", endpoint.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise EndpointError(text, f"cannot resolve the host: {error.strerror}") from error
    return endpoint.with_host(str(found[0][4][0]))
