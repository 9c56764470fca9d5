"""The contract suite with an observer of problems only, or a log.

Then the native engine runs conversations in C, and the engines in Python call them without a driver.

A test that waits for an event of another kind is skipped at that point. What precedes it has been tested, and
so is the clean exit of the engine.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.engines.base import Limits  # noqa: E402
from bothends.events import ProblemsOnly  # noqa: E402
from bothends.services.base import Conversation, Peer, Push, Service  # noqa: E402
from bothends.testing.contract.backpressure import BackpressureContract  # noqa: E402
from bothends.testing.contract.base import DATAGRAM_URLS, has_ipv6  # noqa: E402
from bothends.testing.contract.datagrams import DatagramContract  # noqa: E402
from bothends.testing.contract.exchange import ExchangeContract  # noqa: E402
from bothends.testing.contract.resets import ResetContract  # noqa: E402
from bothends.testing.contract.resource_limits import ResourceLimitContract  # noqa: E402
from bothends.testing.contract.service_errors import ServiceErrorContract  # noqa: E402
from bothends.testing.contract.shutdown import ShutdownContract  # noqa: E402
from bothends.testing.contract.wire import WireContract  # noqa: E402
from bothends.testing.harness import Harness  # noqa: E402
from bothends.testing.ipc import ServiceMaker  # noqa: E402
from bothends.testing.services import EchoService, pattern  # noqa: E402

PIECE = b"piece\n" * 100


class RequestedPieces(Service):
    """Sends as many pieces as a message says, as a pull producer that has nothing to send in between."""

    name = "test-requested"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _RequestedPieces()


class _RequestedPieces(Conversation):
    def __init__(self) -> None:
        self._left = 0

    def receive(self, data: bytes) -> bytes:
        self._left += int(data)
        return b""

    def produce(self) -> bytes:
        if not self._left:
            return b""
        self._left -= 1
        return PIECE


class NoTrafficObserverContract(
    ExchangeContract,
    BackpressureContract,
    ResetContract,
    ServiceErrorContract,
    ResourceLimitContract,
    ShutdownContract,
    DatagramContract,
    WireContract,
):
    def serve(self, service: ServiceMaker, *transports: str, **named: Any) -> Harness:
        running = super().serve(service, *transports, **named)
        wait_event = running.wait_event

        def wait_problem(kind: Any, *more: Any, **others: Any) -> Any:
            if kind in ProblemsOnly.EXCLUDED:
                pytest.skip(f"{kind.__name__} is not observed")
            return wait_event(kind, *more, **others)

        running.wait_event = wait_problem  # type: ignore[method-assign]
        return running

    def test_producer_goes_on_after_a_request(self) -> None:
        running = self.serve(RequestedPieces, "tcp")
        client = self.connect(running)
        for count in (3, 2):
            client.send(b"%d" % count)
            assert client.receive_exactly(count * len(PIECE)) == count * PIECE

    def test_rate_limit_slows_reading(self) -> None:
        running = self.serve(EchoService, "tcp", limits=Limits(rate=40_000))
        client = self.connect(running)
        data = pattern(50_000)
        began = time.monotonic()
        client.send(data)
        assert client.receive_exactly(len(data)) == data
        assert client.request(b".") == b"."
        assert time.monotonic() - began >= 0.2

    def test_unread_reply_after_half_close_uses_no_cpu(self) -> None:
        pytest.skip("it waits for an event first")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for argument in metafunc.fixturenames:
            if argument == "datagram_transport":
                transports = [each for each in DATAGRAM_URLS if "6" not in each or has_ipv6()]
                metafunc.parametrize(argument, transports)
            elif argument.endswith("_transport"):
                metafunc.parametrize(argument, ["tcp"])


@pytest.mark.spread("reading", "cut", "answer", "datagram_transport", one_in=3)
class TestUringWithoutTrafficObserver(NoTrafficObserverContract):
    engine: ClassVar[str] = "tests.engines.silent_engines:SilentUringEngine"


@pytest.mark.slow  # the same Python code as on io_uring
class TestEpollWithoutTrafficObserver(NoTrafficObserverContract):
    engine: ClassVar[str] = "tests.engines.silent_engines:SilentEpollEngine"


@pytest.mark.spread("reading", "cut", "answer", "datagram_transport", one_in=3)
class TestReadinessWithoutTrafficObserver(NoTrafficObserverContract):
    engine: ClassVar[str] = "tests.engines.silent_engines:SilentReadinessEngine"


@pytest.mark.spread("reading", "cut", "answer", "datagram_transport", one_in=3)
class TestUvloopWithoutTrafficObserver(NoTrafficObserverContract):
    engine: ClassVar[str] = "tests.engines.silent_engines:SilentUvloopEngine"
    retained_descriptors: ClassVar[int] = 2  # libuv's pipe for signals


@pytest.mark.slow  # the same code as without a log, except its calls
class TestUringWithLog(NoTrafficObserverContract):
    engine: ClassVar[str] = "tests.engines.silent_engines:LoggedUringEngine"


@pytest.mark.slow
class TestEpollWithLog(NoTrafficObserverContract):
    engine: ClassVar[str] = "tests.engines.silent_engines:LoggedEpollEngine"
