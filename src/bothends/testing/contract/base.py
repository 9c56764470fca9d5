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
from bothends.events import Cause, Closed, Event, Opened
from bothends.layers import TlsSettings
from bothends.testing.clients import Client
from bothends.testing.harness import Harness, Outcome
from bothends.testing.ipc import ServiceMaker

# The transports that the suite knows, and where it listens for each.
BYTES: Final = {"tcp": "tcp://127.0.0.1:0", "unix": "unix://{tmp}/stream"}
BYTES6: Final = {"tcp6": "tcp://[::1]:0"}
PACKETS: Final = {"unix+seqpacket": "unix+seqpacket://{tmp}/packets"}
DATAGRAMS: Final = {
    "udp": "udp://127.0.0.1:0",
    "udp6": "udp://[::1]:0",
    "unix+dgram": "unix+dgram://{tmp}/datagrams",
}
ALL: Final = BYTES | BYTES6 | PACKETS | DATAGRAMS

# Kernel buffers so small that they are full soon. (The kernel doubles them: socket(7), SO_SNDBUF.)
SMALL: Final = 8 * 1024

# How long nothing may happen before a test takes it for "nothing will": only ever on the safe side,
# where being wrong makes the test weaker and never makes it fail.
QUIET: Final = 0.3

# How long an engine may take to be gone when it is told to cut everything off. It only passes when something
# is wrong, or the machine is very busy.
_PROMPTLY: Final = 20.0


class ContractBase:
    """How a part of the suite starts its engine. Private to the suite; authors use EngineContract."""

    engine: ClassVar[str]

    kept_descriptors: ClassVar[int] = 0

    # Starting and ending -------------------------------------------------------------------------

    @classmethod
    def engine_class(cls) -> type[Engine]:
        """The engine under test."""
        return registry.load(cls.engine)

    @pytest.fixture(autouse=True)
    def _running(self) -> Iterator[None]:
        """Skip where the engine can't run; end what was started; nothing may be left of it."""
        reason = self.engine_class().missing()
        if reason is not None:
            pytest.skip(reason)
        self._started: list[Harness] = []
        with contextlib.ExitStack() as self._stack:
            yield
            for running in self._started:
                sys.stdout.write(running.describe() + "\n")  # which is shown where a test fails
                if running.is_alive():
                    running.abort()
                    self.check_end(running.wait_exit(_PROMPTLY))

    def serve(
        self,
        service: ServiceMaker,
        *transports: str,
        options: str = "",
        limits: Limits | None = None,
        observe: bool = True,
        held: bool = False,
        tls: TlsSettings | None = None,
    ) -> Harness:
        """Start the engine on each of these transports (or endpoints); it is ended with the test.

        `options` is the query that each endpoint gets.
        """
        endpoints = [ALL.get(each, each) + options for each in transports]
        running = Harness(self.engine, service, endpoints, limits, observe=observe, held=held, tls=tls)
        self._stack.callback(running.close)
        self._started.append(running)
        return running

    def dial(self, running: Harness, place: int = 0, **options: Any) -> Client:
        """A client of one of its endpoints; it is closed with the test."""
        return self._stack.enter_context(Client(running.endpoints[place], **options))

    def check_end(self, outcome: Outcome) -> None:
        """Nothing is left of the engine, and it had nothing to say."""
        faults = outcome.faults()
        kept = [each for each in faults if each.startswith("descriptor")]
        if len(kept) <= self.kept_descriptors:
            faults = [each for each in faults if each not in kept]
        assert not faults, "\n".join(faults)

    # What the engine is --------------------------------------------------------------------------

    def needs_concurrency(self) -> None:
        """Skip where a second connection has to wait for the first."""
        if not self.engine_class().concurrent:
            pytest.skip(self.engine_class().why_not.get("concurrent", "it serves one at a time"))

    def needs(self, *transports: str) -> None:
        """Skip where the engine doesn't carry one of these."""
        missing = [each for each in transports if each not in carried(self.engine_class())]
        if missing:
            pytest.skip(f"engine {self.engine_class().name} does not carry {', '.join(missing)}")

    def needs_posts(self) -> None:
        """Skip where nothing can be posted."""
        if not self.engine_class().posts:
            pytest.skip(self.engine_class().why_not.get("posts", "it does not deliver posts"))


def carried(engine: type[Engine]) -> dict[str, str]:
    """The transports that an engine claims to carry, as far as this machine has them."""
    streams = {name: text for name, text in (BYTES | BYTES6 | PACKETS).items() if engine.streams}
    datagrams = {name: text for name, text in DATAGRAMS.items() if engine.datagrams}
    return {name: text for name, text in (streams | datagrams).items() if "6" not in name or has_ipv6()}


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class Caller(Protocol):
    """A client, of whatever kind."""

    @property
    def address(self) -> Address:
        """Who it is, as the server's events name it."""


def of(client: Caller, kind: type[Any] = Event) -> Callable[[Any], bool]:
    """A predicate: events of this client's connection."""
    return lambda event: isinstance(event, kind) and getattr(event, "peer", None) == client.address


def closed(running: Harness, client: Caller) -> Closed:
    """The end of this client's connection, waiting for it."""
    return running.wait_event(Closed, of(client))


def opened(running: Harness, client: Caller) -> Opened:
    """The begin of this client's connection, waiting for it."""
    return running.wait_event(Opened, of(client))


def check_cause(running: Harness, client: Caller, *causes: Cause) -> Closed:
    """Its connection has ended for one of these causes."""
    event = closed(running, client)
    expected = " or ".join(repr(each.value) for each in causes)
    assert event.cause in causes, f"closed because {event.cause.value!r}, not {expected}"
    return event
