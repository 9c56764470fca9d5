"""`engines/acceptor.py`: the accept loop of the blocking engines; and `engines/poll_loop.py`."""

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
    """An engine context with one listener, and clients that connect to it."""

    def __init__(
        self, stop: ShutdownFlags, stack: contextlib.ExitStack, *, max_connections: int | None = None
    ) -> None:
        self.events: list[Event] = []
        self.listeners = open_listeners(Endpoint.parse("tcp://127.0.0.1:0"))
        for listener in self.listeners:
            stack.callback(listener.close)
        self.context = EngineContext(EchoService(), self.listeners, stop, Limits(), self.events.append)
        self.admission = AdmissionControl(self.context, max_connections=max_connections)
        self._stack = stack

    def connect_client(self) -> None:
        client = socket.create_connection(self.listeners[0].socket.getsockname())
        self._stack.callback(client.close)

    def are_listeners_closed(self) -> bool:
        return all(listener.fileno() < 0 for listener in self.listeners)


def test_poll_loop_records_drain_and_abort_once(stop: ShutdownFlags) -> None:
    loop = PollLoop(stop)
    loop.run_once(0)
    assert (loop.draining_since, loop.aborting_since) == (None, None)
    stop.draining.set()
    loop.run_once(None)
    draining_since = loop.draining_since
    assert draining_since is not None
    stop.aborting.set()
    loop.run_once(None)
    loop.run_once(0)
    assert loop.draining_since == draining_since
    assert loop.aborting_since is not None


def test_poll_loop_skips_callback_removed_in_same_iteration(stop: ShutdownFlags) -> None:
    loop = PollLoop(stop)
    called: list[int] = []
    pipes = [os.pipe() for _ in range(2)]

    def callback(reader: int) -> None:
        called.append(reader)
        for other, _ in pipes:
            loop.remove(other)

    for reader, writer in pipes:
        os.write(writer, b".")
        loop.add(reader, lambda reader=reader: callback(reader))  # type: ignore[misc]
    loop.run_once(None)
    loop.run_once(0)
    assert len(called) == 1
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])


def test_poll_loop_polls_callbacks_without_fd(stop: ShutdownFlags) -> None:
    loop = PollLoop(stop)
    calls: list[int] = []
    loop.without_fd.add(lambda: calls.append(1))
    loop.run_once(None)
    assert calls == [1]


def test_acceptor_drains_accept_queue_then_closes(stop: ShutdownFlags) -> None:
    with contextlib.ExitStack() as stack:
        fixture = AcceptorFixture(stop, stack)
        with Acceptor(fixture.context, fixture.admission) as acceptor:
            accepted = acceptor.accepted()
            fixture.connect_client()
            fixture.connect_client()
            stack.enter_context(next(accepted).connection)
            stop.draining.set()
            fixture.connect_client()
            rest = list(accepted)
            for connection in rest:
                connection.connection.close()
            assert len(rest) == 2
            assert fixture.are_listeners_closed()
            assert len([event for event in fixture.events if isinstance(event, Draining)]) == 1


def test_close_listeners_now_from_another_thread(stop: ShutdownFlags) -> None:
    with contextlib.ExitStack() as stack:
        fixture = AcceptorFixture(stop, stack, max_connections=1)
        with Acceptor(fixture.context, fixture.admission, one_at_a_time=True) as acceptor:
            accepted = acceptor.accepted()
            fixture.connect_client()
            first = next(accepted)
            fixture.connect_client()
            fixture.connect_client()
            stop.draining.set()
            assert acceptor.close_listeners_now()
            assert fixture.are_listeners_closed()
            first.connection.close()
            fixture.admission.release(first.peer)
            for connection in accepted:
                connection.connection.close()
                fixture.admission.release(connection.peer)
            assert fixture.admission.accepted_count == 3
            assert fixture.admission.open_count == 0
            assert len([event for event in fixture.events if isinstance(event, Draining)]) == 1


def test_acceptor_exit_closes_unserved_connections(stop: ShutdownFlags) -> None:
    with contextlib.ExitStack() as stack:
        fixture = AcceptorFixture(stop, stack, max_connections=1)
        with Acceptor(fixture.context, fixture.admission, one_at_a_time=True) as acceptor:
            accepted = acceptor.accepted()
            fixture.connect_client()
            first = next(accepted)
            fixture.connect_client()
            stop.draining.set()
            assert acceptor.close_listeners_now()
            first.connection.close()
        # The second connection was not taken. If it were still open, its ResourceWarning would be an error.


def test_acceptor_yields_inherited_connection_first(stop: ShutdownFlags) -> None:
    here, there = socket.socketpair()
    there.setblocking(False)
    endpoint = Endpoint.parse("fd://3")
    context = EngineContext(EchoService(), [Listener(endpoint, there, "connection", endpoint)], stop)
    with here, Acceptor(context, AdmissionControl(context)) as acceptor:
        (connection,) = acceptor.accepted()
        with connection.connection:
            assert connection.connection.getblocking()
            assert os.get_blocking(connection.connection.fileno())
        assert there.fileno() == -1
        assert here.recv(1) == b""
