from __future__ import annotations

import contextlib
import functools
import os

import pytest

from bothends.engines.base import Limits
from bothends.errors import UnsupportedCombination
from bothends.events import Accepted, Closed, Received, ServiceFailed
from bothends.osutil.process_info import all_processes, read_process
from bothends.services import registry
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import EchoService, RaisingEcho

TCP = ["tcp://127.0.0.1:0"]


class Unpicklable(EchoService):
    """Raises an exception that cannot be pickled."""

    def __init__(self) -> None:
        class Inner(Exception):
            pass

        self.error = Inner("secret")
        raise self.error


def test_harness_runs_and_exits_cleanly() -> None:
    with Harness("select", EchoService, ["tcp://127.0.0.1:0", "unix://{tmp}/here"]) as running:
        assert [each.scheme for each in running.endpoints] == ["tcp", "unix"]
        assert running.endpoints[0].port
        path = running.endpoints[1].path
        assert os.path.exists(path)  # noqa: PTH110
        with Client(running.endpoints[0]) as client:
            assert client.request(b"hello") == b"hello"
            opened = running.wait_event(Accepted, lambda event: event.peer == client.address)
        running.wait_event(Closed, lambda event: event.connection == opened.connection)
        assert len(running.events_of(Received)) == 1
        assert running.is_alive()
        assert running.descriptors() > 3
        assert running.children() == running.zombies() == []
        assert running.memory() > 1_000_000
        running.drain()
        engine_exit = running.wait_exit()
        assert engine_exit.problems() == []
        assert not running.is_alive()
        assert running.wait_exit() is engine_exit
    assert not os.path.exists(path)  # noqa: PTH110
    assert read_process(running.pid) is None


def test_harness_runs_registry_service() -> None:
    with Harness("epoll", functools.partial(registry.load, "upper"), TCP) as running:
        with Client(running.endpoints[0]) as client:
            assert client.request(b"a\n") == b"A\n"
        running.abort()
        assert not running.wait_exit().problems()


def test_harness_kills_processes_on_error() -> None:
    with contextlib.suppress(ZeroDivisionError), Harness("prefork", EchoService, TCP) as running:
        running.wait_for(running.children)
        raise ZeroDivisionError
    assert not [each for each in all_processes() if each.group == running.pid]


def test_harness_start_failure_shows_traceback() -> None:
    with pytest.raises(AssertionError, match=r"(?s)no start before it exited.*Inner: secret"):
        Harness("epoll", Unpicklable, TCP)
    with pytest.raises(AssertionError, match="there is no engine"):
        Harness("tests.testing.no_such_module:Engine", EchoService, TCP)
    with pytest.raises(AssertionError, match="no endpoint option"):
        Harness("epoll", EchoService, ["tcp://127.0.0.1:0?nonsense=1&"])


def test_harness_unsupported_combination_raises() -> None:
    limits = Limits(connections=1, when_full="refuse")
    with pytest.raises(UnsupportedCombination, match="prefork"):
        Harness("prefork", EchoService, TCP, limits)


def test_harness_transfers_exceptions() -> None:
    with (
        Harness("epoll", functools.partial(RaisingEcho, "receive"), TCP) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.send(b"x")
        assert type(running.wait_event(ServiceFailed).error).__name__ == "InjectedError"


def test_harness_timeout_describes_state() -> None:
    with Harness("epoll", EchoService, TCP) as running:
        with pytest.raises(AssertionError, match=r"no event Accepted within 0.1 s"):
            running.wait_event(Accepted, timeout=0.1)
        with pytest.raises(AssertionError, match=r"no exit within 0.1 s"):
            running.wait_exit(0.1)
        with pytest.raises(AssertionError, match=r"not within 0.1 s"):
            running.wait_for(lambda: False, 0.1)
        running.abort()
        running.wait_exit()
        with pytest.raises(AssertionError, match=r"before it exited"):
            running.wait_event(Accepted)


def test_harness_suspended_does_not_answer() -> None:
    with Harness("epoll", EchoService, TCP) as running, Client(running.endpoints[0]) as client:
        assert client.request(b"one") == b"one"
        with running.suspended():
            client.send(b"two")
            assert not client.is_readable(0.05)
        assert client.receive_exactly(3) == b"two"


def test_harness_start_paused_runs_on_resume() -> None:
    with (
        Harness("epoll", EchoService, TCP, start_paused=True) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.send(b"early")
        assert not client.is_readable(0.05)
        running.resume()
        assert client.receive_exactly(5) == b"early"


def test_harness_without_observer_has_no_events() -> None:
    with Harness("epoll", EchoService, TCP, observe=False) as running:
        with Client(running.endpoints[0]) as client:
            assert client.request(b"x") == b"x"
        running.drain()
        running.wait_exit()
        assert running.events == []
