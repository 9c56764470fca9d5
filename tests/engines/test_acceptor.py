"""`engines/acceptor.py`: waiting for newcomers, and for everything else at the same time."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from bothends.endpoints import Endpoint
from bothends.engines.acceptor import Acceptor
from bothends.engines.admission import AdmissionControl
from bothends.engines.base import EngineContext, Limits
from bothends.engines.poll_loop import PollLoop
from bothends.engines.shutdown import ShutdownFlags
from bothends.events import Draining, Event
from bothends.sockets import Listener, open_listeners
from bothends.testing.services import EchoService


@pytest.fixture
def stop() -> Iterator[ShutdownFlags]:
    stop = ShutdownFlags()
    yield stop
    stop.close()


class AcceptorFixture:
    """A door with one listener, and clients that stand before it."""

    def __init__(
        self, stop: ShutdownFlags, stack: contextlib.ExitStack, *, max_connections: int | None = None
    ) -> None:
        self.events: list[Event] = []
        self.listeners = open_listeners(Endpoint.parse("tcp://127.0.0.1:0"))
        for listener in self.listeners:
            stack.callback(listener.close)
        self.context = EngineContext(EchoService(), self.listeners, stop, Limits(), self.events.append)
        self.reception = AdmissionControl(self.context, max_connections=max_connections)
        self._stack = stack

    def connect_client(self) -> None:
        client = socket.create_connection(self.listeners[0].socket.getsockname())
        self._stack.callback(client.close)

    def are_listeners_closed(self) -> bool:
        return all(listener.fileno() < 0 for listener in self.listeners)


def test_poll_loop_records_drain_and_abort_once(stop: ShutdownFlags) -> None:
    watch = PollLoop(stop)
    watch.run_once(0)
    assert (watch.draining_since, watch.aborting_since) == (None, None)
    stop.draining.set()
    watch.run_once(None)
    told = watch.draining_since
    assert told is not None
    stop.aborting.set()
    watch.run_once(None)
    watch.run_once(0)
    assert watch.draining_since == told
    assert watch.aborting_since is not None


def test_poll_loop_skips_callback_removed_in_same_turn(stop: ShutdownFlags) -> None:
    watch = PollLoop(stop)
    called: list[int] = []
    pipes = [os.pipe() for _ in range(2)]

    def react(reader: int) -> None:
        called.append(reader)
        for other, _ in pipes:
            watch.remove(other)

    for reader, writer in pipes:
        os.write(writer, b".")
        watch.add(reader, lambda reader=reader: react(reader))  # type: ignore[misc]
    watch.run_once(None)
    watch.run_once(0)
    assert len(called) == 1
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])


def test_poll_loop_polls_callbacks_without_fd(stop: ShutdownFlags) -> None:
    watch = PollLoop(stop)
    looked: list[int] = []
    watch.without_fd.add(lambda: looked.append(1))
    watch.run_once(None)
    assert looked == [1]


def test_acceptor_drains_accept_queue_then_closes(stop: ShutdownFlags) -> None:
    with contextlib.ExitStack() as stack:
        opened = AcceptorFixture(stop, stack)
        with Acceptor(opened.context, opened.reception) as door:
            newcomers = door.accepted()
            opened.connect_client()
            opened.connect_client()
            stack.enter_context(next(newcomers).connection)
            stop.draining.set()
            opened.connect_client()
            rest = list(newcomers)
            for newcomer in rest:
                newcomer.connection.close()
            assert len(rest) == 2
            assert opened.are_listeners_closed()
            assert len([event for event in opened.events if isinstance(event, Draining)]) == 1


def test_close_listeners_now_from_another_thread(stop: ShutdownFlags) -> None:
    with contextlib.ExitStack() as stack:
        opened = AcceptorFixture(stop, stack, max_connections=1)
        with Acceptor(opened.context, opened.reception, one_at_a_time=True) as door:
            newcomers = door.accepted()
            opened.connect_client()
            first = next(newcomers)
            opened.connect_client()
            opened.connect_client()
            stop.draining.set()
            assert door.close_listeners_now()
            assert opened.are_listeners_closed()
            first.connection.close()
            opened.reception.release(first.peer)
            for newcomer in newcomers:
                newcomer.connection.close()
                opened.reception.release(newcomer.peer)
            assert opened.reception.accepted_count == 3
            assert opened.reception.open_count == 0
            assert len([event for event in opened.events if isinstance(event, Draining)]) == 1


def test_acceptor_exit_closes_unserved_connections(stop: ShutdownFlags) -> None:
    with contextlib.ExitStack() as stack:
        opened = AcceptorFixture(stop, stack, max_connections=1)
        with Acceptor(opened.context, opened.reception, one_at_a_time=True) as door:
            newcomers = door.accepted()
            opened.connect_client()
            first = next(newcomers)
            opened.connect_client()
            stop.draining.set()
            assert door.close_listeners_now()
            first.connection.close()
        # Left without taking the second one: an unclosed socket would be a warning, and so an error.


def test_acceptor_yields_inherited_connection_first(stop: ShutdownFlags) -> None:
    here, there = socket.socketpair()
    there.setblocking(False)
    endpoint = Endpoint.parse("fd://3")
    context = EngineContext(EchoService(), [Listener(endpoint, there, "connection", endpoint)], stop)
    with here, Acceptor(context, AdmissionControl(context)) as door:
        (newcomer,) = door.accepted()
        with newcomer.connection:
            assert newcomer.connection.getblocking()
            assert os.get_blocking(newcomer.connection.fileno())
        assert there.fileno() == -1
        assert here.recv(1) == b""
