"""The common part of the contract suite: transports, starting the engine, checking its exit."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, Protocol

import pytest

from bothends.endpoints import Address
from bothends.engines import registry
from bothends.engines.base import Engine, Limits
from bothends.events import Accepted, Closed, CloseReason, Event
from bothends.layers import TlsSettings
from bothends.testing.clients import Client
from bothends.testing.harness import EngineExit, Harness
from bothends.testing.ipc import ServiceMaker

# The transports of the suite, and the endpoint for each.
STREAM_URLS: Final = {"tcp": "tcp://127.0.0.1:0", "unix": "unix://{tmp}/stream"}
STREAM_URLS_IPV6: Final = {"tcp6": "tcp://[::1]:0"}
SEQPACKET_URLS: Final = {"unix+seqpacket": "unix+seqpacket://{tmp}/packets"}
DATAGRAM_URLS: Final = {
    "udp": "udp://127.0.0.1:0",
    "udp6": "udp://[::1]:0",
    "unix+dgram": "unix+dgram://{tmp}/datagrams",
}
ALL_URLS: Final = STREAM_URLS | STREAM_URLS_IPV6 | SEQPACKET_URLS | DATAGRAM_URLS

# Bytes: kernel buffers that fill quickly. (The kernel doubles the size: socket(7), SO_SNDBUF.)
SMALL_BUFFER: Final = 8 * 1024

# Seconds without progress after which a test assumes that there will be none. If that is wrong, the test is
# weaker, but does not fail.
QUIET_PERIOD: Final = 0.3

# Seconds that an engine may take to exit after an abort. It expires only if something is wrong, or the
# machine is very busy.
_ABORT_TIMEOUT: Final = 20.0


class ContractBase:
    """Starts the engine for each part of the suite. Private to the suite; use EngineContract."""

    engine: ClassVar[str]

    retained_descriptors: ClassVar[int] = 0

    # Starting and ending -------------------------------------------------------------------------

    @classmethod
    def engine_class(cls) -> type[Engine]:
        """The engine under test."""
        return registry.load(cls.engine)

    @pytest.fixture(autouse=True)
    def _engine_lifecycle(self) -> Iterator[None]:
        """Skip if the engine is not available. After the test, stop the engine and check for a clean exit."""
        reason = self.engine_class().unavailable_reason()
        if reason is not None:
            pytest.skip(reason)
        self._harnesses: list[Harness] = []
        with contextlib.ExitStack() as self._stack:
            yield
            for running in self._harnesses:
                sys.stdout.write(running.describe() + "\n")  # pytest shows it if the test fails
                if running.is_alive():
                    running.abort()
                    self.check_clean_exit(running.wait_exit(_ABORT_TIMEOUT))

    def serve(
        self,
        service: ServiceMaker,
        *transports: str,
        options: str = "",
        limits: Limits | None = None,
        observe: bool = True,
        start_paused: bool = False,
        tls: TlsSettings | None = None,
    ) -> Harness:
        """Start the engine on each of these transports (or endpoints). It is stopped after the test.

        `options` is the query string of each endpoint. The other arguments are those of Harness.
        """
        endpoints = [ALL_URLS.get(each, each) + options for each in transports]
        running = Harness(
            self.engine, service, endpoints, limits, observe=observe, start_paused=start_paused, tls=tls
        )
        self._stack.callback(running.close)
        self._harnesses.append(running)
        return running

    def connect(self, running: Harness, index: int = 0, **options: Any) -> Client:
        """Connect a client to one of the endpoints. It is closed after the test."""
        return self._stack.enter_context(Client(running.endpoints[index], **options))

    def check_clean_exit(self, engine_exit: EngineExit) -> None:
        """Check that the engine has left no resources open, and has printed nothing."""
        problems = engine_exit.problems()
        retained = [each for each in problems if each.startswith("descriptor")]
        if len(retained) <= self.retained_descriptors:
            problems = [each for each in problems if each not in retained]
        assert not problems, "\n".join(problems)

    # Capabilities --------------------------------------------------------------------------------

    def require_concurrency(self) -> None:
        """Skip the test if a second connection has to wait for the first."""
        if not self.engine_class().concurrent:
            pytest.skip(self.engine_class().why_not.get("concurrent", "it serves one connection at a time"))

    def require_transports(self, *transports: str) -> None:
        """Skip the test if the engine does not support one of these transports."""
        missing = [each for each in transports if each not in supported_transports(self.engine_class())]
        if missing:
            pytest.skip(f"engine {self.engine_class().name} does not support {', '.join(missing)}")

    def require_push(self) -> None:
        """Skip the test if the engine does not support pushes."""
        if not self.engine_class().supports_push:
            pytest.skip(self.engine_class().why_not.get("supports_push", "it does not push"))


def supported_transports(engine: type[Engine]) -> dict[str, str]:
    """Return the transports that both the engine and this machine support."""
    streams = {
        name: text
        for name, text in (STREAM_URLS | STREAM_URLS_IPV6 | SEQPACKET_URLS).items()
        if engine.streams
    }
    datagrams = {name: text for name, text in DATAGRAM_URLS.items() if engine.datagrams}
    return {name: text for name, text in (streams | datagrams).items() if "6" not in name or has_ipv6()}


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class HasAddress(Protocol):
    """A client of any kind."""

    @property
    def address(self) -> Address:
        """The client's address, as the server's events have it."""


def of_client(client: HasAddress, event_type: type[Any] = Event) -> Callable[[Any], bool]:
    """Return a predicate for the events of this client's connection."""
    return lambda event: isinstance(event, event_type) and getattr(event, "peer", None) == client.address


def wait_closed(running: Harness, client: HasAddress) -> Closed:
    """Wait for the Closed event of this client's connection."""
    return running.wait_event(Closed, of_client(client))


def wait_opened(running: Harness, client: HasAddress) -> Accepted:
    """Wait for the Accepted event of this client's connection."""
    return running.wait_event(Accepted, of_client(client))


def check_cause(running: Harness, client: HasAddress, *causes: CloseReason) -> Closed:
    """Wait until the client's connection is closed, and check that the cause is one of these."""
    event = wait_closed(running, client)
    expected = " or ".join(repr(each.value) for each in causes)
    assert event.cause in causes, f"closed because {event.cause.value!r}, not {expected}"
    return event
