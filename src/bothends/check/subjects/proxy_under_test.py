"""A proxy under test: started for each case between a client and an upstream, which are both the checker's.

Its command, or a file that it reads, has the placeholders {port}, to listen on, and {upstream}, or
{upstream_host} and {upstream_port}, to connect to. A proxy with both ports in its source gets a network
namespace of its own for each case (`own_network.py`). One that is already running is judged where it is, case
by case, if its upstream is a port that the checker can listen on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from bothends.check.case import CheckFailed, NotListening
from bothends.check.contract import AnswerSpec, Contract
from bothends.check.oracle import Oracle, SilentOracle
from bothends.check.sandbox.launcher import Sandbox, remove_scratch_dir
from bothends.check.subjects import own_network
from bothends.check.subjects.datagram_proxy_context import DatagramProxyContext
from bothends.check.subjects.own_network import OwnNetwork
from bothends.check.subjects.placeholders import fill_placeholders
from bothends.check.subjects.proxy_context import ProxyCaseContext
from bothends.check.subjects.server_context import RunningServer
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.subjects.upstream import HOST, DatagramUpstream, StreamUpstream, Upstream
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint
from bothends.errors import BothendsError, EndpointError, SystemCallFailed, Unavailable, UsageError

_UPSTREAM_PLACEHOLDERS: Final = ("{upstream}", "{upstream_port}")


def proxy_contract(transport: Literal["tcp", "udp"]) -> Contract:
    """Return the contract of every proxy: what is sent arrives at the other side, and nothing else."""
    return Contract(
        name=f"{transport} proxy",
        summary="passes everything on, in both directions",
        transport=transport,
        answer=AnswerSpec(nothing=True),
    )


@dataclass
class ProxyUnderTest:
    """A proxy, and how it is started. See ProgramUnderTest.

    `endpoint`, `upstream`: where it listens and what it connects to, as URLs, if the command has no
    placeholders for them; `templates`: files of its `{dir}`, by name; `reload_signal`: the number of the
    signal that makes it read its configuration again, 0 for none.
    """

    contract: Contract
    command: Sequence[str] = ()
    endpoint: str = ""
    upstream: str = ""
    templates: Mapping[str, str] = field(default_factory=dict)
    reload_signal: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    sandbox: Sandbox | None = None
    cwd: Path | None = None
    trace: Path | None = None
    load_factor: float = 1.0
    assigns_port: bool = True
    fixed_endpoint: Endpoint | None = None
    notes: list[str] = field(default_factory=list)
    own_network: bool = True
    _fixed_upstream: Endpoint | None = None

    @property
    def title(self) -> str:
        """The proxy's command, or its endpoint if it is already running."""
        return " ".join(self.command) or self.endpoint

    @property
    def is_spawned(self) -> bool:
        """Whether the checker starts the proxy."""
        return bool(self.command)

    @property
    def parallel(self) -> bool:
        """Whether several instances can run at the same time."""
        return self.is_spawned

    def wants_own_network(self) -> bool:
        """Whether each case needs a network namespace of its own."""
        return self.is_spawned and not self._has("{port}")

    def can_start(self) -> bool:
        """Whether the proxy can be started from where this process is, which runs no event loop."""
        return own_network.prepares(self.prepare())

    def _has(self, *placeholders: str) -> bool:
        words = " ".join((*self.command, *self.templates.values()))
        return any(each in words for each in placeholders)

    async def prepare(self) -> float:
        """Start the proxy once, to see that it listens.

        Returns: seconds from its start until it listened; 0 for a proxy that is already running.

        Raises:
            NotListening: it exits, or does not listen.
            SystemCallFailed: it cannot be started.
            UsageError: a command, a placeholder or an address is missing.
            EndpointError: an address is of another transport, or not one of this machine.
            Unavailable: its ports are fixed, and the system does not allow network namespaces.
        """
        self._check_addresses()
        if not self.is_spawned:
            return 0.0
        if self.fixed_endpoint is not None and not (self.own_network and own_network.is_available()):
            raise Unavailable(
                "check", "a proxy with fixed ports", hint="give it {port} and {upstream_port}",
                reason="the system does not allow network namespaces",
            )  # fmt: skip
        if self.fixed_endpoint is not None:
            self.notes.append(
                f"the proxy's endpoint is fixed ({self.fixed_endpoint}): each case ran in a network namespace"
                " of its own"
            )
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        server, upstream = await self._start()
        startup = loop.time() - started_at
        upstream.close()
        await self._subject(upstream).stop(server)
        return startup

    def _check_addresses(self) -> None:
        if not self.is_spawned and not (self.endpoint and self.upstream):
            raise UsageError(
                "no proxy to check: give its command after --, or --endpoint and --upstream of a running one"
            )
        has_upstream = self._has(*_UPSTREAM_PLACEHOLDERS)
        if self.is_spawned and not has_upstream and not self.upstream:
            raise UsageError(
                "the proxy's command needs {upstream_port} or {upstream}, to connect to the checker;"
                " or give --upstream, if it is fixed"
            )
        if self.is_spawned and not self._has("{port}") and not self.endpoint:
            raise UsageError(
                "the proxy's command needs {port}, to listen on; or give --endpoint, if it is fixed"
            )
        self.fixed_endpoint = self._parse(self.endpoint) if self.endpoint else None
        self._fixed_upstream = self._parse(self.upstream) if self.upstream else None
        self.assigns_port = self.fixed_endpoint is None

    def _parse(self, text: str) -> Endpoint:
        endpoint = Endpoint.parse(text)
        if endpoint.scheme != self.contract.transport:
            raise EndpointError(text, f"expected {self.contract.transport}://")
        if not endpoint.port:
            raise EndpointError(text, "the port is missing")
        return endpoint.with_host(HOST if endpoint.host in ("", "localhost") else endpoint.host)

    async def _start(self) -> tuple[RunningServer, Upstream]:
        """Open an upstream, and start the proxy before it."""
        network: OwnNetwork | None = None
        if self.fixed_endpoint is not None and self.is_spawned:
            try:
                network = OwnNetwork()
            except OSError as error:
                raise SystemCallFailed("create", "a network namespace", error.errno or 0) from error
        upstream: Upstream | None = None
        try:
            upstream = self._make_upstream(network)
            if not self.is_spawned:
                assert self.fixed_endpoint is not None
                return RunningServer(self.fixed_endpoint, None), upstream
            return await self._subject(upstream).start(self.fixed_endpoint, network), upstream
        except BaseException:
            if upstream is not None:
                upstream.close()
            if network is not None:
                network.close()
            raise

    def _make_upstream(self, network: OwnNetwork | None) -> Upstream:
        port = self._fixed_upstream.port or 0 if self._fixed_upstream is not None else 0
        try:
            if self.contract.is_datagram:
                return DatagramUpstream(network, port)
            return StreamUpstream(network, port)
        except OSError as error:
            raise SystemCallFailed("bind", f"the upstream's port {port}", error.errno or 0) from error

    def _subject(self, upstream: Upstream) -> ServerUnderTest:
        """Return the proxy as a server, with the upstream's address in its command and files."""
        port = str(upstream.port)
        values = {"upstream": f"{HOST}:{port}", "upstream_host": HOST, "upstream_port": port}
        return ServerUnderTest(
            self.contract,
            [fill_placeholders(word, values) for word in self.command],
            self.endpoint,
            cwd=self.cwd,
            environment=self.environment,
            sandbox=self.sandbox,
            trace=self.trace,
            load_factor=self.load_factor,
            assigns_port=self.assigns_port,
            templates={name: fill_placeholders(text, values) for name, text in self.templates.items()},
        )

    @asynccontextmanager
    async def case_context(
        self, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> AsyncIterator[ProxyCaseContext]:
        """Run one attempt at one case. See ProgramUnderTest."""
        server, upstream = await self._start()
        subject = self._subject(upstream)

        async def restart(stopped: RunningServer) -> RunningServer:
            if stopped.scratch_dir is not None:
                remove_scratch_dir(stopped.scratch_dir)
            return await subject.start(stopped.endpoint, stopped.network)

        kind = DatagramProxyContext if self.contract.is_datagram else ProxyCaseContext
        context = kind(
            self.contract, server, oracle, transcript, timeout, self.load_factor, restart, upstream,
            self.reload_signal,
        )  # fmt: skip
        try:
            yield context
        finally:
            context.close()
            upstream.close()
            if self.trace is not None and context.server.program is not None:
                await context.server.program.finish_trace()
            await subject.stop(context.server)

    @property
    def takes_host(self) -> bool:
        """False: no case of the proxy suites asks for another host."""
        return False

    async def explain_gate(self, oracle: Oracle, timeout: float) -> str:
        """Return "": the first case names its causes itself. See ProgramUnderTest."""
        return ""

    @asynccontextmanager
    async def answering(self, oracle: Oracle, timeout: float) -> AsyncIterator[None]:
        """Do nothing: the checker itself is the upstream. See ProgramUnderTest."""
        yield

    async def leaves_after_one_client(self, oracle: Oracle, timeout: float) -> bool:
        """Whether the proxy exits with status 0 after its first client. See ProgramUnderTest."""
        if not self.is_spawned or self.contract.is_datagram:
            return False
        try:
            async with self.case_context(SilentOracle(), Transcript(), timeout) as context:
                pair = await context.open_pair()
                pair.client.close()
                pair.upstream.close()
                return await context.program.wait(timeout) and context.program.status == 0
        except (CheckFailed, NotListening, BothendsError, OSError):
            return False

    async def close(self) -> None:
        """Do nothing: each case ends its proxy."""
