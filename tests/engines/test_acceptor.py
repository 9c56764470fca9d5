"""`engines/acceptor.py`: waiting for newcomers, and for everything else at the same time."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from bothends.endpoints import Endpoint
from bothends.engines.acceptor import Bell, Door, Watch
from bothends.engines.admission import Reception
from bothends.engines.base import Job, Limits
from bothends.engines.shutdown import Stop
from bothends.events import Draining, Event
from bothends.sockets import Listener, open_listeners
from bothends.testing.services import Echo


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    yield stop
    stop.close()


class Opened:
    """A door with one listener, and clients that stand before it."""

    def __init__(self, stop: Stop, stack: contextlib.ExitStack, *, most: int | None = None) -> None:
        self.events: list[Event] = []
        self.listeners = open_listeners(Endpoint.parse("tcp://127.0.0.1:0"))
        for listener in self.listeners:
            stack.callback(listener.close)
        self.job = Job(Echo(), self.listeners, stop, Limits(), self.events.append)
        self.reception = Reception(self.job, most=most)
        self._stack = stack

    def knock(self) -> None:
        client = socket.create_connection(self.listeners[0].socket.getsockname())
        self._stack.callback(client.close)

    def is_shut(self) -> bool:
        return all(listener.fileno() < 0 for listener in self.listeners)


def test_a_watch_tells_both_stages_of_stopping_once(stop: Stop) -> None:
    watch = Watch(stop)
    watch.turn(0)
    assert (watch.draining, watch.aborting) == (None, None)
    stop.draining.set()
    watch.turn(None)
    told = watch.draining
    assert told is not None
    stop.aborting.set()
    watch.turn(None)
    watch.turn(0)
    assert watch.draining == told
    assert watch.aborting is not None


def test_what_is_removed_by_an_earlier_reaction_is_not_called(stop: Stop) -> None:
    watch = Watch(stop)
    called: list[int] = []
    pipes = [os.pipe() for _ in range(2)]

    def react(reader: int) -> None:
        called.append(reader)
        for other, _ in pipes:
            watch.remove(other)

    for reader, writer in pipes:
        os.write(writer, b".")
        watch.add(reader, lambda reader=reader: react(reader))  # type: ignore[misc]
    watch.turn(None)
    watch.turn(0)
    assert len(called) == 1
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])


def test_what_cannot_be_waited_for_is_looked_at_now_and_then(stop: Stop) -> None:
    watch = Watch(stop)
    looked: list[int] = []
    watch.sluggish.add(lambda: looked.append(1))
    watch.turn(None)
    assert looked == [1]


def test_a_bell_counts_and_is_silent_when_it_is_closed() -> None:
    bell = Bell()
    threads = [threading.Thread(target=bell.ring) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bell.heard() == 10
    bell.close()
    bell.ring()
    bell.close()


def test_newcomers_come_until_the_server_drains_and_those_who_wait_still_do(stop: Stop) -> None:
    with contextlib.ExitStack() as stack:
        opened = Opened(stop, stack)
        with Door(opened.job, opened.reception) as door:
            newcomers = door.newcomers()
            opened.knock()
            opened.knock()
            stack.enter_context(next(newcomers).connection)
            stop.draining.set()
            opened.knock()
            rest = list(newcomers)
            for newcomer in rest:
                newcomer.connection.close()
            assert len(rest) == 2
            assert opened.is_shut()
            assert len([event for event in opened.events if isinstance(event, Draining)]) == 1


def test_who_is_busy_lets_another_thread_shut_the_door(stop: Stop) -> None:
    with contextlib.ExitStack() as stack:
        opened = Opened(stop, stack, most=1)
        with Door(opened.job, opened.reception, one_at_a_time=True) as door:
            newcomers = door.newcomers()
            opened.knock()
            first = next(newcomers)
            opened.knock()
            opened.knock()
            stop.draining.set()
            assert door.close_early()
            assert opened.is_shut()
            first.connection.close()
            opened.reception.left(first.peer)
            for newcomer in newcomers:
                newcomer.connection.close()
                opened.reception.left(newcomer.peer)
            assert opened.reception.number == 3
            assert opened.reception.open == 0
            assert len([event for event in opened.events if isinstance(event, Draining)]) == 1


def test_who_came_in_and_is_not_served_is_closed(stop: Stop) -> None:
    with contextlib.ExitStack() as stack:
        opened = Opened(stop, stack, most=1)
        with Door(opened.job, opened.reception, one_at_a_time=True) as door:
            newcomers = door.newcomers()
            opened.knock()
            first = next(newcomers)
            opened.knock()
            stop.draining.set()
            assert door.close_early()
            first.connection.close()
        # Left without taking the second one: an unclosed socket would be a warning, and so an error.


def test_ready_made_connections_come_first_and_may_be_all(stop: Stop) -> None:
    here, there = socket.socketpair()
    there.setblocking(False)
    endpoint = Endpoint.parse("fd://3")
    job = Job(Echo(), [Listener(endpoint, there, "connection", endpoint)], stop)
    with here, Door(job, Reception(job)) as door:
        (newcomer,) = door.newcomers()
        with newcomer.connection:
            assert newcomer.connection.getblocking()
            assert os.get_blocking(newcomer.connection.fileno())
        assert there.fileno() == -1
        assert here.recv(1) == b""
