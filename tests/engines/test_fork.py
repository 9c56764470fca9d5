"""`engines/fork.py`: a process for each connection."""

from __future__ import annotations

import contextlib
import os
import signal

from bothends.endpoints import Endpoint
from bothends.engines.base import Limits
from bothends.engines.fork import ForkEngine
from bothends.events import (
    Accepted,
    AcceptPaused,
    AcceptResumed,
    ChildExited,
    Closed,
    CloseReason,
    ConnectionRejected,
)
from bothends.osutil import process_info
from bothends.services.base import Conversation, Peer, Push, Service
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import BroadcastChat, Digest, EchoService, UppercaseLines
from tests.engines.hung_service import HangingService

TCP = "tcp://127.0.0.1:0"


class NoFork(ForkEngine):
    """fork() fails for the first three connections, as at a limit on processes."""

    def run(self) -> None:
        real, failures = os.fork, [3]

        def fail() -> int:
            if failures[0]:
                failures[0] -= 1
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return real()

        os.fork = fail
        super().run()


class NoPidfd(ForkEngine):
    """Runs without pidfd_open(), as on an old kernel."""

    def run(self) -> None:
        del os.pidfd_open
        super().run()


def test_process_per_connection() -> None:
    with Harness("fork", UppercaseLines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(5)]
        for client in clients:
            assert client.request(b"x\n") == b"X\n"
        assert len(running.children()) == 5
        for client in clients:
            client.close()
        running.wait_for(lambda: not running.children())
        running.drain()
        assert running.wait_exit().problems() == []
    # Each process emits its own events, so they arrive in any order.
    assert sorted(event.connection for event in running.events_of(Accepted)) == [1, 2, 3, 4, 5]
    assert [event.status for event in running.events_of(ChildExited)] == [0] * 5


def test_killed_child_ends_one_connection() -> None:
    with (
        Harness("fork", UppercaseLines, [TCP]) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.request(b"x\n") == b"X\n"
        victim = running.children()[0].pid
        assert second.request(b"x\n") == b"X\n"
        os.kill(victim, signal.SIGKILL)
        assert first.receive_until_closed() == b""
        exited = running.wait_event(ChildExited)
        assert (exited.pid, exited.status) == (victim, -signal.SIGKILL)
        assert second.request(b"y\n") == b"Y\n"
        assert running.zombies() == []


def test_child_inherits_only_its_connection() -> None:
    with (
        Harness("fork", UppercaseLines, [TCP]) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.request(b"x\n") == b"X\n"
        assert second.request(b"x\n") == b"X\n"
        parent, *children = (each.pid for each in running.processes())

        def shared_with_parent(child: int) -> set[str]:
            return sockets(child) & sockets(parent)

        # A child may reply before its parent has closed its copy of the connection.
        running.wait_for(lambda: all(len(shared_with_parent(child)) == 1 for child in children))
        assert "pidfd" in str(process_info.descriptors(parent))
        for child in children:
            assert "pidfd" not in str(process_info.descriptors(child))
            # Its connection, and the report socket of the harness, which the parent has too.
            assert len(sockets(child)) == 2


def sockets(pid: int) -> set[str]:
    """Return the sockets that a process holds, each as `socket:[INODE]`."""
    return {target for target in process_info.descriptors(pid).values() if target.startswith("socket:")}


def test_hundred_connections_leave_no_zombies() -> None:
    with Harness("fork", Digest, [TCP]) as running:
        for _ in range(100):
            with Client(running.endpoints[0]) as client:
                client.send(b"x")
                client.shutdown_write()
                assert client.receive_line().startswith(b"1 ")
        running.wait_for(lambda: not running.children())
        running.drain()
        assert running.wait_exit().problems() == []


def test_children_are_reaped_without_pidfd() -> None:
    with Harness(f"{__name__}:NoPidfd", UppercaseLines, [TCP]) as running:
        for _ in range(3):
            with Client(running.endpoints[0]) as client:
                assert client.request(b"x\n") == b"X\n"
        running.wait_for(lambda: not running.children())
        running.drain()
        assert running.wait_exit().problems() == []


def test_connection_limit_defer() -> None:
    with (
        Harness("fork", UppercaseLines, [TCP], Limits(connections=1)) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.request(b"x\n") == b"X\n"
        second.send(b"y\n")
        assert not second.is_readable(0.1)
        first.close()
        assert second.receive_exactly(2) == b"Y\n"


def test_connection_limit_refuse() -> None:
    with (
        Harness("fork", UppercaseLines, [TCP], Limits(connections=1, when_full="refuse")) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.request(b"x\n") == b"X\n"
        assert second.receive_until_closed() == b""
        running.wait_event(ConnectionRejected)


def test_fork_failure_refuses_and_recovers() -> None:
    with Harness(f"{__name__}:NoFork", UppercaseLines, [TCP]) as running:
        for _ in range(3):
            with Client(running.endpoints[0]) as client:
                assert client.receive_until_closed() == b""
        with Client(running.endpoints[0]) as client:
            assert client.request(b"x\n") == b"X\n"
        running.wait_event(AcceptResumed)
        assert (len(running.events_of(ConnectionRejected)), len(running.events_of(AcceptPaused))) == (3, 1)
        running.drain()
        assert running.wait_exit().problems() == []


def test_drain_closes_idle_and_waits_for_active() -> None:
    with (
        Harness("fork", UppercaseLines, [TCP]) as running,
        Client(running.endpoints[0]) as idle,
        Client(running.endpoints[0]) as busy,
    ):
        assert idle.request(b"x\n") == b"X\n"
        assert busy.request(b"x\n") == b"X\n"
        running.drain()
        while not idle.is_readable(0.02):
            assert busy.request(b"y\n") == b"Y\n"
        assert idle.receive_until_eof() == b""
        for _ in range(10):
            assert busy.request(b"z\n") == b"Z\n"
        busy.shutdown_write()
        assert busy.receive_until_eof() == b""
        assert running.wait_exit().problems() == []
    assert [event.cause for event in running.events_of(Closed)] == [CloseReason.DRAINED, CloseReason.PEER]


def test_drain_timeout_kills_hung_child() -> None:
    with (
        Harness(f"{__name__}:ForkEngine", HangingService, [TCP], Limits(drain=0.1)) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.send(b"x")
        running.wait_event(Accepted)
        running.drain()
        assert client.receive_until_closed() == b""
        assert running.wait_exit().problems() == []
    assert running.events_of(ChildExited)[0].status == -signal.SIGKILL


def test_children_exit_when_parent_is_killed() -> None:
    with Harness("fork", UppercaseLines, [TCP]) as running, Client(running.endpoints[0]) as client:
        assert client.request(b"x\n") == b"X\n"
        (child,) = running.children()
        os.kill(running.pid, signal.SIGKILL)
        client.receive_until_closed()
        running.wait_for(lambda: (now := process_info.read_process(child.pid)) is None or now.is_zombie)


def test_child_ignores_sigint() -> None:
    with Harness("fork", UppercaseLines, [TCP]) as running, Client(running.endpoints[0]) as client:
        assert client.request(b"x\n") == b"X\n"
        (child,) = running.children()
        os.kill(child.pid, signal.SIGINT)
        assert client.request(b"y\n") == b"Y\n"


def test_unsupported_capabilities_have_reason() -> None:
    datagrams = ForkEngine.unsupported_reason(EchoService(), Endpoint.parse("udp://127.0.0.1:0"))
    assert "no connection to hand to a process" in str(datagrams)
    push = ForkEngine.unsupported_reason(BroadcastChat(), Endpoint.parse(TCP))
    assert "share nothing" in str(push)


def test_system_exit_in_conversation_ends_its_process() -> None:
    with Harness(f"{__name__}:ForkEngine", ExitingService, [TCP]) as running:
        with Client(running.endpoints[0]) as client, contextlib.suppress(ConnectionError):
            client.send(b"x")
            client.receive_until_closed()
        assert running.wait_event(ChildExited).status == 7
        with Client(running.endpoints[0]) as client:
            assert client.is_readable(0.05) is False


class ExitingService(Service):
    """Exits its process on input."""

    name = "test-exiting"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _ExitingConversation()


class _ExitingConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        raise SystemExit(7)
