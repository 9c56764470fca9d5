"""A server under test: started for each case, or already running.

A case may break the server, so each case gets its own if possible, and several run at the same time. That
requires a port that can be chosen: with `{port}` on the command line, with the environment variable PORT, or
by the kernel, if the program binds port 0. A program with a fixed port gets a network namespace of its own
for each start (`own_network.py`). Where the system does not allow that, its cases run one after another, it
is restarted only after it has exited, and the checker waits while the old connections are in TIME-WAIT.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bothends.check.case import CheckFailed, NotListening
from bothends.check.contract import Contract
from bothends.check.evidence import find_cause
from bothends.check.oracle import Oracle
from bothends.check.reference_oracle import ReferenceOracle
from bothends.check.sandbox.launcher import Sandbox, make_scratch_dir, remove_scratch_dir
from bothends.check.subjects import own_network, port_in_use
from bothends.check.subjects.gate_probes import explain_gate
from bothends.check.subjects.listening import listeners
from bothends.check.subjects.own_network import OwnNetwork
from bothends.check.subjects.placeholders import fill_placeholders
from bothends.check.subjects.process import ProgramProcess, start_program, trace_command
from bothends.check.subjects.server_context import RunningServer, ServerContext
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint
from bothends.errors import BothendsError, EndpointError, SystemCallFailed, UsageError
from bothends.osutil.scratch import write_files
from bothends.sockets.free_port import ephemeral_ports, free_port

_POLL_INTERVAL: Final = 0.01  # seconds between looks at the socket table
STARTUP_TIMEOUT: Final = 15.0  # seconds until a program must listen, on an idle machine
_MAX_PORT_WAIT: Final = 150.0  # seconds in all until a fixed port can be bound: TIME-WAIT takes 60


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
    typed: str = ""
    """What is typed on its standard input when it starts, with placeholders; default: the contract's."""

    templates: Mapping[str, str] = field(default_factory=dict)
    """Files of its `{dir}`, by name: their text, with placeholders."""

    trace: Path | None = None
    load_factor: float = 1.0  # how much slower this machine is than an idle one

    assigns_port: bool = False
    """The checker chooses the port or path."""

    fixed_endpoint: Endpoint | None = None
    """The endpoint of a running server, or of one that always listens on the same."""

    own_network: bool = True
    """Whether a server with a fixed port may be started in a network namespace of its own."""

    apart: bool = False
    """Each start has a network namespace of its own, so that no other program can reach it."""

    reference: ServerUnderTest | None = None
    """A correct server, of which one runs beside the program in each case, to be compared with it."""

    notes: list[str] = field(default_factory=list)
    """What a report must say about how the program was run."""

    _ignores_port: bool = False  # it listens on a port in its source, although it was given another one
    _reused: RunningServer | None = None
    _isolated: bool = False  # its port is fixed, so each start has a network namespace of its own
    _port_waited: float = 0.0  # seconds

    @property
    def is_spawned(self) -> bool:
        """Whether the checker starts the server."""
        return bool(self.command)

    @property
    def parallel(self) -> bool:
        """Whether several instances can run at the same time."""
        own = self.is_spawned and (self.fixed_endpoint is None or self._isolated or self.apart)
        return own and (self.reference is None or self.reference.parallel)

    @property
    def _input(self) -> str:
        """The lines that are typed, each with its newline."""
        return "".join(f"{line}\n" for line in (self.typed or self.contract.server.input).splitlines())

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
            if self.reference is None:
                yield context
                return
            async with self.reference.case_context(oracle, Transcript(), timeout) as context.reference:
                yield context
        finally:
            running = _is_running(context.server)
            context.close(with_reset=self.is_spawned and not self.parallel and not running)
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
        if self.reference is not None:
            self.reference.load_factor = self.load_factor
            try:
                await self.reference.prepare()
            except NotListening as error:
                raise UsageError(f"the reference server {self.reference.title!r} {error}") from error
        if self.endpoint and (scheme := self.endpoint.partition("://")[0]) != self.contract.transport:
            raise EndpointError(self.endpoint, f"the contract is for {self.contract.transport}, not {scheme}")
        if not self.command:
            if not self.endpoint:
                raise UsageError(
                    "no program to check: give its command after --, or --endpoint of a running server"
                )
            self.fixed_endpoint = _resolve_endpoint(self.endpoint)
            return 0.0
        self.assigns_port = self._has_placeholder()
        if self.endpoint and "{" not in self.endpoint:
            self.fixed_endpoint = _resolve_endpoint(self.endpoint)
        started_at = asyncio.get_running_loop().time()
        first = await self._start_first()
        startup = asyncio.get_running_loop().time() - started_at
        try:
            if self.assigns_port:
                return startup
            if self.fixed_endpoint is None and first.endpoint.port == first.assigned_port:
                self.assigns_port = True  # it obeys the variable PORT
                return startup
        finally:
            await self.stop(first)
        second = await self._start_second()
        await self.stop(second)
        if second.endpoint == first.endpoint:
            self.fixed_endpoint = first.endpoint
            how = (
                "each case ran in a network namespace of its own"
                if self._isolated
                else "cases ran one by one"
            )
            self.notes.append(f"the program's endpoint is fixed ({first.endpoint}): {how}")
        else:
            self._isolated = False
        return startup

    async def _start_first(self) -> RunningServer:
        """Start the server, in a network namespace of its own if it exits: its port may be in use here."""
        try:
            return await self._start_on_given_port()
        except NotListening as error:
            if error.elsewhere is not None:
                self._ignore_port(error.elsewhere)
                return await self.start()
            if not error.exited or not (self._may_isolate() and (error.port_in_use or not self.assigns_port)):
                raise
        self._isolated = True
        try:
            return await self.start()
        except NotListening as error:
            if error.elsewhere is None:
                raise
            self._ignore_port(error.elsewhere)
        return await self.start()

    async def _start_on_given_port(self) -> RunningServer:
        """Start the server, and once more with another port if the kernel may have chosen where it listens.

        listen(2) binds a socket to an ephemeral port if bind(2) has failed and its result is not checked, as
        when another program has the port that the server computes from the given one.
        """
        try:
            return await self.start()
        except NotListening as error:
            if error.elsewhere is None or error.elsewhere.port not in ephemeral_ports():
                raise
        return await self.start()

    def _ignore_port(self, endpoint: Endpoint) -> None:
        """Judge the server where it listens, although it was given another port."""
        self._ignores_port, self.assigns_port = True, False
        self.notes.append(f"the program ignores the port that it is given, and listens on {endpoint}")

    async def _start_second(self) -> RunningServer:
        """Start the server again, in a network namespace of its own if it can be started there."""
        if not self._isolated and self._may_isolate():
            self._isolated = True
            try:
                return await self.start()
            except NotListening:  # perhaps it needs another service of this machine
                self._isolated = False
        return await self._start_when_free()

    def _has_placeholder(self) -> bool:
        words = " ".join((*self.command, self.endpoint, self._input, *self.templates.values()))
        return any(word in words for word in ("{port}", "{path}"))

    def wants_own_network(self) -> bool:
        """Whether the server may have a fixed port, so that network namespaces are of use."""
        own = self.is_spawned and not self._has_placeholder() and self.contract.transport in ("tcp", "udp")
        return own or self.apart or (self.reference is not None and self.reference.wants_own_network())

    def can_start(self) -> bool:
        """Whether the server can be started from where this process is, which runs no event loop."""
        return own_network.prepares(self.prepare())

    def _may_isolate(self) -> bool:
        """Whether a start may get a network namespace of its own."""
        if not self.own_network or self.contract.transport not in ("tcp", "udp"):
            return False
        given = self.fixed_endpoint
        if given is not None and not ipaddress.ip_address(given.host).is_loopback:
            return False
        return own_network.is_available()

    async def leaves_after_one_client(self, oracle: Oracle, timeout: float) -> bool:
        """Whether the server exits with status 0 after one client that was served. See ProgramUnderTest."""
        if not self.is_spawned:
            return False
        try:
            async with self.case_context(oracle, Transcript(), timeout) as context:
                client = await context.connect()
                await context.exchange(client, context.message())
                client.close()
                return await context.program.wait(timeout) and context.program.status == 0
        except (CheckFailed, BothendsError, OSError):
            return False

    async def explain_gate(self, oracle: Oracle, timeout: float) -> str:
        """Return why the first case fails. See ProgramUnderTest."""
        try:
            return await explain_gate(self.case_context(oracle, Transcript(), timeout), timeout)
        except BothendsError:
            return ""

    @property
    def takes_host(self) -> bool:
        """True: the checker connects to wherever it listens."""
        return True

    async def _acquire_server(self) -> RunningServer:
        """Return a server for one case: a new one, unless its endpoint is fixed and it is still running."""
        if not self.is_spawned:
            assert self.fixed_endpoint is not None
            return RunningServer(self.fixed_endpoint, None)
        if self.fixed_endpoint is None:
            return await self.start()
        if self._isolated or self.apart:
            return await self.start()
        if self._reused is not None and not await _keeps_running(self._reused):
            await self.stop(self._reused)
            self._reused = None
        if self._reused is None:
            self._reused = await self._start_when_free()
        return self._reused

    async def _start_when_free(self) -> RunningServer:
        """Start the server; if its port is in use, wait until it can be bound, and start it again."""
        try:
            return await self.start()
        except NotListening as error:
            if not error.port_in_use or self.fixed_endpoint is None:
                raise
            loop = asyncio.get_running_loop()
            started_at = loop.time()
            is_free = await port_in_use.wait_bindable(
                self.fixed_endpoint, max(0.0, _MAX_PORT_WAIT - self._port_waited)
            )
            self._port_waited += loop.time() - started_at
            if not is_free:
                raise
        self._note_wait()
        return await self.start()

    def _note_wait(self) -> None:
        text = "waited for the program's port, which was still in use"
        kept = [each for each in self.notes if text not in each]
        self.notes[:] = [*kept, f"{text}: {self._port_waited:.0f} s in all"]

    async def _release_server(self, server: RunningServer) -> None:
        """Stop the server of a finished case, unless the next case can use it."""
        if server is self._reused and _is_running(server):
            server.used = True
            return
        await self.stop(server)

    async def _restart_server(self, server: RunningServer) -> RunningServer:
        """Start the server again on the endpoint and in the folder of `server`, which has exited."""
        restarted = await self.start(server.endpoint, server.network, server.scratch_dir)
        if self._reused is server:
            self._reused = restarted
        return restarted

    @asynccontextmanager
    async def answering(self, oracle: Oracle, timeout: float) -> AsyncIterator[None]:
        """Run a reference server for an oracle that asks one. See ProgramUnderTest."""
        if not isinstance(oracle, ReferenceOracle):
            yield
            return
        if self.reference is None:
            raise UsageError(
                "the contract's replies are those of a reference server: give its command with --against"
            )
        async with self.reference.case_context(oracle, Transcript(), timeout) as context:
            oracle.connect_to(context.server.endpoint, context.new_socket, timeout)
            yield

    async def close(self) -> None:
        """Stop the server that several cases used, and the reference server."""
        if self.reference is not None:
            await self.reference.close()
        if self._reused is not None:
            await self.stop(self._reused)
            self._reused = None

    async def start(
        self,
        endpoint: Endpoint | None = None,
        network: OwnNetwork | None = None,
        folder: Path | None = None,
    ) -> RunningServer:
        """Start the server, and wait until it listens.

        Args:
            endpoint: where, if not on a port that is chosen here.
            network: the network namespace to start it in, which is closed when the server is stopped.
            folder: its `{dir}`, if not a new one.

        Raises:
            NotListening: it exits, or does not listen in time.
            SystemCallFailed: it cannot be started.
        """
        if endpoint is None and self.assigns_port and not self.apart:
            try:
                return await self._start_once()
            except NotListening as error:
                if not error.exited:
                    raise
            # Another program may have bound the port in the meantime: try another port.
        if network is not None or not (self._isolated or self.apart):
            return await self._start_once(endpoint, network, folder)
        try:
            network = OwnNetwork()
        except OSError as error:
            raise SystemCallFailed("create", "a network namespace", error.errno or 0) from error
        try:
            return await self._start_once(endpoint, network, folder)
        except BaseException:
            network.close()
            raise

    async def _start_once(
        self,
        endpoint: Endpoint | None = None,
        network: OwnNetwork | None = None,
        folder: Path | None = None,
    ) -> RunningServer:
        if folder is None:
            folder = make_scratch_dir(self.sandbox, writable=self.contract.transport.startswith("unix"))
            write_files(folder, self.contract.files)
        port = endpoint.port if endpoint is not None and endpoint.port else free_port()
        path = endpoint.path if endpoint is not None and endpoint.path else str(folder / "socket")
        values = {"host": "127.0.0.1", "port": str(port), "path": path, "dir": str(folder)}
        templates = {name: fill_placeholders(text, values) for name, text in self.templates.items()}
        write_files(folder, templates)
        command = [fill_placeholders(word, values) for word in self.command]
        try:
            with own_network.entered(network):
                program = start_program(
                    trace_command(command, self.trace),
                    environment={**self.environment, "PORT": str(port)},
                    stdin=bool(self._input),
                    cwd=self.cwd,
                    sandbox=self.sandbox,
                    scratch_dir=folder,
                )
        except BaseException:
            remove_scratch_dir(folder)
            raise
        expected = _resolve_endpoint(fill_placeholders(self.endpoint, values)) if self.endpoint else None
        default = Endpoint("tcp", host="127.0.0.1", port=port)
        server = RunningServer(expected or default, program, folder, port, network)
        given = " ".join((*self.command, self._input, *self.templates.values()))
        try:
            program.type_text(fill_placeholders(self._input, values))
            must_obey = expected is None and "{port}" in given and not self._ignores_port
            assigned_port = port if must_obey else None
            server.endpoint = await self._wait_listening(server, expected, assigned_port)
        except BaseException:
            await self.stop(server)
            raise
        return server

    async def _wait_listening(
        self, server: RunningServer, expected: Endpoint | None, assigned_port: int | None
    ) -> Endpoint:
        """Wait until the program listens on `expected`, on `assigned_port`, or anywhere, if both are None.

        If it listens on several endpoints, one whose port it has printed is preferred.
        """
        program = server.program
        assert program is not None
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
                raise self._describe_exit(program, server.network, assigned_port)
            # A program that is asleep after a third of the limit is not starting up any more.
            if loop.time() > deadline or (loop.time() > deadline - limit * 2 / 3 and program.is_idle()):
                transport = self.contract.transport
                where = expected or (f"{transport} port {assigned_port}" if assigned_port else transport)
                waited = loop.time() - deadline + limit
                raise NotListening(
                    f"does not listen on {where} after {waited:.0f} s"
                    + _wrong_port_hint(found, assigned_port),
                    program.stderr_tail,
                    elsewhere=_port_in_source(found, assigned_port),
                    cause="does not call htons() for its port" if _is_swapped(found, assigned_port) else "",
                )
            await asyncio.sleep(_POLL_INTERVAL)

    def _describe_exit(
        self, program: ProgramProcess, network: OwnNetwork | None, assigned_port: int | None
    ) -> NotListening:
        """Return the error for a program that exited before listening, with its cause if that is known."""
        hint = "; a server must stay in the foreground" if program.status == 0 else ""
        known = self.fixed_endpoint
        in_use = port_in_use.complains_of_port(program.stdout.data + program.stderr.data)
        if known is not None:  # what the program says is then no evidence
            in_use = not port_in_use.is_bindable(known, network)
        if in_use and assigned_port is None:
            name = f"its port {known.port}" if known is not None else "its port"
            states = port_in_use.describe_use(known, network) if known is not None else ""
            hint = f": {name} is still in use{f' ({states})' if states else ''}"
        reason = f"exited before listening ({program.exit_description}){hint}"
        cause = find_cause(program.stderr.data)[1] if program.status and not in_use else ""
        return NotListening(reason, program.stderr_tail, exited=True, port_in_use=in_use, cause=cause)

    async def stop(self, server: RunningServer) -> None:
        """Kill a server that `start` returned, and remove its folder and its network namespace."""
        try:
            if server.program is not None:
                await server.program.kill_tree()
        finally:  # ^C may interrupt the wait
            if server.scratch_dir is not None:
                remove_scratch_dir(server.scratch_dir)
            if server.network is not None:
                server.network.close()


def _is_running(server: RunningServer) -> bool:
    return server.program is not None and server.program.running


async def _keeps_running(server: RunningServer) -> bool:
    """Whether a server runs once it waits again: it may be about to exit, after the client of a case."""
    for _ in range(50):
        if not _is_running(server) or (server.program is not None and server.program.is_idle()):
            break
        await asyncio.sleep(_POLL_INTERVAL)
    return _is_running(server)


def _matches_endpoint(found: Endpoint, expected: Endpoint | None, assigned_port: int | None) -> bool:
    if expected is not None:
        return found.path == expected.path if expected.is_unix else found.port == expected.port
    return assigned_port is None or found.port == assigned_port


def _wrong_port_hint(found: Sequence[Endpoint], assigned_port: int | None) -> str:
    """Return a description of the port on which the program listens instead of the assigned one."""
    if not found or assigned_port is None:
        return ""
    swapped = _is_swapped(found, assigned_port)
    return f", but on port {found[0].port or 0}{': the same with its bytes swapped' if swapped else ''}"


def _is_swapped(found: Sequence[Endpoint], assigned_port: int | None) -> bool:
    """Whether the program listens on the assigned port with its bytes swapped."""
    return bool(found) and assigned_port is not None and found[0].port == socket.htons(assigned_port)


def _port_in_source(found: Sequence[Endpoint], assigned_port: int | None) -> Endpoint | None:
    """Return the only endpoint on which a program listens instead of the assigned port, if it chose that.

    The same port with its bytes swapped is a mistake with the port that it was given.
    """
    if assigned_port is None or len(found) != 1 or _is_swapped(found, assigned_port):
        return None
    return found[0]


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
