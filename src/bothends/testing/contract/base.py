"""What the parts of the contract suite have in common: which engine, over what, and how it is started."""

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

# The transports that the suite knows, and where it listens for each.
STREAM_URLS: Final = {"tcp": "tcp://127.0.0.1:0", "unix": "unix://{tmp}/stream"}
STREAM_URLS_IPV6: Final = {"tcp6": "tcp://[::1]:0"}
SEQPACKET_URLS: Final = {"unix+seqpacket": "unix+seqpacket://{tmp}/packets"}
DATAGRAM_URLS: Final = {
    "udp": "udp://127.0.0.1:0",
    "udp6": "udp://[::1]:0",
    "unix+dgram": "unix+dgram://{tmp}/datagrams",
}
ALL_URLS: Final = STREAM_URLS | STREAM_URLS_IPV6 | SEQPACKET_URLS | DATAGRAM_URLS

# Kernel buffers so small that they are full soon. (The kernel doubles them: socket(7), SO_SNDBUF.)
SMALL_BUFFER: Final = 8 * 1024

# How long nothing may happen before a test takes it for "nothing will": only ever on the safe side,
# where being wrong makes the test weaker and never makes it fail.
QUIET_PERIOD: Final = 0.3

# How long an engine may take to be gone when it is told to cut everything off. It only passes when something
# is wrong, or the machine is very busy.
_ABORT_TIMEOUT: Final = 20.0


class ContractBase:
    """How a part of the suite starts its engine. Private to the suite; authors use EngineContract."""

    engine: ClassVar[str]

    retained_descriptors: ClassVar[int] = 0

    # Starting and ending -------------------------------------------------------------------------

    @classmethod
    def engine_class(cls) -> type[Engine]:
        """The engine under test."""
        return registry.load(cls.engine)

    @pytest.fixture(autouse=True)
    def _engine_lifecycle(self) -> Iterator[None]:
        """Skip where the engine can't run; end what was started; nothing may be left of it."""
        reason = self.engine_class().unavailable_reason()
        if reason is not None:
            pytest.skip(reason)
        self._harnesses: list[Harness] = []
        with contextlib.ExitStack() as self._stack:
            yield
            for running in self._harnesses:
                sys.stdout.write(running.describe() + "\n")  # which is shown where a test fails
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
        """Start the engine on each of these transports (or endpoints); it is ended with the test.

        `options` is the query that each endpoint gets.
        """
        endpoints = [ALL_URLS.get(each, each) + options for each in transports]
        running = Harness(
            self.engine, service, endpoints, limits, observe=observe, start_paused=start_paused, tls=tls
        )
        self._stack.callback(running.close)
        self._harnesses.append(running)
        return running

    def connect(self, running: Harness, index: int = 0, **options: Any) -> Client:
        """A client of one of its endpoints; it is closed with the test."""
        return self._stack.enter_context(Client(running.endpoints[index], **options))

    def check_clean_exit(self, engine_exit: EngineExit) -> None:
        """Nothing is left of the engine, and it had nothing to say."""
        faults = engine_exit.problems()
        kept = [each for each in faults if each.startswith("descriptor")]
        if len(kept) <= self.retained_descriptors:
            faults = [each for each in faults if each not in kept]
        assert not faults, "\n".join(faults)

    # What the engine is --------------------------------------------------------------------------

    def require_concurrency(self) -> None:
        """Skip where a second connection has to wait for the first."""
        if not self.engine_class().concurrent:
            pytest.skip(self.engine_class().why_not.get("concurrent", "it serves one at a time"))

    def require_transports(self, *transports: str) -> None:
        """Skip where the engine doesn't carry one of these."""
        missing = [each for each in transports if each not in supported_transports(self.engine_class())]
        if missing:
            pytest.skip(f"engine {self.engine_class().name} does not carry {', '.join(missing)}")

    def require_push(self) -> None:
        """Skip where nothing can be posted."""
        if not self.engine_class().supports_push:
            pytest.skip(self.engine_class().why_not.get("supports_push", "it does not push"))


def supported_transports(engine: type[Engine]) -> dict[str, str]:
    """The transports that an engine claims to carry, as far as this machine has them."""
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
    """A client, of whatever kind."""

    @property
    def address(self) -> Address:
        """Who it is, as the server's events name it."""


def of_client(client: HasAddress, event_type: type[Any] = Event) -> Callable[[Any], bool]:
    """A predicate: events of this client's connection."""
    return lambda event: isinstance(event, event_type) and getattr(event, "peer", None) == client.address


def wait_closed(running: Harness, client: HasAddress) -> Closed:
    """The end of this client's connection, waiting for it."""
    return running.wait_event(Closed, of_client(client))


def wait_opened(running: Harness, client: HasAddress) -> Accepted:
    """The begin of this client's connection, waiting for it."""
    return running.wait_event(Accepted, of_client(client))


def check_cause(running: Harness, client: HasAddress, *causes: CloseReason) -> Closed:
    """Its connection has ended for one of these causes."""
    event = wait_closed(running, client)
    expected = " or ".join(repr(each.value) for each in causes)
    assert event.cause in causes, f"closed because {event.cause.value!r}, not {expected}"
    return event
