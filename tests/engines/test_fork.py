"""`engines/fork.py`: a process for each connection."""

from __future__ import annotations

import contextlib
import os
import signal

from bothends.endpoints import Endpoint
from bothends.engines.base import Limits
from bothends.engines.fork import ForkEngine
from bothends.events import Cause, Closed, Exited, Opened, Refused, Relieved, Strained
from bothends.osutil import process_info
from bothends.services.base import Conversation, Peer, Post, Service
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import Chat, Digest, Echo, Lines
from tests.engines.hung_service import Stuck

TCP = "tcp://127.0.0.1:0"


class NoFork(ForkEngine):
    """Cannot fork for its first connections, as at a limit on processes."""

    def run(self) -> None:
        real, left = os.fork, [3]

        def fail() -> int:
            if left[0]:
                left[0] -= 1
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return real()

        os.fork = fail
        super().run()


class Alone(ForkEngine):
    """Has no pidfd, as on an old kernel."""

    def run(self) -> None:
        del os.pidfd_open
        super().run()


def test_each_connection_has_a_process_of_its_own() -> None:
    with Harness("fork", Lines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(5)]
        for client in clients:
            assert client.ask(b"x\n") == b"X\n"
        assert len(running.children()) == 5
        for client in clients:
            client.close()
        running.wait_for(lambda: not running.children())
        running.drain()
        assert running.wait_exit().faults() == []
    # Each tells of itself, so in any order.
    assert sorted(event.connection for event in running.seen(Opened)) == [1, 2, 3, 4, 5]
    assert [event.status for event in running.seen(Exited)] == [0] * 5


def test_a_process_that_is_killed_takes_its_own_connection_only() -> None:
    with (
        Harness("fork", Lines, [TCP]) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.ask(b"x\n") == b"X\n"
        victim = running.children()[0].pid
        assert second.ask(b"x\n") == b"X\n"
        os.kill(victim, signal.SIGKILL)
        assert first.hear_end() == b""
        exited = running.wait_event(Exited)
        assert (exited.pid, exited.status) == (victim, -signal.SIGKILL)
        assert second.ask(b"y\n") == b"Y\n"
        assert running.zombies() == []


def test_a_child_has_neither_the_listener_nor_the_others_connections() -> None:
    with (
        Harness("fork", Lines, [TCP]) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.ask(b"x\n") == b"X\n"
        assert second.ask(b"x\n") == b"X\n"
        parent, *children = [process_info.descriptors(each.pid) for each in running.processes()]
        own = set(parent.values())
        assert "pidfd" in str(own)
        for child in children:
            assert "pidfd" not in str(child)
            sockets = {what for what in child.values() if what.startswith("socket:")}
            # Its connection, and the line on which the tests are told what happens.
            assert len(sockets - own) == 1
            assert len(sockets) == 2


def test_no_zombies_and_nothing_left_after_many() -> None:
    with Harness("fork", Digest, [TCP]) as running:
        for _ in range(100):
            with Client(running.endpoints[0]) as client:
                client.say(b"x")
                client.finish()
                assert client.hear_line().startswith(b"1 ")
        running.wait_for(lambda: not running.children())
        running.drain()
        assert running.wait_exit().faults() == []


def test_without_pidfds_children_are_noticed_all_the_same() -> None:
    with Harness(f"{__name__}:Alone", Lines, [TCP]) as running:
        for _ in range(3):
            with Client(running.endpoints[0]) as client:
                assert client.ask(b"x\n") == b"X\n"
        running.wait_for(lambda: not running.children())
        running.drain()
        assert running.wait_exit().faults() == []


def test_the_limit_counts_processes() -> None:
    with (
        Harness("fork", Lines, [TCP], Limits(connections=1)) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.ask(b"x\n") == b"X\n"
        second.say(b"y\n")
        assert not second.is_readable(0.1)
        first.close()
        assert second.hear(2) == b"Y\n"


def test_a_limit_that_refuses() -> None:
    with (
        Harness("fork", Lines, [TCP], Limits(connections=1, when_full="refuse")) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.ask(b"x\n") == b"X\n"
        assert second.hear_end() == b""
        running.wait_event(Refused)


def test_without_processes_it_refuses_and_recovers() -> None:
    with Harness(f"{__name__}:NoFork", Lines, [TCP]) as running:
        for _ in range(3):
            with Client(running.endpoints[0]) as client:
                assert client.hear_end() == b""
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"x\n") == b"X\n"
        running.wait_event(Relieved)
        assert (len(running.seen(Refused)), len(running.seen(Strained))) == (3, 1)
        running.drain()
        assert running.wait_exit().faults() == []


def test_draining_dismisses_who_is_silent_and_waits_for_who_is_busy() -> None:
    with (
        Harness("fork", Lines, [TCP]) as running,
        Client(running.endpoints[0]) as silent,
        Client(running.endpoints[0]) as busy,
    ):
        assert silent.ask(b"x\n") == b"X\n"
        assert busy.ask(b"x\n") == b"X\n"
        running.drain()
        while not silent.is_readable(0.02):
            assert busy.ask(b"y\n") == b"Y\n"
        assert silent.hear_all() == b""
        for _ in range(10):
            assert busy.ask(b"z\n") == b"Z\n"
        busy.finish()
        assert busy.hear_all() == b""
        assert running.wait_exit().faults() == []
    assert [event.cause for event in running.seen(Closed)] == [Cause.DRAINED, Cause.PEER]


def test_who_computes_at_the_deadline_is_killed() -> None:
    with (
        Harness(f"{__name__}:ForkEngine", Stuck, [TCP], Limits(drain=0.1)) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.say(b"x")
        running.wait_event(Opened)
        running.drain()
        assert client.hear_end() == b""
        assert running.wait_exit().faults() == []
    assert running.seen(Exited)[0].status == -signal.SIGKILL


def test_children_do_not_outlive_a_parent_that_is_killed() -> None:
    with Harness("fork", Lines, [TCP]) as running, Client(running.endpoints[0]) as client:
        assert client.ask(b"x\n") == b"X\n"
        (child,) = running.children()
        os.kill(running.pid, signal.SIGKILL)
        client.hear_end()
        running.wait_for(lambda: (now := process_info.look(child.pid)) is None or now.is_zombie)


def test_an_interrupt_from_the_terminal_is_the_parents_affair() -> None:
    with Harness("fork", Lines, [TCP]) as running, Client(running.endpoints[0]) as client:
        assert client.ask(b"x\n") == b"X\n"
        (child,) = running.children()
        os.kill(child.pid, signal.SIGINT)
        assert client.ask(b"y\n") == b"Y\n"


def test_says_why_it_does_not_carry_datagrams_and_posts() -> None:
    datagrams = ForkEngine.refusal(Echo(), Endpoint.parse("udp://127.0.0.1:0"))
    assert "no connection to hand to a process" in str(datagrams)
    posts = ForkEngine.refusal(Chat(), Endpoint.parse(TCP))
    assert "share nothing" in str(posts)


def test_a_conversation_that_exits_ends_its_own_process() -> None:
    with Harness(f"{__name__}:ForkEngine", Leaving, [TCP]) as running:
        with Client(running.endpoints[0]) as client, contextlib.suppress(ConnectionError):
            client.say(b"x")
            client.hear_end()
        assert running.wait_event(Exited).status == 7
        with Client(running.endpoints[0]) as client:
            assert client.is_readable(0.05) is False


class Leaving(Service):
    """Ends its process when it hears something."""

    name = "test-leaving"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Leaving()


class _Leaving(Conversation):
    def receive(self, data: bytes) -> bytes:
        raise SystemExit(7)
