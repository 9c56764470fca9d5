"""Traffic that is counted, and connections that are logged, in C: as by the events of another engine."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from bothends.engines.base import Engine, Limits
from bothends.engines.epoll import EpollEngine
from bothends.engines.native import NativeEngine, NativeEpollEngine, NativeUringEngine
from bothends.events import (
    Accepted,
    Closed,
    CountedTraffic,
    Event,
    FilteredObserver,
    ProblemsOnly,
    ServiceFailed,
    WithoutMessages,
)
from bothends.metrics import Metrics
from bothends.server import Server
from bothends.services.base import Service
from bothends.testing.clients import Client
from bothends.testing.services import (
    EchoService,
    ErrorReply,
    LargeReply,
    PullProducer,
    RaisingEcho,
    UppercaseLines,
)

TIMEOUT = 10.0

pytestmark = pytest.mark.skipif(
    NativeEngine.unavailable_reason() is not None, reason=str(NativeEngine.unavailable_reason())
)


def request(client: Client, _server: Server) -> None:
    assert client.request(b"hello\n") == b"HELLO\n"


def end_by_service(client: Client, _server: Server) -> None:
    client.send(b"!\n")
    assert client.receive_until_closed() == b"bye\n"


def wait_for_end(client: Client, _server: Server) -> None:
    client.send(b"hello\n")
    client.receive_until_closed()


def read_all(client: Client, _server: Server) -> None:
    client.receive_until_closed()


def reset(client: Client, server: Server) -> None:
    request(client, server)
    client.reset()


def reset_after_the_end(client: Client, _server: Server) -> None:
    client.send(b"!\n")
    assert client.receive_until_eof() == b"bye\n"
    client.reset()


def drain(client: Client, server: Server) -> None:
    request(client, server)
    server.drain()
    assert client.receive_until_closed() == b""


def fail(client: Client, _server: Server) -> None:
    client.send(b"x")
    client.receive_until_closed()


def read_nothing(client: Client, _server: Server) -> None:
    client.send(b"x")
    client.is_hung_up(TIMEOUT)


def ask_and_half_close(client: Client, _server: Server) -> None:
    client.send(b"hello")
    client.shutdown_write()
    client.receive_until_eof()


def exchange_datagrams(client: Client, _server: Server) -> None:
    for data in (b"one", b"", b"three"):
        client.send(data)
        assert client.receive_message() == data


@dataclass(frozen=True)
class Traffic:
    """What a client does, and the reason that its connection is closed for."""

    act: Callable[[Client, Server], None]
    service: Callable[[], Service]
    reason: str
    limits: Limits = field(default_factory=Limits)
    url: str = "tcp://127.0.0.1:0"

    def __str__(self) -> str:
        return f"{self.act.__name__}-{self.reason}"


TRAFFIC = [
    Traffic(request, UppercaseLines, "peer"),
    Traffic(ask_and_half_close, EchoService, "peer"),
    Traffic(end_by_service, UppercaseLines, "service"),
    Traffic(reset_after_the_end, UppercaseLines, "service"),
    Traffic(wait_for_end, lambda: LargeReply(3_000_000, done=True), "service"),
    Traffic(wait_for_end, ErrorReply, "failed"),
    Traffic(read_all, lambda: PullProducer(200_000), "service"),
    Traffic(reset, UppercaseLines, "reset"),
    Traffic(wait_for_end, UppercaseLines, "idle", Limits(idle=0.1)),
    Traffic(wait_for_end, UppercaseLines, "life", Limits(idle=5.0, life=0.1)),
    Traffic(read_nothing, lambda: LargeReply(30_000_000), "life", Limits(life=0.2)),
    Traffic(drain, UppercaseLines, "drained"),
    Traffic(fail, lambda: RaisingEcho("open", everywhere=True), "failed"),
    Traffic(fail, lambda: RaisingEcho("start", everywhere=True), "failed"),
    Traffic(fail, lambda: RaisingEcho("receive"), "failed"),
    Traffic(exchange_datagrams, EchoService, "", url="udp://127.0.0.1:0"),
    Traffic(exchange_datagrams, EchoService, "", url="unix+dgram:@bothends-counted-{pid}"),
]


def counted(
    engine: type[Engine], traffic: Traffic, observe_others: FilteredObserver
) -> dict[tuple[str, str], int]:
    """Return what is counted with a server of this engine: the counters that are not 0."""
    metrics = Metrics()
    observe = CountedTraffic(metrics, observe_others)
    try:
        server = Server(
            traffic.service(),
            [traffic.url.format(pid=os.getpid())],
            engine=engine,
            limits=traffic.limits,
            observe=observe,
        )
        with server:
            until = time.monotonic() + TIMEOUT
            with Client(server.endpoints[0], rcvbuf=4096) as client:
                traffic.act(client, server)
            while traffic.reason and not metrics.totals()["bothends_connections_closed", traffic.reason]:
                assert time.monotonic() < until, f"not counted as {traffic.reason}: {shown(metrics)}"
        return shown(metrics)
    finally:
        metrics.close()


def shown(metrics: Metrics) -> dict[tuple[str, str], int]:
    # How many reads and writes a message takes is the kernel's decision.
    return {
        key: number
        for key, number in metrics.totals().items()
        if number and key[0] not in ("bothends_reads", "bothends_writes")
    }


each_backend = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(each, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))
        for each in (NativeUringEngine, NativeEpollEngine)
        for reason in [each.unavailable_reason()]
    ],
)


@pytest.mark.parametrize("traffic", TRAFFIC, ids=str)
@each_backend
def test_core_counts_what_events_would_count(engine: type[NativeEngine], traffic: Traffic) -> None:
    found = counted(engine, traffic, ProblemsOnly(lambda _event: None))
    expected = counted(EpollEngine, traffic, ProblemsOnly(lambda _event: None))
    if traffic.act is read_nothing:  # how much fits into the kernel's buffers differs
        found.pop(("bothends_sent_bytes", "stream"), None)
        expected.pop(("bothends_sent_bytes", "stream"), None)
    assert found == expected


def logged(engine: type[Engine], traffic: Traffic) -> tuple[list[object], dict[tuple[str, str], int]]:
    """Return what the log of connections says with a server of this engine, and what is counted."""
    events: list[Event] = []
    totals = counted(engine, traffic, WithoutMessages(events.append))
    shown_events: list[object] = []
    for event in events:
        match event:
            case Accepted(connection=number, peer=peer, local=local):
                shown_events.append(("accepted", number, peer.host, local.port != 0))
            case Closed(connection=number, peer=peer, cause=cause, received=received, sent=sent):
                sent = -1 if traffic.act is read_nothing else sent
                shown_events.append(("closed", number, peer.host, cause, received, sent))
            case ServiceFailed(connection=number):
                shown_events.append(("failed", number))
    totals.pop(("bothends_sent_bytes", "stream"), None)
    return shown_events, totals


@pytest.mark.spread("limits", "engine", one_in=4)
@pytest.mark.parametrize("limits", [Limits(), Limits(per_address=9)], ids=["accepted in C", "asked about"])
@pytest.mark.parametrize("traffic", [each for each in TRAFFIC if each.reason], ids=str)
@each_backend
def test_core_logs_connections_as_events_would(
    engine: type[NativeEngine], traffic: Traffic, limits: Limits
) -> None:
    traffic = dataclasses.replace(
        traffic, limits=dataclasses.replace(traffic.limits, per_address=limits.per_address)
    )
    assert logged(engine, traffic) == logged(EpollEngine, traffic)
