"""Accepting in C under limits: the connection limit, and `admit` for the decisions about single peers."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bothends.engines.base import Limits
from bothends.engines.native import NativeEngine, NativeEpollEngine, NativeUringEngine
from bothends.events import ConnectionRejected, ProblemsOnly, RejectReason
from bothends.server import Server
from bothends.services.base import Service
from bothends.testing.clients import Client
from bothends.testing.services import EchoService, PullProducer, RaisingEcho

TIMEOUT = 10.0

pytestmark = pytest.mark.skipif(
    NativeEngine.unavailable_reason() is not None, reason=str(NativeEngine.unavailable_reason())
)


@pytest.fixture(params=[NativeUringEngine, NativeEpollEngine])
def engine(request: pytest.FixtureRequest) -> type[NativeEngine]:
    chosen: type[NativeEngine] = request.param
    if chosen.unavailable_reason() is not None:
        pytest.skip(str(chosen.unavailable_reason()))
    return chosen


Serve = Callable[[Service, Limits], Server]


@pytest.fixture
def rejections() -> list[ConnectionRejected]:
    return []


@pytest.fixture
def serve(engine: type[NativeEngine], rejections: list[ConnectionRejected]) -> Iterator[Serve]:
    """A function that runs a server, whose listeners the core accepts from."""
    with contextlib.ExitStack() as servers:

        def start(service: Service, limits: Limits) -> Server:
            observe = ProblemsOnly(
                lambda event: rejections.append(event) if isinstance(event, ConnectionRejected) else None
            )
            server = Server(service, ["tcp://127.0.0.1:0"], engine=engine, limits=limits, observe=observe)
            return servers.enter_context(server)

        yield start


def wait_until_served(server: Server) -> None:
    """Connect until a connection is served: the server may not have noticed yet that another one has left."""
    until = time.monotonic() + TIMEOUT
    while True:
        with Client(server.endpoints[0], may_be_reset=True) as client, contextlib.suppress(OSError):
            client.send(b"x")
            if client.try_receive(1):
                return
        assert time.monotonic() < until, "not served again"


def test_client_over_the_limit_waits_for_another_to_leave(
    serve: Serve, rejections: list[ConnectionRejected]
) -> None:
    server = serve(EchoService(), Limits(connections=2))
    with Client(server.endpoints[0]) as first, Client(server.endpoints[0]) as second:
        assert first.request(b"one") == b"one"
        assert second.request(b"two") == b"two"
        with Client(server.endpoints[0]) as third:
            third.send(b"three")
            assert not third.is_readable(0.3)
            second.close()
            assert third.receive_exactly(5) == b"three"
            assert not first.is_readable()
    assert not rejections


@pytest.mark.parametrize("other", ["unix:@accept-{pid}?backlog=9", "unix+seqpacket:@accept-{pid}"])
def test_limit_is_one_for_all_listeners(engine: type[NativeEngine], other: str) -> None:
    urls = ["tcp://127.0.0.1:0", other.format(pid=os.getpid())]
    observe = ProblemsOnly(lambda _event: None)
    with (
        Server(EchoService(), urls, engine=engine, limits=Limits(connections=1), observe=observe) as server,
        Client(server.endpoints[0]) as first,
    ):
        assert first.request(b"one") == b"one"
        with Client(server.endpoints[1]) as second:
            second.send(b"two")
            assert not second.is_readable(0.3)
            first.close()
            assert second.receive_exactly(3) == b"two"


def test_limit_holds_when_a_reloaded_service_is_accepted_in_python(
    engine: type[NativeEngine], tmp_path: Path
) -> None:
    file = tmp_path / "service.py"
    file.write_text("from bothends.testing.services import EchoService as Talk\n")
    limits, observe = Limits(connections=1), ProblemsOnly(lambda _event: None)
    server = Server(f"{file}:Talk", ["tcp://127.0.0.1:0"], engine=engine, limits=limits, observe=observe)
    with server, Client(server.endpoints[0]) as first:
        assert first.request(b"one") == b"one"
        file.write_text("from bothends.testing.services import BroadcastChat as Talk  # which pushes\n")
        server.reload()
        with Client(server.endpoints[0]) as second:
            assert not second.is_readable(0.3)
            first.close()
            assert second.receive_exactly(5) == b"hello"  # of the new service


def test_limit_holds_while_many_come_and_go(serve: Serve) -> None:
    server = serve(EchoService(), Limits(connections=3))
    for _ in range(40):
        clients = [Client(server.endpoints[0]) for _ in range(5)]
        for client in clients:
            client.send(b"x")
        for client in clients:  # each is served once the ones before it have left
            assert client.receive_exactly(1) == b"x"
            client.close()


def test_address_over_its_limit_is_refused(serve: Serve, rejections: list[ConnectionRejected]) -> None:
    server = serve(EchoService(), Limits(per_address=1))
    with Client(server.endpoints[0]) as first, Client(server.endpoints[0], source="127.0.0.9") as other:
        assert first.request(b"hello") == b"hello"
        assert other.request(b"hello") == b"hello"
        with Client(server.endpoints[0], may_be_reset=True) as second:
            assert second.receive_until_closed() == b""
        [rejected] = rejections
        assert rejected.why is RejectReason.ADDRESS
    wait_until_served(server)


def test_pull_producer_counts_once(serve: Serve) -> None:
    server = serve(PullProducer(1000), Limits(per_address=1))
    for _ in range(5):
        wait_until_served(server)


def test_denied_network_is_refused_and_others_are_served(
    serve: Serve, rejections: list[ConnectionRejected]
) -> None:
    server = serve(EchoService(), Limits(deny=(ipaddress.ip_network("127.0.0.8/29"),)))
    with Client(server.endpoints[0], source="127.0.0.9", may_be_reset=True) as denied:
        assert denied.receive_until_closed() == b""
    with Client(server.endpoints[0]) as allowed:
        assert allowed.request(b"hello") == b"hello"
    [rejected] = rejections
    assert (rejected.why, rejected.peer.host) == (RejectReason.NETWORK, "127.0.0.9")


def test_full_server_refuses_if_it_should(serve: Serve, rejections: list[ConnectionRejected]) -> None:
    server = serve(EchoService(), Limits(connections=1, when_full="refuse"))
    with Client(server.endpoints[0]) as first:
        assert first.request(b"hello") == b"hello"
        with Client(server.endpoints[0], may_be_reset=True) as second:
            assert second.receive_until_closed() == b""
        assert first.request(b"again") == b"again"
    assert [each.why for each in rejections] == [RejectReason.FULL]
    wait_until_served(server)


def test_failed_conversations_free_their_places(serve: Serve) -> None:
    server = serve(RaisingEcho("open", everywhere=True), Limits(connections=2, per_address=2))
    for _ in range(6):
        with Client(server.endpoints[0], may_be_reset=True) as client:
            assert client.receive_until_closed() == b""
