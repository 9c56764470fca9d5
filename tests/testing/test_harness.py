from __future__ import annotations

import contextlib
import functools
import os

import pytest

from bothends.engines.base import Limits
from bothends.errors import CannotCarry
from bothends.events import Closed, Failed, Opened, Received
from bothends.osutil.process_info import everyone, look
from bothends.services import registry
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import Echo, Raising

TCP = ["tcp://127.0.0.1:0"]


class Unpicklable(Echo):
    """Raises what can't be sent to another process."""

    def __init__(self) -> None:
        class Inner(Exception):
            pass

        self.error = Inner("secret")
        raise self.error


def test_life_and_death() -> None:
    with Harness("select", Echo, ["tcp://127.0.0.1:0", "unix://{tmp}/here"]) as running:
        assert [each.scheme for each in running.endpoints] == ["tcp", "unix"]
        assert running.endpoints[0].port
        path = running.endpoints[1].path
        assert os.path.exists(path)  # noqa: PTH110
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"hello") == b"hello"
            opened = running.wait_event(Opened, lambda event: event.peer == client.address)
        running.wait_event(Closed, lambda event: event.connection == opened.connection)
        assert len(running.seen(Received)) == 1
        assert running.is_alive()
        assert running.descriptors() > 3
        assert running.children() == running.zombies() == []
        assert running.memory() > 1_000_000
        running.drain()
        outcome = running.wait_exit()
        assert outcome.faults() == []
        assert not running.is_alive()
        assert running.wait_exit() is outcome
    assert not os.path.exists(path)  # noqa: PTH110
    assert look(running.pid) is None


def test_services_of_the_registry_can_be_named() -> None:
    with Harness("epoll", functools.partial(registry.load, "upper"), TCP) as running:
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"a\n") == b"A\n"
        running.abort()
        assert not running.wait_exit().faults()


def test_nothing_is_left_whatever_happens() -> None:
    with contextlib.suppress(ZeroDivisionError), Harness("prefork", Echo, TCP) as running:
        running.wait_for(running.children)
        raise ZeroDivisionError
    assert not [each for each in everyone() if each.group == running.pid]


def test_a_crash_is_told_with_its_traceback() -> None:
    with pytest.raises(AssertionError, match=r"(?s)ready has not come.*Inner: secret"):
        Harness("epoll", Unpicklable, TCP)
    with pytest.raises(AssertionError, match="there is no engine"):
        Harness("tests.testing.nowhere:Engine", Echo, TCP)
    with pytest.raises(AssertionError, match="no endpoint option"):
        Harness("epoll", Echo, ["tcp://127.0.0.1:0?nonsense=1&"])


def test_a_refusal_is_raised_here() -> None:
    limits = Limits(connections=1, when_full="refuse")
    with pytest.raises(CannotCarry, match="prefork"):
        Harness("prefork", Echo, TCP, limits)


def test_errors_travel() -> None:
    with (
        Harness("epoll", functools.partial(Raising, "receive"), TCP) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.say(b"x")
        assert type(running.wait_event(Failed).error).__name__ == "Mistake"


def test_what_does_not_come_is_an_error_that_says_what_did() -> None:
    with Harness("epoll", Echo, TCP) as running:
        with pytest.raises(AssertionError, match=r"event Opened has not come within 0.1 s"):
            running.wait_event(Opened, deadline=0.1)
        with pytest.raises(AssertionError, match=r"its end has not come"):
            running.wait_exit(0.1)
        with pytest.raises(AssertionError, match=r"not within 0.1 s"):
            running.wait_for(lambda: False, 0.1)
        running.abort()
        running.wait_exit()
        with pytest.raises(AssertionError, match=r"before it ended"):
            running.wait_event(Opened)


def test_frozen_stands_still() -> None:
    with Harness("epoll", Echo, TCP) as running, Client(running.endpoints[0]) as client:
        assert client.ask(b"one") == b"one"
        with running.frozen():
            client.say(b"two")
            assert not client.is_readable(0.05)
        assert client.hear(3) == b"two"


def test_held_runs_when_told() -> None:
    with Harness("epoll", Echo, TCP, held=True) as running, Client(running.endpoints[0]) as client:
        client.say(b"early")
        assert not client.is_readable(0.05)
        running.go()
        assert client.hear(5) == b"early"


def test_without_observer_there_are_no_events() -> None:
    with Harness("epoll", Echo, TCP, observe=False) as running:
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"x") == b"x"
        running.drain()
        running.wait_exit()
        assert running.events == []
