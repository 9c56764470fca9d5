"""epoll: a connection wakes one of several that wait for its listener; broken ones are reported."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import pytest

from bothends.engines.base import Limits
from bothends.engines.epoll import EpollPoller
from bothends.engines.native import NativeEpollEngine
from bothends.engines.nonblocking import SMALL_READ
from bothends.events import Closed, CloseReason, PeerEof
from bothends.services.base import Conversation, Peer, Push, Service
from bothends.testing.clients import Client
from bothends.testing.harness import Harness

WAITING = 4


@pytest.mark.parametrize("shared", [True, False])
def test_connection_wakes_one_of_the_pollers_that_share_a_listener(shared: bool) -> None:
    woken: list[int] = []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ready = threading.Barrier(WAITING + 1)

        def wait(number: int) -> None:
            poller = EpollPoller()
            poller.watch(listener.fileno(), select.POLLIN, shared=shared)
            ready.wait()
            if poller.wait(1.0):
                woken.append(number)
            poller.close()

        threads = [threading.Thread(target=wait, args=(number,)) for number in range(WAITING)]
        for thread in threads:
            thread.start()
        ready.wait()
        threading.Event().wait(0.3)  # until all of them are blocked
        stack.enter_context(socket.create_connection(listener.getsockname()))
        for thread in threads:
            thread.join()
    assert len(woken) < WAITING if shared else len(woken) == WAITING


class Waiting(Service):
    """Its conversations have nothing to send yet, as the relay of a command that computes."""

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _Waiting()


class _Waiting(Conversation):
    @property
    def more_later(self) -> bool:
        return True

    def receive(self, data: bytes) -> bytes:
        return data

    def produce(self) -> bytes:
        return b""


@pytest.mark.parametrize("engine", ["epoll", "poll", "bothends.engines.native:NativeEpollEngine"])
def test_reset_is_noticed_while_neither_reading_nor_writing(engine: str) -> None:
    """After the peer's EOF nothing is read any more. Only POLLERR and POLLHUP tell of its reset."""
    if "native" in engine and (reason := NativeEpollEngine.unavailable_reason()) is not None:
        pytest.skip(reason)
    with (
        Harness(engine, Waiting, ["tcp://127.0.0.1:0"]) as running,
        Client(running.endpoints[0]) as client,
    ):
        assert client.request(b"x") == b"x"
        client.shutdown_write()
        running.wait_event(PeerEof)
        client.reset()
        assert running.wait_event(Closed).cause is CloseReason.RESET


class ChunkSizes(Service):
    """Answers each chunk with its size."""

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _ChunkSizes()


class _ChunkSizes(Conversation):
    def receive(self, data: bytes) -> bytes:
        return b"%d\n" % len(data)


@pytest.mark.parametrize("engine", ["select", "epoll"])
@pytest.mark.parametrize("size", [SMALL_READ - 1, SMALL_READ, SMALL_READ + 1, 20_000])
def test_data_sent_at_once_is_one_chunk(engine: str, size: int) -> None:
    """Whatever the size of the buffer of the first read. On the loopback interface it is one segment."""
    with (
        Harness(engine, ChunkSizes, ["tcp://127.0.0.1:0"]) as running,
        Client(running.endpoints[0]) as client,
    ):
        for each in (5, size, size, 7):
            expected = b"%d\n" % each
            assert client.request(bytes(each), len(expected)) == expected


@pytest.mark.parametrize("chunk", [100, SMALL_READ + 21])
def test_chunk_is_not_larger_than_its_limit(chunk: int) -> None:
    with (
        Harness("epoll", ChunkSizes, ["tcp://127.0.0.1:0"], Limits(chunk=chunk)) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.send(bytes(2 * chunk + 5))
        expected = b"%d\n%d\n5\n" % (chunk, chunk)
        assert client.receive_exactly(len(expected)) == expected
