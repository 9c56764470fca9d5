"""The limits of conversations that the native engine runs in C, on both backends: there is no observer."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator

import pytest

from bothends.engines import native
from bothends.engines.base import Limits
from bothends.testing.clients import TIMEOUT, Client
from bothends.testing.harness import Harness
from bothends.testing.ipc import ServiceMaker
from bothends.testing.services import EchoService, Greeting, LargeReply, pattern

SMALL = 16 * 1024  # bytes of a socket's buffer
SHORT = 0.3  # seconds


class Serving:
    """Runs engines of one backend until the end of a test."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._running: list[Harness] = []

    def __call__(self, service: ServiceMaker, limits: Limits) -> Harness:
        url = f"tcp://127.0.0.1:0?sndbuf={SMALL}&rcvbuf={SMALL}"
        running = Harness(self._engine, service, [url], limits, observe=False)
        self._running.append(running)
        return running.__enter__()

    def close(self) -> None:
        for running in self._running:
            running.__exit__(None, None, None)


@pytest.fixture(params=["NativeUringEngine", "NativeEpollEngine"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serving]:
    if (reason := getattr(native, request.param).unavailable_reason()) is not None:
        pytest.skip(str(reason))
    serving = Serving(f"bothends.engines.native:{request.param}")
    yield serving
    serving.close()


def send_for(client: Client, seconds: float) -> None:
    """Send a byte every 50 ms."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        client.send(b"x")
        client.is_hung_up(0.05)


def test_reading_resumes_when_the_peer_reads(serve: Serving) -> None:
    """A peer sends until nobody takes any more, then reads everything; and the same again."""
    running = serve(EchoService, Limits(unsent=64 * 1024))
    with Client(running.endpoints[0], rcvbuf=SMALL, sndbuf=SMALL) as client:
        for _ in range(3):
            data = pattern(4_000_000)
            count = client.send_until_blocked(data, SHORT)
            assert count < 1_000_000
            assert client.receive_exactly(count) == data[:count]
        client.shutdown_write()
        assert client.receive_until_eof() == b""


def test_large_answers_are_sent_once_and_in_order(serve: Serving) -> None:
    running = serve(EchoService, Limits())
    with Client(running.endpoints[0], rcvbuf=SMALL, sndbuf=SMALL) as client:
        data = pattern(2_000_000)
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        assert client.receive_exactly(len(data)) == data
        sender.join()


def test_silent_peer_is_not_waited_for_after_our_fin(serve: Serving) -> None:
    running = serve(Greeting, Limits(linger=SHORT))
    with Client(running.endpoints[0]) as client:
        assert client.receive_until_eof() == b"welcome and goodbye\n"
        # The server has closed its socket if data is answered with RST.
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_for(client, TIMEOUT)


@pytest.mark.parametrize("limits", [Limits(idle=SHORT), Limits(life=SHORT)], ids=["idle", "life"])
def test_limit_of_a_peer_that_reads_ends_with_eof(serve: Serving, limits: Limits) -> None:
    running = serve(EchoService, limits)
    with Client(running.endpoints[0]) as client:
        assert client.request(b"hello") == b"hello"
        began = time.monotonic()
        assert client.receive_until_eof() == b""
        assert time.monotonic() - began < TIMEOUT / 2


def test_activity_prolongs_the_idle_timeout_but_not_the_lifetime(serve: Serving) -> None:
    for limits, ends in ((Limits(idle=0.8), False), (Limits(life=0.8), True)):
        running = serve(EchoService, limits)
        with Client(running.endpoints[0]) as client:
            until = time.monotonic() + 1.3
            received = b"."
            while received and time.monotonic() < until:
                client.send(b".")
                received = client.try_receive(1)
                client.is_hung_up(0.05)
            assert (received == b"") is ends


@pytest.mark.parametrize(
    "limits", [Limits(idle=SHORT), Limits(life=SHORT), Limits(drain=SHORT)], ids=["idle", "life", "drain"]
)
def test_answer_that_is_cut_off_ends_with_a_reset(serve: Serving, limits: Limits) -> None:
    service: ServiceMaker = functools.partial(LargeReply, 8_000_000)
    running = serve(service, limits)
    with Client(running.endpoints[0], rcvbuf=SMALL) as client:
        client.send(b"go")
        assert client.is_readable(TIMEOUT)
        if limits.drain == SHORT:
            running.drain()
        assert client.is_hung_up(TIMEOUT)
        with pytest.raises(ConnectionResetError):
            client.receive_until_eof()


def test_peer_that_sends_without_reading_is_bounded(serve: Serving) -> None:
    running = serve(EchoService, Limits(unsent=64 * 1024))
    with Client(running.endpoints[0], rcvbuf=SMALL, sndbuf=SMALL) as client:
        assert client.send_until_blocked(pattern(20_000_000), SHORT) < 2_000_000
